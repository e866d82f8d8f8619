//! The response future of a service that sends requests to one origin.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll};

use ::http::Request;
use pin_project_lite::pin_project;
use tower::Service;

use crate::ready::Call;
use crate::{BoxError, Error};

pin_project! {
    /// The response future of [`AddOrigin`](super::AddOrigin).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        pub(super) call: Call<S, Request<B>>,
    }
}

impl<S, B> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
    S::Error: Into<BoxError> + 'static,
{
    type Output = Result<S::Response, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        self.project().call.poll(cx, || "")
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("call", &self.call)
            .finish()
    }
}
