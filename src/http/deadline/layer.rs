//! The layers of the deadlines across hops.

use std::fmt;
use std::sync::Arc;

use ::http::{HeaderName, Request};
use tokio::time::Instant;
use tower::Layer;

use super::config::{InheritDeadlineConfig, PropagateDeadlineConfig};
use super::headers::{Headers, HttpHeaders};
use super::service::{InheritDeadline, PropagateDeadline};
use super::stamp::{Policy, Stamp};
use crate::error::or_panic;
use crate::ready::Ready;
use crate::{CloneService, DeadlineLayer, Evictable};

/// Tells the service that is called how much time is left. See the [module documentation](crate::http::deadline).
pub struct PropagateDeadlineLayer<H = HttpHeaders> {
    pub(super) policy: Arc<Policy<H>>,
}

impl PropagateDeadlineLayer {
    /// A layer with the default settings, for calls to `name`.
    ///
    /// # Panics
    ///
    /// If `name` is empty.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str) -> Self {
        or_panic(Self::config(name).build())
    }

    /// Begins to configure a layer.
    pub fn config(name: impl Into<String>) -> PropagateDeadlineConfig {
        PropagateDeadlineConfig::new(name.into())
    }
}

impl<H> PropagateDeadlineLayer<H> {
    /// Wraps `service`, checking that it can serve requests of type `Req` and that their headers are known.
    pub fn wrap<Req, S>(&self, service: S) -> PropagateDeadline<S, H>
    where
        S: CloneService<Req>,
        H: Headers<Req>,
    {
        self.layer(service)
    }
}

impl<S, H> Layer<S> for PropagateDeadlineLayer<H> {
    type Service = PropagateDeadline<S, H>;

    fn layer(&self, inner: S) -> PropagateDeadline<S, H> {
        let policy = Arc::clone(&self.policy);
        PropagateDeadline {
            inner: Ready::new(Stamp { inner, policy }),
            policy: Arc::clone(&self.policy),
        }
    }
}

impl<H> Evictable for PropagateDeadlineLayer<H> {
    fn is_evictable(&self, _now: Instant) -> bool {
        true
    }
}

impl<H> Clone for PropagateDeadlineLayer<H> {
    fn clone(&self) -> Self {
        Self {
            policy: Arc::clone(&self.policy),
        }
    }
}

impl<H> fmt::Debug for PropagateDeadlineLayer<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PropagateDeadlineLayer")
            .field("policy", &self.policy)
            .finish()
    }
}

/// Takes over the deadline of the caller. See the [module documentation](crate::http::deadline).
#[derive(Clone, Debug)]
pub struct InheritDeadlineLayer {
    pub(super) deadline: DeadlineLayer,
    pub(super) header: HeaderName,
}

impl InheritDeadlineLayer {
    /// A layer with the default settings, for the requests that arrive at `name`.
    ///
    /// # Panics
    ///
    /// If `name` is empty.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str) -> Self {
        or_panic(Self::config(name).build())
    }

    /// Begins to configure a layer.
    pub fn config(name: impl Into<String>) -> InheritDeadlineConfig {
        InheritDeadlineConfig::new(name.into())
    }

    /// Wraps `service`, checking that it can serve requests with bodies of type `B`.
    pub fn wrap<B, S>(&self, service: S) -> InheritDeadline<S>
    where
        S: CloneService<Request<B>>,
    {
        self.layer(service)
    }
}

impl<S> Layer<S> for InheritDeadlineLayer {
    type Service = InheritDeadline<S>;

    fn layer(&self, inner: S) -> InheritDeadline<S> {
        InheritDeadline {
            inner: self.deadline.layer(inner),
            max: self.deadline.total(),
            header: self.header.clone(),
        }
    }
}

impl Evictable for InheritDeadlineLayer {
    fn is_evictable(&self, _now: Instant) -> bool {
        true
    }
}
