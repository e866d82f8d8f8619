//! The last calls of an endpoint, which show its priority group that it fails.
//!
//! Plain code: times are nanoseconds from the origin of the balancer.
//!
//! # How it works
//!
//! An endpoint fails if, for 200 ms on end, the last five of its calls have failed, or more than 60 % of the last
//! sixteen (of as few as five if the others are older than ten seconds). A decaying share would need more failures the
//! longer the endpoint had been healthy. A limit of 50 % would much more often take an endpoint that fails 30 % of its
//! calls for one that is down.
//!
//! The number and the time are there because of ordinary errors, which must not move the calls of a small group away.
//! If an endpoint fails 10 % of its calls by chance, five of eight calls fail once in 2,400, five in a row once in
//! 100,000, and ten of sixteen once in 2,500,000. This would still happen with many calls a second. Calls that fail
//! together, such as those of one broken connection, are a single event, and the next calls soon end it.

use super::outlier::Tally;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The number of remembered calls.
const KEPT: usize = 16;
/// With fewer calls, nothing is known.
pub(crate) const MIN_KNOWN: u64 = 5;
/// Time for which a call is remembered.
const SPAN: u64 = 10_000_000_000;
/// Time for which too many calls must have failed.
const HELD: u64 = 200_000_000;
/// The number of calls whose spread is measured: just enough to distinguish chance from the silence of a hanging
/// endpoint.
const SPREAD: usize = 8;

/// The last calls of an endpoint.
///
/// A call takes the next place, and writes its word there: the time of its end, and whether it failed in the lowest
/// bit; 0 for none. All accesses are `Relaxed`, because each word is complete in itself. A reader that sees a place
/// without its newest call acts as if it had come a moment earlier.
#[derive(Debug)]
pub(crate) struct LastCalls {
    next: AtomicU32,
    calls: [AtomicU64; KEPT],
    /// The time since which too many of them have failed; `u64::MAX` if they have not.
    failing_since: AtomicU64,
}

impl LastCalls {
    pub(crate) fn new() -> Self {
        Self {
            next: AtomicU32::new(0),
            calls: std::array::from_fn(|_| AtomicU64::new(0)),
            failing_since: AtomicU64::new(u64::MAX),
        }
    }

    /// Notes a call that ends at `now`.
    pub(crate) fn note(&self, failed: bool, now: u64) {
        let place = self.next.fetch_add(1, Ordering::Relaxed) as usize % KEPT;
        self.calls[place].store(now << 1 | u64::from(failed), Ordering::Relaxed);
        if failed || self.failing_since.load(Ordering::Relaxed) != u64::MAX {
            self.follow(now);
        }
    }

    /// Notes whether too many calls have failed. If two threads disagree, the next call corrects the value.
    #[cold]
    fn follow(&self, now: u64) {
        let (words, known) = self.recent(now);
        if is_failing(&words[..known]) {
            self.failing_since.fetch_min(now, Ordering::Relaxed);
        } else {
            self.failing_since.store(u64::MAX, Ordering::Relaxed);
        }
    }

    /// Returns the words of the calls that are not too old, the newest first, and their number.
    fn recent(&self, now: u64) -> ([u64; KEPT], usize) {
        let mut words = [0; KEPT];
        for (word, call) in words.iter_mut().zip(&self.calls) {
            *word = call.load(Ordering::Relaxed);
        }
        // Among calls of the same time, successful ones count as newer.
        words.sort_unstable_by_key(|word| std::cmp::Reverse(*word ^ 1));
        let is_recent = |word: &u64| *word > 0 && now.saturating_sub(*word >> 1) < SPAN;
        let known = words.partition_point(is_recent);
        (words, known)
    }

    /// Counts the last calls.
    pub(crate) fn tally(&self, now: u64) -> Tally {
        let (words, known) = self.recent(now);
        tally(&words[..known])
    }

    /// Returns the time over which the ends of the last eight calls are spread.
    pub(crate) fn spread(&self, now: u64) -> u64 {
        let (words, known) = self.recent(now);
        let [newest, .., oldest] = &words[..known.min(SPREAD)] else {
            return 0;
        };
        (newest >> 1) - (oldest >> 1)
    }

    /// Returns the time until which the endpoint counts as failing, if it gets no further call; a past time if it does
    /// not fail.
    #[inline]
    pub(crate) fn fails_until(&self, now: u64) -> u64 {
        let since = self.failing_since.load(Ordering::Relaxed);
        if since.saturating_add(HELD) > now {
            return 0;
        }
        self.forgotten_at(now)
    }

