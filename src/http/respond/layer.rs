//! The layer that answers in place of errors, and its service.

use std::sync::Arc;

use ::http::{Request, Response};
use bytes::Bytes;
use http_body::Body;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::answer::{
    AnsweredError, Capture, DefaultResponse, ForClients, ForServers, MakeResponse, Side, With,
};
use super::body::AnswerBody;
use super::refusal::{Reason, Refusal};
use crate::context::{self, DirectCall};
use crate::http::Protocol;
use crate::http::adapt::{self, Adapt, AdaptResult, Adapted, Inner};
use crate::{BoxError, CloneService, Error, Evictable};

/// Answers in HTTP or gRPC when a call ended in an error. See the [module documentation](crate::http::respond).
#[derive(Clone, Copy, Debug)]
pub struct RespondLayer<M, A = DefaultResponse> {
    protocol: Option<Protocol>,
    side: M,
    answer: A,
}

impl RespondLayer<ForClients> {
    /// A layer round a client: errors of this crate's layers become responses, those of the client pass.
    #[must_use]
    pub fn for_clients() -> Self {
        Self::of(ForClients)
    }
}

impl RespondLayer<ForServers> {
    /// A layer round a server: every error becomes a response, and the service has the error `Infallible`.
    #[must_use]
    pub fn for_servers() -> Self {
        Self::of(ForServers)
    }
}

impl<M> RespondLayer<M> {
    fn of(side: M) -> Self {
        Self {
            protocol: None,
            side,
            answer: DefaultResponse,
        }
    }
}

impl<M, A> RespondLayer<M, A> {
    /// Answers in this protocol. By default the `content-type` of the request says in which one.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// Answers with what `respond` writes. By default with status and headers, and an empty body.
    ///
    /// [`Refusal::response`] is the default answer, to begin with.
    #[must_use]
    pub fn respond<F>(self, respond: F) -> RespondLayer<M, With<F>>
    where
        F: Fn(Refusal<'_>) -> Response<Bytes>,
    {
        RespondLayer {
            protocol: self.protocol,
            side: self.side,
            answer: With(respond),
        }
    }

    /// Wraps `service`, checking that it answers requests with bodies of type `B`, and with a body.
    pub fn wrap<B, R, S>(&self, service: S) -> Respond<S, M, A>
    where
        S: CloneService<Request<B>, Response = Response<R>>,
        R: Body<Error: Into<BoxError> + 'static>,
        M: Side + Clone,
        A: MakeResponse<R::Data> + Clone,
    {
        self.layer(service)
    }
}

impl<S, M: Clone, A: Clone> Layer<S> for RespondLayer<M, A> {
    type Service = Respond<S, M, A>;

    fn layer(&self, inner: S) -> Respond<S, M, A> {
        Adapted::new(inner, self.clone())
    }
}

impl<M, A> Evictable for RespondLayer<M, A> {
    fn is_evictable(&self, _now: Instant) -> bool {
        true
    }
}

impl<B, M: Side + Clone, A: Capture + Clone> Adapt<Request<B>> for RespondLayer<M, A> {
    type Request = Request<B>;
    type Result = Responder<M, A, A::Captured>;

    #[inline]
    fn adapt(&self, request: Request<B>) -> (Request<B>, Self::Result) {
        let protocol = self.protocol;
        let responder = Responder {
            is_direct: context::take_direct(),
            protocol: protocol.unwrap_or_else(|| Protocol::of(request.headers())),
            captured: self.answer.capture(&request),
            layer: self.clone(),
        };
        (request, responder)
    }

    #[inline]
    fn call<S>(
        &self,
        inner: Inner<'_, S>,
        request: Request<B>,
    ) -> ResponseFuture<S, Request<B>, M, A, A::Captured>
    where
        S: Service<Request<B>> + Clone,
    {
        let (request, responder) = Adapt::adapt(self, request);
        // Only what a layer has refused that is called directly is the refusal of this server, or of this client.
        let _direct = DirectCall::enter();
        inner.call(request, responder)
    }
}

/// Answers a request whose call ends in an error.
#[derive(Debug)]
pub struct Responder<M, A, C> {
    is_direct: bool,
    protocol: Protocol,
    captured: C,
    layer: RespondLayer<M, A>,
}

impl<B, M, A, C> AdaptResult<Response<B>> for Responder<M, A, C>
where
    B: Body,
    M: Side,
    A: MakeResponse<B::Data, Captured = C>,
{
    type Response = Response<AnswerBody<B>>;
    type Error = M::Error;

    #[inline]
    fn adapt(&self, result: Result<Response<B>, Error>) -> Result<Self::Response, M::Error> {
        let error = match result {
            Ok(response) => {
                return Ok(
                    response.map(|body| AnswerBody::inner(body, self.protocol, M::IS_CLIENT))
                );
            }
            Err(mut error) => {
                error.check_direct();
                error.leave(error.name(), self.is_direct);
                self.layer.side.answered(error)?
            }
        };
        let reason = Reason::new(&error, self.protocol, M::IS_CLIENT);
        let answer = self.layer.answer.answer(reason, &self.captured);
        let mut response = answer.map(AnswerBody::own);
        let error = AnsweredError(Arc::new(error));
        response.extensions_mut().insert(error);
        Ok(response)
    }
}

/// A service that answers in HTTP or gRPC where a layer ended the call. Made by [`RespondLayer`].
pub type Respond<S, M, A = DefaultResponse> = Adapted<S, RespondLayer<M, A>>;

/// The response future of [`Respond`].
pub type ResponseFuture<S, Req, M, A, C> = adapt::ResponseFuture<S, Req, Responder<M, A, C>>;
