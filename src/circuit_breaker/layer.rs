//! The layer of the circuit breaker, and its handle.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tower::Layer;

use super::config::Config;
use super::service::CircuitBreaker;
use super::shared::Shared;
use crate::algorithm::breaker::State;
use crate::error::or_panic;
use crate::ready::Ready;
use crate::{
    Availability, Classify, CloneService, CompleteOnResponse, ErrorsAreFailures, Evictable,
    TrackCompletion,
};

/// Rejects calls to a service that is down. See the [module documentation](crate::circuit_breaker).
///
/// All services made by one layer value, or by its clones, share one breaker.
#[derive(Clone)]
pub struct CircuitBreakerLayer<K = ErrorsAreFailures, C = CompleteOnResponse> {
    pub(super) shared: Arc<Shared>,
    pub(super) classify: K,
    pub(super) completion: C,
}

impl CircuitBreakerLayer {
    /// A breaker with the default settings.
    ///
    /// # Panics
    ///
    /// If `name` is empty.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str) -> Self {
        or_panic(Self::config(name).build())
    }

    /// Begins to configure a breaker.
    pub fn config(name: impl Into<String>) -> Config {
        Config::new(name.into())
    }
}

impl<K, C> CircuitBreakerLayer<K, C> {
    /// A handle that reads and steers the breaker.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Wraps `service`, checking that it can serve requests of type `Req`.
    pub fn wrap<Req, S>(&self, service: S) -> CircuitBreaker<S, K, C>
    where
        S: CloneService<Req>,
        K: Classify<S::Response> + Clone,
        C: TrackCompletion<S::Response, K>,
    {
        self.layer(service)
    }
}

impl<S, K: Clone, C: Clone> Layer<S> for CircuitBreakerLayer<K, C> {
    type Service = CircuitBreaker<S, K, C>;

    fn layer(&self, inner: S) -> CircuitBreaker<S, K, C> {
        CircuitBreaker {
            inner: Ready::new(inner),
            shared: Some(Arc::clone(&self.shared)),
            classify: self.classify.clone(),
            completion: self.completion.clone(),
        }
    }
}

impl<K, C> Evictable for CircuitBreakerLayer<K, C> {
    /// Returns `true` while the breaker is closed, and when nobody has called it for a minute after its open
    /// time, or for as long as it was open. Always `false` while the handle forces it open or closed.
    fn is_evictable(&self, now: Instant) -> bool {
        self.shared.is_evictable(now)
    }
}

impl<K, C> fmt::Debug for CircuitBreakerLayer<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerLayer")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

/// Reads and steers a circuit breaker. Clones are handles of the same breaker.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    /// The name of the breaker.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.shared.name()
    }

    /// The state it is in.
    ///
    /// A breaker whose open time is over stays [`State::Open`] until the next call comes.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.state()
    }

    /// How much of the open time is left. `None` unless the breaker is open for a time.
    #[must_use]
    pub fn open_for_remaining(&self) -> Option<Duration> {
        match self.state() {
            State::Open => self.shared.open_for_remaining(Instant::now()),
            _ => None,
        }
    }

    /// Opens the breaker, until [`force_closed`](Self::force_closed) or [`reset`](Self::reset).
    pub fn force_open(&self) {
        self.shared.force_open();
    }

    /// Closes the breaker and keeps it closed whatever happens, until
    /// [`force_open`](Self::force_open) or [`reset`](Self::reset).
    pub fn force_closed(&self) {
        self.shared.force_closed();
    }

    /// Closes the breaker and forgets all it has counted. From then on it works as usual.
    pub fn reset(&self) {
        self.shared.reset();
    }
}

impl Availability for Handle {
    /// Returns `true` if the breaker is closed or only observes, or if it would let a probe through.
    fn is_available(&self) -> bool {
        self.shared.would_admit()
    }
}
