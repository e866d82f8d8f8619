//! The body of an answer: that of the inner service, or our own.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use pin_project_lite::pin_project;

use super::refusal::trailers;
use crate::http::Protocol;
use crate::{BoxError, Error, ErrorKind};

pin_project! {
    /// The body of a response of [`Respond`](super::Respond): that of the inner service, or that of an answer in its
    /// stead, which is short or empty.
    ///
    /// If a layer has ended the body of a gRPC call, the trailers say so. All other errors are those of the inner body,
    /// inside an [`Error`](crate::Error).
    pub struct AnswerBody<B>
    where
        B: Body,
    {
        // `None` if it is not the one that answers, or has ended in trailers of ours.
        #[pin]
        inner: Option<B>,
        // The answer of ours.
        #[pin]
        own: Full<B::Data>,
        // How an error of ours is told.
        protocol: Protocol,
        is_for_client: bool,
    }
}

impl<B: Body> AnswerBody<B> {
    #[inline]
    pub(super) fn inner(body: B, protocol: Protocol, is_for_client: bool) -> Self {
        Self {
            inner: Some(body),
            own: Full::default(),
            protocol,
            is_for_client,
        }
    }

    pub(super) fn own(data: B::Data) -> Self {
        Self {
            inner: None,
            own: Full::new(data),
            protocol: Protocol::Http,
            is_for_client: false,
        }
    }

    /// Returns the body of the inner service, `None` if it is not the one that answers.
    pub fn into_inner(self) -> Option<B> {
        self.inner
    }
}

impl<B> Body for AnswerBody<B>
where
    B: Body<Error: Into<BoxError> + 'static>,
{
    type Data = B::Data;
    type Error = Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Error>>> {
        let mut this = self.project();
        let Some(body) = this.inner.as_mut().as_pin_mut() else {
            return this.own.poll_frame(cx).map_err(|never| match never {});
        };
        let next = ready!(body.poll_frame(cx)).map(|result| match result.map_err(Error::of_body) {
            Err(error)
                if *this.protocol == Protocol::Grpc && error.kind() != ErrorKind::Service =>
            {
                // Nothing comes after them.
                this.inner.set(None);
                Ok(Frame::trailers(trailers(&error, *this.is_for_client)))
            }
            result => result,
        });
        Poll::Ready(next)
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        let inner = self.inner.as_ref();
        inner.map_or_else(|| self.own.is_end_stream(), B::is_end_stream)
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.as_ref();
        inner.map_or_else(|| self.own.size_hint(), B::size_hint)
    }
}

impl<B: Body> fmt::Debug for AnswerBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.inner.is_some() { "Inner" } else { "Own" })
    }
}
