//! The response future of measure.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll};

use pin_project_lite::pin_project;
use tower::Service;

use super::service::Measured;
use crate::completion::poll_tracked;
use crate::context::ClockScope;
use crate::ready::Call;
use crate::{BoxError, Classify, Error, TrackCompletion};

pin_project! {
    /// The response future of [`Measure`](super::Measure).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, K, C>
    where
        S: Service<Req>,
    {
        // Before the permit, so that what it holds is given back first when both are dropped.
        #[pin]
        call: Call<S, Req>,
        permit: Option<Measured>,
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
        permit: Option<Measured>,
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
    type Output = Result<C::Response<Measured>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let _clock = ClockScope::poll();
        let this = self.project();
        poll_tracked(
            this.call,
            this.permit,
            this.classify,
            this.completion,
            Measured::name,
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
            .field("call", &self.call)
            .field("permit", &self.permit)
            .finish_non_exhaustive()
    }
}
