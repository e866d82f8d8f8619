//! Settings of the standard stack.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::adjust::Adjustable;
use super::layer::{StandardLayer, StandardPlan};
use super::streams::NoStreams;
use crate::bulkhead::{self, BulkheadLayer};
use crate::chassis::{Choice, Core, LayerConfig, Limit};
use crate::debug::debug_fields;
use crate::error::Check;
use crate::hints::CallBuildFirst;
use crate::measure::{ATTEMPT, Meter, OPERATION};
use crate::rate_limit::{self, Rate, RateLimitLayer};
use crate::telemetry::{Report, Series};
use crate::{
    Budget, ByClone, CircuitBreakerLayer, CompleteOnResponse, ConfigError, ErrorsAreFailures,
    HedgeLayer, Mode, RetryLayer, circuit_breaker, drain, hedge, retry, settings,
};

/// Longer than nearly any call to a healthy service.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The greatest share of the time of all attempts, which leaves time for two attempts that time out and the wait
/// between them.
const SHARE_OF_ALL: f64 = 0.45;
/// Time for three attempts that time out, and the waits between them.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The settings of a standard stack. Made by [`standard`](super::standard).
///
/// The parts are configured through closures: `.retry(|retry| retry.max_attempts(2))`.
pub type Standard<
    R = ByClone,
    K = ErrorsAreFailures,
    C = CompleteOnResponse,
    D = NoStreams,
    T = (),
> = LayerConfig<Settings<D, T>, R, K, C>;

/// The settings of a standard stack in a [`Standard`]. `D` declares streams. `T` has the settings of the layers inside
/// the stack, for a whole client.
#[derive(Clone, PartialEq)]
pub struct Settings<D = NoStreams, T = ()> {
    values: Values,
    streams: D,
    pub(crate) transport: T,
}

/// The settings that do not depend on the type of the requests.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a setting of its own"
)]
pub(super) struct Values {
    is_measured: bool,
    has_drain: bool,
    pub(super) deadline: Option<Duration>,
    response_timeout: Choice<Duration>,
    timeout_mode: Mode,
    pub(super) retry: Option<retry::Config>,
    pub(super) hedge: Option<hedge::Config>,
    pub(super) breaker: Option<circuit_breaker::Config>,
    /// `true` if no setter of the circuit breaker was called.
    has_default_breaker: bool,
    pub(super) rate_limit: Option<rate_limit::Config>,
    pub(super) bulkhead: Choice<bulkhead::Config>,
    timeout: Choice<Duration>,
    budget: Option<Budget>,
    one_quota: bool,
    seed: Option<u64>,
    /// Settings that replace those above when the layer is made.
    pub(super) overlay: settings::Stack,
}

debug_fields!([D, T] Settings<D, T> { values });

impl Settings {
    pub(super) fn new(name: &str) -> Self {
        let values = Values {
            is_measured: true,
            has_drain: false,
            deadline: None,
            response_timeout: Choice::Default,
            timeout_mode: Mode::Enforce,
            retry: Some(RetryLayer::config(name)),
            hedge: None,
            breaker: Some(CircuitBreakerLayer::config(name)),
            has_default_breaker: true,
            rate_limit: None,
            bulkhead: Choice::Default,
            timeout: Choice::Default,
            budget: None,
            one_quota: false,
            seed: None,
            overlay: settings::Stack::default(),
        };
        Self {
            values,
            streams: NoStreams,
            transport: (),
        }
    }
}

impl<D, T> Settings<D, T> {
    /// Leaves the circuit breaker out, unless it was set.
    #[cfg(feature = "http")]
    pub(crate) fn without_default_breaker(mut self) -> Self {
        if self.values.has_default_breaker {
            self.values.breaker = None;
        }
        self
    }

    /// Adds the settings of the layers inside the stack.
    #[cfg(feature = "http")]
    pub(crate) fn with_transport<T2>(self, transport: T2) -> Settings<D, T2> {
        Settings {
            values: self.values,
            streams: self.streams,
            transport,
        }
    }
}

