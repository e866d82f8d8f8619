//! Settings of the standard stack.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::layer::{StandardLayer, StandardPlan};
use crate::bulkhead::{self, BulkheadLayer};
use crate::chassis::{Core, Limit, OperationLayer, Recipe};
use crate::error::Check;
use crate::measure::Meter;
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
#[derive(Clone, PartialEq)]
#[must_use = "call `build` to make the layer"]
pub struct Standard<R = ByClone, K = ErrorsAreFailures, C = CompleteOnResponse> {
    name: String,
    parts: Parts,
    replay: R,
    classify: K,
    completion: C,
}

#[derive(Clone, Debug, PartialEq)]
struct Parts {
    measured: bool,
    deadline: Option<Duration>,
    retry: Option<retry::Config>,
    hedge: Option<hedge::Config>,
    breaker: Option<circuit_breaker::Config>,
    rate_limit: Option<rate_limit::Config>,
    concurrency: Concurrency,
    timeout: Timeout,
    budget: Option<Budget>,
    seed: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timeout {
    /// Nobody has said anything about it.
    Unset,
    Unlimited,
    After(Duration),
}

#[derive(Clone, Debug, PartialEq)]
enum Concurrency {
    /// Nobody has said anything about it.
    Unset,
    Unlimited,
    Limited(bulkhead::Config),
}

impl Standard {
    pub(super) fn new(name: String) -> Self {
        Self {
            parts: Parts {
                measured: true,
                deadline: Some(DEADLINE),
                retry: Some(RetryLayer::config(name.clone())),
                hedge: None,
                breaker: Some(CircuitBreakerLayer::config(name.clone())),
                rate_limit: None,
                concurrency: Concurrency::Unset,
                timeout: Timeout::Unset,
                budget: None,
                seed: None,
            },
            name,
            replay: ByClone,
            classify: ErrorsAreFailures,
            completion: CompleteOnResponse,
        }
    }
}

impl<R, K, C> Standard<R, K, C> {
    /// Sets the time of one attempt. By default 2 s, or 0.45 of the deadline if that is less.
    ///
    /// Somewhat longer than the slowest of a thousand calls takes while all is well.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.parts.timeout = Timeout::After(timeout);
        self
    }

    /// Attempts may take as long as the deadline allows.
    pub fn no_timeout(mut self) -> Self {
        self.parts.timeout = Timeout::Unlimited;
        self
    }

