//! The layer that keeps the bodies of requests so that they can be sent again, and its service.

use ::http::Request;
use http_body::Body;
use tokio::time::Instant;
use tower::Layer;

use super::body::{LIMIT, ReplayBody};
use crate::http::adapt::{self, Adapt, Adapted, Unchanged};
use crate::{CloneService, Evictable};

/// Keeps the bodies of requests so that they can be sent again. See the [module documentation](super).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayBodyLayer {
    limit: usize,
}

impl ReplayBodyLayer {
    /// Makes a layer that keeps 64 KiB of each body.
    #[must_use]
    pub fn new() -> Self {
        Self { limit: LIMIT }
    }

    /// Sets the greatest number of bytes of a body that are kept, trailers included. 64 KiB by default.
    ///
    /// A request uses at most the limit and 2 KiB of memory. Trailers count 512 bytes, and 256 bytes for each field, in
    /// addition to their names and values.
    ///
    /// With 0, only a body without data can be sent again. With `usize::MAX` the whole body is kept.
    #[must_use]
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Wraps `service`. The compiler checks that it can serve requests with bodies of type [`ReplayBody<B>`].
    pub fn wrap<B, S>(&self, service: S) -> ReplayBodyService<S>
    where
        S: CloneService<Request<ReplayBody<B>>>,
    {
        self.layer(service)
    }
}

impl Default for ReplayBodyLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for ReplayBodyLayer {
    type Service = ReplayBodyService<S>;

    fn layer(&self, inner: S) -> ReplayBodyService<S> {
        Adapted::new(inner, *self)
    }
}

impl Evictable for ReplayBodyLayer {
    fn is_evictable(&self, _now: Instant) -> bool {
        true
    }
}

impl<B: Body> Adapt<Request<B>> for ReplayBodyLayer {
    type Request = Request<ReplayBody<B>>;
    type Result = Unchanged;

    #[inline]
    fn adapt(&self, request: Request<B>) -> (Self::Request, Unchanged) {
        let request = request.map(|body| ReplayBody::with_limit(body, self.limit));
        (request, Unchanged)
    }
}

/// A service whose requests have bodies that can be sent again. Made by [`ReplayBodyLayer`].
pub type ReplayBodyService<S> = Adapted<S, ReplayBodyLayer>;

/// The response future of [`ReplayBodyService`].
pub type ResponseFuture<S, B> = adapt::ResponseFuture<S, Request<ReplayBody<B>>>;
