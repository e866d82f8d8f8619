//! The response future of the bulkhead.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::permit::BulkheadPermit;
use super::waiter::Waiter;
use crate::completion::poll_tracked;
use crate::ready::Call;
use crate::{BoxError, Classify, Error, TrackCompletion};

pin_project! {
    /// The response future of [`Bulkhead`](super::Bulkhead).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, K, C>
    where
        S: Service<Req>,
    {
        // The wait for a permit, if the call has to. Boxed, because it is rare.
        waiter: Option<Pin<Box<Waiter>>>,
        // Before the permit, so that what it holds is given back first when both are dropped.
        #[pin]
        call: Call<S, Req>,
        permit: Option<BulkheadPermit>,
        classify: K,
        completion: C,
    }
}

impl<S, Req, K, C> ResponseFuture<S, Req, K, C>
where
    S: Service<Req>,
{
    /// A call with a permit, or one that was refused.
    #[inline]
    pub(super) fn new(
        call: Call<S, Req>,
        permit: Option<BulkheadPermit>,
        classify: K,
        completion: C,
    ) -> Self {
        Self {
            waiter: None,
            call,
            permit,
            classify,
            completion,
        }
    }

    /// A call that waits.
    pub(super) fn after(self, waiter: Pin<Box<Waiter>>) -> Self {
        let waiter = Some(waiter);
        Self { waiter, ..self }
    }
}

impl<S, Req, K, C> Future for ResponseFuture<S, Req, K, C>
where
    S: Service<Req, Error: Into<BoxError> + 'static>,
    K: Classify<S::Response>,
    C: TrackCompletion<S::Response, K>,
{
    type Output = Result<C::Response<BulkheadPermit>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(waiter) = this.waiter {
            let admission = ready!(waiter.as_mut().poll(cx));
            *this.waiter = None;
            match admission {
                Ok(permit) => *this.permit = Some(permit),
                // Frees the request.
                Err(error) => this.call.set(Call::failed(error)),
            }
        }
        poll_tracked(
            this.call,
            this.permit,
            this.classify,
            this.completion,
            BulkheadPermit::name,
            cx,
        )
    }
}

impl<S, Req, K, C> fmt::Debug for ResponseFuture<S, Req, K, C>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("waiter", &self.waiter)
            .field("call", &self.call)
            .field("permit", &self.permit)
            .finish_non_exhaustive()
    }
}