    /// Sets the time of the whole operation, all attempts and waits included. 10 s by default.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.parts.deadline = Some(deadline);
        self
    }

    /// Operations have no deadline of their own. One that the caller has set is kept.
    pub fn no_deadline(mut self) -> Self {
        self.parts.deadline = None;
        self
    }

    /// Changes the settings of retry.
    pub fn retry(mut self, change: impl FnOnce(retry::Config) -> retry::Config) -> Self {
        let config = self.parts.retry;
        let config = config.unwrap_or_else(|| RetryLayer::config(self.name.clone()));
        self.parts.retry = Some(change(config));
        self
    }

    /// Failed attempts are not made again; unless there is a hedge, which then makes another one at once.
    pub fn no_retry(mut self) -> Self {
        self.parts.retry = None;
        self
    }

    /// Sends a copy of what takes too long. Off by default: `.hedge(|hedge| hedge)` turns it on as it is.
    pub fn hedge(mut self, change: impl FnOnce(hedge::Config) -> hedge::Config) -> Self {
        let config = self.parts.hedge;
        let config = config.unwrap_or_else(|| HedgeLayer::config(self.name.clone()));
        self.parts.hedge = Some(change(config));
        self
    }

    /// Sends no copies, which is the default.
    pub fn no_hedge(mut self) -> Self {
        self.parts.hedge = None;
        self
    }

    /// Changes the settings of the circuit breaker.
    pub fn circuit_breaker(
        mut self,
        change: impl FnOnce(circuit_breaker::Config) -> circuit_breaker::Config,
    ) -> Self {
        let config = self.parts.breaker;
        let config = config.unwrap_or_else(|| CircuitBreakerLayer::config(self.name.clone()));
        self.parts.breaker = Some(change(config));
        self
    }

    /// There is no circuit breaker.
    pub fn no_circuit_breaker(mut self) -> Self {
        self.parts.breaker = None;
        self
    }

    /// Keeps attempts to a rate. Off by default. `.rate_limit(rate, |limit| limit)` takes the other settings as
    /// they are.
    ///
    /// If the [classifier](Self::classify) reports an overload with a time to stay away, as that of an answer 429, no
    /// call passes until then. A burst that is larger than the bulkhead and its queue is rejected there.
    pub fn rate_limit(
        mut self,
        rate: Rate,
        change: impl FnOnce(rate_limit::Config) -> rate_limit::Config,
    ) -> Self {
        let config = RateLimitLayer::config(self.name.clone(), rate);
        self.parts.rate_limit = Some(change(config));
        self
    }

    /// Keeps to no rate, which is the default.
    pub fn no_rate_limit(mut self) -> Self {
        self.parts.rate_limit = None;
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
        let config = BulkheadLayer::config(self.name.clone(), limit);
        self.parts.concurrency = Concurrency::Limited(change(config));
        self
    }

    /// Any number of attempts may be in flight. Nothing else in the stack protects a service that is
    /// overloaded.
    pub fn unlimited(mut self) -> Self {
        self.parts.concurrency = Concurrency::Unlimited;
        self
    }

    /// Operations and attempts are neither counted nor timed.
    pub fn no_measure(mut self) -> Self {
        self.parts.measured = false;
        self
    }

    /// Pays retries and hedges from `budget`, which other clients of the dependency may use as well. By
    /// default from one of the stack's own.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.parts.budget = Some(budget.clone());
        self
    }

    /// Makes the waits of retry and the open times of the circuit breaker repeat exactly. By default they are
    /// seeded by the operating system.
    pub fn seed(mut self, seed: u64) -> Self {
        self.parts.seed = Some(seed);
        self
    }

    /// Copies requests with `replay`: a closure `|request: &Req| -> Option<Req>`, or a type of your own.
    /// By default with `Clone`.
    pub fn replay<R2>(self, replay: R2) -> Standard<R2, K, C> {
        Standard {
            name: self.name,
            parts: self.parts,
            replay,
            classify: self.classify,
            completion: self.completion,
        }
    }

    /// Classifies calls with `classify`, in all parts: a type of your own, a function, or a closure that names the type of its
    /// argument, `|result: Result<&Answer, &Error>|`. By default errors are failures.
    pub fn classify<K2>(self, classify: K2) -> Standard<R, K2, C> {
        Standard {
            name: self.name,
            parts: self.parts,
            replay: self.replay,
            classify,
            completion: self.completion,
        }
    }

    /// Sets when an attempt is over. By default when the inner service has returned its response.
    pub fn completion<C2>(self, completion: C2) -> Standard<R, K, C2> {
        Standard {
            name: self.name,
            parts: self.parts,
            replay: self.replay,
            classify: self.classify,
            completion,
        }
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If the name is empty, a value is outside its range, or two parts contradict each other. The error
    /// names both.
    pub fn build(self) -> Result<StandardLayer<R, K, C>, ConfigError> {
        let (name, parts) = (self.name.as_str(), self.parts);
        let check = Check::new("standard stack", name)?;
        parts.check_alone(check)?;
        let origin = Instant::now();
        let budget = match &parts.budget {
            Some(budget) => budget.clone(),
            None => Budget::config(name).build()?,
        };
        let retry = parts.retry.clone().map(|config| {
            let config = config.default_budget(&budget);
            let config = match parts.seed {
                Some(seed) => config.seed(seed),
                None => config,
            };
            config.repeat()
        });
        let hedge = parts.hedge.clone();
        let hedge = hedge.map(|config| config.default_budget(&budget).shared());
        let breaker = parts.breaker.clone().map(|config| {
            let config = config.attempt_timeout(parts.timeout());
            match parts.seed {
                // Not the same draws as those of retry.
                Some(seed) => config.seed(seed.wrapping_add(1)).part(origin),
                None => config.part(origin),
            }
        });
        let rate_limit = parts.rate_limit.clone();
        // In a stack, the classifier may say that the service has asked callers to stay away.
        let rate_limit = rate_limit.map(|config| config.classify(()).part(origin));
        let bulkhead = match &parts.concurrency {
            Concurrency::Limited(config) => Some(config.part(origin, parts.timeout())?),
            Concurrency::Unlimited | Concurrency::Unset => None,
        };
        let limit = |time, part| Limit {
            time,
            metrics: Series::of(name, part),
        };
        let plan = StandardPlan {
            deadline: limit(parts.deadline.unwrap_or(Duration::MAX), "deadline"),
            retry: retry.transpose()?,
            hedge: hedge.transpose()?,
            timeout: parts.timeout().map(|time| limit(time, "timeout")),
            budget,
        };
        let meter = |meter: fn(&str) -> Meter| parts.measured.then(|| meter(name));
        let attempt = (
            breaker.transpose()?,
            (rate_limit.transpose()?, (bulkhead, meter(Meter::attempt))),
        );
        let operation = meter(Meter::operation);
        // Last, because a part knows best what is wrong with itself.
        parts.check_together(check)?;
        let recipe = Recipe {
            core: Core::new(plan.deadline.metrics.name(), origin, operation, attempt),
            plan,
            replay: self.replay,
            classify: self.classify,
        };
        Ok(OperationLayer::of(recipe, self.completion))
    }
}

