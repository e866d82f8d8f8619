//! The settings of outlier ejection.

use std::time::Duration;

use crate::algorithm::outlier::{MAX_INTERVAL, Rule};
use crate::error::Check;
use crate::{ConfigError, Mode};

/// Conditions under which endpoints are ejected because of their failures, and for which time.
///
/// A caller that makes one call after the other sends a failing endpoint about one in 10 s, since its load is so high:
/// too few to be evaluated. Then it stays ready, with a [`failure_share`](super::EndpointStatus::failure_share) that tells.
/// Ejecting it would save that caller hardly more than every third of these calls. Where it matters,
/// [`consecutive_failures`](Self::consecutive_failures) counts for longer than an interval.
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
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Evaluates the calls of so long a time together; up to an hour. 10 s by default.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.rule.interval = interval;
        self
    }

    /// Evaluates no endpoint that had fewer calls in the interval, nor one whose peers had fewer together; 1 to
    /// 1,000,000. 5 by default.
    pub fn min_calls(mut self, calls: u32) -> Self {
        self.rule.min_calls = calls;
        self
    }

    /// Ejects an endpoint whose failure share is surely higher by more than this than that of its peers; 0 to
    /// below 1. 0.1 by default.
    pub fn margin(mut self, margin: f64) -> Self {
        self.rule.margin = margin;
        self
    }

    /// Ejects also after so many failures in a row, whatever the others do; 1 to 1,000,000. Off by default.
    ///
    /// At a failure rate of p this happens by chance about once in p⁻ⁿ calls, and when all endpoints fail, it ejects
    /// as many of them as it may.
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.rule.consecutive_failures = Some(failures);
        self
    }

    /// Sets the time of the first ejection; each further one in a row takes as much longer. 10 s by default.
    pub fn base_ejection_time(mut self, base_ejection_time: Duration) -> Self {
        self.rule.base_ejection_time = base_ejection_time;
        self
    }

    /// Sets the longest ejection, before jitter. 300 s by default.
    pub fn max_ejection_time(mut self, max_ejection_time: Duration) -> Self {
        self.rule.max_ejection_time = max_ejection_time;
        self
    }

    /// Varies the time of an ejection by up to this share of it in either direction; 0 to 0.9. 0.25 by default.
    pub fn jitter(mut self, share: f64) -> Self {
        self.rule.jitter = share;
        self
    }

    /// Never ejects more than this percentage of the endpoints of one priority; 1 to 50. 50 by default.
    ///
    /// Rounded down: a single endpoint is never ejected.
    pub fn max_ejection_percent(mut self, percent: u8) -> Self {
        self.rule.max_ejection_percent = percent;
        self
    }

    /// Sets whether endpoints are really ejected, or that is only counted. [`Mode::Enforce`] by default.
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
