//! The layer of the fallback, and its service.

use std::sync::Arc;
use std::task::{self, Poll};

use tokio::time::Instant;
use tower::{Layer, Service};

use super::answer::Answer;
use super::config::{Config, Settings};
use super::failed::{Failures, ShouldHandle};
use super::future::ResponseFuture;
use crate::context::{self, DirectCall};
use crate::debug::debug_fields;
use crate::error::or_panic;
use crate::ready::Ready;
use crate::send::send_method;
use crate::telemetry::Series;
use crate::{ByClone, Classify, CloneService, Error, ErrorsAreFailures, Evictable};

/// Answers in place of a call that failed. See the [module documentation](crate::fallback).
pub struct FallbackLayer<A, W = Failures, K = ErrorsAreFailures, R = ByClone> {
    pub(super) policy: Arc<Policy<A, W, K, R>>,
}

pub(super) struct Policy<A, W, K, R> {
    pub(super) config: Config<A, W, K, R>,
    pub(super) metrics: &'static Series,
}

impl<A> FallbackLayer<A> {
    /// Makes a fallback with the default settings. `answer` is the return value of [`value`](super::value),
    /// [`from_failure`](super::from_failure), [`from_request`](super::from_request),
    /// [`from_request_async`](super::from_request_async) or [`service`](super::service).
    ///
    /// # Panics
    ///
    /// If `name` is empty.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str, answer: A) -> Self {
        or_panic(Self::config(name, answer).build())
    }

    /// Begins to configure a fallback.
    pub fn config(name: impl Into<String>, answer: A) -> Config<A> {
        let settings = Settings {
            answer,
            when: Failures,
        };
        Config::new(name, settings, ByClone)
    }
}

impl<A, W, K, R> FallbackLayer<A, W, K, R> {
    /// Wraps `service`. The compiler checks that it can serve requests of type `Req` and that the fallback can answer
    /// them.
    pub fn wrap<Req, S>(&self, service: S) -> Fallback<S, Self>
    where
        S: CloneService<Req>,
        A: Answer<Req, S::Response, R>,
        W: ShouldHandle<S::Response>,
        K: Classify<S::Response>,
    {
        self.layer(service)
    }
}

impl<S, A, W, K, R> Layer<S> for FallbackLayer<A, W, K, R> {
    type Service = Fallback<S, Self>;

    fn layer(&self, inner: S) -> Fallback<S, Self> {
        Fallback {
            inner: Ready::new(inner),
            layer: self.clone(),
        }
    }
}

impl<A, W, K, R> Evictable for FallbackLayer<A, W, K, R> {
    fn is_evictable(&self, _now: Instant) -> bool {
        true
    }
}

impl<A, W, K, R> Clone for FallbackLayer<A, W, K, R> {
    fn clone(&self) -> Self {
        Self {
            policy: Arc::clone(&self.policy),
        }
    }
}

debug_fields!([A, W, K, R] FallbackLayer<A, W, K, R> { policy.metrics });

/// A service whose failed calls get another answer. Made by a [`FallbackLayer`], which is `L`.
#[derive(Clone, Debug)]
pub struct Fallback<S, L> {
    inner: Ready<S>,
    layer: L,
}

send_method!(Fallback<S, L>);

impl<S, A, W, K, R, Req> Service<Req> for Fallback<S, FallbackLayer<A, W, K, R>>
where
    S: CloneService<Req>,
    A: Answer<Req, S::Response, R>,
    W: ShouldHandle<S::Response>,
    K: Classify<S::Response>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S, Req, A, W, K, R>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll(cx);
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let is_direct = context::take_direct();
        let layer = self.layer.clone();
        let config = &layer.policy.config;
        let kept = config.settings.answer.keep(&config.request, &request);
        let _direct = DirectCall::enter();
        self.inner.call_as(request, &mut (), move |call, ()| {
            ResponseFuture::new(call, kept, is_direct, layer)
        })
    }
}
