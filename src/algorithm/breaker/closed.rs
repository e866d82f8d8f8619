//! The counts of a closed breaker, and the conditions under which it opens.

use std::time::Duration;

use super::conditions::Conditions;
use super::machine::TransitionCause;
use crate::algorithm::window::{BUCKETS, CountWindow, FailedOperations, Sample, Tally, TimeWindow};
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// The least number of failed operations among many calls in a short time for which the breaker opens: half of the
/// default least number of calls. A broken connection fails its calls together, and then their retries.
const MIN_RECENT_OPERATIONS: u64 = 10;
/// The least number of failures for which the breaker opens with few calls,
pub(crate) const MIN_FAILURES: u32 = 5;
/// the least number of their operations, because one request that always fails and its retries are no outage,
const MIN_OPERATIONS: u64 = 3;
/// and the least number of slices of the window in which these failed, because the calls on a broken connection fail
/// together.
const MIN_SLICES: u32 = 2;

/// The window that counts calls.
enum Window {
    Time(TimeWindow),
    /// The last N calls have one order for all threads, so the threads take a lock.
    Count(Mutex<CountWindow>),
}

/// Place in the window at which a call was counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    /// The slice of time, or the number of the call.
    pub(crate) place: u64,
    pub(crate) stripe: u32,
}

/// The effect of a call on the failures in a row.
///
/// A good head resets a streak of failed heads at once, because the rest of the answer may take hours. It does not
/// reset a streak of bodies that broke off, because each of these had a good head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Succeeded,
    /// The head was good, and the end is not known yet.
    Answered,
    Failed,
    /// The answer failed after a good head.
    BrokeOff,
}

/// Set in a streak when a good head has followed the failures.
const ANSWERED: u64 = 1 << 31;

/// Time and thread of a count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) stripe: usize,
    pub(crate) nanos: u64,
}

/// The counts of a closed breaker. Counts of an earlier epoch have no effect.
pub(crate) struct Counts {
    window: Window,
    /// Failures in a row, in the low half, of the epoch in the high half. See [`Step`].
    streak: AtomicU64,
}

impl Counts {
    /// Makes counts over a span of time, in `stripes` copies of the counters.
    pub(crate) fn of_time(span: Duration, stripes: usize) -> Self {
        Self::new(Window::Time(TimeWindow::new(span, stripes)))
    }

    /// Makes counts over the last `calls` calls.
    pub(crate) fn of_calls(calls: usize) -> Self {
        Self::new(Window::Count(Mutex::new(CountWindow::new(calls))))
    }