impl<R, K, C, D, T> Standard<R, K, C, D, T> {
    /// Sets the time of one attempt, until the head of its answer. By default 2 s, or 0.45 of the deadline or of the
    /// response timeout if this is less.
    ///
    /// Set it to somewhat more than the slowest of a thousand calls to the healthy service. An upload does not count if
    /// its body reports its [progress](crate::Upload).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.values.timeout = Choice::Set(timeout);
        self
    }

    /// Sets whether the timeout ends attempts, or is only observed. [`Mode::Enforce`] by default.
    ///
    /// With [`Mode::Observe`], an attempt may take as long as the deadline and the response timeout permit. An attempt
    /// that exceeds the timeout is counted in `buttress_timeouts_total` with `mode="observe"` and causes an
    /// [event](crate::event). Copies that a hedge sends are not counted.
    pub fn timeout_mode(mut self, mode: Mode) -> Self {
        self.settings.values.timeout_mode = mode;
        self
    }

    /// Switches the timeout off: an attempt may take as long as the deadline and the response timeout permit.
    pub fn no_timeout(mut self) -> Self {
        self.settings.values.timeout = Choice::Off;
        self
    }

    /// Sets the time of the whole answer: all attempts, the waits between them, and the body with its trailers. Not set
    /// by default.
    ///
    /// It is the [deadline](crate::Deadline) of all inner calls, and a `PropagateDeadlineLayer` sends it to the server.
    /// A sooner inherited deadline replaces it. Without a [completion](Self::completion) that waits for the end of a
    /// body, it covers only the time to the response. It does not apply to declared [streams](Self::streaming).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.values.deadline = Some(deadline);
        self
    }

    /// Removes the deadline of the stack, which is the default. A deadline of the caller still applies.
    pub fn no_deadline(mut self) -> Self {
        self.settings.values.deadline = None;
        self
    }

    /// Sets the time of all attempts together, and of the waits between them, until the head of the answer. 10 s by
    /// default.
    ///
    /// It is private to the stack: neither inner services nor the server learn it.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.settings.values.response_timeout = Choice::Set(timeout);
        self
    }

    /// Switches the response timeout off: all attempts together may take as long as the deadline permits.
    pub fn no_response_timeout(mut self) -> Self {
        self.settings.values.response_timeout = Choice::Off;
        self
    }

    /// Declares the calls whose answers are streams, by a closure `|request: &Req| -> bool`, or a type of your own. By
    /// default none is.
    ///
    /// The [deadline](Self::deadline) of the stack does not apply to a stream. See [streams](crate::stack#streams).
    pub fn streaming<D2>(self, streams: D2) -> Standard<R, K, C, D2, T> {
        self.with_settings(|settings| Settings {
            values: settings.values,
            streams,
            transport: settings.transport,
        })
    }

    /// Changes the settings of retry.
    pub fn retry(mut self, change: impl FnOnce(retry::Config) -> retry::Config) -> Self {
        let config = self.settings.values.retry;
        let config = config.unwrap_or_else(|| RetryLayer::config(&self.name));
        self.settings.values.retry = Some(change(config));
        self
    }

    /// Switches retry off. With a hedge, the hedge still makes another attempt at once after a failure.
    pub fn no_retry(mut self) -> Self {
        self.settings.values.retry = None;
        self
    }

    /// Switches hedging on, which sends a copy of a slow request. Off by default. `.hedge(|hedge| hedge)` uses the
    /// default settings.
    pub fn hedge(mut self, change: impl FnOnce(hedge::Config) -> hedge::Config) -> Self {
        let config = self.settings.values.hedge;
        let config = config.unwrap_or_else(|| HedgeLayer::config(&self.name));
        self.settings.values.hedge = Some(change(config));
        self
    }

    /// Switches hedging off, which is the default.
    pub fn no_hedge(mut self) -> Self {
        self.settings.values.hedge = None;
        self
    }

    /// Changes the settings of the circuit breaker.
    pub fn circuit_breaker(
        mut self,
        change: impl FnOnce(circuit_breaker::Config) -> circuit_breaker::Config,
    ) -> Self {
        let config = self.settings.values.breaker;
        let config = config.unwrap_or_else(|| CircuitBreakerLayer::config(&self.name));
        self.settings.values.breaker = Some(change(config));
        self.settings.values.has_default_breaker = false;
        self
    }

    /// Leaves the circuit breaker out.
    pub fn no_circuit_breaker(mut self) -> Self {
        self.settings.values.breaker = None;
        self
    }

    /// Sets a rate limit for attempts. Off by default. `.rate_limit(rate, |limit| limit)` uses the default settings.
    ///
    /// If the [classifier](Self::classify) reports an overload with a time to stay away, such as a 503 with
    /// `Retry-After`, no call passes for this time; see also [`one_quota`](Self::one_quota). The bulkhead rejects calls
    /// of a burst that exceed its limit and its queue.
    pub fn rate_limit(
        mut self,
        rate: Rate,
        change: impl FnOnce(rate_limit::Config) -> rate_limit::Config,
    ) -> Self {
        let config = RateLimitLayer::config(&self.name, rate);
        self.settings.values.rate_limit = Some(change(config));
        self
    }

    /// Switches the rate limit off, which is the default.
    pub fn no_rate_limit(mut self) -> Self {
        self.settings.values.rate_limit = None;
        self
    }

    /// Sets the number of attempts that may be in flight at once: a number from 1 to 1,000,000, or an adaptive limit.
    /// Attempts beyond it are rejected.
    ///
    /// Set either this, [`bulkhead`](Self::bulkhead) or [`unlimited`](Self::unlimited).
    pub fn concurrency_limit(self, limit: impl Into<bulkhead::Limit>) -> Self {
        self.bulkhead(limit, |bulkhead| bulkhead)
    }

    /// Sets the number of attempts that may be in flight at once, with more settings: `.bulkhead(50, |bulkhead|
    /// bulkhead.queue(100))`.
    pub fn bulkhead(
        mut self,
        limit: impl Into<bulkhead::Limit>,
        change: impl FnOnce(bulkhead::Config) -> bulkhead::Config,
    ) -> Self {
        let config = BulkheadLayer::config(&self.name, limit);
        self.settings.values.bulkhead = Choice::Set(change(config));
        self
    }

    /// Permits any number of attempts in flight. No other part of the stack protects an overloaded service.
    pub fn unlimited(mut self) -> Self {
        self.settings.values.bulkhead = Choice::Off;
        self
    }

    /// Switches the metrics of operations and attempts off.
    pub fn no_measure(mut self) -> Self {
        self.settings.values.is_measured = false;
        self
    }

    /// Adds a [drain](crate::drain) to the stack, which [`Handle::drain`](super::Handle::drain) returns. Off by
    /// default.
    pub fn drain(mut self) -> Self {
        self.settings.values.has_drain = true;
        self
    }

    /// Sets the budget that pays for retries and hedges. Other clients of the dependency may share it. By default the
    /// stack makes a budget of its own.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.settings.values.budget = Some(budget.clone());
        self
    }

    /// Declares that all calls through the stack share one quota, as with the key of a third party.
    ///
    /// An answer that says that the caller has used up its quota (429, `RESOURCE_EXHAUSTED`) then pauses the rate limit
    /// for the time that the service asks for, and shrinks an adaptive concurrency limit. By default the answer
    /// concerns only its own request, because other tenants may have quotas of their own.
    pub fn one_quota(mut self) -> Self {
        self.settings.values.one_quota = true;
        self
    }

    /// Sets the seed of the waits of retry and the open times of the circuit breaker, so that they repeat exactly. By
    /// default the operating system gives the seed.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.values.seed = Some(seed);
        self
    }

    /// Sets the policy that copies requests: a closure `|request: &Req| -> Option<Req>`, or a type of your own. By
    /// default requests are copied with `Clone`.
    pub fn replay<R2>(self, replay: R2) -> Standard<R2, K, C, D, T> {
        self.with_request(replay)
    }

    /// Sets the end of an attempt. By default an attempt ends when the inner service has returned its response.
    pub fn completion<C2>(self, completion: C2) -> Standard<R, K, C2, D, T> {
        self.with_completion(completion)
    }

    /// Replaces the values that `settings` names, also those that the code sets after this call. The other values stay.
    /// See [`settings`](crate::settings).
    ///
    /// `build` returns an error if `settings` names a part that the stack does not have. A second call replaces the
    /// settings of the first one.
    pub fn settings(mut self, settings: &settings::Stack) -> Self {
        self.settings.values.overlay = settings.clone();
        self
    }

    /// Makes the layer.
    pub(crate) fn layer(mut self) -> Result<StandardLayer<R, K, C, D>, ConfigError>
    where
        D: Send + Sync + 'static,
    {
        let check = Check::new("standard stack", &self.name)?;
        let of_code = self.settings.values.clone();
        self.settings.values.apply_overlay(check)?;
        let (name, settings) = (self.name.as_str(), &self.settings.values);
        settings.check_alone(check)?;
        let listener = &self.listener;
        let origin = Instant::now();
        let budget = settings.budget.clone();
        let budget = budget.map_or_else(|| Budget::config(name).build(), Ok)?;
        let retry = settings.retry.clone().map(|mut retry| {
            retry.settings.seed = settings.seed.or(retry.settings.seed);
            retry.listener = retry.listener.or(listener);
            retry.repeat(|| Ok(budget.clone()))
        });
        let hedge = settings.hedge.as_ref();
        let hedge = hedge.map(|hedge| hedge.shared(Some(&budget), &hedge.listener.or(listener)));
        let timeout = settings.timeout();
        let breaker = settings.breaker.clone().map(|mut breaker| {
            // Different random numbers from retry.
            let seed = settings.seed.map(|seed| seed.wrapping_add(1));
            breaker.settings.seed = seed.or(breaker.settings.seed);
            breaker.listener = breaker.listener.or(listener);
            breaker.attempt_timeout(timeout).part(origin)
        });
        let rate_limit = settings.rate_limit.clone().map(|mut limit| {
            limit.settings.one_quota |= settings.one_quota;
            limit.listener = limit.listener.or(listener);
            limit.part(origin)
        });
        let bulkhead = settings.bulkhead.value().cloned().map(|mut bulkhead| {
            bulkhead.settings.one_quota |= settings.one_quota;
            bulkhead.listener = bulkhead.listener.or(listener);
            bulkhead.part(origin, timeout)
        });
        let limit = |time, part, mode| Limit {
            mode,
            metrics: Report::new(
                Series::of_time(name, part, time).counting(mode),
                listener.clone(),
            ),
        };
        let time = settings.deadline.unwrap_or(Duration::MAX);
        let metrics = Series::of_deadline(name, "deadline", time);
        let metrics = Report::new(metrics, listener.clone());
        let mode = Mode::Enforce;
        let deadline = Limit { mode, metrics };
        let response_timeout = settings.response_timeout();
        let response_timeout =
            response_timeout.map(|time| limit(time, "response_timeout", Mode::Enforce));
        let timeout = timeout.map(|time| limit(time, "timeout", settings.timeout_mode));
        let (retry, hedge) = (retry.transpose()?, hedge.transpose()?);
        let meter = |stage| settings.is_measured.then(|| Meter::new(name, stage));
        let attempt = (
            breaker.transpose()?,
            (
                rate_limit.transpose()?,
                (bulkhead.transpose()?, meter(ATTEMPT)),
            ),
        );
        let drain = settings
            .has_drain
            .then(|| drain::Handle::new(name, listener));
        let operation = (meter(OPERATION), drain);
        // Last, because the checks of a single part give better errors.
        settings.check_together(check)?;
        let core = Core::new(deadline.metrics.name(), origin, operation, attempt);
        let waits = retry.as_ref().map(|retry| Arc::clone(&retry.settings));
        let adjustable = Arc::new(Adjustable::new(of_code, settings.clone(), waits));
        Ok(self.operation_layer(core, |settings| StandardPlan {
            adjustable,
            deadline,
            response_timeout,
            retry,
            hedge,
            timeout,
            budget,
            streams: settings.streams,
        }))
    }
}

