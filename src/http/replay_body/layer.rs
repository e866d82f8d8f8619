//! The layer that makes the bodies of requests such that they can be sent again.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll};

use ::http::Request;
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::body::{LIMIT, ReplayBody};
use crate::ready::{Call, Ready};
use crate::send::send_method;
use crate::{CloneService, Error, Evictable};

/// Makes bodies of requests such that they can be sent again. See the [module documentation](super).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayBodyLayer {
    limit: usize,
}

impl ReplayBodyLayer {
    /// A layer that keeps 64 KiB of each body.
    #[must_use]
    pub fn new() -> Self {
        Self { limit: LIMIT }
    }

    /// Sets the number of bytes of a body that are kept at most, trailers included. 64 KiB by default.
    ///
    /// The memory held for a request is at most 1.5 times the limit and 2 KiB. Trailers count 512 bytes, and 256 bytes for
    /// each field, in addition to their names and values.
    ///
    /// With 0, only a body without data can be sent again. With `usize::MAX` whatever comes is kept.
    #[must_use]
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Wraps `service`, checking that it can serve requests with bodies of type [`ReplayBody<B>`].
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
        ReplayBodyService {
            inner: Ready::new(inner),
            limit: self.limit,
        }
    }
}

impl Evictable for ReplayBodyLayer {
    fn is_evictable(&self, _now: Instant) -> bool {
        true
    }
}

/// A service that gets requests with bodies that can be sent again. Made by [`ReplayBodyLayer`].
#[derive(Clone, Debug)]
pub struct ReplayBodyService<S> {
    inner: Ready<S>,
    limit: usize,
}

send_method!(ReplayBodyService<S>);

impl<S, B> Service<Request<B>> for ReplayBodyService<S>
where
    S: CloneService<Request<ReplayBody<B>>>,
    B: Body,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S, B>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll(cx);
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let request = request.map(|body| ReplayBody::with_limit(body, self.limit));
        self.inner
            .call_as(request, &mut (), |call, ()| ResponseFuture { call })
    }
}

pin_project! {
    /// The response future of [`ReplayBodyService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<ReplayBody<B>>>,
    {
        #[pin]
        call: Call<S, Request<ReplayBody<B>>>,
    }
}

impl<S, B> Future for ResponseFuture<S, B>
where
    S: CloneService<Request<ReplayBody<B>>>,
{
    type Output = Result<S::Response, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        self.project().call.poll(cx, || "")
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<ReplayBody<B>>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("call", &self.call)
            .finish()
    }
}
