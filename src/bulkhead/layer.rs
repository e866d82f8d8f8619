//! The layer of the bulkhead, and its handle.

use std::mem;
use std::time::Duration;

use tokio::time::Instant;

use super::config::{Config, Settings};
use super::limit::{Limit, check_limit};
use super::part::Handle;
use super::queue::Bounds;
use crate::chassis::{PartLayer, PartService};
use crate::error::{Check, or_panic};
use crate::sync::lock;
use crate::{Availability, CompleteOnResponse, ConfigError, ErrorsAreFailures, Mode, settings};

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
    /// Returns a handle that reads the state of the bulkhead and changes its settings.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.part().clone()
    }
}

/// Settings that have been checked, for [`Handle::commit`].
#[derive(Debug)]
pub(crate) struct Prepared {
    settings: Settings,
    bounds: Bounds,
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

    /// Changes the settings of the running bulkhead: the values that `settings` names replace those of the code, and
    /// all other values are those of the code again.
    ///
    /// Calls in flight stay. Waiting calls keep their order and the ends of their waits, even if more calls wait than
    /// the new queue holds. A limit from [`set_limit`](Self::set_limit) stays in force until the limit of the settings
    /// changes. A number cannot replace an adaptive limit of the code.
    ///
    /// # Errors
    ///
    /// Returns an error if a value is outside its range, or replaces an adaptive limit. The error names the value, and
    /// nothing changes.
    ///
    /// # Examples
    ///
    /// ```
    /// use buttress::{BulkheadLayer, ConfigError, settings};
    ///
    /// let bulkhead = BulkheadLayer::new("inventory", 20).handle();
    /// let mut settings = settings::Bulkhead::default();
    /// settings.limit = Some(50);
    /// settings.queue = Some(10);
    /// bulkhead.apply(&settings)?;
    /// assert_eq!(bulkhead.limit(), 50);
    ///
    /// settings.limit = Some(0);
    /// assert_eq!(bulkhead.apply(&settings).unwrap_err().field(), "limit");
    /// # Ok::<(), ConfigError>(())
    /// ```
    pub fn apply(&self, settings: &settings::Bulkhead) -> Result<(), ConfigError> {
        let code = Config::new(self.name(), self.shared.code.clone(), ());
        self.commit(self.prepare(&code.settings(settings).settings)?);
        Ok(())
    }

    /// Sets whether the bulkhead queues and rejects calls or only observes them, until [`apply`](Self::apply) replaces
    /// the mode.
    ///
    /// A change to [`Mode::Observe`] admits all waiting calls at once.
    pub fn set_mode(&self, mode: Mode) {
        let shared = &*self.shared;
        let mut in_force = lock(&shared.in_force);
        in_force.mode = mode;
        in_force.begin_rejections(shared.shown.series);
        let now = Instant::now();
        shared.begin_mode(mode, now);
        drop(in_force);
        shared.publish(now);
    }

    /// Checks that the bulkhead can change to these settings.
    pub(crate) fn prepare(&self, settings: &Settings) -> Result<Prepared, ConfigError> {
        let check = Check::new("bulkhead", self.name())?;
        let bounds = settings.check_change(&self.shared.code.limit, check)?;
        let settings = settings.clone();
        Ok(Prepared { settings, bounds })
    }

    /// Changes to settings that have been checked.
    pub(crate) fn commit(&self, prepared: Prepared) {
        let Prepared { settings, bounds } = prepared;
        let (shared, now) = (&*self.shared, Instant::now());
        let mut in_force = lock(&shared.in_force);
        settings.begin_rejections(shared.shown.series);
        shared.gate.adjust(settings.queue, bounds, settings.order);
        shared.begin_mode(settings.mode, now);
        let former = mem::replace(&mut *in_force, settings);
        // A limit that does not change stays where `set_limit` has put it.
        let limit = in_force.limit.fixed();
        if let Some(limit) = limit.filter(|limit| former.limit.fixed() != Some(*limit)) {
            shared.gate.set_limit(limit, now);
        }
        drop(in_force);
        shared.publish(now);
    }
}

impl Availability for Handle {
    /// Returns `true` if the next call would not be rejected at once: a permit or a place in the queue is free, or the
    /// bulkhead only observes.
    fn is_available(&self) -> bool {
        let (word, length) = (self.shared.gate.word(), self.shared.gate.length());
        word.is_free() || word.waiting() < length || self.shared.mode() == Mode::Observe
    }
}
