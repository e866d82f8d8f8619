//! The limit that adapts by additive increase and multiplicative decrease.

use std::time::Duration;

use tokio::time::Instant;

use super::limit::{LimitPolicy, Sample, check_limit};
use crate::algorithm::aimd::{self, Call, Settings};
use crate::error::Check;
use crate::nanos::{nanos_between, whole_nanos};
use crate::{ConfigError, Outcome};

/// Gives up a tenth of the limit for one late call, and half of it within seven round trips.
const BACKOFF: f64 = 0.9;

/// A limit that grows by one while calls go well, and shrinks by a tenth when they do not.
///
/// A *good* call is a [`Success`](Outcome::Success). A *bad* call is one of these: an [`Overload`](Outcome::Overload);
/// a call that an inner timeout has ended; a call that ended by a deadline or was dropped although the service [had
/// enough time](crate::circuit_breaker#calls-that-end-early) for it; a call that took longer than
/// [`slow_calls`](Self::slow_calls). Other failures, throttled, ignored and cancelled calls count neither way: they may
/// have taken no time at all, or ended for reasons of the caller.
///
/// - The limit shrinks at most once per round trip: calls that were in flight when it shrank do not make it shrink
///   again.
/// - It grows by one after as many good calls as the limit allows at once. Each of these calls must have begun after
///   the last change, with more than half of the limit in flight. The limit therefore grows by at most one per round
///   trip, and does not grow while it is not used. A few very fast answers do not make it grow faster.
/// - It begins with a slow start, as in TCP: each good call with more than half of the limit in flight makes it grow by
///   one, so the limit doubles in a round trip. The first bad call ends the slow start and takes the last doubling
///   back: the limit is halved, but not below its initial value. The slow start pauses after as many calls in a row as
///   the limit allows at once if each had other calls in flight, but at most half of the limit. It continues after a
///   second in which no call ends.
///
/// For a streamed answer, the time to its head counts; a long download is not slow.
///
/// The limit knows the latency only from timeouts and `slow_calls`, so it settles where calls reach one of these times.
/// Set one of them to the time that a caller is willing to wait. The timeout must be inside the bulkhead, or in the
/// same standard stack; for an outer timeout, the rule for dropped calls applies.
///
/// The rule is that of TCP congestion control (*Congestion Avoidance and Control*, Van Jacobson, 1988), with a timeout
/// in place of a lost packet.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use = "give it to `BulkheadLayer::config`"]
pub struct Aimd {
    settings: Settings,
    slow: Option<Duration>,
}

impl Aimd {
    /// Makes a limit that stays between `min` and `max`; 1 to 1,000,000.
    pub fn between(min: usize, max: usize) -> Self {
        Self {
            settings: Settings::between(min, max, BACKOFF),
            slow: None,
        }
    }

    /// Sets the initial limit, from `min` to `max`. By default 20, or the nearer bound.
    pub fn initial(mut self, limit: usize) -> Self {
        self.settings.initial = limit;
        self
    }

    /// Sets the factor by which the limit shrinks; above 0 and below 1. 0.9 by default.
    pub fn backoff(mut self, share: f64) -> Self {
        self.settings.backoff = share;
        self
    }

    /// Also shrinks the limit when a call takes longer than this, whether it succeeds or fails. Off by default.
    pub fn slow_calls(mut self, longer_than: Duration) -> Self {
        self.slow = Some(longer_than);
        self
    }

    pub(super) fn check(&self, check: Check<'_>) -> Result<(), ConfigError> {
        let Settings {
            min,
            max,
            initial,
            backoff,
        } = self.settings;
        check_limit(check, "min", min)?;
        check_limit(check, "max", max)?;
        check.within("min", &min, ..=max, "at most max")?;
        check.within("initial", &initial, min..=max, "from min to max")?;
        let is_part = backoff > 0.0 && backoff < 1.0;
        check.that(is_part, "backoff", &backoff, "above 0 and below 1")?;
        match self.slow {
            Some(longer_than) => check.duration("slow_calls", longer_than),
            None => Ok(()),
        }
    }

    pub(super) fn begin(self, origin: Instant) -> Running {
        Running {
            settings: self,
            origin,
            limit: aimd::Aimd::new(self.settings),
        }
    }

    fn is_overload(&self, sample: &Sample) -> bool {
        match sample.outcome {
            Outcome::Throttled { .. } | Outcome::Ignored | Outcome::Cancelled => false,
            Outcome::Overload { .. } => true,
            _ => sample.timed_out || self.slow.is_some_and(|limit| sample.round_trip > limit),
        }
    }
}

/// An [`Aimd`] in use. Times are nanoseconds since `origin`.
#[derive(Debug)]
pub(super) struct Running {
    settings: Aimd,
    origin: Instant,
    limit: aimd::Aimd,
}

impl LimitPolicy for Running {
    fn initial(&self) -> usize {
        self.settings.settings.initial
    }

    fn update(&self, sample: &Sample) -> usize {
        let ended = nanos_between(self.origin, sample.now);
        let held = whole_nanos(sample.held.max(sample.round_trip));
        let call = Call {
            began: ended.saturating_sub(held),
            ended,
            in_flight: sample.in_flight,
            limit: sample.limit,
        };
        if self.settings.is_overload(sample) {
            self.limit.overloaded(call)
        } else if sample.outcome == Outcome::Success {
            self.limit.succeeded(call)
        } else {
            sample.limit
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn it_begins_with_twenty_or_the_nearer_bound_unless_another_limit_is_set() {
        assert_eq!(Limited::new(Aimd::between(30, 40)).limit, 30);
        assert_eq!(Limited::new(Aimd::between(1, 4)).limit, 4);
        assert_eq!(Limited::new(Aimd::between(1, 4).initial(2)).limit, 2);
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
        let mut limit = Limited::new(Aimd::between(2, 200).initial(23).slow_calls(50 * MS));
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
        assert_eq!(limit.call(0, 1, 1, OVERLOAD), 20, "its start is over");
        assert_eq!(stream(&mut limit, 2, 1_000), 20);
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
}
