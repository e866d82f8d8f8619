//! The layer of body timeouts, and its service.

use ::http::{Response, StatusCode};
use http_body::Body;
use tokio::time::Instant;
use tower::Layer;

use super::body::TimeoutBody;
use super::config::{Config, Limits};
use crate::chassis::TimeoutMetrics;
use crate::error::or_panic;
use crate::http::Protocol;
use crate::http::adapt::{self, Adapt, AdaptResult, Adapted};
use crate::telemetry::Series;
use crate::{BoxError, CloneService, Error, Evictable, context};

/// Ends bodies of responses that take too long. See the [module documentation](super).
#[derive(Clone, Copy, Debug)]
pub struct BodyTimeoutLayer {
    pub(super) limits: Limits,
    pub(super) metrics: &'static Series<TimeoutMetrics>,
}

impl BodyTimeoutLayer {
    /// Makes a layer that ends bodies of responses from `name` when a reader has waited for the next frame for 30 s,
    /// and at the deadline.
    ///
    /// # Panics
    ///
    /// If `name` is empty.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str) -> Self {
        or_panic(Self::config(name).build())
    }

    /// Begins to configure body timeouts.
    pub fn config(name: impl Into<String>) -> Config {
        Config::new(name.into())
    }

    /// Leaves the deadline to a stack around the layer.
    pub(crate) fn without_deadline(mut self) -> Self {
        self.limits.deadline = false;
        self
    }

    /// Wraps `service`. The compiler checks that it can serve requests of type `Req` with responses that have a body.
    pub fn wrap<Req, S, B>(&self, service: S) -> BodyTimeout<S>
    where
        S: CloneService<Req, Response = Response<B>>,
        B: Body<Error: Into<BoxError> + 'static>,
    {
        self.layer(service)
    }
}

impl<S> Layer<S> for BodyTimeoutLayer {
    type Service = BodyTimeout<S>;

    fn layer(&self, inner: S) -> BodyTimeout<S> {
        Adapted::new(inner, *self)
    }
}

impl Evictable for BodyTimeoutLayer {
    fn is_evictable(&self, _now: Instant) -> bool {
        true
    }
}

impl<Req> Adapt<Req> for BodyTimeoutLayer {
    type Request = Req;
    type Result = Self;

    #[inline]
    fn adapt(&self, request: Req) -> (Req, Self) {
        (request, *self)
    }
}

impl<B> AdaptResult<Response<B>> for BodyTimeoutLayer {
    type Response = Response<TimeoutBody<B>>;
    type Error = Error;

    fn name(&self) -> &'static str {
        self.metrics.name()
    }

    #[inline]
    fn adapt(&self, result: Result<Response<B>, Error>) -> Result<Self::Response, Error> {
        result.map(|response| self.bound(response, context::is_stream()))
    }
}

impl BodyTimeoutLayer {
    pub(in crate::http) fn name(&self) -> &'static str {
        self.metrics.name()
    }

    /// Bounds the body of a response whose head has just come.
    #[inline]
    pub(in crate::http) fn bound<B>(
        self,
        response: Response<B>,
        is_stream: bool,
    ) -> Response<TimeoutBody<B>> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return response.map(TimeoutBody::from);
        }
        let protocol = Protocol::of(response.headers());
        response.map(|body| TimeoutBody::new(body, self, protocol, is_stream))
    }
}

/// A service whose response bodies have a bounded time. Made by [`BodyTimeoutLayer`].
pub type BodyTimeout<S> = Adapted<S, BodyTimeoutLayer>;

/// The response future of [`BodyTimeout`].
pub type ResponseFuture<S, Req> = adapt::ResponseFuture<S, Req, BodyTimeoutLayer>;
