//! The service that answers in place of errors.

use std::task::{self, Poll};

use ::http::{Request, Response};
use http_body::Body;
use tower::Service;

use super::answer::{DefaultResponse, MakeResponse, Side};
use super::body::AnswerBody;
use super::future::ResponseFuture;
use crate::CloneService;
use crate::http::Protocol;
use crate::ready::Ready;
use crate::send::send_method;

/// A service that answers in HTTP or gRPC where a layer ended the call. Made by
/// [`RespondLayer`](super::RespondLayer).
#[derive(Clone, Debug)]
pub struct Respond<S, M, A = DefaultResponse> {
    pub(super) inner: Ready<S>,
    pub(super) protocol: Option<Protocol>,
    pub(super) side: M,
    pub(super) answer: A,
}

send_method!(Respond<S, M, A>);

impl<S, M, A, B, R> Service<Request<B>> for Respond<S, M, A>
where
    S: CloneService<Request<B>, Response = Response<R>>,
    R: Body,
    M: Side + Clone,
    A: MakeResponse<R::Data> + Clone,
{
    type Response = Response<AnswerBody<R>>;
    type Error = M::Error;
    type Future = ResponseFuture<S, Request<B>, M, A, A::Captured>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), M::Error>> {
        self.inner.poll(cx);
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let protocol = self
            .protocol
            .unwrap_or_else(|| Protocol::of(request.headers()));
        let kept = self.answer.keep(&request);
        let (answer, side) = (self.answer.clone(), self.side.clone());
        self.inner.call_as(request, &mut (), move |call, ()| {
            ResponseFuture::new(call, answer, kept, protocol, side)
        })
    }
}
