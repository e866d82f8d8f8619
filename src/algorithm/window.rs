//! The outcomes of recent calls, counted over a span of time or over the last N calls.
//!
//! The time window is a ring of ten buckets of equal width. Nothing runs in the background: a thread that records into
//! an outdated bucket starts the bucket anew, so rotation costs the same after a second and after a week. With ten
//! buckets of one second, the window covers the last nine to ten seconds.
//!
//! A bucket's counter is one atomic word that holds the number of its time slice (its *tag*) beside the count. Rotation
//! and counting are one compare-and-swap; two threads that arrive together at a new slice cannot both clear it. Each
//! stripe (thread, in effect) has its own ring, and an evaluation sums the rings.
//!
//! The tag contains the *epoch* of the caller, and a new epoch advances it by more than a ring. A new epoch therefore
//! starts with an empty window, without any clearing. A call that was admitted in an earlier epoch writes to a slice
//! that is no longer read, however late it ends.

use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};

/// Ten, as in linkerd and Hystrix: enough that an old burst leaves the window in steps, and few enough to sum.
pub(crate) const BUCKETS: usize = 10;

/// The advance of the tag for an epoch, which is two rings: one so that no older bucket is in the window, and one
/// because two threads may disagree a little about the time.
const EPOCH: u64 = 2 * BUCKETS as u64;

/// The number of low bits of a word for the count: 16 million per bucket and stripe, which is also its maximum.
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// The high bits hold the tag: at buckets of 1 ms it wraps after 34 years.
const TAG_MASK: u64 = (1 << (u64::BITS - COUNT_BITS)) - 1;

/// Contribution of one call to a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
    /// `true` for the first attempt of an operation. It matters for failures only.
    pub(crate) first: bool,
}

impl Sample {
    pub(crate) const OK: Self = Self {
        failed: false,
        slow: false,
        first: false,
    };
}

/// Numbers of calls, of failed calls and of slow calls in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    pub(crate) failures: u64,
    pub(crate) slow: u64,
}

/// The operations whose first attempts failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FailedOperations {
    pub(crate) number: u64,
    /// The number of slices of time in which they failed.
    pub(crate) slices: u32,
}

/// Calls of the last [`BUCKETS`] slices of time.
pub(crate) struct TimeWindow {
    /// Their number is a power of two.
    stripes: Box<[Stripe]>,
    /// The slices in a nanosecond, in units of 2⁻⁶⁴. A multiplication by it is faster than a division by their width,
    /// with an error of a nanosecond now and then.
    rate: u64,
}

/// One ring. Aligned so that stripes do not share a cache line (or a pair, because lines are fetched in pairs).
#[derive(Default)]
#[repr(align(128))]
struct Stripe {
    successes: [AtomicU64; BUCKETS],
    failures: [AtomicU64; BUCKETS],
    /// The failures that were first attempts.
    operations: [AtomicU64; BUCKETS],
    slow: [AtomicU64; BUCKETS],
}

impl TimeWindow {
    /// Makes a window over `span`, with `stripes` copies of every counter.
    pub(crate) fn new(span: Duration, stripes: usize) -> Self {
        let stripes = 0..stripes.next_power_of_two();
        Self {
            stripes: stripes.map(|_| Stripe::default()).collect(),
            rate: u64::MAX / (span.as_nanos() as u64 / BUCKETS as u64).max(2) + 1,
        }
    }

    /// Returns the number of slices that are over at `nanos`, and the elapsed part of the present one in units of 2⁻⁶⁴.
    #[inline]
    fn slices(&self, nanos: u64) -> (u64, u64) {
        let slices = u128::from(nanos) * u128::from(self.rate);
        ((slices >> u64::BITS) as u64, slices as u64)
    }

    /// Returns the counters of a stripe. The number of stripes is a power of two.
    #[inline]
    fn stripe(&self, stripe: usize) -> &Stripe {
        &self.stripes[stripe & (self.stripes.len() - 1)]
    }

    /// Returns the number of the slice that `nanos` falls into.
    #[inline]
    fn tag(&self, epoch: u64, nanos: u64) -> u64 {
        let (slice, _) = self.slices(nanos);
        slice.wrapping_add(epoch.wrapping_mul(EPOCH)) & TAG_MASK
    }

    /// Counts a call of this epoch that ended at `nanos`, a time from any fixed origin. Returns its slice.
    #[inline]
    pub(crate) fn record(&self, stripe: usize, epoch: u64, nanos: u64, sample: Sample) -> u64 {
        let tag = self.tag(epoch, nanos);
        let bucket = (tag % BUCKETS as u64) as usize;
        let stripe = self.stripe(stripe);
        let counters = if sample.failed {
            &stripe.failures
        } else {
            &stripe.successes
        };
        count(&counters[bucket], tag);
        if sample.failed && sample.first {
            count(&stripe.operations[bucket], tag);
        }
        if sample.slow {
            count(&stripe.slow[bucket], tag);
        }
        tag
    }