impl<R, K, C, D> Standard<R, K, C, D> {
    /// Is the method of the layer: the compiler tells that `build` must be called first.
    #[doc(hidden)]
    pub fn wrap<S>(self, service: S) -> S
    where
        for<'a> &'a Self: CallBuildFirst<S>,
    {
        CallBuildFirst::layer(&self, service)
    }
}

impl<R, K, C, D: Send + Sync + 'static> Standard<R, K, C, D> {
    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If the name is empty, a value is outside its range, or two parts contradict each other. The error
    /// names both.
    pub fn build(self) -> Result<StandardLayer<R, K, C, D>, ConfigError> {
        self.layer()
    }
}

impl Values {
    /// Replaces the values that the overlay names.
    pub(super) fn apply_overlay(&mut self, check: Check<'_>) -> Result<(), ConfigError> {
        let overlay = &self.overlay;
        self.deadline = overlay.deadline.or(self.deadline);
        if let Some(time) = overlay.response_timeout {
            self.response_timeout = Choice::Set(time);
        }
        if let Some(time) = overlay.timeout {
            self.timeout = Choice::Set(time);
        }
        if let Some(retry) = &overlay.retry {
            let config = part(check, "retry", self.retry.take())?;
            self.retry = Some(config.settings(retry));
        }
        if let Some(hedge) = &overlay.hedge {
            let config = part(check, "hedge", self.hedge.take())?;
            self.hedge = Some(config.settings(hedge));
        }
        if let Some(breaker) = &overlay.circuit_breaker {
            let config = part(check, "circuit_breaker", self.breaker.take())?;
            self.breaker = Some(config.settings(breaker));
        }
        if let Some(limit) = &overlay.rate_limit {
            let config = part(check, "rate_limit", self.rate_limit.take())?;
            self.rate_limit = Some(config.settings(limit));
        }
        if let Some(bulkhead) = &overlay.bulkhead {
            let config = part(check, "bulkhead", self.bulkhead.value().cloned())?;
            self.bulkhead = Choice::Set(config.settings(bulkhead));
        }
        Ok(())
    }

