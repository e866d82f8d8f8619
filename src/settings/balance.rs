//! The overlays of a balancer.

use std::time::Duration;

use super::overlay::overlay;
use crate::{Mode, balance};

overlay! {
    /// Settings of a [balancer](crate::balance) that replace those of the code.
    [P, K, C] Balance for balance::Config<P, K, C> {
        /// See [`latency_decay`](balance::Config::latency_decay).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        latency_decay: Duration,
        /// See [`failure_decay`](balance::Config::failure_decay).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        failure_decay: Duration,
        /// See [`failure_penalty`](balance::Config::failure_penalty).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        failure_penalty: Duration,
        /// See [`slow_start`](balance::Config::slow_start).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        slow_start: Duration,
        /// See [`max_wait`](balance::Config::max_wait).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        max_wait: Duration,
        /// See [`panic_threshold`](balance::Config::panic_threshold).
        panic_threshold: u8,
        /// The settings of outlier ejection. They switch it on if the code does not.
        outlier_ejection: OutlierEjection => |config: Self, settings: OutlierEjection| {
            let ejection = config.ejection().unwrap_or_default();
            config.outlier_ejection(ejection.settings(&settings))
        },
        /// The settings of failover.
        failover: Failover => |config: Self, settings: Failover| {
            let failover = config.failover_rule();
            config.failover(failover.settings(&settings))
        },
    }
}

overlay! {
    /// Settings of an [outlier ejection](balance::OutlierEjection) that replace those of the code.
    [] OutlierEjection for balance::OutlierEjection {
        /// See [`interval`](balance::OutlierEjection::interval).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        interval: Duration,
        /// See [`min_calls`](balance::OutlierEjection::min_calls).
        min_calls: u32,
        /// See [`margin`](balance::OutlierEjection::margin).
        margin: f64,
        /// See [`consecutive_failures`](balance::OutlierEjection::consecutive_failures).
        consecutive_failures: u32,
        /// See [`base_ejection_time`](balance::OutlierEjection::base_ejection_time).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        base_ejection_time: Duration,
        /// See [`max_ejection_time`](balance::OutlierEjection::max_ejection_time).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        max_ejection_time: Duration,
        /// See [`jitter`](balance::OutlierEjection::jitter).
        jitter: f64,
        /// See [`max_ejection_percent`](balance::OutlierEjection::max_ejection_percent).
        max_ejection_percent: u8,
        /// See [`mode`](balance::OutlierEjection::mode).
        mode: Mode,
    }
}

overlay! {
    /// Settings of a [failover](balance::Failover) that replace those of the code.
    [] Failover for balance::Failover {
        /// See [`overprovisioning_factor`](balance::Failover::overprovisioning_factor).
        overprovisioning_factor: f64,
        /// See [`failback_delay`](balance::Failover::failback_delay).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        failback_delay: Duration,
        /// See [`failback_ramp`](balance::Failover::failback_ramp).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        failback_ramp: Duration,
    }
}

overlay! {
    /// Settings of a [health check](balance::HealthCheck) that replace those of the code.
    [P] HealthCheck for balance::HealthCheck<P> {
        /// See [`interval`](balance::HealthCheck::interval).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        interval: Duration,
        /// See [`jitter`](balance::HealthCheck::jitter).
        jitter: f64,
        /// See [`timeout`](balance::HealthCheck::timeout).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        timeout: Duration,
        /// See [`fall`](balance::HealthCheck::fall).
        fall: u32,
        /// See [`rise`](balance::HealthCheck::rise).
        rise: u32,
        /// See [`concurrency`](balance::HealthCheck::concurrency).
        concurrency: u32,
    }
}
