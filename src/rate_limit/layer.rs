//! Layer of the rate limit, and its handle.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::config::{Config, One, Settings};
use super::part::Handle;
use super::shared::Rules;
use crate::algorithm::rate::Rate;
use crate::chassis::{PartLayer, PartService};
use crate::error::{Check, or_panic};
use crate::{Availability, ConfigError, ErrorsAreFailures, Mode, settings};

/// Bounds the rate of calls. See the [module documentation](crate::rate_limit).
///
/// All services made by one layer value, or by its clones, share one limit.
pub type RateLimitLayer<Q = One, K = ErrorsAreFailures> = PartLayer<Handle<Q>, K>;

/// A service behind a rate limit. Made by [`RateLimitLayer`].
pub type RateLimit<S, Q = One, K = ErrorsAreFailures> = PartService<S, Handle<Q>, K>;

impl RateLimitLayer {
    /// Makes a limit of `rate` with the default settings: calls above the rate are rejected.
    ///
    /// # Panics
    ///
    /// If `name` is empty or `rate` is out of range.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str, rate: Rate) -> Self {
        or_panic(Self::config(name, rate).build())
    }

    /// Begins to configure a limit of `rate`.
    pub fn config(name: impl Into<String>, rate: Rate) -> Config {
        Config::new(name, rate.into(), One)
    }
}

impl<Q: Send + Sync + 'static, K> RateLimitLayer<Q, K> {
    /// Returns a handle that reads and changes the limit.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            shared: Arc::clone(&self.part().shared),
            cost: One,
        }
    }
}

/// Settings that have been checked, for [`Handle::commit`].
#[derive(Debug)]
pub(crate) struct Prepared(Settings);

impl<Q> Handle<Q> {
    /// Returns the name of the limit.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.shared.shown.series.name()
    }

    /// Returns the rate in force.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.shared.bucket.limits().rate
    }

    /// Returns the burst in force.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.shared.bucket.limits().burst
    }

    /// Returns the number of tokens that are left; zero while the limit is [paused](Self::pause).
    #[must_use]
    pub fn available(&self) -> u32 {
        self.shared.bucket.gcra.available(self.shared.now())
    }

    /// Returns the number of calls that wait for tokens.
    #[must_use]
    pub fn waiting(&self) -> usize {
        usize::try_from(self.shared.queue.len()).unwrap_or(usize::MAX)
    }

    /// Changes the rate. The burst, and the tokens that are missing from it, stay the same.
    ///
    /// Waiting calls wait at the new rate. Calls whose turn can no longer come in time are rejected at once.
    ///
    /// # Errors
    ///
    /// If the rate is out of range, or the burst is more than the tokens of 365 days. The limit stays unchanged then.
    pub fn set_rate(&self, rate: Rate) -> Result<(), ConfigError> {
        self.shared.change(|limits| limits.rate = rate)
    }

    /// Changes the burst. The number of missing tokens stays the same, up to the new burst.
    ///
    /// Waiting calls that cost more than the new burst are rejected at once.
    ///
    /// # Errors
    ///
    /// If the burst is zero, or more than the tokens of 365 days. The limit stays unchanged then.
    pub fn set_burst(&self, burst: u32) -> Result<(), ConfigError> {
        self.shared.change(|limits| limits.burst = burst)
    }

    /// Changes the settings of the running limit: the values that `settings` names replace those of the code, and all
    /// other values are those of the code again.
    ///
    /// Tokens that are used up stay used up, and a pause goes on. Waiting calls keep their order. A waiting call is
    /// rejected at once if its turn can no longer come in time, or would come later than the new
    /// [`max_wait`](Config::max_wait) from now on. Values from [`set_rate`](Self::set_rate) and
    /// [`set_burst`](Self::set_burst) stay in force until the rate or burst of the settings changes.
    ///
    /// # Errors
    ///
    /// Returns an error if a value is outside its range. The error names the value, and nothing changes.
    ///
    /// # Examples
    ///
    /// ```
    /// use buttress::{ConfigError, Rate, RateLimitLayer, settings};
    ///
    /// let limit = RateLimitLayer::new("inventory", Rate::per_second(100)).handle();
    /// let mut settings = settings::RateLimit::default();
    /// settings.rate = Some(Rate::per_second(70));
    /// limit.apply(&settings)?;
    /// assert_eq!(limit.rate(), Rate::per_second(70));
    ///
    /// settings.burst = Some(0);
    /// assert_eq!(limit.apply(&settings).unwrap_err().field(), "burst");
    /// # Ok::<(), ConfigError>(())
    /// ```
    pub fn apply(&self, settings: &settings::RateLimit) -> Result<(), ConfigError> {
        let code: Config = Config::new(self.name(), self.shared.code.clone(), One);
        self.commit(self.prepare(&code.settings(settings).settings)?);
        Ok(())
    }

    /// Sets whether the limit delays and rejects calls or only observes them, until [`apply`](Self::apply) replaces the
    /// mode.
    ///
    /// A change to [`Mode::Observe`] lets all waiting calls pass at once.
    pub fn set_mode(&self, mode: Mode) {
        self.shared.set_mode(mode);
    }

    /// Checks that the limit can change to these settings.
    pub(crate) fn prepare(&self, settings: &Settings) -> Result<Prepared, ConfigError> {
        settings.check(Check::new("rate limit", self.name())?)?;
        Ok(Prepared(settings.clone()))
    }

    /// Changes to settings that have been checked.
    pub(crate) fn commit(&self, prepared: Prepared) {
        self.shared.adjust(prepared.0);
    }

    /// Admits no call for `duration`, and then one call after the other at the rate.
    ///
    /// The longest pause counts: a shorter one does not end it, but [`reset`](Self::reset) does. Waiting calls whose
    /// turn can no longer come in time are rejected at once. While the limit [observes](crate::Mode::Observe),
    /// rejections are only counted.
    pub fn pause(&self, duration: Duration) {
        self.shared.quiet(duration, Instant::now());
    }

    /// Fills the limit with all tokens, as when it was built, and ends a [pause](Self::pause) and a time for which the
    /// service asked callers to stay away. Rate and burst stay the same.
    ///
    /// Waiting calls take their tokens first. It has the same effect while the limit only
    /// [observes](crate::Mode::Observe).
    pub fn reset(&self) {
        self.shared.reset();
    }
}

impl Availability for Handle {
    /// Returns `true` if a call of cost 1 would pass, at once or after a [wait](Config::max_wait), or the limit only
    /// observes.
    fn is_available(&self) -> bool {
        let shared = &*self.shared;
        let tokens = || shared.queue.cost().saturating_add(1);
        let wait = || shared.bucket.gcra.wait(shared.now(), tokens());
        let Rules { mode, max_wait, .. } = shared.rules();
        mode == Mode::Observe || wait() <= max_wait
    }
}