    /// Refuses missing settings, and times that are out of range.
    pub(super) fn check_alone(&self, check: Check<'_>) -> Result<(), ConfigError> {
        bulkhead::check_limit_is_chosen(&self.bulkhead, check)?;
        let is_in_range =
            |field, time: Option<Duration>| time.map_or(Ok(()), |time| check.duration(field, time));
        is_in_range("deadline", self.deadline)?;
        is_in_range("response_timeout", self.response_timeout())?;
        is_in_range("timeout", self.timeout())
    }

    /// Returns the time of one attempt.
    pub(super) fn timeout(&self) -> Option<Duration> {
        if self.timeout != Choice::Default {
            return self.timeout.value().copied();
        }
        let share = |(all, _): (Duration, _)| all.mul_f64(SHARE_OF_ALL);
        Some(self.end().map_or(TIMEOUT, |end| TIMEOUT.min(share(end))))
    }

    /// Returns the time of all attempts until the head of the answer.
    pub(super) fn response_timeout(&self) -> Option<Duration> {
        match self.response_timeout {
            Choice::Default => Some(RESPONSE_TIMEOUT),
            Choice::Off => None,
            Choice::Set(timeout) => Some(timeout),
        }
    }

    /// Returns the shorter of the deadline and the response timeout, and its name.
    fn end(&self) -> Option<(Duration, &'static str)> {
        let deadline = self.deadline.map(|time| (time, "deadline"));
        let response = self
            .response_timeout()
            .map(|time| (time, "response timeout"));
        deadline.into_iter().chain(response).min_by_key(|end| end.0)
    }

