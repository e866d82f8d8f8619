//! The layer that answers in place of errors.

use std::fmt;

use ::http::{Request, Response};
use bytes::Bytes;
use http_body::Body;
use tokio::time::Instant;
use tower::Layer;

use super::answer::{DefaultResponse, ForClients, ForServers, MakeResponse, Side, With};
use super::refusal::Refusal;
use super::service::Respond;
use crate::http::Protocol;
use crate::ready::Ready;
use crate::{BoxError, CloneService, Evictable};

/// Answers in HTTP or gRPC when a call ended in an error. See the [module documentation](crate::http::respond).
#[derive(Clone, Copy)]
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
        Respond {
            inner: Ready::new(inner),
            protocol: self.protocol,
            side: self.side.clone(),
            answer: self.answer.clone(),
        }
    }
}

impl<M, A> Evictable for RespondLayer<M, A> {
    fn is_evictable(&self, _now: Instant) -> bool {
        true
    }
}

impl<M: fmt::Debug, A: fmt::Debug> fmt::Debug for RespondLayer<M, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RespondLayer")
            .field("protocol", &self.protocol)
            .field("side", &self.side)
            .field("answer", &self.answer)
            .finish()
    }
}
