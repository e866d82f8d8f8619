//! The body of an answer: that of the inner service, or our own.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The body of a response of [`Respond`](super::Respond): that of the inner service, or that of an answer in its
    /// stead, which is short or empty.
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
        Inner { #[pin] body: B },
        Own { data: Option<D> },
    }
}

impl<B: Body> AnswerBody<B> {
    #[inline]
    pub(super) fn inner(body: B) -> Self {
        let content = Content::Inner { body };
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
            Content::Inner { body } => Some(body),
            Content::Own { .. } => None,
        }
    }
}

impl<B: Body> Body for AnswerBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.project().content.project() {
            ContentProj::Inner { body } => body.poll_frame(cx),
            ContentProj::Own { data } => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
        }
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Inner { body } => body.is_end_stream(),
            Content::Own { data } => data.is_none(),
        }
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Inner { body } => body.size_hint(),
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
