//! The response future of measure.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll};

use pin_project_lite::pin_project;
use tower::Service;

use super::service::Measured;
use crate::completion::Tracked;
use crate::context::ClockScope;
use crate::{BoxError, Classify, Completion};

pin_project! {
    /// The response future of [`Measure`](super::Measure).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, K, C>
    where
        S: Service<Req>,
    {
        #[pin]
        pub(super) tracked: Tracked<S, Req, K, C, Measured>,
    }
}

impl<S, Req, K, C> Future for ResponseFuture<S, Req, K, C>
where
    S: Service<Req, Error: Into<BoxError>>,
    K: Classify<S::Response>,
    C: Completion<S::Response, K>,
{
    type Output = Result<C::Response<Measured>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let _clock = ClockScope::poll();
        self.project().tracked.poll(cx)
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
