//! Additive increase, multiplicative decrease: a limit that feels its way to what the service can take.

use std::time::Duration;

use tokio::time::Instant;

use super::limit::{LimitPolicy, Sample, check_limit};
use crate::context::{nanos_between, whole_nanos};
use crate::error::Check;
use crate::sync::{AtomicU64, Ordering};
use crate::{ConfigError, Outcome};

/// Where to begin: little enough for a small service, and 80 round trips from 100.
const INITIAL: usize = 20;
/// Gives up little for one late call, and half within seven round trips.
const BACKOFF: f64 = 0.9;

/// A limit that grows by one while the calls are well, and shrinks by a tenth when they are not.
///
/// *Well* is a [`Success`](Outcome::Success). *Not well* is an [`Overload`](Outcome::Overload), a call that a
/// inner timeout or deadline has ended, or one that took longer than [`slow_calls`](Self::slow_calls)
/// says. Other failures, ignored and cancelled calls count neither way: they may have taken no time at all,
/// or ended for reasons of the caller.
///
/// - It shrinks at most once per round trip: of all calls that were in flight when it shrank, none makes it
///   shrink again.
/// - It grows by one when as many calls have been well as the limit allows at once, each of which began
///   after the last change and saw more than half of the limit in flight. So it grows by one per round trip
///   at most, and a limit that is not used does not grow. A few answers that took no time do not
///   make it faster.
///
/// Of an answer that is streamed, what counts is how long its head took; a long download is not slow.
///
/// It knows nothing of latency but what timeouts and `slow_calls` tell it, so that is where it settles: give
/// it one of the two, as long as a caller is glad to wait. The timeout has to be inside the bulkhead; from one
/// outside it learns nothing but that the caller has gone.
///
/// The rule is that of TCP congestion control (*Congestion Avoidance and Control*, Van Jacobson, 1988), with the
/// timeout in the place of the lost packet.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use = "give it to `BulkheadLayer::config`"]
pub struct Aimd {
    min: usize,
    max: usize,
    initial: Option<usize>,
    backoff: f64,
    slow: Option<Duration>,
}

impl Aimd {
    /// A limit that stays between `min` and `max`; 1 to 1,000,000.
    pub fn between(min: usize, max: usize) -> Self {
        Self {
            min,
            max,
            initial: None,
            backoff: BACKOFF,
            slow: None,
        }
    }

    /// The limit to begin with, from `min` to `max`. By default 20, or the nearer bound.
    pub fn initial(mut self, limit: usize) -> Self {
        self.initial = Some(limit);
        self
    }

    /// What is left of the limit when it shrinks; above 0 and below 1. 0.9 by default.
    pub fn backoff(mut self, share: f64) -> Self {
        self.backoff = share;
        self
    }

    /// Shrinks also when a call takes longer than this, whether it succeeds or fails. Off by default.
    pub fn slow_calls(mut self, longer_than: Duration) -> Self {
        self.slow = Some(longer_than);
        self
    }

    pub(super) fn check(&self, check: Check<'_>) -> Result<(), ConfigError> {
        let Self { min, max, .. } = *self;
        check_limit(check, "min", min)?;
        check_limit(check, "max", max)?;
        check.that(min <= max, "min", &min, "at most max")?;
        if let Some(initial) = self.initial {
            let is_between = (min..=max).contains(&initial);
            check.that(is_between, "initial", &initial, "from min to max")?;
        }
        let is_part = self.backoff > 0.0 && self.backoff < 1.0;
        check.that(is_part, "backoff", &self.backoff, "above 0 and below 1")?;
        match self.slow {
            Some(longer_than) => check.duration("slow_calls", longer_than),
            None => Ok(()),
        }
    }

    pub(super) fn begin(self, origin: Instant) -> Running {
        Running {
            settings: self,
            origin,
            shrunk: AtomicU64::new(0),
            changed: AtomicU64::new(0),
            well: AtomicU64::new(0),
        }
    }

    fn shrink(&self, limit: usize) -> usize {
        let share = (limit as f64 * self.backoff) as usize;
        share.min(limit - 1).clamp(self.min, self.max)
    }

    fn is_overload(&self, sample: &Sample) -> bool {
        match sample.outcome {
            Outcome::Ignored | Outcome::Cancelled => false,
            Outcome::Overload { .. } => true,
            _ => sample.timed_out || self.slow.is_some_and(|limit| sample.round_trip > limit),
        }
    }
}

/// An [`Aimd`] at work. Times are nanoseconds since `origin`.
#[derive(Debug)]
pub(super) struct Running {
    settings: Aimd,
    origin: Instant,
    /// When the limit shrank last. Growth does not count here: a call that times out began long ago, and
    /// would never count if the calls beside it made the limit grow meanwhile.
    shrunk: AtomicU64,
    /// When it changed last.
    changed: AtomicU64,
    /// The calls since then that speak for a higher one.
    well: AtomicU64,
}

