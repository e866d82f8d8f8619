//! The response future of the circuit breaker.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll};

use pin_project_lite::pin_project;
use tower::Service;

use super::permit::Permit;
use crate::completion::Tracked;
use crate::context;
use crate::{BoxError, Classify, Completion};

pin_project! {
    /// The response future of [`CircuitBreaker`](super::CircuitBreaker).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, K, C>
    where
        S: Service<Req>,
    {
        #[pin]
        pub(super) tracked: Tracked<S, Req, K, C, Permit>,
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
        let mut tracked = self.project().tracked;
        if !tracked.token().is_some_and(Permit::is_timed) {
            return tracked.poll(cx);
        }
        let (polled, is_queued) = context::is_queued_after(|| tracked.as_mut().poll(cx));
        if polled.is_pending() {
            if let Some(permit) = tracked.token_mut() {
                permit.note_queued(is_queued);
            }
        }
        polled
    }
}

impl<S, Req, K, C> fmt::Debug for ResponseFuture<S, Req, K, C>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tracked.fmt(f)
    }
}
