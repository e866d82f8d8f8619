//! The overlays of the parts of a stack.

use std::time::Duration;

use super::overlay::overlay;
use crate::bulkhead::QueueOrder;
use crate::{Backoff, Mode, Rate, bulkhead, circuit_breaker, hedge, rate_limit, retry};

overlay! {
    /// Settings of a [retry](crate::retry) that replace those of the code.
    [R, K] Retry for retry::Config<R, K> {
        /// See [`max_attempts`](retry::Config::max_attempts).
        max_attempts: u32,
        /// See [`backoff`](retry::Config::backoff).
        backoff: Backoff,
        /// See [`overload_backoff`](retry::Config::overload_backoff).
        overload_backoff: Backoff,
        /// See [`max_retry_after`](retry::Config::max_retry_after).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        max_retry_after: Duration,
        /// See [`retry_rejections`](retry::Config::retry_rejections).
        retry_rejections: bool,
    }
}

overlay! {
    /// Settings of a [hedge](crate::hedge) that replace those of the code.
    [R, K] Hedge for hedge::Config<R, K> {
        /// See [`percentile`](hedge::Config::percentile). It replaces a fixed delay that the code sets.
        percentile: f64,
        /// See [`delay`](hedge::Config::delay). It takes precedence over `percentile`.
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        delay: Duration,
        /// See [`window`](hedge::Config::window).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        window: Duration,
        /// See [`min_samples`](hedge::Config::min_samples).
        min_samples: u32,
        /// See [`max_hedges`](hedge::Config::max_hedges).
        max_hedges: u32,
        /// See [`rate_share`](hedge::Config::rate_share).
        rate_share: f64,
        /// See [`burst`](hedge::Config::burst).
        burst: u32,
        /// See [`slowdown`](hedge::Config::slowdown).
        slowdown: f64,
        /// See [`mode`](hedge::Config::mode).
        mode: Mode,
    }
}

overlay! {
    /// Settings of a [circuit breaker](crate::circuit_breaker) that replace those of the code.
    [K, C] CircuitBreaker for circuit_breaker::Config<K, C> {
        /// See [`window`](circuit_breaker::Config::window). It replaces a count window that the code sets.
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        window: Duration,
        /// See [`count_window`](circuit_breaker::Config::count_window). It takes precedence over `window`.
        count_window: u32,
        /// See [`failure_share`](circuit_breaker::Config::failure_share).
        failure_share: f64,
        /// See [`min_calls`](circuit_breaker::Config::min_calls).
        min_calls: u32,
        /// See [`consecutive_failures`](circuit_breaker::Config::consecutive_failures).
        consecutive_failures: u32,
        /// See [`slow_calls`](circuit_breaker::Config::slow_calls).
        slow_calls: SlowCalls => |config: Self, slow: SlowCalls| {
            config.slow_calls(slow.longer_than, slow.share)
        },
        /// See [`open_for`](circuit_breaker::Config::open_for).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        open_for: Duration,
        /// See [`open_jitter`](circuit_breaker::Config::open_jitter).
        open_jitter: f64,
        /// See [`open_growth`](circuit_breaker::Config::open_growth).
        open_growth: OpenGrowth => |config: Self, growth: OpenGrowth| {
            config.open_growth(growth.factor, growth.max)
        },
        /// See [`max_retry_after`](circuit_breaker::Config::max_retry_after).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        max_retry_after: Duration,
        /// See [`successes_to_close`](circuit_breaker::Config::successes_to_close).
        successes_to_close: u32,
        /// See [`max_probes`](circuit_breaker::Config::max_probes).
        max_probes: u32,
        /// See [`probe_lease`](circuit_breaker::Config::probe_lease).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        probe_lease: Duration,
        /// See [`mode`](circuit_breaker::Config::mode).
        mode: Mode,
    }
}

/// Slow calls that open a circuit breaker. See [`slow_calls`](circuit_breaker::Config::slow_calls).
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(deny_unknown_fields)
)]
pub struct SlowCalls {
    /// Time above which a call is slow.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration_text"))]
    pub longer_than: Duration,
    /// Share of slow calls above which the breaker opens; above 0 and below 1.
    pub share: f64,
}

/// Growth of the open time of a circuit breaker. See [`open_growth`](circuit_breaker::Config::open_growth).
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(deny_unknown_fields)
)]
pub struct OpenGrowth {
    /// Factor by which the open time grows each time that the probes fail; 1 to 10.
    pub factor: f64,
    /// The longest open time.
    #[cfg_attr(feature = "serde", serde(with = "crate::duration_text"))]
    pub max: Duration,
}

overlay! {
    /// Settings of a [rate limit](crate::rate_limit) that replace those of the code.
    [Q, K] RateLimit for rate_limit::Config<Q, K> {
        /// The rate in tokens for each period. In a TOML file: `{ count = 100, per = "1s" }`.
        rate: Rate,
        /// See [`burst`](rate_limit::Config::burst).
        burst: u32,
        /// See [`max_wait`](rate_limit::Config::max_wait).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        max_wait: Duration,
        /// See [`max_retry_after`](rate_limit::Config::max_retry_after).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        max_retry_after: Duration,
        /// See [`respect_retry_after`](rate_limit::Config::respect_retry_after).
        respect_retry_after: bool,
        /// See [`mode`](rate_limit::Config::mode).
        mode: Mode,
    }
}

overlay! {
    /// Settings of a [bulkhead](crate::bulkhead) that replace those of the code.
    [K, C] Bulkhead for bulkhead::Config<K, C> {
        /// The greatest number of calls in flight, at least 1. It replaces an adaptive limit that the code sets.
        limit: usize,
        /// See [`queue`](bulkhead::Config::queue).
        queue: usize,
        /// See [`queue_order`](bulkhead::Config::queue_order).
        queue_order: QueueOrder,
        /// See [`queue_wait`](bulkhead::Config::queue_wait).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        queue_wait: Duration,
        /// See [`overloaded_wait`](bulkhead::Config::overloaded_wait).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        overloaded_wait: Duration,
        /// See [`overloaded_after`](bulkhead::Config::overloaded_after).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        overloaded_after: Duration,
        /// See [`mode`](bulkhead::Config::mode).
        mode: Mode,
    }
}