impl LimitPolicy for Running {
    fn initial(&self) -> usize {
        let Aimd { min, max, .. } = self.settings;
        self.settings.initial.unwrap_or(INITIAL.clamp(min, max))
    }

    fn update(&self, sample: &Sample) -> usize {
        let ended = nanos_between(self.origin, sample.now);
        // Calls that begin at the origin itself still count.
        let held = whole_nanos(sample.held.max(sample.round_trip));
        let (began, ended) = (1 + ended.saturating_sub(held), 1 + ended);
        let limit = sample.limit;
        if self.settings.is_overload(sample) {
            let smaller = self.settings.shrink(limit);
            if smaller < limit && since(&self.shrunk, began, ended) {
                self.changed.fetch_max(ended, Ordering::Relaxed);
                self.well.store(0, Ordering::Relaxed);
                return smaller;
            }
        } else if sample.outcome == Outcome::Success {
            return self.grow(sample, began, ended);
        }
        limit
    }
}

impl Running {
    fn grow(&self, sample: &Sample, began: u64, ended: u64) -> usize {
        let limit = sample.limit;
        let is_used = sample.in_flight.saturating_mul(2) > limit;
        if !is_used || limit >= self.settings.max || began <= self.changed.load(Ordering::Relaxed) {
            return limit;
        }
        let well = 1 + self.well.fetch_add(1, Ordering::Relaxed);
        if well >= limit as u64 && since(&self.changed, began, ended) {
            self.well.store(0, Ordering::Relaxed);
            return (limit + 1).max(self.settings.min);
        }
        limit
    }
}

