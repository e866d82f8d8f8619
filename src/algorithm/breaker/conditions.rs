//! The conditions under which a closed breaker opens, as words that change together.

use std::time::Duration;

use super::machine::Settings;
use crate::nanos::whole_nanos;

/// Stands for a time that is not set.
pub(super) const NO_TIME: u64 = u64::MAX;
/// Bit beside the least number of calls: set if fewer failures also open the breaker.
const JUDGES_FEW: u64 = 1 << u32::BITS;

/// The conditions, which calls read without a lock. See [`Settings`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Conditions {
    pub(super) failure_share: f64,
    pub(super) min_calls: u32,
    pub(super) judges_few: bool,
    pub(super) consecutive_failures: Option<u32>,
    pub(super) slow_calls: Option<(Duration, f64)>,
}

impl Conditions {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            failure_share: settings.failure_share,
            min_calls: settings.min_calls,
            judges_few: settings.judges_few,
            consecutive_failures: settings.consecutive_failures,
            slow_calls: settings.slow_calls,
        }
    }

    /// Returns the time above which a call is slow, in nanoseconds, or [`NO_TIME`].
    pub(super) fn slow_after(self) -> u64 {
        self.slow_calls
            .map_or(NO_TIME, |(time, _)| whole_nanos(time))
    }

    pub(super) fn words(self) -> [u64; 5] {
        let judges_few = if self.judges_few { JUDGES_FEW } else { 0 };
        [
            self.failure_share.to_bits(),
            u64::from(self.min_calls) | judges_few,
            self.consecutive_failures.unwrap_or(0).into(),
            self.slow_after(),
            self.slow_calls.map_or(0.0, |(_, share)| share).to_bits(),
        ]
    }

    pub(super) fn from_words(words: [u64; 5]) -> Self {
        let [failure_share, calls, row, slow_after, slow_share] = words;
        let slow_calls = (Duration::from_nanos(slow_after), f64::from_bits(slow_share));
        Self {
            failure_share: f64::from_bits(failure_share),
            min_calls: calls as u32,
            judges_few: calls & JUDGES_FEW != 0,
            consecutive_failures: (row != 0).then_some(row as u32),
            slow_calls: (slow_after != NO_TIME).then_some(slow_calls),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::tests::settings;
    use super::*;

    #[test]
    fn words_hold_all_conditions() {
        let plain = Conditions::of(&settings());
        let other = Conditions {
            judges_few: false,
            consecutive_failures: Some(u32::MAX),
            slow_calls: Some((Duration::from_millis(7), 0.3)),
            ..plain
        };
        for conditions in [plain, other] {
            assert_eq!(Conditions::from_words(conditions.words()), conditions);
        }
    }
}