    /// Returns the time at which enough calls are forgotten that at most 60 % of the others have failed; 0 if this is
    /// already true.
    fn forgotten_at(&self, now: u64) -> u64 {
        let (words, mut known) = self.recent(now);
        let mut until = 0;
        while is_failing(&words[..known]) {
            // Then the oldest one is forgotten.
            known -= 1;
            until = (words[known] >> 1).saturating_add(SPAN);
        }
        until
    }
}

fn tally(words: &[u64]) -> Tally {
    Tally {
        calls: words.len() as u64,
        failures: words.iter().map(|word| word & 1).sum(),
    }
}

/// Returns whether too many of these calls have failed. The newest is first.
fn is_failing(words: &[u64]) -> bool {
    let Some(newest) = words.get(..MIN_KNOWN as usize) else {
        return false;
    };
    let all = tally(words);
    5 * all.failures > 3 * all.calls || tally(newest).failures == MIN_KNOWN
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    const SECOND: u64 = 1_000_000_000;

    /// Calls that end each second, from 1 s on.
    fn calls(failed: &[bool]) -> (LastCalls, u64) {
        let calls = LastCalls::new();
        let mut now = 0;
        for failed in failed {
            now += SECOND;
            calls.note(*failed, now);
        }
        (calls, now)
    }

    /// Returns whether the endpoint fails at this time.
    fn fails(calls: &LastCalls, now: u64) -> bool {
        calls.fails_until(now) > now
    }

    #[test]
    fn an_endpoint_fails_after_five_failures_and_no_success() {
        let (calls, now) = calls(&[true; 4]);
        assert!(!fails(&calls, now + HELD));
        calls.note(true, now);
        assert!(!fails(&calls, now + HELD - 1) && fails(&calls, now + HELD));
    }

    #[test]
    fn an_endpoint_fails_with_ten_failures_among_its_last_sixteen_calls() {
        for (failures, expected) in [(9, false), (10, true)] {
            let calls = LastCalls::new();
            for call in 0..KEPT {
                calls.note(call < failures, SECOND);
            }
            assert_eq!(fails(&calls, SECOND + HELD), expected, "{failures}");
        }
    }

    #[test]
    fn failures_that_come_together_are_forgotten_if_the_next_calls_succeed() {
        let calls = LastCalls::new();
        for _ in 0..KEPT {
            calls.note(true, SECOND);
        }
        for _ in 0..7 {
            calls.note(false, SECOND + HELD / 2);
        }
        assert!(!fails(&calls, SECOND + HELD));
        // Further failures restart the time.
        let now = SECOND + 2 * HELD;
        for _ in 0..KEPT {
            calls.note(true, now);
        }
        assert!(!fails(&calls, now + HELD - 1) && fails(&calls, now + HELD));
    }

    #[test]
    fn an_endpoint_that_fails_a_tenth_by_chance_does_not_count_as_failing() {
        for rate in [1, 10, 100, 1_000] {
            let (calls, mut random) = (LastCalls::new(), SmallRng::seed_from_u64(rate));
            let mut failing = 0;
            for call in 1..=200_000 {
                let now = SECOND + call * SECOND / rate;
                calls.note(random.random::<f64>() < 0.1, now);
                failing += u32::from(fails(&calls, now));
            }
            // In the ten seconds before, there may be as few as five calls.
            assert!(
                failing <= if rate == 1 { 20 } else { 0 },
                "{rate}: {failing}"
            );
        }
    }

    #[test]
    fn failures_are_forgotten_as_they_get_old() {
        let (calls, now) = calls(&[true; 8]);
        assert_eq!(now, 8 * SECOND);
        // The fifth last was at 4 s.
        assert_eq!(calls.fails_until(now), 14 * SECOND);
        assert_eq!(calls.tally(14 * SECOND).calls, 4);
        assert!(calls.fails_until(14 * SECOND) <= 14 * SECOND);
    }

    proptest! {
        #[test]
        fn an_endpoint_stays_failing_until_the_time_that_is_foreseen(
            ends in prop::collection::vec((0..3_u64, any::<bool>()), 0..20), later in 0..12_u64,
        ) {
            let calls = LastCalls::new();
            let mut now = SECOND;
            for (pause, failed) in ends {
                now += pause * SECOND;
                calls.note(failed, now);
            }
            let until = calls.fails_until(now);
            let then = now + later * SECOND;
            prop_assert!(fails(&calls, then) || then >= until);
            // One that has not failed long enough may do so later without a further call.
            let (words, known) = calls.recent(then);
            prop_assert!(!fails(&calls, then) || is_failing(&words[..known]));
        }
    }
}
