//! The response future of keyed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use pin_project_lite::pin_project;
use tower::Service;

use crate::debug::debug_fields;
use crate::send::OneCall;
use crate::{BoxError, Error};

pin_project! {
    /// The response future of [`Keyed`](super::Keyed).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<W, Req, L>
    where
        W: Service<Req>,
    {
        #[pin]
        pub(super) call: OneCall<W, Req>,
        // Keeps the key in use. Declared last, so that the resources of the call are given back first.
        pub(super) layer: Arc<L>,
    }
}

impl<W, Req, L> Future for ResponseFuture<W, Req, L>
where
    W: Service<Req, Error: Into<BoxError> + 'static>,
{
    type Output = Result<W::Response, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let result = self.project().call.poll(cx);
        result.map_err(|error| Error::of_service(error, || ""))
    }
}

debug_fields!([W: Service<Req>, Req, L] ResponseFuture<W, Req, L> { call });
