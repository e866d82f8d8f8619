//! The layer of the rate limit, and its handle.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::config::{Config, One};
use super::part::Handle;
use crate::algorithm::rate::Rate;
use crate::chassis::{PartLayer, PartService};
use crate::error::or_panic;
use crate::{Availability, ConfigError, ErrorsAreFailures, Mode};

/// Lets calls through at a rate. See the [module documentation](crate::rate_limit).
///
/// All services made by one layer value, or by its clones, share one limit.
pub type RateLimitLayer<Q = One, K = ErrorsAreFailures> = PartLayer<Handle<Q>, K>;

/// A service behind a rate limit. Made by [`RateLimitLayer`].
pub type RateLimit<S, Q = One, K = ErrorsAreFailures> = PartService<S, Handle<Q>, K>;

impl RateLimitLayer {
    /// A limit of `rate` with the default settings: calls above it are rejected.
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
    /// A handle that reads and steers the limit.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            shared: Arc::clone(&self.part().shared),
            cost: One,
        }
    }
}

impl<Q> Handle<Q> {
    /// The name of the limit.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.shared.shown.series.name()
    }

    /// The rate in force.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.shared.bucket.limits().rate
    }

    /// The burst in force.
    #[must_use]
    pub fn burst(&self) -> u32 {
        self.shared.bucket.limits().burst
    }

    /// The tokens that are there now; none while the limit is [paused](Self::pause).
    #[must_use]
    pub fn available(&self) -> u32 {
        self.shared.bucket.gcra.available(self.shared.now())
    }

    /// How many calls wait for tokens.
    #[must_use]
    pub fn waiting(&self) -> usize {
        usize::try_from(self.shared.queue.len()).unwrap_or(usize::MAX)
    }

    /// Changes the rate. The burst, and the tokens that are missing from it, stay as they are.
    ///
    /// Calls that wait go on waiting at the new rate. Those whose turn cannot come in time any more are
    /// rejected at once.
    ///
    /// # Errors
    ///
    /// If the rate is out of range, or the burst more than comes in 365 days. Nothing is changed then.
    pub fn set_rate(&self, rate: Rate) -> Result<(), ConfigError> {
        self.shared.change(|limits| limits.rate = rate)
    }

    /// Changes the burst. As many tokens as before are missing from it, but no more than it holds.
    ///
    /// Calls that wait and cost more than the new burst are rejected at once.
    ///
    /// # Errors
    ///
    /// If the burst is zero, or more than comes in 365 days. Nothing is changed then.
    pub fn set_burst(&self, burst: u32) -> Result<(), ConfigError> {
        self.shared.change(|limits| limits.burst = burst)
    }

    /// Lets no call through for `duration`, and then one after the other at the rate.
    ///
    /// The longest pause counts: a shorter one does not end it, but [`reset`](Self::reset) does. Calls that wait and
    /// whose turn cannot come in time any more are rejected at once. Like everything else, it is only counted
    /// while the limit [observes](crate::Mode::Observe).
    pub fn pause(&self, duration: Duration) {
        self.shared.quiet(duration, Instant::now());
    }

    /// Begins again with all tokens, as when the limit was built: a [pause](Self::pause), or a time for which the
    /// service asked callers to stay away, is over. Rate and burst stay as they are.
    ///
    /// Calls that wait take what they need first. Also while the limit only [observes](crate::Mode::Observe).
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
