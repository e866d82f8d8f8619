//! Additive increase, multiplicative decrease: a limit that adapts to the capacity of the service.
//!
//! The rule is that of TCP congestion control (*Congestion Avoidance and Control*, Van Jacobson, 1988). The limit
//! shrinks at most once per round trip: calls that were in flight when it shrank do not make it shrink again. It grows
//! by one after as many good calls as it allows at once. Each of them must have begun after the last change, with more
//! than half of the limit in flight.
//!
//! It begins with a slow start, as in TCP: each such call makes it grow by one, which doubles it in a round trip. The
//! first bad call ends the slow start and takes the last doubling back. The slow start pauses when as many calls in a
//! row as the limit allows at once have found half of it unused: the limit does not restrict calls then, and must not
//! be doubling when the next overload comes. A single call in flight does not count for the pause, because it says
//! nothing about later load. For the same reason the slow start continues after an idle second.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Initial limit: low enough for a small service, and three round trips below 100.
const INITIAL: usize = 20;

/// Nanoseconds without the end of a call after which the load counts as new.
const IDLE: u64 = 1_000_000_000;

/// The stage of a limit in its slow start, or in a slow start that continues after an idle time.
const STARTING: u32 = 0;
const PAUSED: u32 = 1;
/// The service has been overloaded once.
const STARTED: u32 = 2;

/// The settings that decide.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) min: usize,
    pub(crate) max: usize,
    /// The initial limit.
    pub(crate) initial: usize,
    /// The factor by which the limit shrinks; above 0 and below 1.
    pub(crate) backoff: f64,
}

impl Settings {
    /// Makes a limit between two bounds, in either order.
    pub(crate) fn between(min: usize, max: usize, backoff: f64) -> Self {
        Self {
            min,
            max,
            initial: INITIAL.max(min).min(max),
            backoff,
        }
    }

    fn shrink(&self, limit: usize, is_start: bool) -> usize {
        let mut share = (limit as f64 * self.backoff) as usize;
        if is_start {
            // Half of the present limit, which was the limit a round trip ago.
            share = share.min(self.initial.max(limit / 2));
        }
        share.min(limit - 1).clamp(self.min, self.max)
    }
}

/// A call that has ended. Times are nanoseconds from any fixed origin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) began: u64,
    pub(crate) ended: u64,
    /// The number of calls in flight when it began or when it ended; the greater of the two.
    pub(crate) in_flight: usize,
    /// The limit at present.
    pub(crate) limit: usize,
}

/// The state of an adaptive limit. A change is stored as the first moment after it.
#[derive(Debug)]
pub(crate) struct Aimd {
    settings: Settings,
    /// Time at which the limit last shrank. Growth does not count here: a call that times out began long ago, and would
    /// never count if other calls made the limit grow in the meantime.
    shrunk: AtomicU64,
    /// Time of its last change.
    changed: AtomicU64,
    /// The number of good calls since then; during the slow start, the number of calls in a row that found half of the
    /// limit unused.
    well: AtomicU64,
    stage: AtomicU32,
    /// Time at which a call last ended, while the slow start pauses.
    ended: AtomicU64,
}

