//! Settings of retry.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::layer::{RetryLayer, RetryPlan};
use crate::algorithm::retry;
use crate::chassis::{Choice, Core, LayerConfig, Repeat};
use crate::error::Check;
use crate::random::Random;
use crate::sync::Mutex;
use crate::telemetry::{Report, Series};
use crate::{Backoff, Budget, ByClone, ConfigError, ErrorsAreFailures, budget};

/// Two retries outlast most short faults; more retries add load without effect.
const MAX_ATTEMPTS: u32 = 3;
/// The wait before the first retry is half of this on average: longer than a very short fault, and too short for a user
/// to notice.
const BASE: Duration = Duration::from_millis(50);
const CAP: Duration = Duration::from_secs(2);
/// After an overload the service needs time, not another call.
const OVERLOAD_BASE: Duration = Duration::from_secs(1);
const OVERLOAD_CAP: Duration = Duration::from_secs(20);
/// The windows of most quotas are a minute or shorter, and few callers wait for longer.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// The settings of a [`RetryLayer`]. Made by [`RetryLayer::config`].
pub type Config<R = ByClone, K = ErrorsAreFailures> = LayerConfig<Settings, R, K>;

/// The settings of a retry in a [`Config`].
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    retry: retry::Settings,
    /// By default the layer makes a budget of its own.
    budget: Choice<Budget>,
    pub(crate) seed: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            retry: retry::Settings {
                max_attempts: MAX_ATTEMPTS,
                backoff: Backoff::exponential(BASE, CAP),
                overload_backoff: Backoff::exponential(OVERLOAD_BASE, OVERLOAD_CAP),
                max_retry_after: MAX_RETRY_AFTER,
                retry_rejections: false,
                retry_nested: false,
            },
            budget: Choice::Default,
            seed: None,
        }
    }
}

impl<R, K> Config<R, K> {
    /// Sets the total number of attempts, the first one included; 1 to 10,000. 3 by default.
    ///
    /// The first operation of a new process can make all attempts. Later the [budget](crate::budget) may permit fewer.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.settings.retry.max_attempts = attempts;
        self
    }

    /// Sets the wait after a failure. Exponential from 50 ms to 2 s by default.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.retry.backoff = backoff;
        self
    }

    /// Sets the wait after an overload. Exponential from 1 s to 20 s by default.
    pub fn overload_backoff(mut self, backoff: Backoff) -> Self {
        self.settings.retry.overload_backoff = backoff;
        self
    }

    /// Sets the longest wait that a service can ask for, above 0. 60 s by default.
    ///
    /// If the service asks for a longer wait, there is no further attempt: an earlier one would be in vain.
    pub fn max_retry_after(mut self, longest: Duration) -> Self {
        self.settings.retry.max_retry_after = longest;
        self
    }

    /// Sets the budget that pays for retries. Other layers may share it. By default the layer makes a budget of its
    /// own.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.settings.budget = Choice::Set(budget.clone());
        self
    }

    /// Retries without a budget.
    ///
    /// Use it only where retries cannot make an outage worse, as with writers that collide. Otherwise three attempts,
    /// for example, triple the load of a service that is down.
    pub fn no_budget(mut self) -> Self {
        self.settings.budget = Choice::Off;
        self
    }

    /// Sets whether rejections by inner layers are retried as well. Off by default, because an open circuit breaker is
    /// still open after a short wait.
    pub fn retry_rejections(mut self, retry: bool) -> Self {
        self.settings.retry.retry_rejections = retry;
        self
    }

    /// Sets whether the layer also retries within an attempt of an outer retry. Off by default, because attempts would
    /// multiply.
    pub fn retry_nested(mut self, retry: bool) -> Self {
        self.settings.retry.retry_nested = retry;
        self
    }

    /// Sets the seed of the waits, so that they repeat exactly. By default the operating system gives the seed.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }

    /// Sets the policy that copies requests: a closure `|request: &Req| -> Option<Req>`, or a type of your own. By
    /// default requests are copied with `Clone`.
    pub fn replay<R2>(self, replay: R2) -> Config<R2, K> {
        self.with_request(replay)
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If the name is empty or a value is outside its range.
    pub fn build(self) -> Result<RetryLayer<R, K>, ConfigError> {
        let repeat = self.repeat(|| Budget::config(&self.name).build())?;
        let core = Core::new(repeat.metrics.name(), Instant::now(), (), ());
        Ok(self.operation_layer(core, |_| RetryPlan(repeat)))
    }

    /// Returns the settings of the decision, whose values are in range.
    pub(crate) fn checked(&self) -> Result<retry::Settings, ConfigError> {
        let check = Check::new("retry", &self.name)?;
        let settings = self.settings.retry.clone();
        check.count("max_attempts", settings.max_attempts, 10_000, "1 to 10000")?;
        settings.backoff.check(check, "backoff")?;
        settings.overload_backoff.check(check, "overload_backoff")?;
        check.duration("max_retry_after", settings.max_retry_after)?;
        Ok(settings)
    }

    /// Makes the [`Repeat`], which decides about further attempts. `budget` pays for them unless another budget is set.
    pub(crate) fn repeat(
        &self,
        budget: impl FnOnce() -> Result<Budget, ConfigError>,
    ) -> Result<Repeat, ConfigError> {
        let settings = self.checked()?;
        let budget = match &self.settings.budget {
            Choice::Default => Some(budget()?),
            Choice::Set(budget) => Some(budget.clone()),
            Choice::Off => None,
        };
        if let Some(budget) = &budget {
            // The first operation of a new process may make all its attempts, also after overloads.
            budget.raise_initial((settings.max_attempts - 1) * budget::RETRY_AFTER_OVERLOAD);
        }
        Ok(Repeat {
            max_attempts: settings.max_attempts,
            retry_nested: settings.retry_nested,
            settings: Arc::new(Mutex::new(settings)),
            budget,
            random: Random::new(self.settings.seed),
            metrics: Report::new(Series::of_retry(&self.name), self.listener.clone()),
        })
    }
}
