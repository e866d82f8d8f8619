//! Settings of the standard stack.

use std::time::Duration;

use tokio::time::Instant;

use super::layer::{StandardLayer, StandardPlan};
use crate::bulkhead::{self, BulkheadLayer};
use crate::chassis::{Choice, Core, LayerConfig, Limit};
use crate::error::Check;
use crate::measure::{ATTEMPT, Meter, OPERATION};
use crate::rate_limit::{self, Rate, RateLimitLayer};
use crate::telemetry::Series;
use crate::{
    Budget, ByClone, CircuitBreakerLayer, CompleteOnResponse, ConfigError, ErrorsAreFailures,
    HedgeLayer, RetryLayer, circuit_breaker, hedge, retry,
};

/// Longer than a healthy service takes for nearly any call.
const TIMEOUT: Duration = Duration::from_secs(2);
/// At most this share of the deadline, so that two attempts that time out fit before it, and the wait between them.
const SHARE_OF_DEADLINE: f64 = 0.45;
/// Three attempts that time out, and the waits between them.
const DEADLINE: Duration = Duration::from_secs(10);

/// The settings of a standard stack. Made by [`standard`](super::standard).
///
/// The parts are configured through closures: `.retry(|retry| retry.max_attempts(2))`.
pub type Standard<R = ByClone, K = ErrorsAreFailures, C = CompleteOnResponse> =
    LayerConfig<Settings, R, K, C>;

/// The settings of a standard stack, as they are in a [`Standard`].
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    is_measured: bool,
    deadline: Option<Duration>,
    retry: Option<retry::Config>,
    hedge: Option<hedge::Config>,
    breaker: Option<circuit_breaker::Config>,
    rate_limit: Option<rate_limit::Config>,
    bulkhead: Choice<bulkhead::Config>,
    timeout: Choice<Duration>,
    budget: Option<Budget>,
    one_quota: bool,
    seed: Option<u64>,
}

impl Settings {
    pub(super) fn new(name: &str) -> Self {
        Self {
            is_measured: true,
            deadline: Some(DEADLINE),
            retry: Some(RetryLayer::config(name)),
            hedge: None,
            breaker: Some(CircuitBreakerLayer::config(name)),
            rate_limit: None,
            bulkhead: Choice::Default,
            timeout: Choice::Default,
            budget: None,
            one_quota: false,
            seed: None,
        }
    }
}

