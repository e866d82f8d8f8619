//! Settings of the rate limit.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::layer::RateLimitLayer;
use super::part::RateLimiter;
use super::shared::{Limits, Settings, Shared};
use crate::algorithm::rate::Rate;
use crate::chassis::PartLayer;
use crate::error::Check;
use crate::telemetry::Series;
use crate::{CompleteOnResponse, ConfigError, ErrorsAreFailures, Mode};

/// Longer than most services ask for, and short enough to outlast an answer that asked for too much.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// What a request costs, in tokens.
///
/// [`One`], or a closure `|request: &Req| -> u32`. A request that costs nothing always passes; one that costs more than
/// the burst never does.
#[diagnostic::on_unimplemented(
    message = "`{Self}` gives no cost for requests of type `{Req}`",
    note = "write `.cost(|request: &{Req}| 1)`, or leave `.cost` out to let each request cost one token"
)]
pub trait Cost<Req> {
    /// The tokens that `request` takes.
    fn cost(&self, request: &Req) -> u32;
}

/// Each request costs one token. The default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct One;

impl<Req> Cost<Req> for One {
    #[inline]
    fn cost(&self, _request: &Req) -> u32 {
        1
    }
}

#[diagnostic::do_not_recommend]
impl<Req, F> Cost<Req> for F
where
    F: Fn(&Req) -> u32,
{
    #[inline]
    fn cost(&self, request: &Req) -> u32 {
        self(request)
    }
}

/// The settings of a [`RateLimitLayer`]. Made by [`RateLimitLayer::config`].
#[derive(Clone, PartialEq)]
#[must_use = "call `build` to make the layer"]
pub struct Config<Q = One, K = ErrorsAreFailures> {
    name: String,
    rate: Rate,
    burst: Option<u32>,
    settings: Settings,
    cost: Q,
    classify: K,
}

impl Config {
    pub(super) fn new(name: String, rate: Rate) -> Self {
        Self {
            name,
            rate,
            burst: None,
            settings: Settings {
                max_wait: None,
                max_retry_after: MAX_RETRY_AFTER,
                respects_retry_after: None,
                one_quota: false,
                mode: Mode::Enforce,
            },
            cost: One,
            classify: ErrorsAreFailures,
        }
    }
}

impl<Q, K> Config<Q, K> {
    /// How many tokens there are when none have been taken for a while, and so how many calls may pass at once. At
    /// least 1, and no more than come in 365 days. The tokens of a tenth of a second by default, at least 1.
    pub fn burst(mut self, tokens: u32) -> Self {
        self.burst = Some(tokens);
        self
    }

    /// Lets calls wait for their turn, for this long at most. Off by default: calls above the rate are
    /// rejected.
    ///
    /// A call whose turn cannot come by then, or before its [deadline](crate::Deadline), is rejected at once. So
    /// the calls that wait are never more than come at the rate in this time, at a cost of one.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.settings.max_wait = Some(wait);
        self
    }

    /// Takes the calls of this layer for those of one caller, as with the key of a third party: an answer
    /// [`Outcome::Throttled`](crate::Outcome::Throttled) with a time to stay away (429, `RESOURCE_EXHAUSTED`) pauses all of them.
    /// By default it concerns the request that got it, because others may be for tenants with quotas of their own.
    pub fn one_quota(mut self) -> Self {
        self.settings.one_quota = true;
        self
    }

    /// The longest time that a service can ask callers to stay away with
    /// [`Outcome::Overload`](crate::Outcome::Overload). 60 s by default.
    pub fn max_retry_after(mut self, most: Duration) -> Self {
        self.settings.max_retry_after = most;
        self
    }

    /// Whether calls stay away for as long as the service asks for. By default, if there is a
    /// [classifier](Self::classify) that says so.
    pub fn respect_retry_after(mut self, respect: bool) -> Self {
        self.settings.respects_retry_after = Some(respect);
        self
    }

    /// Whether calls are really rejected, or made to wait. [`Mode::Enforce`] by default.
    ///
    /// While it only observes, a call that would wait passes at once and counts as let through; it takes the tokens
    /// that it would have waited for.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.settings.mode = mode;
        self
    }

    /// Takes the cost of each request from `cost`: a closure `|request: &Req| -> u32`. By default each costs 1.
    pub fn cost<Q2>(self, cost: Q2) -> Config<Q2, K> {
        Config {
            name: self.name,
            rate: self.rate,
            burst: self.burst,
            settings: self.settings,
            cost,
            classify: self.classify,
        }
    }

    /// Classifies answers with `classify`, for the time that a service asks callers to stay away. Nothing is
    /// classified by default.
    pub fn classify<K2>(mut self, classify: K2) -> Config<Q, K2> {
        self.settings.respects_retry_after.get_or_insert(true);
        Config {
            name: self.name,
            rate: self.rate,
            burst: self.burst,
            settings: self.settings,
            cost: self.cost,
            classify,
        }
    }

    /// How many calls can pass in this time.
    pub(crate) fn most_in(&self, span: Duration) -> f64 {
        let burst = self.burst.unwrap_or_else(|| self.rate.tenth_of_a_second());
        f64::from(burst) + self.rate.calls_in(span)
    }

    pub(crate) fn longest_wait(&self) -> Option<Duration> {
        self.settings.max_wait
    }

    /// Makes the layer, with a limit of its own that has all its tokens.
    ///
    /// # Errors
    ///
    /// If the name is empty or a value is outside its range.
    pub fn build(self) -> Result<RateLimitLayer<Q, K>, ConfigError>
    where
        Q: Send + Sync + 'static,
    {
        let now = Instant::now();
        let shared = self.shared(now)?;
        let name = shared.name();
        let part = RateLimiter {
            shared,
            cost: self.cost,
        };
        let completion = CompleteOnResponse;
        Ok(PartLayer::with(name, now, part, self.classify, completion))
    }

    /// Makes the part, which counts time from `origin`.
    pub(crate) fn part(&self, origin: Instant) -> Result<RateLimiter<Q>, ConfigError>
    where
        Q: Clone,
    {
        Ok(RateLimiter {
            shared: self.shared(origin)?,
            cost: self.cost.clone(),
        })
    }

    fn shared(&self, origin: Instant) -> Result<Arc<Shared>, ConfigError> {
        let check = Check::new("rate limit", &self.name)?;
        let (rate, settings) = (self.rate, self.settings.clone());
        let burst = self.burst.unwrap_or_else(|| rate.tenth_of_a_second());
        let limits = Limits { rate, burst };
        limits.check(check)?;
        if let Some(wait) = settings.max_wait {
            check.duration("max_wait", wait)?;
        }
        check.duration("max_retry_after", settings.max_retry_after)?;
        let metrics = Series::of(&self.name, "rate_limit");
        Ok(Arc::new(Shared::new(limits, settings, origin, metrics)))
    }
}

impl<Q, K> fmt::Debug for Config<Q, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("name", &self.name)
            .field("rate", &self.rate)
            .field("burst", &self.burst)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