    /// Refuses parts that keep each other from working, and settings that would take effect only after an attempt has
    /// ended.
    pub(super) fn check_together(&self, check: Check<'_>) -> Result<(), ConfigError> {
        let breaker = self.breaker.as_ref();
        let max_wait = self.rate_limit.as_ref();
        let max_wait = max_wait.and_then(rate_limit::Config::longest_wait);
        let queue_wait = self.bulkhead.value();
        let queue_wait = queue_wait.and_then(bulkhead::Config::longest_wait);
        let delay = self.hedge.as_ref().and_then(hedge::Config::fixed_delay);
        let slow = breaker.and_then(circuit_breaker::Config::slow_calls_longer_than);
        let end = self.end();
        let timeout = self.timeout().map(|timeout| (timeout, "timeout"));
        for (field, time, end) in [
            ("timeout", self.timeout(), end),
            ("rate limit max_wait", max_wait, end),
            ("bulkhead queue_wait", queue_wait, end),
            ("hedge delay", delay, timeout.or(end)),
            ("circuit breaker slow_calls", slow, timeout.or(end)),
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
                "long enough for the {needed} calls that can open the breaker, of which the rate limit lets {most:.0} through"
            );
            let is_enough = f64::from(needed) <= most;
            check.that(is_enough, "circuit breaker window", &window, permitted)?;
        }
        Ok(())
    }
}

/// Returns the part that an overlay names, or an error if the stack does not have it.
fn part<T>(check: Check<'_>, field: &'static str, config: Option<T>) -> Result<T, ConfigError> {
    let permitted = "left out, because the stack has no such part";
    config.ok_or_else(|| check.refuse(field, &format_args!("set"), permitted))
}