    /// Removes a success that was counted in this stripe and slice, if the window still has it.
    pub(crate) fn retract(&self, stripe: usize, tag: u64) {
        let stripe = self.stripe(stripe);
        uncount(&stripe.successes[(tag % BUCKETS as u64) as usize], tag);
    }

    /// Sums the newest `slices` buckets at `nanos`.
    pub(crate) fn tally(&self, epoch: u64, nanos: u64, slices: usize) -> Tally {
        let newest = self.tag(epoch, nanos);
        let sum = |ring| {
            let counts = recent_counts(ring, newest, slices);
            counts.map(|(_, count)| count).sum::<u64>()
        };
        let mut tally = Tally::default();
        for stripe in &self.stripes {
            let failures = sum(&stripe.failures);
            tally.failures += failures;
            tally.calls += failures + sum(&stripe.successes);
            tally.slow += sum(&stripe.slow);
        }
        tally
    }

    /// Sums the failed first attempts of the newest `slices` buckets at `nanos`.
    pub(crate) fn failed_operations(
        &self,
        epoch: u64,
        nanos: u64,
        slices: usize,
    ) -> FailedOperations {
        let newest = self.tag(epoch, nanos);
        let (mut number, mut seen) = (0, 0_u32);
        for stripe in &self.stripes {
            for (bucket, count) in recent_counts(&stripe.operations, newest, slices) {
                number += count;
                seen |= 1 << bucket;
            }
        }
        let slices = seen.count_ones();
        FailedOperations { number, slices }
    }

    /// Estimates the calls in the width of one bucket before `nanos`: all calls of the newest bucket, and a
    /// proportional part of the bucket before it.
    ///
    /// The estimate therefore covers the same time for any position of `nanos` in a bucket.
    pub(crate) fn recent(&self, epoch: u64, nanos: u64) -> Tally {
        let newest = self.tally(epoch, nanos, 1);
        let both = self.tally(epoch, nanos, 2);
        let (_, over) = self.slices(nanos);
        let within = 1.0 - over as f64 / u64::MAX as f64;
        let blend = |newest: u64, both: u64| {
            let before = both.saturating_sub(newest) as f64;
            newest + (before * within).round() as u64
        };
        Tally {
            calls: blend(newest.calls, both.calls),
            failures: blend(newest.failures, both.failures),
            slow: blend(newest.slow, both.slow),
        }
    }
}

/// Returns the newest `slices` buckets of a ring that are not empty, each with its count.
fn recent_counts(
    ring: &[AtomicU64; BUCKETS],
    newest: u64,
    slices: usize,
) -> impl Iterator<Item = (usize, u64)> {
    let words = ring.iter().map(|word| word.load(Ordering::Relaxed));
    words
        .enumerate()
        .filter(move |(_, word)| age(newest, word >> COUNT_BITS) < slices as u64)
        .map(|(bucket, word)| (bucket, word & COUNT_MASK))
        .filter(|(_, count)| *count > 0)
}

/// Returns the number of slices by which `tag` is before `newest`; a huge number if it is after it.
#[inline]
fn age(newest: u64, tag: u64) -> u64 {
    newest.wrapping_sub(tag) & TAG_MASK
}

/// Adds one to a bucket, starting it anew if it belongs to an older slice.
#[inline]
fn count(word: &AtomicU64, tag: u64) {
    update(word, |old| {
        let held = old >> COUNT_BITS;
        if held == tag {
            return (old & COUNT_MASK < COUNT_MASK).then_some(old + 1);
        }
        // Otherwise the call is of an earlier epoch, or late by a whole turn of the ring.
        let is_newer = age(held, tag) > TAG_MASK / 2;
        is_newer.then_some(tag << COUNT_BITS | 1)
    });
}

/// Subtracts one from a bucket, unless it belongs to another slice or is full, because the true count of a full bucket
/// is not known.
fn uncount(word: &AtomicU64, tag: u64) {
    update(word, |old| {
        let is_held = old >> COUNT_BITS == tag && (1..COUNT_MASK).contains(&(old & COUNT_MASK));
        is_held.then(|| old - 1)
    });
}

/// Exchanges the word of a bucket, if `new` returns a new one.
#[inline]
fn update(word: &AtomicU64, new: impl FnMut(u64) -> Option<u64>) {
    let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, new);
}

/// The last N calls. Each new call replaces the oldest one, so earlier calls cannot dilute the share.
pub(crate) struct CountWindow {
    ring: Box<[Sample]>,
    epoch: u64,
    /// Number of calls of this epoch.
    recorded: u64,
    tally: Tally,
}

