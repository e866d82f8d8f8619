//! The layer of body timeouts, and its service.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use ::http::Response;
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::body::TimeoutBody;
use super::config::{Config, Limits};
use crate::error::or_panic;
use crate::ready::{Call, Ready};
use crate::send::send_method;
use crate::telemetry::Series;
use crate::timeout::TimeoutMetrics;
use crate::{BoxError, CloneService, Error, Evictable};

/// Ends bodies of responses that take too long. See the [module documentation](super).
#[derive(Clone, Debug)]
pub struct BodyTimeoutLayer {
    pub(super) limits: Limits,
    pub(super) metrics: &'static Series<TimeoutMetrics>,
}

impl BodyTimeoutLayer {
    /// Ends bodies of responses from `name` when a reader has waited for the next frame for 30 s, and at the deadline.
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

    /// Wraps `service`, checking that it can serve requests of type `Req` with responses that have a body.
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
        BodyTimeout {
            inner: Ready::new(inner),
            limits: self.limits,
            metrics: self.metrics,
        }
    }
}

impl Evictable for BodyTimeoutLayer {
    fn is_evictable(&self, _now: Instant) -> bool {
        true
    }
}

/// A service whose bodies end in time. Made by [`BodyTimeoutLayer`].
#[derive(Clone, Debug)]
pub struct BodyTimeout<S> {
    inner: Ready<S>,
    limits: Limits,
    metrics: &'static Series<TimeoutMetrics>,
}

send_method!(BodyTimeout<S>);

impl<S, Req, B> Service<Req> for BodyTimeout<S>
where
    S: CloneService<Req, Response = Response<B>>,
    B: Body,
{
    type Response = Response<TimeoutBody<B>>;
    type Error = Error;
    type Future = ResponseFuture<S, Req>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll(cx);
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let (limits, metrics) = (self.limits, self.metrics);
        self.inner
            .call_as(request, &mut (), move |call, ()| ResponseFuture {
                call,
                limits,
                metrics,
            })
    }
}

pin_project! {
    /// The response future of [`BodyTimeout`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        call: Call<S, Req>,
        limits: Limits,
        metrics: &'static Series<TimeoutMetrics>,
    }
}

impl<S, Req, B> Future for ResponseFuture<S, Req>
where
    S: CloneService<Req, Response = Response<B>>,
{
    type Output = Result<Response<TimeoutBody<B>>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.call.poll(cx, || this.metrics.name()))?;
        let (limits, metrics) = (*this.limits, *this.metrics);
        Poll::Ready(Ok(
            response.map(|body| TimeoutBody::new(body, limits, metrics))
        ))
    }
}

impl<S, Req> fmt::Debug for ResponseFuture<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("call", &self.call)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
