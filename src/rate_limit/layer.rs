//! Layer of the rate limit, and its handle.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::config::{Config, One};
use super::part::Handle;
use crate::algorithm::rate::Rate;
use crate::chassis::{PartLayer, PartService};
use crate::error::or_panic;
use crate::{Availability, ConfigError, ErrorsAreFailures, Mode};

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

    /// Changes rate and burst from those of one configuration to those of another one, which has been checked. If they
    /// are the same, those that [`set_rate`](Self::set_rate) has set stay in force.
    pub(crate) fn follow<Q2, K>(&self, from: &Config<Q2, K>, to: &Config<Q2, K>) {
        let (from, to) = (from.settings.limits(), to.settings.limits());
        if from != to {
            let changed = self.shared.change(|limits| *limits = to);
            debug_assert!(changed.is_ok(), "the limits have been checked");
        }
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
        shared.settings.mode == Mode::Observe || wait() <= shared.max_wait()
    }
}
