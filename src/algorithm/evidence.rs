//! Classification of a call that ended without an answer before its own timeout: by a deadline, or because its caller
//! dropped it.
//!
//! Such a call is a failure of the service only if the service had enough time for it. Otherwise callers with short
//! deadlines would cause refusals for all others. Times are nanoseconds from any fixed origin.
//!
//! # How it works
//!
//! With the timeout T of the attempt, or 2 s if it has none, the call is a failure if all of these conditions hold:
//!
//! 1. The service had it for at least T/10.
//! 2. The service had it for at least twice as long as the slowest good call of the last ten seconds took, or for all
//!    of T. Without a good call in these ten seconds the condition does not apply.
//! 3. No other call succeeded while it ran.
//!
//! Until the first good call, such calls do not count for a time of T, because nothing is known about the service.
//!
//! The factor is two because the good calls that end just before the deadlines of their callers would otherwise set the
//! limit for all calls. A mean or a percentile would ignore the few patient callers. The third condition exists because
//! a service that answers other calls is not down. For an endpoint of a balancer its own good calls count, and it must
//! have had none for all of T. A service that hangs for half of its calls is therefore not detected, nor one whose
//! callers all leave before T/10.

use std::time::Duration;

use crate::nanos::whole_nanos;
use crate::sync::{AtomicU64, Ordering};

/// The time T of an attempt without a timeout.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

/// A second is 2³⁰ ns here, so that no division is needed.
const SECOND_BITS: u32 = 30;
/// The number of remembered seconds, the present one included.
const SECONDS: u64 = 10;
/// The seconds in a ring: a power of two above [`SECONDS`].
const RING: usize = 16;
/// Durations are kept in units of 2¹⁰ ns, so that an hour fits into half a word.
const UNIT_BITS: u32 = 10;

/// The slowest good call of each of the last ten seconds.
///
/// One word for each second: its number (the *tag*) in the high half, the longest duration in the low half. The larger
/// of two words always replaces the smaller one, whether the slot holds an older second or a shorter duration, so
/// `fetch_max` is the whole protocol. A late write does not change a newer second. A good call reads one word, and
/// writes it only if it is the slowest so far. All accesses are `Relaxed`, because each word is complete in itself.
#[derive(Debug)]
pub(crate) struct Slowest([AtomicU64; RING]);

impl Slowest {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Notes a good call that ends at `now`.
    #[inline]
    pub(crate) fn note(&self, took: u64, now: u64) {
        let second = now >> SECOND_BITS;
        let units = (took >> UNIT_BITS).min(u64::from(u32::MAX) - 1) + 1;
        let word = second << u32::BITS | units;
        let slot = &self.0[second as usize % RING];
        if slot.load(Ordering::Relaxed) < word {
            slot.fetch_max(word, Ordering::Relaxed);
        }
    }

    /// Returns the duration of the slowest good call of the last ten seconds, if there was one.
    pub(crate) fn recent(&self, now: u64) -> Option<u64> {
        let now = now >> SECOND_BITS;
        let words = self.0.iter().map(|slot| slot.load(Ordering::Relaxed));
        // A thread that is ahead may have begun the next second.
        let recent = words.filter(|word| *word != 0 && (word >> u32::BITS) + SECONDS > now);
        let units = recent.map(|word| word & u64::from(u32::MAX)).max()?;
        Some(units << UNIT_BITS)
    }
}

/// The end of the last good call, rounded up by T/50, because later good calls may have ended until then.
///
/// It is written only when this time is over, so that threads rarely write to the shared word. All accesses are
/// `Relaxed`, because the word is complete in itself.
#[derive(Debug)]
pub(crate) struct LastGood(AtomicU64);

impl LastGood {
    /// Makes a state without a good call.
    fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Makes the state of a new part of a service, which is assumed to work.
    pub(crate) fn of_new_part(now: u64) -> Self {
        Self(AtomicU64::new(now.saturating_add(1)))
    }