impl<R, K, C> Standard<R, K, C> {
    /// Sets the time of one attempt. By default 2 s, or 0.45 of the deadline if that is less.
    ///
    /// Somewhat longer than the slowest of a thousand calls takes while all is well. An upload does not count if its body tells
    /// its [progress](crate::Upload).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Choice::Set(timeout);
        self
    }

    /// Attempts may take as long as the deadline allows.
    pub fn no_timeout(mut self) -> Self {
        self.settings.timeout = Choice::Off;
        self
    }

    /// Sets the time of the whole operation, all attempts and waits included. 10 s by default.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = Some(deadline);
        self
    }

    /// Operations have no deadline of their own. One that the caller has set is kept.
    pub fn no_deadline(mut self) -> Self {
        self.settings.deadline = None;
        self
    }

    /// Changes the settings of retry.
    pub fn retry(mut self, change: impl FnOnce(retry::Config) -> retry::Config) -> Self {
        let config = self.settings.retry;
        let config = config.unwrap_or_else(|| RetryLayer::config(&self.name));
        self.settings.retry = Some(change(config));
        self
    }

    /// Failed attempts are not made again; unless there is a hedge, which then makes another one at once.
    pub fn no_retry(mut self) -> Self {
        self.settings.retry = None;
        self
    }

    /// Sends a copy of what takes too long. Off by default: `.hedge(|hedge| hedge)` turns it on as it is.
    pub fn hedge(mut self, change: impl FnOnce(hedge::Config) -> hedge::Config) -> Self {
        let config = self.settings.hedge;
        let config = config.unwrap_or_else(|| HedgeLayer::config(&self.name));
        self.settings.hedge = Some(change(config));
        self
    }

    /// Sends no copies, which is the default.
    pub fn no_hedge(mut self) -> Self {
        self.settings.hedge = None;
        self
    }

    /// Changes the settings of the circuit breaker.
    pub fn circuit_breaker(
        mut self,
        change: impl FnOnce(circuit_breaker::Config) -> circuit_breaker::Config,
    ) -> Self {
        let config = self.settings.breaker;
        let config = config.unwrap_or_else(|| CircuitBreakerLayer::config(&self.name));
        self.settings.breaker = Some(change(config));
        self
    }

    /// There is no circuit breaker.
    pub fn no_circuit_breaker(mut self) -> Self {
        self.settings.breaker = None;
        self
    }

    /// Keeps attempts to a rate. Off by default. `.rate_limit(rate, |limit| limit)` takes the other settings as
    /// they are.
    ///
    /// If the [classifier](Self::classify) reports an overload with a time to stay away, as that of an answer 503, no
    /// call passes until then; see also [`one_quota`](Self::one_quota). A burst that is larger than the bulkhead and its queue is rejected there.
    pub fn rate_limit(
        mut self,
        rate: Rate,
        change: impl FnOnce(rate_limit::Config) -> rate_limit::Config,
    ) -> Self {
        let config = RateLimitLayer::config(&self.name, rate);
        self.settings.rate_limit = Some(change(config));
        self
    }

    /// Keeps to no rate, which is the default.
    pub fn no_rate_limit(mut self) -> Self {
        self.settings.rate_limit = None;
        self
    }

    /// Sets the number of attempts that may be in flight at once: a number from 1 to 1,000,000, or an adaptive limit. Those
    /// beyond it are rejected.
    ///
    /// Either this, [`bulkhead`](Self::bulkhead) or [`unlimited`](Self::unlimited) has to be said.
    pub fn concurrency_limit(self, limit: impl Into<bulkhead::Limit>) -> Self {
        self.bulkhead(limit, |bulkhead| bulkhead)
    }

    /// Limits how many attempts may be in flight at once, with more settings: `.bulkhead(50, |bulkhead| bulkhead.queue(100))`.
    pub fn bulkhead(
        mut self,
        limit: impl Into<bulkhead::Limit>,
        change: impl FnOnce(bulkhead::Config) -> bulkhead::Config,
    ) -> Self {
        let config = BulkheadLayer::config(&self.name, limit);
        self.settings.bulkhead = Choice::Set(change(config));
        self
    }

    /// Any number of attempts may be in flight. Nothing else in the stack protects a service that is
    /// overloaded.
    pub fn unlimited(mut self) -> Self {
        self.settings.bulkhead = Choice::Off;
        self
    }

    /// Operations and attempts are neither counted nor timed.
    pub fn no_measure(mut self) -> Self {
        self.settings.is_measured = false;
        self
    }

    /// Pays retries and hedges from `budget`, which other clients of the dependency may use as well. By
    /// default from one of the stack's own.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.settings.budget = Some(budget.clone());
        self
    }

    /// Takes all calls through the stack for those of one caller, as with the key of a third party.
    ///
    /// An answer that says that the caller has used up its quota (429, `RESOURCE_EXHAUSTED`) then pauses the rate limit for
    /// the time that the service asks for, and shrinks an adaptive concurrency limit. By default it concerns the request that
    /// got it alone, because others may be for tenants with quotas of their own.
    pub fn one_quota(mut self) -> Self {
        self.settings.one_quota = true;
        self
    }

    /// Makes the waits of retry and the open times of the circuit breaker repeat exactly. By default they are
    /// seeded by the operating system.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }

    /// Copies requests with `replay`: a closure `|request: &Req| -> Option<Req>`, or a type of your own.
    /// By default with `Clone`.
    pub fn replay<R2>(self, replay: R2) -> Standard<R2, K, C> {
        self.with_request(replay)
    }

    /// Sets when an attempt is over. By default when the inner service has returned its response.
    pub fn completion<C2>(self, completion: C2) -> Standard<R, K, C2> {
        self.with_completion(completion)
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If the name is empty, a value is outside its range, or two parts contradict each other. The error
    /// names both.
    pub fn build(self) -> Result<StandardLayer<R, K, C>, ConfigError> {
        let (name, settings) = (self.name.as_str(), &self.settings);
        let check = Check::new("standard stack", name)?;
        settings.check_alone(check)?;
        let origin = Instant::now();
        let budget = settings.budget.clone();
        let budget = budget.map_or_else(|| Budget::config(name).build(), Ok)?;
        let retry = settings.retry.clone().map(|mut retry| {
            retry.settings.seed = settings.seed.or(retry.settings.seed);
            retry.repeat(|| Ok(budget.clone()))
        });
        let hedge = settings.hedge.as_ref();
        let hedge = hedge.map(|hedge| hedge.shared(Some(&budget)));
        let timeout = settings.timeout();
        let breaker = settings.breaker.clone().map(|mut breaker| {
            // Not the same draws as those of retry.
            let seed = settings.seed.map(|seed| seed.wrapping_add(1));
            breaker.settings.seed = seed.or(breaker.settings.seed);
            breaker.attempt_timeout(timeout).part(origin)
        });
        let rate_limit = settings.rate_limit.clone().map(|mut limit| {
            limit.settings.one_quota |= settings.one_quota;
            limit.part(origin)
        });
        let bulkhead = settings.bulkhead.value().cloned().map(|mut bulkhead| {
            bulkhead.settings.one_quota |= settings.one_quota;
            bulkhead.part(origin, timeout)
        });
        let limit = |time, part| Limit {
            time,
            metrics: Series::of(name, part),
        };
        let plan = StandardPlan {
            deadline: limit(settings.deadline.unwrap_or(Duration::MAX), "deadline"),
            retry: retry.transpose()?,
            hedge: hedge.transpose()?,
            timeout: settings.timeout().map(|time| limit(time, "timeout")),
            budget,
        };
        let meter = |stage| settings.is_measured.then(|| Meter::new(name, stage));
        let attempt = (
            breaker.transpose()?,
            (
                rate_limit.transpose()?,
                (bulkhead.transpose()?, meter(ATTEMPT)),
            ),
        );
        let operation = meter(OPERATION);
        // Last, because a part knows best what is wrong with itself.
        settings.check_together(check)?;
        let core = Core::new(plan.deadline.metrics.name(), origin, operation, attempt);
        Ok(self.operation_layer(core, plan))
    }
}

