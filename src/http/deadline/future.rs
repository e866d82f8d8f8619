//! The response future of the propagation.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll};

use pin_project_lite::pin_project;
use tower::Service;

use super::headers::Headers;
use super::stamp::Stamp;
use crate::ready::Call;
use crate::{BoxError, Error, context};

pin_project! {
    /// The response future of [`PropagateDeadline`](super::PropagateDeadline).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, H, Req>
    where
        S: Service<Req>,
        S::Error: Into<BoxError>,
        H: Headers<Req>,
    {
        #[pin]
        call: Call<Stamp<S, H>, Req>,
    }
}

impl<S, H, Req> ResponseFuture<S, H, Req>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    H: Headers<Req>,
{
    #[inline]
    pub(super) fn new(call: Call<Stamp<S, H>, Req>) -> Self {
        Self { call }
    }

    /// The answer to a call that is made too late.
    pub(super) fn refused(error: Error) -> Self {
        Self::new(Call::failed(error))
    }
}

impl<S, H, Req> Future for ResponseFuture<S, H, Req>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    H: Headers<Req>,
{
    type Output = Result<S::Response, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let call = self.project().call;
        if call.is_waiting() {
            // The request may be sent now, and what the header says is a duration that ends now.
            return context::unclocked(|| call.poll(cx));
        }
        call.poll(cx)
    }
}

impl<S, H, Req> fmt::Debug for ResponseFuture<S, H, Req>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    H: Headers<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("call", &self.call)
            .finish()
    }
}