impl CountWindow {
    pub(crate) fn new(calls: usize) -> Self {
        Self {
            ring: vec![Sample::OK; calls.max(1)].into(),
            epoch: 0,
            recorded: 0,
            tally: Tally::default(),
        }
    }

    /// Counts a call of this epoch. A later epoch starts with an empty window; calls of an earlier
    /// one are forgotten. Returns the number of the call.
    pub(crate) fn record(&mut self, epoch: u64, sample: Sample) -> u64 {
        if epoch < self.epoch {
            return 0;
        }
        if epoch > self.epoch {
            (self.epoch, self.recorded, self.tally) = (epoch, 0, Tally::default());
        }
        let number = self.recorded;
        let place = self.place(number);
        let evicted = std::mem::replace(&mut self.ring[place], sample);
        if self.tally.calls == self.ring.len() as u64 {
            self.tally.failures -= u64::from(evicted.failed);
            self.tally.slow -= u64::from(evicted.slow);
        } else {
            self.tally.calls += 1;
        }
        self.tally.failures += u64::from(sample.failed);
        self.tally.slow += u64::from(sample.slow);
        self.recorded += 1;
        number
    }

    /// Replaces the success with this number by `failure`, or counts `failure` if the window no longer has the success.
    pub(crate) fn correct(&mut self, epoch: u64, number: u64, failure: Sample) {
        let is_held = self.recorded <= number.saturating_add(self.ring.len() as u64);
        if epoch == self.epoch && is_held {
            let place = self.place(number);
            self.ring[place].failed = true;
            self.tally.failures += 1;
            return;
        }
        self.record(epoch, failure);
    }

    fn place(&self, number: u64) -> usize {
        (number % self.ring.len() as u64) as usize
    }

