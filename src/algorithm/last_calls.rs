//! The last calls of an endpoint, by which its priority group sees that it fails.
//!
//! Plain code: times are nanoseconds from the origin of the balancer.
//!
//! # How it works
//!
//! An endpoint fails if more than .6 of its last eight calls have failed: five of eight, or of as few as five if the others
//! are older than ten seconds. A share that decays would need more failures the longer an endpoint had been well; a share
//! of .5 takes an endpoint that fails 30 % for one that is down five times as often.

use super::outlier::Tally;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The number of calls that are remembered.
const KEPT: usize = 8;
/// With fewer calls, nothing is known.
pub(crate) const MIN_KNOWN: u64 = 5;
/// Time for which a call is remembered.
const SPAN: u64 = 10_000_000_000;

/// The last calls of an endpoint.
///
/// A call takes the next place, and writes its word there: the time of its end, and whether it failed in the lowest bit; 0 for
/// none. All accesses are `Relaxed`, because each word is complete in itself. A reader that sees a place without its newest call
/// might as well have come a moment earlier.
#[derive(Debug)]
pub(crate) struct LastCalls {
    next: AtomicU32,
    calls: [AtomicU64; KEPT],
}

impl LastCalls {
    pub(crate) fn new() -> Self {
        Self {
            next: AtomicU32::new(0),
            calls: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Notes a call that ends at `now`.
    pub(crate) fn note(&self, failed: bool, now: u64) {
        let place = self.next.fetch_add(1, Ordering::Relaxed) as usize % KEPT;
        self.calls[place].store(now << 1 | u64::from(failed), Ordering::Relaxed);
    }

    /// The words of the calls that are not too old, the newest first, and their number.
    fn recent(&self, now: u64) -> ([u64; KEPT], usize) {
        let mut words = [0; KEPT];
        for (word, call) in words.iter_mut().zip(&self.calls) {
            *word = call.load(Ordering::Relaxed);
        }
        words.sort_unstable_by_key(|word| std::cmp::Reverse(*word));
        let is_recent = |word: &u64| *word > 0 && now.saturating_sub(*word >> 1) < SPAN;
        let known = words.partition_point(is_recent);
        (words, known)
    }

    /// Counts the last calls.
    pub(crate) fn tally(&self, now: u64) -> Tally {
        let (words, known) = self.recent(now);
        tally(&words[..known])
    }

    /// Returns the time over which the ends of the last calls are spread.
    pub(crate) fn spread(&self, now: u64) -> u64 {
        let (words, known) = self.recent(now);
        let [newest, .., oldest] = &words[..known] else {
            return 0;
        };
        (newest >> 1) - (oldest >> 1)
    }

    /// Returns until when the endpoint counts as one that fails, if it gets no further call; a time that has passed if it does
    /// not.
    #[inline]
    pub(crate) fn fails_until(&self, now: u64) -> u64 {
        // Gauges are published after a look at all endpoints, and where there is one group none has a call here.
        if self.next.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.known_to_fail_until(now)
    }

    /// The same for an endpoint that has had calls.
    fn known_to_fail_until(&self, now: u64) -> u64 {
        let (words, mut known) = self.recent(now);
        let mut until = 0;
        while known > 0 && is_failing(tally(&words[..known])) {
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

fn is_failing(tally: Tally) -> bool {
    tally.calls >= MIN_KNOWN && 5 * tally.failures > 3 * tally.calls
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    #[test]
    fn an_endpoint_fails_after_five_failures_and_no_success() {
        let (calls, now) = calls(&[true; 4]);
        assert!(calls.fails_until(now) <= now);
        calls.note(true, now);
        assert!(calls.fails_until(now) > now);
    }

    #[test]
    fn an_endpoint_fails_with_five_failures_among_its_last_eight_calls() {
        let (one, now) = calls(&[false, true, false, true, false, true, true, true]);
        assert!(one.fails_until(now) > now);
        let (other, now) = calls(&[false, true, false, true, false, true, true, false]);
        assert!(other.fails_until(now) <= now);
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
            let fails = is_failing(calls.tally(then));
            // One that does not fail may do so again as its successes get old.
            prop_assert!(fails || then >= until);
            prop_assert!(!fails || calls.fails_until(then) > then);
        }
    }
}