    /// Notes a good call that ends at `now`.
    #[inline]
    fn note(&self, step: u64, now: u64) {
        if now >= self.0.load(Ordering::Relaxed) {
            let until = now.saturating_add(step).saturating_add(1);
            self.0.fetch_max(until, Ordering::Relaxed);
        }
    }

    /// Returns whether there has been a good call.
    fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Returns whether a good call may have ended since `began`.
    pub(crate) fn is_since(&self, began: u64) -> bool {
        self.0.load(Ordering::Relaxed) > began
    }
}

/// The shortest time for which a service counts as one that answers: with a short timeout and few calls, the next good
/// call may be as far away.
const MIN_MOMENT: u64 = 200_000_000;

/// The times that follow from the timeout of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// T.
    patience: u64,
    /// `true` if T is the timeout of the attempt, and not the default.
    is_bounded: bool,
    /// T/50.
    step: u64,
}

impl Terms {
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        let patience = whole_nanos(timeout.unwrap_or(DEFAULT_TIMEOUT));
        Self {
            patience,
            is_bounded: timeout.is_some(),
            step: patience / 50,
        }
    }

    /// Returns the time for which the service must have had a call for a failure, if the slowest good call took
    /// `slowest`.
    pub(crate) fn needed(self, slowest: Option<u64>) -> u64 {
        let twice = slowest.unwrap_or(0).saturating_mul(2);
        let twice = if self.is_bounded {
            twice.min(self.patience)
        } else {
            twice
        };
        twice.max(self.patience / 10)
    }

    /// Returns the time for which a service counts as one that answers, after a good call.
    fn moment(self) -> u64 {
        (self.patience / 10).max(MIN_MOMENT)
    }
}

/// A call that ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Early {
    pub(crate) began: u64,
    pub(crate) ended: u64,
    /// `true` if the service said that the deadline of the call had passed. The deadline was sooner than the timeout.
    pub(crate) is_answer: bool,
}

/// The evidence about one service that decides whether early ends of calls are failures.
///
/// Good calls are noted by all threads, without a lock. `held` is written under the lock of the breaker whose state it
/// belongs to.
#[derive(Debug)]
pub(crate) struct Evidence {
    /// The words of the [`Terms`], which may change. No decision depends on both of them.
    patience: AtomicU64,
    step: AtomicU64,
    is_bounded: bool,
    slowest: Slowest,
    last_good: LastGood,
    /// Time from which early ends count although there has been no good call. 0 before the first early end.
    cold_until: AtomicU64,
    /// The least time that counts as enough while the breaker is not closed; 0 while it is closed.
    held: AtomicU64,
}

impl Evidence {
    pub(crate) fn new(terms: Terms) -> Self {
        Self {
            patience: AtomicU64::new(terms.patience),
            step: AtomicU64::new(terms.step),
            is_bounded: terms.is_bounded,
            slowest: Slowest::new(),
            last_good: LastGood::new(),
            cold_until: AtomicU64::new(0),
            held: AtomicU64::new(0),
        }
    }

    /// Changes the timeout of the attempts. They had one before.
    pub(crate) fn set_timeout(&self, timeout: Duration) {
        let terms = Terms::new(Some(timeout));
        self.patience.store(terms.patience, Ordering::Relaxed);
        self.step.store(terms.step, Ordering::Relaxed);
    }

    fn terms(&self) -> Terms {
        Terms {
            patience: self.patience.load(Ordering::Relaxed),
            is_bounded: self.is_bounded,
            step: self.step.load(Ordering::Relaxed),
        }
    }

    /// Notes a good call.
    #[inline]
    pub(crate) fn note_good(&self, took: u64, now: u64) {
        self.slowest.note(took, now);
        self.last_good.note(self.step.load(Ordering::Relaxed), now);
    }

