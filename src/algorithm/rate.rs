//! Rate: a number of calls in a time.

use std::fmt;
use std::time::Duration;

/// The longest interval between two tokens, and the longest time in which a burst may refill: 365 days in
/// nanoseconds.
pub(crate) const LONGEST: u64 = 365 * 24 * 60 * 60 * 1_000_000_000;

/// Rate: a number of tokens in a time, evenly spaced.
///
/// From one in 365 days to 1,000,000,000 per second. A rate out of range is refused when a layer is built or
/// its rate is changed.
///
/// ```
/// use std::time::Duration;
/// use buttress::Rate;
///
/// assert_eq!(Rate::per_minute(90), Rate::per(3, Duration::from_secs(2)));
/// ```
#[derive(Clone, Copy)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(deny_unknown_fields)
)]
pub struct Rate {
    count: u32,
    #[cfg_attr(
        feature = "serde",
        serde(rename = "per", with = "crate::duration_text")
    )]
    period: Duration,
}

impl Rate {
    /// Makes a rate of `count` tokens per second.
    #[must_use]
    pub const fn per_second(count: u32) -> Self {
        Self::per(count, Duration::from_secs(1))
    }

    /// Makes a rate of `count` tokens per minute.
    #[must_use]
    pub const fn per_minute(count: u32) -> Self {
        Self::per(count, Duration::from_secs(60))
    }

    /// Makes a rate of `count` tokens per hour.
    #[must_use]
    pub const fn per_hour(count: u32) -> Self {
        Self::per(count, Duration::from_secs(60 * 60))
    }

    /// Makes a rate of `count` tokens per `period`, evenly spaced: ten in ten minutes are one every minute.
    #[must_use]
    pub const fn per(count: u32, period: Duration) -> Self {
        Self { count, period }
    }

    /// Returns whether the interval between two tokens is in range: at least a nanosecond.
    pub(crate) fn is_valid(self) -> bool {
        let (count, nanos) = (u128::from(self.count), self.period.as_nanos());
        count > 0 && (count..=count * u128::from(LONGEST)).contains(&nanos)
    }

    /// Returns the interval between two tokens in units of `2^-shift` nanoseconds, rounded up: a limit may be too
    /// strict by a fraction of a unit, and is never too lax. The rate must be valid.
    pub(crate) fn interval(self, shift: u32) -> u64 {
        let units = self.period.as_nanos() << shift;
        u64::try_from(units.div_ceil(u128::from(self.count))).unwrap_or(u64::MAX)
    }

    /// Returns the count and the period in nanoseconds.
    #[cfg(test)]
    pub(crate) fn parts(self) -> (u128, u128) {
        (u128::from(self.count), self.period.as_nanos())
    }

    /// Returns the tokens of this time.
    pub(crate) fn calls_in(self, span: Duration) -> f64 {
        f64::from(self.count) * span.as_secs_f64() / self.period.as_secs_f64().max(1e-9)
    }

    /// Returns the tokens of a tenth of a second, at least one.
    pub(crate) fn tenth_of_a_second(self) -> u32 {
        const TENTH: u128 = 100_000_000;
        let tokens = u128::from(self.count) * TENTH / self.period.as_nanos().max(1);
        u32::try_from(tokens).unwrap_or(u32::MAX).max(1)
    }
}

impl PartialEq for Rate {
    /// Compares the intervals, so that 60 per minute is 1 per second.
    fn eq(&self, other: &Self) -> bool {
        // At most 94 + 32 bits.
        self.period.as_nanos() * u128::from(other.count)
            == other.period.as_nanos() * u128::from(self.count)
    }
}

impl Eq for Rate {}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {:?}", self.count, self.period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_from_one_a_year_to_one_a_nanosecond_are_valid() {
        let year = Duration::from_nanos(LONGEST);
        let nanosecond = Duration::from_nanos(1);
        for rate in [
            Rate::per(1, year),
            Rate::per(2, 2 * year),
            Rate::per_second(1_000_000_000),
            Rate::per(1, nanosecond),
            Rate::per(u32::MAX, Duration::from_secs(5)),
        ] {
            assert!(rate.is_valid(), "{rate:?}");
        }
        for rate in [
            Rate::per_second(0),
            Rate::per(0, Duration::ZERO),
            Rate::per(1, Duration::ZERO),
            Rate::per(1, Duration::MAX),
            Rate::per(u32::MAX, Duration::MAX),
            Rate::per(1, year + nanosecond),
            Rate::per_second(1_000_000_001),
        ] {
            assert!(!rate.is_valid(), "{rate:?}");
        }
    }

    #[test]
    fn an_interval_is_never_rounded_down() {
        assert_eq!(Rate::per_second(3).interval(0), 333_333_334);
        assert_eq!(Rate::per_second(3).interval(16), 21_845_333_333_334);
        assert_eq!(Rate::per_second(1_000_000_000).interval(16), 1 << 16);
    }

    #[test]
    fn a_tenth_of_a_second_is_at_least_one_token() {
        let tokens = |rate: Rate| rate.tenth_of_a_second();
        assert_eq!(tokens(Rate::per_second(100)), 10);
        assert_eq!(tokens(Rate::per_second(1_000_000_000)), 100_000_000);
        assert_eq!(tokens(Rate::per_hour(1)), 1);
    }
}
