//! The settings of outlier ejection.

use std::time::Duration;

use crate::algorithm::outlier::{MAX_INTERVAL, Rule};
use crate::error::Check;
use crate::{ConfigError, Mode};

/// Rule by which endpoints are ejected because of their failures.
///
/// A caller that makes one call after the other sends a failing endpoint about one call in 10 s, because its load is so
/// high. One call is too few to evaluate, so the endpoint is not ejected; its
/// [`failure_share`](super::EndpointStatus::failure_share) shows the failures. An ejection would save this caller
/// hardly more than a third of these calls. If they matter, set [`consecutive_failures`](Self::consecutive_failures),
/// which count for longer than an interval.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use buttress::balance::OutlierEjection;
///
/// let ejection = OutlierEjection::new().min_calls(20).base_ejection_time(Duration::from_secs(30));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "an outlier ejection is part of the configuration of a balancer"]
pub struct OutlierEjection {
    pub(super) rule: Rule,
    pub(super) mode: Mode,
}

impl OutlierEjection {
    /// Makes a rule with the default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the interval whose calls are evaluated together; up to an hour. 10 s by default.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.rule.interval = interval;
        self
    }

    /// Sets the least number of calls in the interval that an endpoint, and its peers together, must have to be
    /// evaluated; 1 to 1,000,000. 5 by default.
    pub fn min_calls(mut self, calls: u32) -> Self {
        self.rule.min_calls = calls;
        self
    }

    /// Sets the margin by which the failure share of an endpoint must significantly exceed the share of its peers; 0 to
    /// below 1. 0.1 by default.
    pub fn margin(mut self, margin: f64) -> Self {
        self.rule.margin = margin;
        self
    }

    /// Also ejects an endpoint after this number of failures in a row, whatever the other endpoints do; 1 to 1,000,000.
    /// Off by default.
    ///
    /// At a failure rate of p this happens by chance about once in p⁻ⁿ calls. When all endpoints fail, as many are
    /// ejected as [`max_ejection_percent`](Self::max_ejection_percent) permits.
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.rule.consecutive_failures = Some(failures);
        self
    }

    /// Sets the time of the first ejection. Each further ejection in a row is longer by this time. 10 s by default.
    pub fn base_ejection_time(mut self, base_ejection_time: Duration) -> Self {
        self.rule.base_ejection_time = base_ejection_time;
        self
    }

    /// Sets the longest ejection, before jitter. 300 s by default.
    pub fn max_ejection_time(mut self, max_ejection_time: Duration) -> Self {
        self.rule.max_ejection_time = max_ejection_time;
        self
    }

    /// Sets the share by which the time of an ejection varies at random in either direction; 0 to 0.9. 0.25 by default.
    pub fn jitter(mut self, share: f64) -> Self {
        self.rule.jitter = share;
        self
    }

    /// Sets the greatest percentage of the endpoints of one priority that may be ejected; 1 to 50. 50 by default.
    ///
    /// The number is rounded down: a single endpoint is never ejected.
    pub fn max_ejection_percent(mut self, percent: u8) -> Self {
        self.rule.max_ejection_percent = percent;
        self
    }

    /// Sets whether endpoints are ejected, or ejections are only counted. [`Mode::Enforce`] by default.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    pub(super) fn check(&self, check: Check<'_>) -> Result<(), ConfigError> {
        let rule = &self.rule;
        let calls = |field, calls| check.count(field, calls, 1_000_000, "1 to 1000000");
        check.duration("interval", rule.interval)?;
        check.within(
            "interval",
            &rule.interval,
            ..=MAX_INTERVAL,
            "at most 1 hour",
        )?;
        calls("min_calls", rule.min_calls)?;
        check.within("margin", &rule.margin, 0.0..1.0, "0 to below 1")?;
        calls(
            "consecutive_failures",
            rule.consecutive_failures.unwrap_or(1),
        )?;
        check.duration("base_ejection_time", rule.base_ejection_time)?;
        check.duration("max_ejection_time", rule.max_ejection_time)?;
        let (base, max) = (&rule.base_ejection_time, rule.max_ejection_time);
        check.within(
            "base_ejection_time",
            base,
            ..=max,
            "at most the longest ejection",
        )?;
        check.jitter("jitter", rule.jitter)?;
        let percent = &rule.max_ejection_percent;
        check.within("max_ejection_percent", percent, 1..=50, "1 to 50")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_refused() {
        let new = OutlierEjection::new;
        let zero = Duration::ZERO;
        let refused = [
            (new().interval(zero), "interval"),
            (new().interval(Duration::from_secs(3_601)), "interval"),
            (new().min_calls(0), "min_calls"),
            (new().margin(f64::NAN), "margin"),
            (new().margin(1.0), "margin"),
            (new().margin(-0.1), "margin"),
            (new().consecutive_failures(0), "consecutive_failures"),
            (new().base_ejection_time(zero), "base_ejection_time"),
            (
                new().base_ejection_time(Duration::from_secs(301)),
                "base_ejection_time",
            ),
            (new().max_ejection_time(Duration::MAX), "max_ejection_time"),
            (new().jitter(0.91), "jitter"),
            (new().max_ejection_percent(0), "max_ejection_percent"),
            (new().max_ejection_percent(51), "max_ejection_percent"),
        ];
        let check = Check::new("balance", "search").unwrap();
        for (settings, field) in refused {
            let error = settings.check(check).expect_err(field);
            assert_eq!(error.field(), field, "{error}");
        }
        assert_eq!(new().check(check), Ok(()));
    }
}