    /// Notes a good call of a part of the service.
    #[inline]
    pub(crate) fn note_good_of(&self, last_good: &LastGood, took: u64, now: u64) {
        self.note_good(took, now);
        last_good.note(self.step.load(Ordering::Relaxed), now);
    }

    /// Returns the least duration of a call that counts as a failure.
    pub(crate) fn needed(&self, now: u64) -> u64 {
        self.needed_by(self.terms(), now)
    }

    /// Returns whether any call has been answered well a moment ago.
    pub(crate) fn is_answering(&self, now: u64) -> bool {
        self.last_good
            .is_since(now.saturating_sub(self.terms().moment()))
    }

    /// Returns the silence after which a service counts as hanging. It is known while the service answers.
    pub(crate) fn silence(&self, now: u64) -> Option<u64> {
        let slowest = self.slowest.recent(now)?;
        Some(self.terms().needed(Some(slowest)))
    }

    fn needed_by(&self, terms: Terms, now: u64) -> u64 {
        let needed = terms.needed(self.slowest.recent(now));
        needed.max(self.held.load(Ordering::Relaxed))
    }

    /// Keeps the present time that counts as enough, until it is [released](Self::release). In between it only grows.
    pub(crate) fn hold(&self, now: u64) {
        self.held.fetch_max(self.needed(now), Ordering::Relaxed);
    }

    pub(crate) fn release(&self) {
        self.held.store(0, Ordering::Relaxed);
    }

    /// Returns the early end of a call whose answer says that its deadline had passed. `None` if this answer is a
    /// failure of the service: the deadline is not sooner than the timeout of the attempt, and is not near.
    pub(crate) fn end_at_deadline(&self, began: u64, ended: u64, deadline: u64) -> Option<Early> {
        let is_short = deadline.saturating_sub(began) < self.terms().patience;
        // The clocks of both sides differ by the time on the network, and a client may send a sooner deadline than its
        // own.
        let has_come = deadline.saturating_sub(ended) <= ended.saturating_sub(began) / 10;
        (is_short || has_come).then_some(Early {
            began,
            ended,
            is_answer: is_short,
        })
    }

    /// Returns whether a call that ended early is a failure of the service.
    pub(crate) fn is_failure(&self, call: Early) -> bool {
        self.is_failure_since(call.began, &self.last_good, call, self.terms())
    }

    /// Returns whether a call that ended early is a failure of a part of the service, with good calls of its own. The
    /// terms are those of the call.
    ///
    /// A part with few calls has few good calls. If most callers leave early, many calls run without a good call in the
    /// meantime, so there must be no good call for all of T.
    pub(crate) fn is_failure_of(&self, last_good: &LastGood, call: Early, terms: Terms) -> bool {
        let since = call.ended.saturating_sub(terms.patience);
        self.is_failure_since(since.min(call.began), last_good, call, terms)
    }

    fn is_failure_since(
        &self,
        since: u64,
        last_good: &LastGood,
        call: Early,
        terms: Terms,
    ) -> bool {
        if self.is_cold(call) {
            return false;
        }
        let recently = call.ended.saturating_sub(SECONDS << SECOND_BITS);
        if call.is_answer && !last_good.is_since(recently) {
            return true;
        }
        let needed = self.needed_by(terms, call.ended);
        call.ended.saturating_sub(call.began) >= needed && !last_good.is_since(since)
    }

