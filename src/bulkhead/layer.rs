//! The layer of the bulkhead, and its handle.

use std::time::Duration;

use tokio::time::Instant;

use super::config::Config;
use super::limit::{Limit, check_limit};
use super::part::Handle;
use crate::chassis::{PartLayer, PartService};
use crate::error::{Check, or_panic};
use crate::{Availability, CompleteOnResponse, ConfigError, ErrorsAreFailures, Mode};

/// Bounds the calls in flight. See the [module documentation](crate::bulkhead).
///
/// All services made by one layer value, or by its clones, share its permits.
pub type BulkheadLayer<K = ErrorsAreFailures, C = CompleteOnResponse> = PartLayer<Handle, K, C>;

/// A service behind a bulkhead. Made by [`BulkheadLayer`].
pub type Bulkhead<S, K = ErrorsAreFailures, C = CompleteOnResponse> = PartService<S, Handle, K, C>;

impl BulkheadLayer {
    /// Makes a bulkhead with the default settings. `limit` is a number or an [`Aimd`](super::Aimd).
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
        Config::new(name, limit.into().into(), ())
    }
}

impl<K, C> BulkheadLayer<K, C> {
    /// Returns a handle that reads the state of the bulkhead and changes its limit.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.part().clone()
    }
}

impl Handle {
    /// Returns the name of the bulkhead.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.shared.shown.series.name()
    }

    /// Returns the number of calls that may be in flight at present.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.shared.gate.word().limit()
    }

    /// Returns the number of calls that hold a permit.
    ///
    /// It exceeds the limit only after the limit has shrunk, or if the bulkhead only observes.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.gate.word().in_flight()
    }

    /// Returns the number of calls that wait for a permit.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared.gate.word().waiting()
    }

    /// Sets the number of calls that may be in flight, 1 to 1,000,000.
    ///
    /// If more calls are in flight, no call is admitted until enough of them have ended. If the limit grows, waiting
    /// calls are admitted up to the new limit. An adaptive limit continues from the new value.
    ///
    /// # Errors
    ///
    /// If `limit` is outside its range. The limit stays the same then.
    pub fn set_limit(&self, limit: usize) -> Result<(), ConfigError> {
        check_limit(Check::new("bulkhead", self.name())?, "limit", limit)?;
        let now = Instant::now();
        self.shared.gate.set_limit(limit, now);
        self.shared.publish(now);
        Ok(())
    }

    /// Changes the timeout of the attempts that an adaptive limit counts. They had one before.
    pub(crate) fn set_attempt_timeout(&self, timeout: Duration) {
        self.shared.evidence.set_timeout(timeout);
    }

    /// Changes the limit from the one of a configuration to the one of another one, which has been checked. If it is
    /// the same, the limit that [`set_limit`](Self::set_limit) has set stays in force.
    pub(crate) fn follow<K, C>(&self, from: &Config<K, C>, to: &Config<K, C>) {
        let (from, to) = (from.settings.limit.fixed(), to.settings.limit.fixed());
        if let Some(limit) = to.filter(|_| from != to) {
            let changed = self.set_limit(limit);
            debug_assert!(changed.is_ok(), "the limit has been checked");
        }
    }
}

impl Availability for Handle {
    /// Returns `true` if the next call would not be rejected at once: a permit or a place in the queue is free, or the
    /// bulkhead only observes.
    fn is_available(&self) -> bool {
        let (word, length) = (self.shared.gate.word(), self.shared.gate.length);
        word.is_free() || word.waiting() < length || self.shared.mode == Mode::Observe
    }
}