    pub(crate) fn tally(&self, epoch: u64) -> Tally {
        if epoch == self.epoch {
            self.tally
        } else {
            Tally::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const OK: Sample = Sample::OK;
    const FAILED: Sample = Sample {
        failed: true,
        ..Sample::OK
    };

    const SPAN: Duration = Duration::from_secs(10);

    fn millis(millis: u64) -> u64 {
        millis * 1_000_000
    }

    fn seconds(seconds: u64) -> u64 {
        millis(seconds * 1_000)
    }

    fn calls(window: &TimeWindow, epoch: u64, nanos: u64) -> u64 {
        window.tally(epoch, nanos, BUCKETS).calls
    }

    #[test]
    fn a_call_is_seen_for_nine_to_ten_seconds() {
        let window = TimeWindow::new(SPAN, 1);
        window.record(0, 0, millis(1_999), FAILED);
        assert_eq!(calls(&window, 0, millis(10_999)), 1);
        assert_eq!(calls(&window, 0, seconds(11)), 0);
        assert_eq!(window.tally(0, millis(2_999), 2).failures, 1);
        assert_eq!(window.tally(0, seconds(3), 2).failures, 0);
    }

    #[test]
    fn the_recent_calls_are_those_of_the_last_second_wherever_it_begins() {
        for start in [0, 250, 500, 999] {
            let window = TimeWindow::new(SPAN, 1);
            let (good, bad) = (0..1_000_u64, 1_000..3_000);
            for after in good {
                window.record(0, 0, millis(start + after), OK);
            }
            for after in bad {
                let nanos = millis(start + after);
                window.record(0, 0, nanos, FAILED);
                let share = |tally: Tally| tally.failures as f64 / tally.calls as f64;
                let expected = ((after - 1_000) as f64 / 1_000.0).min(1.0);
                let seen = share(window.recent(0, nanos));
                // Exact but for what the estimate takes to be spread evenly over a bucket.
                assert!((seen - expected).abs() < 0.26, "{start} {after}: {seen}");
            }
        }
    }

    #[test]
    fn a_bucket_is_reused_after_days_without_its_old_count() {
        let window = TimeWindow::new(SPAN, 1);
        window.record(0, 0, seconds(3), OK);
        for days in [1, 7, 400, 4_000] {
            let later = seconds(days * 86_400 + 3);
            assert_eq!(calls(&window, 0, later), 0);
            window.record(0, 0, later, OK);
            assert_eq!(calls(&window, 0, later), 1);
        }
    }

    #[test]
    fn a_new_epoch_starts_empty_and_stragglers_stay_out_of_it() {
        let window = TimeWindow::new(SPAN, 1);
        window.record(0, 4, seconds(1), FAILED);
        assert_eq!(calls(&window, 5, seconds(1)), 0);
        window.record(0, 5, seconds(2), OK);
        for late in 0..30 {
            window.record(0, 4, seconds(late), FAILED);
            assert_eq!(window.tally(5, seconds(late), BUCKETS).failures, 0);
        }
    }

    #[test]
    fn a_clock_that_goes_back_does_not_revive_old_buckets() {
        let window = TimeWindow::new(SPAN, 1);
        window.record(0, 0, seconds(25), OK);
        window.record(0, 0, seconds(15), FAILED);
        assert_eq!(
            window.tally(0, seconds(25), BUCKETS),
            Tally {
                calls: 1,
                failures: 0,
                slow: 0
            }
        );
    }

    #[test]
    fn a_full_bucket_stays_full() {
        let word = AtomicU64::new(7 << COUNT_BITS | COUNT_MASK);
        count(&word, 7);
        assert_eq!(word.load(Ordering::Relaxed), 7 << COUNT_BITS | COUNT_MASK);
    }

    #[test]
    fn tags_wrap_round() {
        let word = AtomicU64::new(TAG_MASK << COUNT_BITS | 5);
        count(&word, 2);
        assert_eq!(word.load(Ordering::Relaxed), 2 << COUNT_BITS | 1);
    }

    #[test]
    fn a_success_can_be_taken_back_as_long_as_it_is_held() {
        let window = TimeWindow::new(SPAN, 2);
        let first = window.record(0, 1, seconds(1), OK);
        window.record(0, 1, seconds(2), OK);
        window.record(1, 1, seconds(1), OK);
        window.retract(0, first);
        assert_eq!(calls(&window, 1, seconds(2)), 2);
        window.retract(0, first);
        assert_eq!(calls(&window, 1, seconds(2)), 2, "none is left in it");
        window.record(1, 1, seconds(11), OK);
        window.retract(1, first);
        assert_eq!(calls(&window, 1, seconds(11)), 2, "it was overtaken");

        let full = AtomicU64::new(7 << COUNT_BITS | COUNT_MASK);
        uncount(&full, 7);
        assert_eq!(full.load(Ordering::Relaxed), 7 << COUNT_BITS | COUNT_MASK);
    }

    #[test]
    fn every_lane_is_summed() {
        let window = TimeWindow::new(SPAN, 4);
        for stripe in 0..9 {
            window.record(stripe, 0, seconds(0), FAILED);
        }
        assert_eq!(window.tally(0, seconds(0), 1).failures, 9);
    }

    proptest! {
        /// Against the plain way to do it: keep every call, and look at the tags.
        #[test]
        fn time_window_counts_what_a_list_of_calls_counts(
            steps in prop::collection::vec((0_u64..4_000, any::<bool>(), any::<bool>()), 1..200),
        ) {
            let window = TimeWindow::new(SPAN, 3);
            let mut list = Vec::new();
            let mut elapsed = 0;
            for (stripe, (wait, failed, slow)) in steps.into_iter().enumerate() {
                elapsed += millis(wait);
                window.record(stripe, 1, elapsed, Sample { failed, slow, ..OK });
                list.push((elapsed / seconds(1), failed, slow));
                for slices in [2, BUCKETS] {
                    let seen = || list.iter().filter(|call| call.0 + slices as u64 > elapsed / seconds(1));
                    prop_assert_eq!(window.tally(1, elapsed, slices), Tally {
                        calls: seen().count() as u64,
                        failures: seen().filter(|call| call.1).count() as u64,
                        slow: seen().filter(|call| call.2).count() as u64,
                    });
                }
            }
        }

        #[test]
        fn count_window_holds_the_last_calls_only(
            size in 1_usize..20,
            samples in prop::collection::vec((any::<bool>(), any::<bool>(), any::<Option<u8>>()), 0..100),
        ) {
            let mut window = CountWindow::new(size);
            let mut list = VecDeque::new();
            let mut successes = Vec::new();
            for (failed, slow, corrected) in samples {
                let number = window.record(3, Sample { failed, slow, ..OK });
                list.push_back((number, failed, slow));
                if !failed {
                    successes.push(number);
                }
                if let (Some(corrected), false) = (corrected, successes.is_empty()) {
                    let number = successes.swap_remove(usize::from(corrected) % successes.len());
                    if list.len() > size {
                        list.pop_front();
                    }
                    window.correct(3, number, FAILED);
                    match list.iter_mut().find(|call| call.0 == number) {
                        Some(call) => call.1 = true,
                        None => list.push_back((u64::MAX, true, false)),
                    }
                }
                if list.len() > size {
                    list.pop_front();
                }
                prop_assert_eq!(window.tally(3), Tally {
                    calls: list.len() as u64,
                    failures: list.iter().filter(|call| call.1).count() as u64,
                    slow: list.iter().filter(|call| call.2).count() as u64,
                });
            }
            window.record(2, FAILED);
            window.correct(2, 0, FAILED);
            prop_assert_eq!(window.tally(3).calls, list.len() as u64);
            prop_assert_eq!(window.tally(4).calls, 0);
        }
    }
}
