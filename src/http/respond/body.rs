//! The body of an answer: the body of the inner service, or of the answer in its place.

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
    /// The body of a response of [`Respond`](super::Respond): the body of the inner service, or the short or empty body
    /// of an answer in its place.
    ///
    /// If a layer has ended the body of a gRPC call, the status is in the trailers. All other errors are errors of the
    /// inner body, inside an [`Error`](crate::Error).
    pub struct AnswerBody<B>
    where
        B: Body,
    {
        // `None` if this layer answers, and after this layer has ended the body with trailers.
        #[pin]
        inner: Option<B>,
        // The body of this layer's answer.
        #[pin]
        own: Full<B::Data>,
        // The protocol for an error of this crate.
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

    /// Returns the body of the inner service. `None` if this layer answers.
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
                // No frame comes after the trailers.
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
