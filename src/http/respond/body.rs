//! The body of an answer: that of the inner service, or our own.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
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
        #[pin]
        content: Content<B, B::Data>,
    }
}

pin_project! {
    #[project = ContentProj]
    enum Content<B, D> {
        Inner {
            #[pin]
            body: B,
            // How an error of ours is told.
            protocol: Protocol,
            is_for_client: bool,
        },
        Own { data: Option<D> },
    }
}

impl<B: Body> AnswerBody<B> {
    #[inline]
    pub(super) fn inner(body: B, protocol: Protocol, is_for_client: bool) -> Self {
        let content = Content::Inner {
            body,
            protocol,
            is_for_client,
        };
        Self { content }
    }

    pub(super) fn own(data: Option<B::Data>) -> Self {
        let data = data.filter(Buf::has_remaining);
        let content = Content::Own { data };
        Self { content }
    }

    /// Returns the body of the inner service, `None` if it is not the one that answers.
    pub fn into_inner(self) -> Option<B> {
        match self.content {
            Content::Inner { body, .. } => Some(body),
            Content::Own { .. } => None,
        }
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
        let mut content = self.project().content;
        Poll::Ready(match content.as_mut().project() {
            ContentProj::Inner {
                body,
                protocol,
                is_for_client,
            } => match ready!(body.poll_frame(cx)) {
                Some(Err(error)) => {
                    let error = Error::of_body(error);
                    if *protocol != Protocol::Grpc || error.kind() == ErrorKind::Service {
                        return Poll::Ready(Some(Err(error)));
                    }
                    let trailers = trailers(&error, *is_for_client);
                    // Nothing comes after them.
                    content.set(Content::Own { data: None });
                    Some(Ok(Frame::trailers(trailers)))
                }
                Some(Ok(frame)) => Some(Ok(frame)),
                None => None,
            },
            ContentProj::Own { data } => data.take().map(|data| Ok(Frame::data(data))),
        })
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Inner { body, .. } => body.is_end_stream(),
            Content::Own { data } => data.is_none(),
        }
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Inner { body, .. } => body.size_hint(),
            Content::Own { data } => {
                let left = data.as_ref().map_or(0, Buf::remaining);
                SizeHint::with_exact(left as u64)
            }
        }
    }
}

impl<B: Body> fmt::Debug for AnswerBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.content {
            Content::Inner { .. } => "Inner",
            Content::Own { .. } => "Own",
        })
    }
}
