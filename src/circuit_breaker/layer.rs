//! The layer of the circuit breaker, and its handle.

use std::time::Duration;

use super::config::{Config, Settings};
use super::part::Handle;
use crate::algorithm::breaker::{Breaker, State};
use crate::chassis::{PartLayer, PartService};
use crate::error::or_panic;
use crate::{Availability, CompleteOnResponse, ErrorsAreFailures, Mode};

/// Rejects calls to a service that is down. See the [module documentation](crate::circuit_breaker).
///
/// All services made by one layer value, or by its clones, share one breaker.
pub type CircuitBreakerLayer<K = ErrorsAreFailures, C = CompleteOnResponse> =
    PartLayer<Handle, K, C>;

/// A service behind a circuit breaker. Made by [`CircuitBreakerLayer`].
pub type CircuitBreaker<S, K = ErrorsAreFailures, C = CompleteOnResponse> =
    PartService<S, Handle, K, C>;

impl CircuitBreakerLayer {
    /// Makes a breaker with the default settings.
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
        Config::new(name, Settings::default(), ())
    }
}

impl<K, C> CircuitBreakerLayer<K, C> {
    /// Returns a handle that reads the state of the breaker and opens or closes it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.part().clone()
    }
}

impl Handle {
    /// Returns the name of the breaker.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.shared.metrics.name()
    }

    /// Returns the state of the breaker.
    ///
    /// A breaker whose open time is over stays [`State::Open`] until the next call comes.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.breaker.state()
    }

    /// Returns the remaining open time. `None` unless the breaker is open for a limited time.
    #[must_use]
    pub fn open_for_remaining(&self) -> Option<Duration> {
        match self.state() {
            State::Open => self.shared.breaker.open_for_remaining(self.shared.now()),
            _ => None,
        }
    }

    /// Opens the breaker, until [`force_closed`](Self::force_closed) or [`reset`](Self::reset).
    pub fn force_open(&self) {
        self.shared.steer(Breaker::force_open);
    }

    /// Closes the breaker and keeps it closed whatever happens, until
    /// [`force_open`](Self::force_open) or [`reset`](Self::reset).
    pub fn force_closed(&self) {
        self.shared.steer(Breaker::force_closed);
    }

    /// Closes the breaker and forgets all counts. From then on it works as usual.
    pub fn reset(&self) {
        self.shared.steer(Breaker::reset);
    }
}

impl Availability for Handle {
    /// Returns `true` if the breaker is closed or only observes, or if it would let a probe through.
    fn is_available(&self) -> bool {
        self.shared.mode == Mode::Observe || self.shared.breaker.would_admit(self.shared.now())
    }
}
