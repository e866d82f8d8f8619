//! The response future.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};

use ::http::Response;
use http_body::Body;
use pin_project_lite::pin_project;
use tower::Service;

use super::answer::{MakeResponse, Side};
use super::body::AnswerBody;
use crate::http::Protocol;
use crate::ready::Call;
use crate::{BoxError, Error};

/// The error that an answer stands for, in the extensions of the response: for logs, and for outer layers.
#[derive(Clone, Debug)]
pub struct AnsweredError(Arc<Error>);

impl AnsweredError {
    /// The error. [`kind`](crate::Cause::kind) tells whether a layer ended the call.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.0
    }
}

impl fmt::Display for AnsweredError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for AnsweredError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // Not the error itself, whose text is this one's.
        StdError::source(&*self.0)
    }
}

pin_project! {
    /// The response future of [`Respond`](super::Respond).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, M, A, K>
    where
        S: Service<Req>,
    {
        #[pin]
        call: Call<S, Req>,
        answer: A,
        kept: K,
        protocol: Protocol,
        side: M,
    }
}

impl<S, Req, M, A, K> ResponseFuture<S, Req, M, A, K>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn new(call: Call<S, Req>, answer: A, kept: K, protocol: Protocol, side: M) -> Self {
        Self {
            call,
            answer,
            kept,
            protocol,
            side,
        }
    }
}

impl<S, Req, B, M, A, K> Future for ResponseFuture<S, Req, M, A, K>
where
    S: Service<Req, Response = Response<B>, Error: Into<BoxError> + 'static>,
    B: Body,
    M: Side,
    A: MakeResponse<B::Data, Captured = K>,
{
    type Output = Result<Response<AnswerBody<B>>, M::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let error = match ready!(this.call.as_mut().poll(cx, || "")) {
            Ok(response) => {
                let response =
                    response.map(|body| AnswerBody::inner(body, *this.protocol, M::IS_CLIENT));
                return Poll::Ready(Ok(response));
            }
            Err(error) => M::answered(error)?,
        };
        let answer = (this.answer).answer(&error, *this.protocol, M::IS_CLIENT, this.kept);
        let mut response = answer.map(AnswerBody::own);
        response
            .extensions_mut()
            .insert(AnsweredError(Arc::new(error)));
        Poll::Ready(Ok(response))
    }
}

impl<S, Req, M, A, K> fmt::Debug for ResponseFuture<S, Req, M, A, K>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("call", &self.call)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}
