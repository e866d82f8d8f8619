//! The layer of the bulkhead, and its handle.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;
use tower::Layer;

use super::config::Config;
use super::limit::Limit;
use super::service::Bulkhead;
use super::shared::Shared;
use crate::error::or_panic;
use crate::ready::Ready;
use crate::{
    Availability, Classify, CloneService, CompleteOnResponse, ConfigError, ErrorsAreFailures,
    Evictable, TrackCompletion,
};

/// Bounds the calls in flight. See the [module documentation](crate::bulkhead).
///
/// All services made by one layer value, or by its clones, share its permits.
#[derive(Clone)]
pub struct BulkheadLayer<K = ErrorsAreFailures, C = CompleteOnResponse> {
    pub(super) shared: Arc<Shared>,
    pub(super) classify: K,
    pub(super) completion: C,
}

impl BulkheadLayer {
    /// A bulkhead with the default settings. `limit` is a number or an [`Aimd`](super::Aimd).
    ///
    /// # Panics
    ///
    /// If `name` is empty or `limit` is outside its range.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str, limit: impl Into<Limit>) -> Self {
        or_panic(Self::config(name, limit).build())
    }

    /// Begins to configure a bulkhead. `limit` is a number or an [`Aimd`](super::Aimd).
    pub fn config(name: impl Into<String>, limit: impl Into<Limit>) -> Config {
        Config::new(name.into(), limit.into())
    }
}

impl<K, C> BulkheadLayer<K, C> {
    /// A handle that reads and steers the bulkhead.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Wraps `service`, checking that it can serve requests of type `Req`.
    pub fn wrap<Req, S>(&self, service: S) -> Bulkhead<S, K, C>
    where
        S: CloneService<Req>,
        K: Classify<S::Response> + Clone,
        C: TrackCompletion<S::Response, K>,
    {
        self.layer(service)
    }
}

impl<S, K: Clone, C: Clone> Layer<S> for BulkheadLayer<K, C> {
    type Service = Bulkhead<S, K, C>;

    fn layer(&self, inner: S) -> Bulkhead<S, K, C> {
        Bulkhead {
            inner: Ready::new(inner),
            shared: Some(Arc::clone(&self.shared)),
            classify: self.classify.clone(),
            completion: self.completion.clone(),
        }
    }
}

impl<K, C> Evictable for BulkheadLayer<K, C> {
    /// Returns `true` while no call is in flight, none waits, and the limit is the one it began with.
    fn is_evictable(&self, _now: Instant) -> bool {
        self.shared.is_idle()
    }
}

impl<K, C> fmt::Debug for BulkheadLayer<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkheadLayer")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

/// Reads and steers a bulkhead. Clones are handles of the same bulkhead.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    /// The name of the bulkhead.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.shared.name()
    }

    /// How many calls may be in flight at present.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.shared.gate().word().limit()
    }

    /// How many calls hold a permit.
    ///
    /// More than the limit only after that has shrunk, or if the bulkhead only observes.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.gate().word().in_flight()
    }

    /// How many calls wait for a permit.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared.gate().word().waiting()
    }

    /// Sets how many calls may be in flight, 1 to 1,000,000.
    ///
    /// If that is less than there are, nobody is let in until enough of them have ended; if it is more than
    /// before, as many waiting calls as fit are let in. An adaptive limit goes on from there.
    ///
    /// # Errors
    ///
    /// If `limit` is outside its range. Nothing has changed then.
    pub fn set_limit(&self, limit: usize) -> Result<(), ConfigError> {
        self.shared.set_limit(limit)
    }
}

impl Availability for Handle {
    /// Returns `true` if a permit is free, or a place in the queue: the next call would not be rejected
    /// at once. Also if the bulkhead only observes.
    fn is_available(&self) -> bool {
        self.shared.would_admit()
    }
}
