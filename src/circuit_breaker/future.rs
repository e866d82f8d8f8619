//! The response future of the circuit breaker.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll};

use pin_project_lite::pin_project;
use tower::Service;

use super::permit::BreakerPermit;
use crate::completion::poll_tracked;
use crate::context;
use crate::ready::Call;
use crate::{BoxError, Classify, Error, TrackCompletion};

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
        permit: Option<BreakerPermit>,
        classify: K,
        completion: C,
    }
}

impl<S, Req, K, C> ResponseFuture<S, Req, K, C>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn new(
        call: Call<S, Req>,
        permit: Option<BreakerPermit>,
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
    S: Service<Req, Error: Into<BoxError> + 'static>,
    K: Classify<S::Response>,
    C: TrackCompletion<S::Response, K>,
{
    type Output = Result<C::Response<BreakerPermit>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (call, permit) = (this.call, this.permit);
        let (classify, completion) = (this.classify, this.completion);
        if !permit.as_ref().is_some_and(BreakerPermit::is_timed) {
            return poll_tracked(call, permit, classify, completion, BreakerPermit::name, cx);
        }
        let (polled, is_queued) = context::is_queued_after(|| {
            poll_tracked(call, permit, classify, completion, BreakerPermit::name, cx)
        });
        if let (Poll::Pending, Some(permit)) = (&polled, permit) {
            permit.note_queued(is_queued);
        }
        polled
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
