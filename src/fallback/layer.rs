//! The layer of the fallback.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;
use tower::Layer;

use super::answer::Answer;
use super::config::Config;
use super::failed::{Failures, ShouldHandle};
use super::service::{Fallback, Policy};
use crate::error::or_panic;
use crate::ready::Ready;
use crate::{ByClone, Classify, CloneService, ErrorsAreFailures, Evictable};

/// Answers in place of a call that failed. See the [module documentation](crate::fallback).
pub struct FallbackLayer<A, W = Failures, K = ErrorsAreFailures, R = ByClone> {
    pub(super) policy: Arc<Policy<A, W, K, R>>,
}

impl<A> FallbackLayer<A> {
    /// A fallback with the default settings, which answers with what [`value`](super::value),
    /// [`from_failure`](super::from_failure), [`from_request`](super::from_request) or
    /// [`service`](super::service) returned.
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
        Config::new(name.into(), answer)
    }
}

impl<A, W, K, R> FallbackLayer<A, W, K, R> {
    /// Wraps `service`, checking that it can serve requests of type `Req` and that the fallback can answer them.
    pub fn wrap<Req, S>(&self, service: S) -> Fallback<S, A, W, K, R>
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
    type Service = Fallback<S, A, W, K, R>;

    fn layer(&self, inner: S) -> Fallback<S, A, W, K, R> {
        Fallback {
            inner: Ready::new(inner),
            policy: Arc::clone(&self.policy),
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

impl<A, W, K, R> fmt::Debug for FallbackLayer<A, W, K, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackLayer")
            .field("metrics", &self.policy.metrics)
            .finish_non_exhaustive()
    }
}