impl Parts {
    /// Refuses what is missing, and times that are out of range.
    fn check_alone(&self, check: Check<'_>) -> Result<(), ConfigError> {
        check.that(
            self.concurrency != Concurrency::Unset,
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
        match (self.timeout, self.deadline) {
            (Timeout::After(timeout), _) => Some(timeout),
            (Timeout::Unlimited, _) => None,
            (Timeout::Unset, Some(deadline)) => {
                Some(TIMEOUT.min(deadline.mul_f64(SHARE_OF_DEADLINE)))
            }
            (Timeout::Unset, None) => Some(TIMEOUT),
        }
    }

    /// Refuses parts that cannot do their work beside each other.
    fn check_together(&self, check: Check<'_>) -> Result<(), ConfigError> {
        if let Some(deadline) = self.deadline {
            let mut waits = vec![("timeout", self.timeout())];
            if let Some(limit) = &self.rate_limit {
                waits.push(("rate limit max_wait", limit.longest_wait()));
            }
            if let Concurrency::Limited(bulkhead) = &self.concurrency {
                waits.push(("bulkhead queue_wait", bulkhead.longest_wait()));
            }
            for (field, wait) in waits {
                let permitted = || format!("less than the deadline of {deadline:?}");
                if let Some(wait) = wait.filter(|wait| *wait >= deadline) {
                    check.that(false, field, &wait, permitted())?;
                }
            }
        }
        self.check_attempt(check)
    }

    /// Refuses settings of parts that would come into effect only after an attempt has ended.
    fn check_attempt(&self, check: Check<'_>) -> Result<(), ConfigError> {
        let end = match (self.timeout(), self.deadline) {
            (Some(timeout), _) => Some((timeout, "timeout")),
            (None, Some(deadline)) => Some((deadline, "deadline")),
            (None, None) => None,
        };
        if let Some((end, what)) = end {
            let less = || format!("less than the {what} of {end:?}");
            if let Some(delay) = self.hedge.as_ref().and_then(hedge::Config::fixed_delay) {
                check.that(delay < end, "hedge delay", &delay, less())?;
            }
            let breaker = self.breaker.as_ref();
            let slow = breaker.and_then(circuit_breaker::Config::slow_calls_longer_than);
            if let Some(slow) = slow {
                check.that(slow < end, "circuit breaker slow_calls", &slow, less())?;
            }
        }
        let Some((breaker, window)) = self
            .breaker
            .as_ref()
            .and_then(|b| Some((b, b.time_window()?)))
        else {
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

impl<R, K, C> fmt::Debug for Standard<R, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standard")
            .field("name", &self.name)
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}