    /// Returns whether the evidence is too little, because there has been no good call so far.
    fn is_cold(&self, call: Early) -> bool {
        if self.last_good.is_known() {
            return false;
        }
        let until = call.began.saturating_add(self.terms().patience).max(1);
        let first =
            self.cold_until
                .compare_exchange(0, until, Ordering::Relaxed, Ordering::Relaxed);
        call.ended < first.map_or_else(|until| until, |_| until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MS;

    /// With a timeout of 2 s.
    fn evidence() -> Evidence {
        Evidence::new(Terms::new(Some(Duration::from_secs(2))))
    }

    #[test]
    fn a_service_counts_as_answering_for_a_tenth_of_the_timeout_and_at_least_200_ms() {
        let after_good = |timeout, passed| {
            let evidence = Evidence::new(Terms::new(timeout));
            evidence.last_good.note(evidence.terms().step, 100 * SECOND);
            evidence.is_answering(100 * SECOND + passed)
        };
        for (timeout, lasts) in [
            (Some(Duration::from_millis(500)), 200 * MS),
            (None, 200 * MS),
            (Some(Duration::from_secs(10)), SECOND),
        ] {
            let rounded = whole_nanos(timeout.unwrap_or(DEFAULT_TIMEOUT)) / 50;
            assert!(after_good(timeout, lasts), "{timeout:?}");
            assert!(!after_good(timeout, lasts + rounded + MS), "{timeout:?}");
        }
        assert!(!evidence().is_answering(SECOND), "no call was good");
    }

    /// Ends a call early at `ended`, after the time `lasted`.
    fn fails(evidence: &Evidence, lasted: u64, ended: u64) -> bool {
        evidence.is_failure(Early {
            began: ended - lasted,
            ended,
            is_answer: false,
        })
    }

    /// Good calls of 20 ms each 10 ms, until 10 s.
    fn healthy() -> Evidence {
        let evidence = evidence();
        for end in 0..=1_000 {
            evidence.note_good(20 * MS, end * 10 * MS);
        }
        evidence
    }

    #[test]
    fn a_call_with_a_tenth_of_the_timeout_is_a_failure_when_nothing_is_answered() {
        let (evidence, later) = (healthy(), 11 * SECOND);
        assert!(!fails(&evidence, 199 * MS, later));
        assert!(fails(&evidence, 200 * MS, later));
    }

    #[test]
    fn without_a_timeout_a_call_needs_200_ms_and_twice_the_slowest_however_long_that_is() {
        let evidence = Evidence::new(Terms::new(None));
        evidence.note_good(20 * MS, 0);
        assert!(!fails(&evidence, 199 * MS, SECOND));
        assert!(fails(&evidence, 200 * MS, SECOND));
        evidence.note_good(6 * SECOND, 6 * SECOND);
        assert!(!fails(&evidence, 8 * SECOND, 15 * SECOND));
        // It is forgotten by then.
        assert!(fails(&evidence, 8 * SECOND, 30 * SECOND));
    }

    #[test]
    fn a_call_needs_twice_the_time_of_the_slowest_good_one_and_no_more_than_its_timeout() {
        let evidence = healthy();
        evidence.note_good(300 * MS, 10 * SECOND);
        assert!(!fails(&evidence, 599 * MS, 11 * SECOND));
        assert!(fails(&evidence, 601 * MS, 11 * SECOND));
        evidence.note_good(1_500 * MS, 10 * SECOND);
        assert!(!fails(&evidence, 1_999 * MS, 13 * SECOND));
        assert!(fails(&evidence, 2_000 * MS, 13 * SECOND));
    }

    #[test]
    fn a_call_is_no_failure_while_others_are_answered() {
        let evidence = healthy();
        assert!(!fails(&evidence, 300 * MS, 10 * SECOND + 200 * MS));
        // The end of the last good call is known to 40 ms.
        assert!(!fails(&evidence, 300 * MS, 10 * SECOND + 300 * MS));
        assert!(fails(&evidence, 300 * MS, 10 * SECOND + 341 * MS));
    }

    #[test]
    fn nothing_counts_for_one_timeout_before_the_first_good_call() {
        let evidence = evidence();
        assert!(!fails(&evidence, 500 * MS, 100 * SECOND));
        assert!(!fails(&evidence, 500 * MS, 101 * SECOND + 499 * MS));
        assert!(fails(&evidence, 500 * MS, 101 * SECOND + 500 * MS));
        let warm = healthy();
        assert!(fails(&warm, 500 * MS, 100 * SECOND));
    }

    #[test]
    fn a_service_that_says_the_deadline_has_passed_is_believed_while_it_answers_others() {
        let said = |evidence: &Evidence, lasted, ended| {
            evidence.is_failure(Early {
                began: ended - lasted,
                ended,
                is_answer: true,
            })
        };
        let evidence = healthy();
        assert!(!said(&evidence, 15 * MS, 10 * SECOND + 15 * MS));
        assert!(!said(&evidence, 15 * MS, 15 * SECOND));
        assert!(said(&evidence, 15 * MS, 22 * SECOND));
        let cold = self::evidence();
        assert!(!said(&cold, 15 * MS, 22 * SECOND));
        assert!(said(&cold, 15 * MS, 24 * SECOND));
    }

    #[test]
    fn the_time_that_is_needed_only_grows_while_it_is_held() {
        let evidence = healthy();
        evidence.note_good(300 * MS, 10 * SECOND);
        evidence.hold(11 * SECOND);
        assert!(evidence.needed(100 * SECOND).abs_diff(600 * MS) < MS);
        evidence.note_good(500 * MS, 100 * SECOND);
        evidence.hold(101 * SECOND);
        assert!(evidence.needed(200 * SECOND).abs_diff(1_000 * MS) < MS);
        evidence.release();
        assert_eq!(evidence.needed(200 * SECOND), 200 * MS);
    }

    proptest! {
        #[test]
        fn the_slowest_of_ten_seconds_is_that_of_a_plain_list(
            calls in prop::collection::vec((0..3_000_u64, 0..2_000_u64), 1..60),
        ) {
            let slowest = Slowest::new();
            let (mut now, mut list) = (0, Vec::new());
            for (wait, took) in calls {
                now += wait * MS;
                slowest.note(took * MS, now);
                list.push((now, took * MS));
                let now_second = now >> SECOND_BITS;
                let is_recent = |at: &u64| (at >> SECOND_BITS) + SECONDS > now_second;
                let expected = list.iter().filter(|(at, _)| is_recent(at)).map(|(_, took)| *took);
                let expected = expected.max().unwrap();
                let found = slowest.recent(now).unwrap();
                prop_assert!(found >= expected && found - expected <= 1 << UNIT_BITS);
            }
            prop_assert_eq!(slowest.recent(now + 11 * SECOND), None);
        }

        #[test]
        fn a_call_that_outlasts_all_answers_is_a_failure_from_the_time_that_is_needed_on(
            good in prop::collection::vec((1..5_000_u64, 0..500_u64), 1..40),
            lasted in 0..4_000_u64,
        ) {
            let evidence = evidence();
            let (mut now, mut list) = (SECOND, Vec::new());
            for (took, wait) in good {
                now += wait * MS;
                evidence.note_good(took * MS, now);
                list.push((now, took));
            }
            // The end of the last good call is known to 40 ms.
            let end = now + (40 + lasted) * MS + 1;
            let is_recent = |at: &u64| (at >> SECOND_BITS) + SECONDS > end >> SECOND_BITS;
            let recent = list.iter().filter(|(at, _)| is_recent(at)).map(|(_, took)| *took);
            let needed = (2 * recent.max().unwrap_or(0)).clamp(200, 2_000);
            let fails = fails(&evidence, lasted * MS, end);
            prop_assert!(fails || lasted <= needed, "{} of {} ms", lasted, needed);
            prop_assert!(!fails || lasted >= needed, "{} of {} ms", lasted, needed);
        }

        #[test]
        fn no_times_overflow(began in any::<u64>(), ended in any::<u64>(), took in any::<u64>(), is_answer: bool) {
            let evidence = evidence();
            // A clock that has run for 500 years.
            let (began, ended) = (began >> 1, ended >> 1);
            evidence.note_good(took, ended);
            evidence.hold(ended);
            evidence.is_failure(Early { began, ended, is_answer });
        }
    }
}
