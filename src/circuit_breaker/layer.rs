//! The layer of the circuit breaker, and its handle.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::config::Config;
use super::part::Breaker;
use super::shared::Shared;
use crate::algorithm::breaker::State;
use crate::chassis::{PartLayer, PartService};
use crate::error::or_panic;
use crate::{Availability, CompleteOnResponse, ErrorsAreFailures};

/// Rejects calls to a service that is down. See the [module documentation](crate::circuit_breaker).
///
/// All services made by one layer value, or by its clones, share one breaker.
pub type CircuitBreakerLayer<K = ErrorsAreFailures, C = CompleteOnResponse> =
    PartLayer<Breaker, K, C>;

/// A service behind a circuit breaker. Made by [`CircuitBreakerLayer`].
pub type CircuitBreaker<S, K = ErrorsAreFailures, C = CompleteOnResponse> =
    PartService<S, Breaker, K, C>;

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
        self.part().handle()
    }
}

impl Breaker {
    pub(crate) fn handle(&self) -> Handle {
        Handle {
            shared: Arc::clone(&self.shared),
        }
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

    /// Returns the rest of the open time. `None` unless the breaker is open for a time.
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
