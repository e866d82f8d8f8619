//! The settings of failover between priority groups.

use std::time::Duration;

use crate::ConfigError;
use crate::algorithm::failover::Rule;
use crate::error::Check;

/// The rule by which calls move from one priority group to the next, and back.
///
/// See [priority groups](crate::balance#priority-groups).
///
/// | setting | default | reason |
/// |---|---|---|
/// | [`overprovisioning_factor`](Self::overprovisioning_factor) | 1.4 | as in Envoy: a group that has lost more than 28 % of its endpoints is not loaded to its limit |
/// | [`failback_delay`](Self::failback_delay) | 10 s | an endpoint that will be ejected again, or fail its health check again, mostly does so within this time |
/// | [`failback_ramp`](Self::failback_ramp) | 30 s | longer than the slow start of 10 s of each endpoint, so that none gets its full share at once |
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use buttress::balance::Failover;
///
/// let failover = Failover::new().failback_delay(Duration::from_secs(60)).failback_ramp(Duration::from_secs(120));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "a failover is part of the configuration of a balancer"]
pub struct Failover {
    pub(super) rule: Rule,
}

impl Failover {
    /// Makes a rule with the default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the load that an endpoint can take, as a multiple of its share; 1 to 10. 1.4 by default.
    ///
    /// A group takes all calls until its healthy share is below 1 divided by this factor.
    pub fn overprovisioning_factor(mut self, overprovisioning_factor: f64) -> Self {
        self.rule.overprovisioning_factor = overprovisioning_factor;
        self
    }

    /// Sets the time for which a group must have been able to take more calls before it gets them. 10 s by default;
    /// zero switches this off.
    pub fn failback_delay(mut self, failback_delay: Duration) -> Self {
        self.rule.failback_delay = failback_delay;
        self
    }

    /// Sets the time in which the share of a group rises from no calls to all calls. 30 s by default; zero switches
    /// this off.
    pub fn failback_ramp(mut self, failback_ramp: Duration) -> Self {
        self.rule.failback_ramp = failback_ramp;
        self
    }

    pub(super) fn check(&self, check: Check<'_>) -> Result<(), ConfigError> {
        let factor = &self.rule.overprovisioning_factor;
        check.within("overprovisioning_factor", factor, 1.0..=10.0, "1 to 10")?;
        check.duration_or_zero("failback_delay", self.rule.failback_delay)?;
        check.duration_or_zero("failback_ramp", self.rule.failback_ramp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_refused() {
        let new = Failover::new;
        let refused = [
            (
                new().overprovisioning_factor(0.99),
                "overprovisioning_factor",
            ),
            (
                new().overprovisioning_factor(f64::NAN),
                "overprovisioning_factor",
            ),
            (
                new().overprovisioning_factor(f64::INFINITY),
                "overprovisioning_factor",
            ),
            (new().failback_delay(Duration::MAX), "failback_delay"),
            (new().failback_ramp(Duration::MAX), "failback_ramp"),
        ];
        let check = Check::new("balance", "search").unwrap();
        for (failover, field) in refused {
            let error = failover.check(check).expect_err(field);
            assert_eq!(error.field(), field, "{error}");
        }
        assert_eq!(
            new()
                .failback_delay(Duration::ZERO)
                .failback_ramp(Duration::ZERO)
                .check(check),
            Ok(())
        );
    }
}
