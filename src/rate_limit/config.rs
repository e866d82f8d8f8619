//! Settings of the rate limit.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::bucket::Limits;
use super::layer::RateLimitLayer;
use super::part::Handle;
use super::shared::Shared;
use crate::algorithm::rate::Rate;
use crate::chassis::LayerConfig;
use crate::error::Check;
use crate::telemetry::{Report, Series};
use crate::{ConfigError, ErrorsAreFailures, Mode};

/// Default maximum of `Retry-After`: longer than most services ask for, and short enough that one wrong answer does
/// little harm.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Cost of a request, in tokens.
///
/// It is [`One`], or a closure `|request: &Req| -> u32`. A request that costs nothing always passes. A request that
/// costs more than the burst never passes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` gives no cost for requests of type `{Req}`",
    note = "write `.cost(|request: &{Req}| 1)`, or leave `.cost` out to let each request cost one token"
)]
pub trait Cost<Req> {
    /// Returns the number of tokens that `request` takes.
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
pub type Config<Q = One, K = ErrorsAreFailures> = LayerConfig<Settings, Q, K>;

/// The settings of a rate limit in a [`Config`].
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    rate: Rate,
    burst: Option<u32>,
    pub(super) max_wait: Option<Duration>,
    pub(super) max_retry_after: Duration,
    pub(super) respects_retry_after: bool,
    /// `true` if all calls share one quota of the service.
    pub(crate) one_quota: bool,
    pub(super) mode: Mode,
}

impl Settings {
    pub(super) fn check(&self, check: Check<'_>) -> Result<(), ConfigError> {
        self.limits().check(check)?;
        if let Some(wait) = self.max_wait {
            check.duration("max_wait", wait)?;
        }
        check.duration("max_retry_after", self.max_retry_after)
    }

    /// Returns the limits.
    pub(super) fn limits(&self) -> Limits {
        let Self { rate, burst, .. } = *self;
        let burst = burst.unwrap_or_else(|| rate.tenth_of_a_second());
        Limits { rate, burst }
    }
}

impl From<Rate> for Settings {
    fn from(rate: Rate) -> Self {
        Self {
            rate,
            burst: None,
            max_wait: None,
            max_retry_after: MAX_RETRY_AFTER,
            respects_retry_after: true,
            one_quota: false,
            mode: Mode::Enforce,
        }
    }
}

impl Config {
    /// Makes the part, which counts time from `origin`.
    pub(crate) fn part(&self, origin: Instant) -> Result<Handle, ConfigError> {
        let shared = self.shared(origin)?;
        Ok(Handle { shared, cost: One })
    }
}

impl<Q, K> Config<Q, K> {
    /// Sets the rate, in place of the one that the configuration was made with.
    pub fn rate(mut self, rate: Rate) -> Self {
        self.settings.rate = rate;
        self
    }

    /// Sets the burst: the greatest number of tokens, and so the number of calls that may pass at once after a pause.
    /// At least 1, and at most the tokens of 365 days. By default the tokens of a tenth of a second, at least 1.
    pub fn burst(mut self, tokens: u32) -> Self {
        self.settings.burst = Some(tokens);
        self
    }

    /// Sets the longest time for which a call waits for its turn. Off by default: calls above the rate are rejected.
    ///
    /// A call whose turn cannot come within this time, or before its [deadline](crate::Deadline), is rejected at once.
    /// At a cost of one, the number of waiting calls never exceeds the tokens of this time.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.settings.max_wait = Some(wait);
        self
    }

    /// Declares that all calls of this layer share one quota, as with the key of a third party. An answer
    /// [`Outcome::Throttled`](crate::Outcome::Throttled) with a time to stay away (429, `RESOURCE_EXHAUSTED`) then
    /// pauses all of them. By default the answer concerns only its own request, because other tenants may have quotas
    /// of their own.
    ///
    /// Set the limit below the quota then. A limit above the quota pauses all calls again and again: of 150 calls a
    /// second to a quota of 100 that answers with `Retry-After: 1`, 17 % succeed with a limit of 150, 63 % with a limit
    /// of 95, and 67 % without `one_quota`.
    pub fn one_quota(mut self) -> Self {
        self.settings.one_quota = true;
        self
    }

    /// Sets the longest time for which a service can ask callers to stay away with
    /// [`Outcome::Overload`](crate::Outcome::Overload). 60 s by default.
    pub fn max_retry_after(mut self, most: Duration) -> Self {
        self.settings.max_retry_after = most;
        self
    }

    /// Sets whether calls stay away for the time that the service asks for. By default they do, if a
    /// [classifier](Self::classify) finds that time.
    pub fn respect_retry_after(mut self, respect: bool) -> Self {
        self.settings.respects_retry_after = respect;
        self
    }

    /// Sets whether calls wait and are rejected, or are only observed. [`Mode::Enforce`] by default.
    ///
    /// While the limit only observes, a call that would wait passes at once and counts as admitted. It takes the tokens
    /// for which it would have waited.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.settings.mode = mode;
        self
    }

    /// Takes the cost of each request from `cost`: a closure `|request: &Req| -> u32`. By default each request costs 1.
    pub fn cost<Q2>(self, cost: Q2) -> Config<Q2, K> {
        self.with_request(cost)
    }

    /// Returns the number of calls that can pass in this time.
    pub(crate) fn most_in(&self, span: Duration) -> f64 {
        let Limits { rate, burst } = self.settings.limits();
        f64::from(burst) + rate.calls_in(span)
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
        let origin = Instant::now();
        let shared = self.shared(origin)?;
        let name = shared.shown.series.name();
        Ok(self.part_layer(name, origin, |cost| Handle { shared, cost }))
    }

    fn shared(&self, origin: Instant) -> Result<Arc<Shared>, ConfigError> {
        let check = Check::new("rate limit", &self.name)?;
        let settings = self.settings.clone();
        settings.check(check)?;
        let metrics = Series::of(&self.name, "rate_limit");
        let report = Report::new(metrics, self.listener.clone());
        Ok(Arc::new(Shared::new(settings, origin, report)))
    }
}
