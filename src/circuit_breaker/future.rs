//! The response future of the circuit breaker.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::shared::Permit;
use crate::completion::finish;
use crate::ready::Call;
use crate::{BoxError, Classify, Completion};

pin_project! {
    /// The response future of [`CircuitBreaker`](super::CircuitBreaker).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, K, C>
    where
        S: Service<Req>,
    {
        // Before the permit, so that what it holds is given back first when both are dropped.
        #[pin]
        call: Call<S, Req>,
        permit: Option<Permit>,
        classify: K,
        completion: C,
    }
}

impl<S, Req, K, C> ResponseFuture<S, Req, K, C>
where
    S: Service<Req>,
{
    /// A call without a permit is one that was refused.
    #[inline]
    pub(super) fn new(
        call: Call<S, Req>,
        permit: Option<Permit>,
        classify: K,
        completion: C,
    ) -> Self {
        Self {
            call,
            permit,
            classify,
            completion,
        }
    }
}

impl<S, Req, K, C> Future for ResponseFuture<S, Req, K, C>
where
    S: Service<Req, Error: Into<BoxError>>,
    K: Classify<S::Response>,
    C: Completion<S::Response, K>,
{
    type Output = Result<C::Response<Permit>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.call.poll(cx));
        match (this.permit.take(), result) {
            (Some(permit), result) => {
                Poll::Ready(finish(result, this.classify, this.completion, permit))
            }
            (None, Err(refused)) => Poll::Ready(Err(refused)),
            (None, Ok(_)) => Poll::Pending,
        }
    }
}

impl<S, Req, K, C> fmt::Debug for ResponseFuture<S, Req, K, C>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("call", &self.call)
            .field("permit", &self.permit)
            .finish_non_exhaustive()
    }
}