/// Says whether a call began after the last change, and makes its end the last change. `true` for one of
/// several calls at most.
fn since(change: &AtomicU64, began: u64, ended: u64) -> bool {
    let last = change.load(Ordering::Relaxed);
    began > last
        && change
            .compare_exchange(last, ended, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);
    const OVERLOAD: Outcome = Outcome::Overload { retry_after: None };

    /// An [`Aimd`] and the limit it has set.
    struct Limited {
        aimd: Running,
        origin: Instant,
        limit: usize,
    }

    impl Limited {
        fn new(aimd: Aimd) -> Self {
            let origin = Instant::now();
            let aimd = aimd.begin(origin);
            let limit = aimd.initial();
            Self {
                aimd,
                origin,
                limit,
            }
        }

        /// A call that begins and ends at these milliseconds, with this many in flight.
        fn call(&mut self, began: u32, ended: u32, in_flight: usize, outcome: Outcome) -> usize {
            let sample = Sample {
                round_trip: (ended - began) * MS,
                in_flight,
                outcome,
                ..Sample::new(self.origin + ended * MS, self.limit)
            };
            self.limit = self.aimd.update(&sample);
            self.limit
        }

        fn time_out(&mut self, began: u32, ended: u32) -> usize {
            let sample = Sample {
                round_trip: (ended - began) * MS,
                outcome: Outcome::Failure,
                timed_out: true,
                ..Sample::new(self.origin + ended * MS, self.limit)
            };
            self.limit = self.aimd.update(&sample);
            self.limit
        }
    }

    fn from_20() -> Limited {
        Limited::new(Aimd::between(2, 200))
    }

    #[test]
    fn a_hundred_failures_of_one_round_trip_shrink_it_once() {
        let mut limit = from_20();
        for call in 0..50 {
            assert_eq!(limit.call(call, 100 + call, 20, OVERLOAD), 18);
            assert_eq!(limit.time_out(call, 100 + call), 18);
        }
        assert_eq!(
            limit.call(101, 210, 20, OVERLOAD),
            16,
            "the next round trip"
        );
    }

    #[test]
    fn late_calls_count_although_it_grew_since_they_began() {
        let mut limit = from_20();
        let mut now = 0;
        for _ in 0..25 {
            for _ in 0..=limit.limit {
                limit.call(now, now + 10, 20, Outcome::Success);
            }
            now += 11;
        }
        let grown = limit.limit;
        assert!(grown > 30, "{grown}");
        assert!(limit.time_out(0, now) < grown);
    }

    #[test]
    fn it_grows_by_one_per_round_trip_and_only_if_it_is_used() {
        let mut limit = from_20();
        for round in 0..5_usize {
            let now = 100 * round as u32;
            for _ in 0..1_000 {
                assert!(limit.call(now + 1, now + 100, 15, Outcome::Success) <= 21 + round);
            }
            assert_eq!(limit.limit, 21 + round);
        }
        for round in 5..1_000 {
            limit.call(100 * round, 100 * round + 99, 12, Outcome::Success);
        }
        assert_eq!(limit.limit, 25, "12 of 25 are not more than half");
    }

    #[test]
    fn answers_that_take_no_time_do_not_make_it_faster() {
        let mut limit = from_20();
        for now in 1..=19 {
            assert_eq!(limit.call(now, now, 20, Outcome::Success), 20);
        }
        assert_eq!(limit.call(20, 20, 20, Outcome::Success), 21);
        for _ in 0..1_000 {
            assert_eq!(limit.call(20, 20, 21, Outcome::Success), 21, "one instant");
        }
    }

    #[test]
    fn what_says_nothing_about_the_load_changes_nothing() {
        let mut limit = Limited::new(Aimd::between(2, 200).slow_calls(50 * MS));
        for now in 0..1_000 {
            for outcome in [Outcome::Failure, Outcome::Ignored, Outcome::Cancelled] {
                assert_eq!(limit.call(now, now + 20, 20, outcome), 20);
            }
            for outcome in [Outcome::Ignored, Outcome::Cancelled] {
                assert_eq!(limit.call(now, now + 200, 20, outcome), 20);
            }
        }
    }

    #[test]
    fn slow_calls_shrink_it_if_that_is_set() {
        let mut limit = Limited::new(Aimd::between(2, 200).slow_calls(50 * MS).backoff(0.5));
        assert_eq!(limit.call(0, 50, 1, Outcome::Success), 20);
        assert_eq!(limit.call(0, 51, 1, Outcome::Success), 10);
        assert_eq!(limit.call(52, 103, 1, Outcome::Failure), 5);
    }

    #[test]
    fn an_answer_that_takes_long_is_not_slow_and_belongs_to_the_time_of_its_request() {
        let mut limit = Limited::new(Aimd::between(2, 200).slow_calls(50 * MS));
        let stream = |limit: &mut Limited, began: u32, ended: u32| {
            let sample = Sample {
                round_trip: 10 * MS,
                held: (ended - began) * MS,
                in_flight: limit.limit,
                ..Sample::new(limit.origin + ended * MS, limit.limit)
            };
            limit.limit = limit.aimd.update(&sample);
            limit.limit
        };
        assert_eq!(stream(&mut limit, 0, 1_000), 20);
        assert_eq!(limit.call(1_001, 1_010, 20, OVERLOAD), 18);
        for _ in 0..100 {
            let before_that = stream(&mut limit, 900, 2_000);
            assert_eq!(before_that, 18, "says nothing about the new limit");
        }
        for _ in 0..17 {
            assert_eq!(stream(&mut limit, 1_100, 2_000), 18);
        }
        assert_eq!(stream(&mut limit, 1_100, 2_000), 19);
    }

    #[test]
    fn it_stays_within_its_bounds() {
        let mut limit = Limited::new(Aimd::between(19, 21));
        for round in 0..5 {
            limit.call(100 * round + 1, 100 * round + 100, 20, OVERLOAD);
        }
        assert_eq!(limit.limit, 19);
        for round in 5..1_000 {
            limit.call(100 * round + 1, 100 * round + 100, 20, Outcome::Success);
        }
        assert_eq!(limit.limit, 21);
        assert_eq!(Limited::new(Aimd::between(30, 40)).limit, 30);
        assert_eq!(Limited::new(Aimd::between(1, 4)).limit, 4);
        assert_eq!(Limited::new(Aimd::between(1, 4).initial(2)).limit, 2);
        let mut one = Limited::new(Aimd::between(1, 1));
        assert_eq!(one.call(0, 9, 1, OVERLOAD), 1, "never zero");
    }

    /// What the documentation promises, written down without atomics and clever comparisons.
    struct Plain {
        shrunk: Option<u32>,
        changed: Option<u32>,
        well: usize,
        limit: usize,
    }

    impl Plain {
        fn call(&mut self, began: u32, ended: u32, in_flight: usize, outcome: Outcome) -> usize {
            let after = |change: Option<u32>| change.is_none_or(|change| began > change);
            if outcome == OVERLOAD && after(self.shrunk) && self.limit > 2 {
                self.limit = (self.limit * 9 / 10).min(self.limit - 1).max(2);
                (self.shrunk, self.changed) = (Some(ended), Some(ended));
                self.well = 0;
            } else if outcome == Outcome::Success
                && after(self.changed)
                && 2 * in_flight > self.limit
                && self.limit < 40
            {
                self.well += 1;
                if self.well >= self.limit {
                    self.limit += 1;
                    self.changed = Some(ended);
                    self.well = 0;
                }
            }
            self.limit
        }
    }

    proptest! {
        #[test]
        fn does_what_a_plain_model_does(
            calls in proptest::collection::vec((0..3_u32, 0..30_u32, 1..40_usize, 0..8), 1..2_000),
        ) {
            let mut limit = Limited::new(Aimd::between(2, 40));
            let mut plain = Plain { shrunk: None, changed: None, well: 0, limit: 20 };
            let mut now = 30;
            for (pause, took, in_flight, outcome) in calls {
                now += pause;
                let outcome = match outcome {
                    0 => OVERLOAD,
                    1 => Outcome::Failure,
                    2 => Outcome::Cancelled,
                    _ => Outcome::Success,
                };
                let expected = plain.call(now - took, now, in_flight, outcome);
                prop_assert_eq!(limit.call(now - took, now, in_flight, outcome), expected);
                prop_assert!((2..=40).contains(&expected));
            }
        }
    }
}
