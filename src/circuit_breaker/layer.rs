//! The layer of the circuit breaker, and its handle.

use std::time::Duration;

use super::config::{Config, Settings};
use super::part::Handle;
use crate::algorithm::breaker::{self, Breaker, State};
use crate::chassis::{PartLayer, PartService};
use crate::error::or_panic;
use crate::sync::lock;
use crate::{Availability, CompleteOnResponse, ConfigError, ErrorsAreFailures, Mode, settings};

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

/// Settings that have been checked, for [`Handle::commit`].
#[derive(Debug)]
pub(crate) struct Prepared {
    settings: Settings,
    resolved: breaker::Settings,
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

    /// Changes the settings of the running breaker: the values that `settings` names replace those of the code, and all
    /// other values are those of the code again.
    ///
    /// State and counts stay: an open breaker stays open until its open time is over. The change applies to all clones
    /// of the handle. The window cannot change.
    ///
    /// # Errors
    ///
    /// Returns an error if a value is outside its range, or if the window differs. The error names the value, and
    /// nothing changes.
    ///
    /// # Examples
    ///
    /// ```
    /// use buttress::{CircuitBreakerLayer, ConfigError, settings};
    ///
    /// let layer = CircuitBreakerLayer::new("inventory");
    /// let mut settings = settings::CircuitBreaker::default();
    /// settings.failure_share = Some(0.3);
    /// layer.handle().apply(&settings)?;
    ///
    /// settings.failure_share = Some(7.0);
    /// assert_eq!(layer.handle().apply(&settings).unwrap_err().field(), "failure_share");
    /// # Ok::<(), ConfigError>(())
    /// ```
    pub fn apply(&self, settings: &settings::CircuitBreaker) -> Result<(), ConfigError> {
        let code = Config::new(self.name(), self.shared.code.clone(), ());
        self.commit(self.prepare(&code.settings(settings).settings)?);
        Ok(())
    }

    /// Sets whether the breaker rejects calls or only observes them, until [`apply`](Self::apply) replaces the mode.
    pub fn set_mode(&self, mode: Mode) {
        let _change = lock(&self.shared.change);
        self.shared.begin_mode(mode);
    }

    /// Checks that the breaker can change to these settings.
    pub(crate) fn prepare(&self, settings: &Settings) -> Result<Prepared, ConfigError> {
        let (settings, resolved) = settings.replace(&self.shared.code, self.name())?;
        Ok(Prepared { settings, resolved })
    }

    /// Changes to settings that have been checked.
    /// Changes the timeout of the attempts that the breaker counts. They had one before.
    pub(crate) fn set_attempt_timeout(&self, timeout: Duration) {
        self.shared.breaker.evidence().set_timeout(timeout);
    }

    pub(crate) fn commit(&self, prepared: Prepared) {
        let shared = &*self.shared;
        let Prepared { settings, resolved } = prepared;
        let _change = lock(&shared.change);
        shared.breaker.adjust(resolved);
        shared.begin_mode(settings.mode());
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
        self.shared.mode() == Mode::Observe || self.shared.breaker.would_admit(self.shared.now())
    }
}