impl Aimd {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            shrunk: AtomicU64::new(0),
            changed: AtomicU64::new(0),
            well: AtomicU64::new(0),
            stage: AtomicU32::new(STARTING),
            ended: AtomicU64::new(0),
        }
    }

    /// Returns the limit after a bad call.
    pub(crate) fn overloaded(&self, call: Call) -> usize {
        let is_start = self.stage.load(Ordering::Relaxed) == STARTING;
        let smaller = self.settings.shrink(call.limit, is_start);
        let shrinks = smaller < call.limit && change(&self.shrunk, call);
        // Also if the limit cannot become smaller.
        self.stage.store(STARTED, Ordering::Relaxed);
        if !shrinks {
            return call.limit;
        }
        self.changed.fetch_max(call.ended + 1, Ordering::Relaxed);
        self.well.store(0, Ordering::Relaxed);
        smaller
    }

    /// Returns the limit after a good call.
    pub(crate) fn succeeded(&self, call: Call) -> usize {
        let limit = call.limit;
        let is_used = call.in_flight.saturating_mul(2) > limit;
        if self.is_starting(call) {
            return self.start(call, is_used);
        }
        let is_new = call.began >= self.changed.load(Ordering::Relaxed);
        if !is_used || !is_new || limit >= self.settings.max {
            return limit;
        }
        let well = 1 + self.well.fetch_add(1, Ordering::Relaxed);
        if well >= limit as u64 && change(&self.changed, call) {
            self.well.store(0, Ordering::Relaxed);
            return (limit + 1).max(self.settings.min);
        }
        limit
    }

    /// Returns the limit after a good call during the slow start.
    fn start(&self, call: Call, is_used: bool) -> usize {
        let limit = call.limit;
        if is_used {
            self.well.store(0, Ordering::Relaxed);
            return (limit + 1).min(self.settings.max.max(limit));
        }
        if call.in_flight == 1 {
            return limit;
        }
        let unused = 1 + self.well.fetch_add(1, Ordering::Relaxed);
        if unused >= limit as u64 {
            self.ended.store(call.ended, Ordering::Relaxed);
            self.enter(PAUSED, STARTING);
        }
        limit
    }

    /// Returns whether the limit is in its slow start, or continues it with this call.
    fn is_starting(&self, call: Call) -> bool {
        let stage = self.stage.load(Ordering::Relaxed);
        if stage != PAUSED {
            return stage == STARTING;
        }
        let last = self.ended.fetch_max(call.ended, Ordering::Relaxed);
        call.began >= last.saturating_add(IDLE) && self.enter(STARTING, PAUSED)
    }

    /// Enters another stage of the slow start, unless an overload has ended it.
    fn enter(&self, next: u32, present: u32) -> bool {
        self.well.store(0, Ordering::Relaxed);
        self.stage
            .compare_exchange(present, next, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

/// Makes the end of a call the last change, if the call began after the former change. Returns `true` for at most one
/// of several calls.
fn change(last: &AtomicU64, call: Call) -> bool {
    let before = last.load(Ordering::Relaxed);
    call.began >= before
        && last
            .compare_exchange(before, call.ended + 1, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An [`Aimd`] and the limit it has set.
    struct Limited {
        aimd: Aimd,
        limit: usize,
    }

    impl Limited {
        fn between(min: usize, max: usize) -> Self {
            let settings = Settings::between(min, max, 0.9);
            Self {
                aimd: Aimd::new(settings),
                limit: settings.initial,
            }
        }

        /// One that has shrunk before.
        fn started(self) -> Self {
            self.aimd.stage.store(STARTED, Ordering::Relaxed);
            self
        }

        fn succeed(&mut self, began: u64, ended: u64, in_flight: usize) -> usize {
            let limit = self.limit;
            self.limit = self.aimd.succeeded(Call {
                began,
                ended,
                in_flight,
                limit,
            });
            self.limit
        }

        fn overload(&mut self, began: u64, ended: u64) -> usize {
            let (in_flight, limit) = (1, self.limit);
            self.limit = self.aimd.overloaded(Call {
                began,
                ended,
                in_flight,
                limit,
            });
            self.limit
        }
    }

    fn from_20() -> Limited {
        Limited::between(2, 200).started()
    }

    #[test]
    fn it_doubles_in_each_round_trip_until_the_first_overload() {
        let mut limit = Limited::between(2, 1_000);
        for expected in [40, 80, 160] {
            let began = 100 * expected;
            for _ in 0..limit.limit {
                limit.succeed(began, began + 100, limit.limit);
            }
            assert_eq!(limit.limit as u64, expected);
        }
        assert_eq!(limit.overload(21_000, 21_100), 80, "the last doubling");
        assert_eq!(limit.overload(21_101, 21_200), 72);
        for _ in 0..71 {
            assert_eq!(limit.succeed(21_201, 21_300, 72), 72);
        }
        assert_eq!(limit.succeed(21_201, 21_300, 72), 73);
    }

    #[test]
    fn the_start_is_over_when_half_of_the_limit_is_not_used() {
        let mut limit = Limited::between(2, 1_000);
        for now in 1..20 {
            assert_eq!(limit.succeed(now, now + 10, 10), 20);
        }
        assert_eq!(limit.succeed(21, 31, 11), 21, "it is used");
        for now in 31..52 {
            assert_eq!(limit.succeed(now, now + 10, 10), 21);
        }
        for now in 52..72 {
            assert_eq!(limit.succeed(now, now + 10, 21), 21);
        }
        assert_eq!(limit.succeed(72, 82, 21), 22, "by one in a round trip");
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn calls_one_after_the_other_do_not_end_the_start() {
        let mut limit = Limited::between(2, 1_000);
        for now in 1..1_000 {
            assert_eq!(limit.succeed(now, now + 1, 1), 20);
        }
        assert_eq!(limit.succeed(1_000, 1_010, 20), 21);
        assert_eq!(limit.succeed(1_000, 1_010, 20), 22);
    }

    #[test]
    fn the_start_goes_on_after_an_idle_second_until_the_first_overload() {
        let mut limit = Limited::between(2, 1_000);
        for now in 1..=20 {
            limit.succeed(now, now + 10, 5);
        }
        for _ in 0..19 {
            assert_eq!(limit.succeed(SECOND, 2 * SECOND, 20), 20, "it pauses");
        }
        let again = 3 * SECOND;
        for grown in 1..=20 {
            assert_eq!(limit.succeed(again, again + 1, 20 + grown), 20 + grown);
        }
        limit.overload(again, again + 10);
        let shrunk = limit.limit;
        for call in 1..shrunk as u64 {
            let now = 10 * again + 2 * call * SECOND;
            assert_eq!(limit.succeed(now, now + 1, shrunk), shrunk);
        }
    }

    #[test]
    fn an_overload_ends_the_start_where_the_limit_can_be_no_smaller() {
        let mut limit = Limited::between(20, 1_000);
        assert_eq!(limit.overload(0, 10), 20);
        assert_eq!(limit.succeed(11, 20, 20), 20);
        // The same while it pauses.
        let mut limit = Limited::between(20, 1_000);
        for now in 1..=20 {
            limit.succeed(now, now + 10, 5);
        }
        assert_eq!(limit.overload(40, 50), 20);
        assert_eq!(limit.succeed(2 * SECOND, 2 * SECOND + 1, 20), 20);
    }

    #[test]
    fn the_start_takes_back_no_more_than_it_has_added() {
        for (grown, expected) in [(0, 18), (1, 18), (10, 20), (30, 25)] {
            let mut limit = Limited::between(2, 1_000);
            for _ in 0..grown {
                limit.succeed(1, 100, limit.limit);
            }
            assert_eq!(limit.limit, 20 + grown);
            assert_eq!(limit.overload(1, 101), expected);
        }
    }

    #[test]
    fn late_calls_count_although_it_grew_since_they_began() {
        let mut limit = from_20();
        let mut now = 1;
        for _ in 0..25 {
            for _ in 0..=limit.limit {
                limit.succeed(now, now + 10, 20);
            }
            now += 11;
        }
        let grown = limit.limit;
        assert!(grown > 30, "{grown}");
        assert!(limit.overload(1, now) < grown);
    }

    #[test]
    fn it_grows_by_one_per_round_trip_and_only_if_it_is_used() {
        let mut limit = from_20();
        for round in 0..5_usize {
            let now = 100 * round as u64;
            for _ in 0..1_000 {
                assert!(limit.succeed(now + 1, now + 100, 15) <= 21 + round);
            }
            assert_eq!(limit.limit, 21 + round);
        }
        for round in 5..1_000 {
            limit.succeed(100 * round, 100 * round + 99, 12);
        }
        assert_eq!(limit.limit, 25, "12 of 25 are not more than half");
    }

    #[test]
    fn answers_that_take_no_time_do_not_make_it_faster() {
        let mut limit = from_20();
        for now in 1..=19 {
            assert_eq!(limit.succeed(now, now, 20), 20);
        }
        assert_eq!(limit.succeed(20, 20, 20), 21);
        for _ in 0..1_000 {
            assert_eq!(limit.succeed(20, 20, 21), 21, "one instant");
        }
    }

    #[test]
    fn it_stays_within_its_bounds() {
        let mut limit = Limited::between(19, 21);
        for round in 0..5 {
            limit.overload(100 * round + 1, 100 * round + 100);
        }
        assert_eq!(limit.limit, 19);
        for round in 5..1_000 {
            limit.succeed(100 * round + 1, 100 * round + 100, 20);
        }
        assert_eq!(limit.limit, 21);
        let mut one = Limited::between(1, 1);
        assert_eq!(one.overload(0, 9), 1, "never zero");
    }

    /// The promise of the documentation, written down without atomics and clever comparisons.
    struct Plain {
        shrunk: Option<u64>,
        changed: Option<u64>,
        well: usize,
        limit: usize,
    }

    impl Plain {
        fn call(&mut self, began: u64, ended: u64, in_flight: usize, is_overload: bool) -> usize {
            let after = |change: Option<u64>| change.is_none_or(|change| began > change);
            if is_overload && after(self.shrunk) && self.limit > 2 {
                self.limit = (self.limit * 9 / 10).min(self.limit - 1).max(2);
                (self.shrunk, self.changed) = (Some(ended), Some(ended));
                self.well = 0;
            } else if !is_overload
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
            calls in proptest::collection::vec((0..3_u64, 0..30_u64, 1..40_usize, 0..6), 1..2_000),
        ) {
            let mut limit = Limited::between(2, 40).started();
            let mut plain = Plain { shrunk: None, changed: None, well: 0, limit: 20 };
            let mut now = 30;
            for (pause, took, in_flight, kind) in calls {
                now += pause;
                let (began, is_overload) = (now - took, kind == 0);
                let expected = plain.call(began, now, in_flight, is_overload);
                let seen = if is_overload {
                    limit.overload(began, now)
                } else {
                    limit.succeed(began, now, in_flight)
                };
                prop_assert_eq!(seen, expected);
                prop_assert!((2..=40).contains(&expected));
            }
        }
    }
}