    fn new(window: Window) -> Self {
        Self {
            window,
            streak: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(super) fn record(&self, epoch: u64, at: At, sample: Sample) -> Mark {
        let place = match &self.window {
            Window::Time(window) => window.record(at.stripe, epoch, at.nanos, sample),
            Window::Count(window) => lock(window).record(epoch, sample),
        };
        Mark {
            place,
            stripe: at.stripe as u32,
        }
    }

    /// Corrects a call that was counted as a success to `failure`.
    pub(super) fn correct(&self, epoch: u64, at: At, mark: Mark, failure: Sample) {
        match &self.window {
            Window::Time(window) => {
                window.retract(mark.stripe as usize, mark.place);
                window.record(at.stripe, epoch, at.nanos, failure);
            }
            Window::Count(window) => lock(window).correct(epoch, mark.place, failure),
        }
    }

    /// Counts failures in a row. Returns their number.
    pub(super) fn count_streak(&self, epoch: u64, step: Step) -> u32 {
        /// The low half counts; the high half is the epoch, so that no failure counts in another epoch.
        const MAX: u64 = u32::MAX as u64;
        let none = (epoch & MAX) << u32::BITS;
        let mut old = self.streak.load(Ordering::Relaxed);
        loop {
            let row = match old.checked_sub(none) {
                Some(row) if row <= MAX => row,
                Some(_newer_epoch) => return 0,
                None => 0,
            };
            let failures = row & !ANSWERED;
            let row = match step {
                Step::Succeeded => 0,
                Step::Answered if failures == 0 => 0,
                Step::Answered => row | ANSWERED,
                Step::Failed if row != failures => 1,
                Step::Failed | Step::BrokeOff => (failures + 1).min(ANSWERED - 1),
            };
            let new = none + row;
            if new == old {
                return row as u32;
            }
            let swapped =
                self.streak
                    .compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed);
            match swapped {
                Ok(_) => return row as u32,
                Err(now) => old = now,
            }
        }
    }

    /// Returns the counts of the whole window.
    pub(super) fn tally(&self, epoch: u64, nanos: u64) -> Tally {
        match &self.window {
            Window::Time(window) => window.tally(epoch, nanos, BUCKETS),
            Window::Count(window) => lock(window).tally(epoch),
        }
    }

    /// Returns the cause, if the breaker should open because of the calls of this epoch or of `streak` failures in a
    /// row.
    pub(super) fn verdict(
        &self,
        settings: &Conditions,
        epoch: u64,
        streak: u32,
        nanos: u64,
    ) -> Option<TransitionCause> {
        if settings.consecutive_failures.is_some_and(|n| streak >= n) {
            return Some(TransitionCause::ConsecutiveFailures);
        }
        match &self.window {
            Window::Time(window) => {
                // The width of the last slice as well, so that successes before a sudden outage do not dilute the
                // share.
                let recent = window.recent(epoch, nanos);
                let all = window.tally(epoch, nanos, BUCKETS);
                if !settings.judges_few {
                    return verdict(settings, recent).or_else(|| verdict(settings, all));
                }
                let operations = |slices| window.failed_operations(epoch, nanos, slices);
                let is_outage = is_sudden_outage(settings, recent, || operations(2))
                    || is_outage(settings, all, || operations(BUCKETS));
                if is_outage {
                    return Some(TransitionCause::FailureShare);
                }
                let is_slow = [recent, all].iter().any(|tally| is_slow(settings, *tally));
                is_slow.then_some(TransitionCause::SlowCalls)
            }
            Window::Count(window) => verdict(settings, lock(window).tally(epoch)),
        }
    }
}

/// Returns the cause, if the breaker should open because of the calls of `tally`.
fn verdict(settings: &Conditions, tally: Tally) -> Option<TransitionCause> {
    if has_enough(settings, tally) && has_failed(settings, tally) {
        return Some(TransitionCause::FailureShare);
    }
    is_slow(settings, tally).then_some(TransitionCause::SlowCalls)
}

/// Returns whether the last calls show an outage: many calls, and failures of many operations.
fn is_sudden_outage(
    settings: &Conditions,
    tally: Tally,
    operations: impl FnOnce() -> FailedOperations,
) -> bool {
    has_enough(settings, tally)
        && has_failed(settings, tally)
        && operations().number >= MIN_RECENT_OPERATIONS
}

/// Returns whether the calls of a whole window show an outage, however few there are.
fn is_outage(
    settings: &Conditions,
    tally: Tally,
    operations: impl FnOnce() -> FailedOperations,
) -> bool {
    tally.failures >= MIN_FAILURES.into() && has_failed(settings, tally) && {
        let FailedOperations { number, slices } = operations();
        number >= MIN_OPERATIONS && slices >= MIN_SLICES
    }
}

/// Returns whether there are enough calls for a meaningful share.
fn has_enough(settings: &Conditions, tally: Tally) -> bool {
    tally.calls >= u64::from(settings.min_calls)
}

/// Returns whether the share of failures is significantly above the threshold.
fn has_failed(settings: &Conditions, tally: Tally) -> bool {
    lower_bound(tally.failures, tally.calls) > settings.failure_share
}

/// Returns whether the share of slow calls is significantly above its threshold, if there is one.
fn is_slow(settings: &Conditions, tally: Tally) -> bool {
    let exceeds = |(_, share)| lower_bound(tally.slow, tally.calls) > share;
    has_enough(settings, tally) && settings.slow_calls.is_some_and(exceeds)
}

/// Returns the least share of failures that is plausible after `part` failures in `calls` calls: the lower end of the
/// Wilson score interval (Wilson 1927), one-sided at 95 %.
///
/// With few calls, a share above the threshold may be chance. The bound requires a higher share for fewer calls.
fn lower_bound(part: u64, calls: u64) -> f64 {
    const Z: f64 = 1.64;
    let n = calls as f64;
    let share = part as f64 / n;
    let centre = share + Z * Z / (2.0 * n);
    let spread = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    (centre - spread) / (1.0 + Z * Z / n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Conditions {
        Conditions::of(&super::super::machine::tests::settings())
    }

    #[test]
    fn a_good_head_ends_a_row_of_bad_heads_and_a_whole_answer_ends_any_row() {
        use Step::{Answered, BrokeOff, Failed, Succeeded};
        for (steps, expected) in [
            (&[Failed, Failed, Failed][..], 3),
            (&[Failed, Succeeded, Failed], 1),
            (&[Failed, Failed, Answered, Failed], 1),
            (&[Answered, BrokeOff, Answered, BrokeOff], 2),
            (&[Failed, Answered, BrokeOff], 2),
            (&[Answered, BrokeOff, Succeeded, Answered, BrokeOff], 1),
        ] {
            let counts = Counts::of_calls(1);
            counts.count_streak(6, Failed);
            let rows = steps.iter().map(|step| counts.count_streak(7, *step));
            assert_eq!(rows.last(), Some(expected), "{steps:?}");
            assert_eq!(counts.count_streak(6, Failed), 0, "a late one");
        }
    }

    fn tally(calls: u64, failures: u64) -> Tally {
        Tally {
            calls,
            failures,
            slow: 0,
        }
    }

    #[test]
    fn opens_when_the_share_is_surely_above_the_threshold() {
        let settings = settings();
        let opens = |calls, failures| verdict(&settings, tally(calls, failures)).is_some();
        assert!(!opens(19, 19), "too few calls");
        assert!(opens(20, 20));
        assert!(opens(20, 14));
        assert!(!opens(20, 13), "may be chance");
        assert!(!opens(1_000, 500));
        assert!(!opens(1_000, 520), "may be chance");
        assert!(opens(1_000, 530));
        assert!(!opens(0, 0));
    }

    /// A window of 10 s, and the settings that judge few calls.
    struct Calls {
        counts: Counts,
        settings: Conditions,
    }

    impl Calls {
        fn new() -> Self {
            Self {
                counts: Counts::of_time(Duration::from_secs(10), 1),
                settings: settings(),
            }
        }

        /// An attempt that ends at this time.
        fn end(&self, millis: u64, failed: bool, first: bool) -> Option<TransitionCause> {
            let nanos = millis * 1_000_000;
            let sample = Sample {
                failed,
                first,
                ..Sample::OK
            };
            self.counts.record(0, At { stripe: 0, nanos }, sample);
            self.counts.verdict(&self.settings, 0, 0, nanos)
        }
    }

    const OUTAGE: Option<TransitionCause> = Some(TransitionCause::FailureShare);

    #[test]
    fn five_failures_of_three_operations_in_two_seconds_are_enough() {
        let calls = Calls::new();
        assert_eq!(calls.end(500, true, true), None);
        assert_eq!(calls.end(600, true, false), None);
        assert_eq!(calls.end(2_500, true, true), None);
        assert_eq!(calls.end(2_600, true, false), None);
        assert_eq!(calls.end(4_500, true, true), OUTAGE);
    }

    #[test]
    fn the_failures_of_two_operations_or_of_one_second_are_not_enough() {
        let calls = Calls::new();
        for attempt in 0..10 {
            assert_eq!(calls.end(500 + attempt, true, attempt == 0), None);
            assert_eq!(calls.end(2_500 + attempt, true, attempt == 0), None);
        }
        let calls = Calls::new();
        for operation in 0..9 {
            assert_eq!(calls.end(500, true, true), None, "{operation}");
            assert_eq!(calls.end(800, true, false), None, "{operation}");
        }
        // Retries that fail in another second are of the same operations.
        for attempt in 0..9 {
            assert_eq!(calls.end(1_200 + attempt, true, false), None);
        }
        assert_eq!(calls.end(1_300, true, true), OUTAGE);
    }

    #[test]
    fn few_failures_beside_good_calls_are_not_enough() {
        let calls = Calls::new();
        for second in 0..4 {
            assert_eq!(calls.end(1_000 * second, false, false), None);
        }
        for second in 4..9 {
            assert_eq!(calls.end(1_000 * second, true, true), None, "{second}");
        }
        // 9 of 13 are surely more than half, 8 of 12 are not; then the good ones leave the window.
        assert_eq!(calls.end(9_000, true, true), None);
        assert_eq!(calls.end(12_000, true, true), OUTAGE);
    }

    #[test]
    fn a_number_of_calls_that_is_set_counts_for_the_whole_window() {
        let mut calls = Calls::new();
        calls.settings.judges_few = false;
        for call in 0..19 {
            assert_eq!(calls.end(500 * call, true, true), None);
        }
        assert_eq!(calls.end(9_500, true, true), OUTAGE);
    }

    #[test]
    fn opens_when_too_many_calls_are_slow() {
        let settings = Conditions {
            slow_calls: Some((Duration::from_secs(1), 0.3)),
            ..settings()
        };
        let cause = |slow| {
            let tally = Tally {
                slow,
                ..tally(100, 0)
            };
            verdict(&settings, tally)
        };
        assert_eq!(cause(35), None);
        assert_eq!(cause(40), Some(TransitionCause::SlowCalls));
    }

    #[test]
    fn the_bound_is_that_of_wilson() {
        // n = 100, share 0.6: computed by hand with z = 1.64.
        assert!((lower_bound(60, 100) - 0.517_6).abs() < 0.000_5);
        assert!((lower_bound(20, 20) - 0.881_5).abs() < 0.000_5);
        assert!(lower_bound(0, 20).abs() < 1e-9);
    }
}
