//! The layer that turns errors into answers, and its service.

use std::sync::Arc;

use ::http::{Request, Response, Version};
use bytes::Bytes;
use http_body::Body;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::answer::{AnsweredError, ForClients, ForServers, Side};
use super::body::AnswerBody;
use super::refusal::{Reason, Refusal, RequestHead};
use crate::callback::Callback;
use crate::context::{self, DirectCall};
use crate::http::Protocol;
use crate::http::adapt::{self, Adapt, AdaptResult, Adapted, Inner};
use crate::{BoxError, CloneService, Error, Evictable};

type WriteAnswer = dyn Fn(Refusal<'_>) -> Response<Bytes> + Send + Sync;

/// Answers in HTTP or gRPC when a call ended in an error. See the [module documentation](crate::http::respond).
#[derive(Clone, Debug, PartialEq)]
pub struct RespondLayer<M> {
    protocol: Option<Protocol>,
    side: M,
    /// The function that writes the answers, if it is not the default.
    write: Option<Callback<WriteAnswer>>,
}

impl RespondLayer<ForClients> {
    /// Makes a layer for a client: errors of this crate's layers become responses, and errors of the client pass.
    #[must_use]
    pub fn for_clients() -> Self {
        Self::of(ForClients)
    }
}

impl RespondLayer<ForServers> {
    /// Makes a layer for a server: every error becomes a response, and the service has the error `Infallible`.
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
            write: None,
        }
    }

    /// Sets the protocol of the answers. By default the `content-type` of the request decides.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// Sets the function that writes the answers. By default an answer has a status, headers, and an empty body.
    ///
    /// Begin with [`Refusal::response`], the default answer.
    #[must_use]
    pub fn respond<F>(mut self, respond: F) -> Self
    where
        F: Fn(Refusal<'_>) -> Response<Bytes> + Send + Sync + 'static,
    {
        self.write = Some(Callback(Arc::new(respond)));
        self
    }

    /// Wraps `service`. The compiler checks that it takes requests with bodies of type `B`, and answers with a body
    /// whose data can be made of `Bytes`.
    pub fn wrap<B, R, S>(&self, service: S) -> Respond<S, M>
    where
        S: CloneService<Request<B>, Response = Response<R>>,
        R: Body<Data: From<Bytes>, Error: Into<BoxError> + 'static>,
        M: Side,
    {
        self.layer(service)
    }
}

impl<S, M: Clone> Layer<S> for RespondLayer<M> {
    type Service = Respond<S, M>;

    fn layer(&self, inner: S) -> Respond<S, M> {
        Adapted::new(inner, self.clone())
    }
}

impl<M> Evictable for RespondLayer<M> {
    fn is_evictable(&self, _now: Instant) -> bool {
        true
    }
}

impl<B, M: Side> Adapt<Request<B>> for RespondLayer<M> {
    type Request = Request<B>;
    type Result = Responder<M>;

    #[inline]
    fn adapt(&self, request: Request<B>) -> (Request<B>, Responder<M>) {
        let protocol = self.protocol;
        let head = || (request.method().clone(), request.uri().clone());
        let responder = Responder {
            is_direct: context::take_direct(),
            protocol: protocol.unwrap_or_else(|| Protocol::of(request.headers())),
            version: request.version(),
            side: self.side,
            write: self.write.clone().map(|write| (write, head())),
        };
        (request, responder)
    }

    #[inline]
    fn call<S>(
        &self,
        inner: Inner<'_, S>,
        request: Request<B>,
    ) -> adapt::ResponseFuture<S, Request<B>, Responder<M>>
    where
        S: Service<Request<B>> + Clone,
    {
        let (request, responder) = Adapt::adapt(self, request);
        // Marks this call as direct: only refusals by layers that are called directly are refusals of this server or
        // client.
        let _direct = DirectCall::enter();
        inner.call(request, responder)
    }
}

/// Answers a request whose call ends in an error.
#[derive(Debug)]
pub struct Responder<M> {
    is_direct: bool,
    protocol: Protocol,
    version: Version,
    side: M,
    /// The function that writes the answer, and its arguments from the request.
    write: Option<(Callback<WriteAnswer>, RequestHead)>,
}

impl<B, M> AdaptResult<Response<B>> for Responder<M>
where
    B: Body<Data: From<Bytes>>,
    M: Side,
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
                self.side.answered(error)?
            }
        };
        let reason = Reason::new(&error, self.protocol, M::IS_CLIENT).over(self.version);
        let answer = match &self.write {
            Some((write, head)) => (write.0)(Refusal::new(reason, head)),
            None => reason.response(Bytes::new()),
        };
        let mut response = answer.map(|data| AnswerBody::own(data.into()));
        let error = AnsweredError(Arc::new(error));
        response.extensions_mut().insert(error);
        Ok(response)
    }
}

/// A service that answers in HTTP or gRPC when a layer has ended the call. Made by [`RespondLayer`].
pub type Respond<S, M> = Adapted<S, RespondLayer<M>>;

/// The response future of [`Respond`].
pub type ResponseFuture<S, Req, M> = adapt::ResponseFuture<S, Req, Responder<M>>;