impl Settings {
    /// Refuses what is missing, and times that are out of range.
    fn check_alone(&self, check: Check<'_>) -> Result<(), ConfigError> {
        check.that(
            self.bulkhead != Choice::Default,
            "concurrency_limit",
            &format_args!("not set"),
            "a number of calls, or `unlimited()`",
        )?;
        let is_in_range =
            |field, time: Option<Duration>| time.map_or(Ok(()), |time| check.duration(field, time));
        is_in_range("deadline", self.deadline)?;
        is_in_range("timeout", self.timeout())
    }

    /// Returns the time of one attempt.
    fn timeout(&self) -> Option<Duration> {
        if self.timeout != Choice::Default {
            return self.timeout.value().copied();
        }
        let share = |deadline: Duration| deadline.mul_f64(SHARE_OF_DEADLINE);
        Some(self.deadline.map_or(TIMEOUT, |all| TIMEOUT.min(share(all))))
    }

    /// Refuses parts that cannot do their work beside each other, and settings that would come into effect only after an
    /// attempt has ended.
    fn check_together(&self, check: Check<'_>) -> Result<(), ConfigError> {
        let breaker = self.breaker.as_ref();
        let max_wait = self.rate_limit.as_ref();
        let max_wait = max_wait.and_then(rate_limit::Config::longest_wait);
        let queue_wait = self.bulkhead.value();
        let queue_wait = queue_wait.and_then(bulkhead::Config::longest_wait);
        let delay = self.hedge.as_ref().and_then(hedge::Config::fixed_delay);
        let slow = breaker.and_then(circuit_breaker::Config::slow_calls_longer_than);
        let deadline = self.deadline.map(|deadline| (deadline, "deadline"));
        let timeout = self.timeout().map(|timeout| (timeout, "timeout"));
        for (field, time, end) in [
            ("timeout", self.timeout(), deadline),
            ("rate limit max_wait", max_wait, deadline),
            ("bulkhead queue_wait", queue_wait, deadline),
            ("hedge delay", delay, timeout.or(deadline)),
            ("circuit breaker slow_calls", slow, timeout.or(deadline)),
        ] {
            let (Some(time), Some((end, what))) = (time, end) else {
                continue;
            };
            let permitted = format!("less than the {what} of {end:?}");
            check.that(time < end, field, &time, permitted)?;
        }
        let Some((breaker, window)) = breaker.and_then(|b| Some((b, b.time_window()?))) else {
            return Ok(());
        };
        if let Some(timeout) = self.timeout() {
            let twice = format!("at least twice the timeout of {timeout:?}");
            let is_enough = window >= timeout.saturating_mul(2);
            check.that(is_enough, "circuit breaker window", &window, twice)?;
        }
        if let (Some(limit), Some(needed)) = (&self.rate_limit, breaker.calls_needed()) {
            let most = limit.most_in(window);
            let permitted = format!(
                "at most the {most:.0} calls that the rate limit lets through in a window of {window:?}"
            );
            let field = "circuit breaker min_calls";
            check.that(f64::from(needed) <= most, field, &needed, permitted)?;
        }
        Ok(())
    }
}
