//! The circuit breaker. Time, randomness and the thread's stripe are arguments.
//!
//! Calls of a closed breaker are counted without a lock, in `closed`. The machine makes all other decisions under a
//! lock, and publishes its state in two words for calls that do not take the lock.

mod closed;
mod conditions;
mod machine;

use std::time::Duration;

use self::closed::Step;
pub(crate) use self::closed::{At, Counts, MIN_FAILURES, Mark};
use self::conditions::{Conditions, NO_TIME};
use self::machine::{Machine, NEVER, ProbeEnd};
pub(crate) use self::machine::{Probe, Settings};
pub use self::machine::{State, Transition, TransitionCause};
use crate::Outcome;
use crate::algorithm::evidence::{Evidence, Terms};
use crate::algorithm::window::Sample;
use crate::live::Live;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// The state of a breaker and its epoch. A call on a closed breaker reads only this word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    const STATE_BITS: u32 = 2;

    fn new(state: State, epoch: u64) -> Self {
        Self(epoch << Self::STATE_BITS | state as u64)
    }

    #[inline]
    pub(crate) fn is(self, state: State) -> bool {
        self.0 & ((1 << Self::STATE_BITS) - 1) == state as u64
    }

    #[inline]
    fn epoch(self) -> u64 {
        self.0 >> Self::STATE_BITS
    }
}

/// A call that is over, or whose head has arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finished {
    pub(crate) outcome: Outcome,
    /// `true` for the first attempt of an operation. It matters only for the failures of closed breakers.
    pub(crate) is_first: bool,
    /// `true` if it took longer than calls may take.
    pub(crate) slow: bool,
    /// The time for which the service had it.
    pub(crate) took: u64,
    pub(crate) at: At,
}

/// A circuit breaker. Times are nanoseconds since it was made, jitter is from -1 to 1.
///
/// A change of state stores the end of the open time and then the word, both with release. A call loads the word with
/// acquire, so a call that sees an open breaker sees the end of its open time.
///
/// A call counts in the epoch of the word that admitted it. Each epoch has a window and a streak of its own, and the
/// machine compares the epoch under its lock before it opens. A late call therefore changes no later epoch, whatever
/// the interleaving. The second load of the word, before a call is counted, only saves work.
pub(crate) struct Breaker {
    word: AtomicU64,
    /// End of the open time.
    open_until: AtomicU64,
    counts: Counts,
    machine: Mutex<Machine>,
    evidence: Evidence,
    /// The [`Conditions`], changed under the lock of the machine.
    conditions: Live<5>,
    /// Time in nanoseconds above which a call is slow, or [`NO_TIME`]. A copy of one of the conditions, for
    /// calls that read no other.
    slow_after: AtomicU64,
    /// Number of failures in a row that opens the breaker, or 0. Also a copy.
    row: AtomicU64,
}

impl Breaker {
    pub(crate) fn new(settings: Settings, counts: Counts) -> Self {
        let conditions = Conditions::of(&settings);
        let row = conditions.consecutive_failures.unwrap_or(0);
        Self {
            word: AtomicU64::new(Word::new(State::Closed, 0).0),
            open_until: AtomicU64::new(NEVER),
            counts,
            evidence: Evidence::new(Terms::new(settings.timeout)),
            machine: Mutex::new(Machine::new(settings)),
            conditions: Live::new(conditions.words()),
            slow_after: AtomicU64::new(conditions.slow_after()),
            row: AtomicU64::new(row.into()),
        }
    }

    /// Returns the present word. A call is admitted with the word of a closed breaker.
    #[inline]
    pub(crate) fn word(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    pub(crate) fn state(&self) -> State {
        lock(&self.machine).state()
    }

    /// Returns the time above which a call is slow, if slow calls count.
    #[inline]
    pub(crate) fn slow_calls_longer_than(&self) -> Option<Duration> {
        match self.slow_after.load(Ordering::Relaxed) {
            NO_TIME => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    /// Replaces the settings, except for the timeout of the attempts. State and counts stay. If a call ends during the
    /// change, either the old or the new settings apply to it.
    pub(crate) fn adjust(&self, settings: Settings) {
        let mut machine = lock(&self.machine);
        let conditions = Conditions::of(&settings);
        let row = conditions.consecutive_failures.unwrap_or(0);
        if row != 0 && machine.settings().consecutive_failures.is_none() {
            // While the setting was off, a success did not end the row of failures. End it here.
            self.counts.count_streak(machine.epoch(), Step::Succeeded);
        }
        machine.adjust(settings);
        self.conditions.set(conditions.words());
        self.slow_after
            .store(conditions.slow_after(), Ordering::Relaxed);
        self.row.store(row.into(), Ordering::Relaxed);
    }

    /// Returns the remaining open time. `None` if it is not known, because the breaker is half-open or forced open.
    pub(crate) fn open_for_remaining(&self, nanos: u64) -> Option<Duration> {
        match self.open_until.load(Ordering::Acquire) {
            NEVER => None,
            until => Some(Duration::from_nanos(until.saturating_sub(nanos))),
        }
    }

    /// Returns whether the next call would be admitted.
    pub(crate) fn would_admit(&self, nanos: u64) -> bool {
        let word = self.word();
        if word.is(State::HalfOpen) {
            return lock(&self.machine).has_free_probe(nanos);
        }
        word.is(State::Closed) || self.open_for_remaining(nanos) == Some(Duration::ZERO)
    }

    /// Returns whether a new breaker may take the place of this one.
    pub(crate) fn is_evictable(&self, nanos: u64) -> bool {
        lock(&self.machine).is_evictable(nanos)
    }

    /// Returns the evidence that decides about calls that end early.
    pub(crate) fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Admits a call as a probe, if the open time is over and not too many probes are in flight. Otherwise returns the
    /// remaining open time, if it is known. `word` is the word of a breaker that is not closed, and `time` the
    /// remaining time of the call, if it has a deadline.
    pub(crate) fn try_probe(
        &self,
        word: Word,
        time: impl FnOnce() -> Option<u64>,
        nanos: u64,
    ) -> (Result<Probe, Option<Duration>>, Option<Transition>) {
        let (mut remaining, mut transition) = (self.open_for_remaining(nanos), None);
        if !word.is(State::Open) || remaining == Some(Duration::ZERO) {
            let probe;
            let is_short = time().is_some_and(|time| time < self.evidence.needed(nanos));
            (probe, transition) = self.change(nanos, |machine| machine.try_probe(is_short, nanos));
            if let Some(probe) = probe {
                return (Ok(probe), transition);
            }
            remaining = self.open_for_remaining(nanos);
        }
        let remaining = remaining.filter(|rest| !rest.is_zero());
        (Err(remaining), transition)
    }

    /// Counts a success that was not slow, of a call that was admitted with this word and took `took`.
    #[inline]
    pub(crate) fn count_success(&self, admitted: Word, took: u64, at: At) {
        self.evidence.note_good(took, at.nanos);
        if self.word() == admitted {
            self.record(admitted, at, Sample::OK, Step::Succeeded);
        }
    }

    #[inline]
    fn note_if_good(&self, call: Finished) {
        if call.outcome == Outcome::Success {
            self.evidence.note_good(call.took, call.at.nanos);
        }
    }

    /// Counts a call that was admitted with this word.
    #[must_use]
    pub(crate) fn count(
        &self,
        admitted: Word,
        call: Finished,
        jitter: impl FnOnce() -> f64,
    ) -> Option<Transition> {
        self.note_if_good(call);
        let (failed, slow) = (call.outcome.is_failure(), call.slow);
        let step = match call.outcome {
            Outcome::Ignored | Outcome::Throttled { .. } | Outcome::Cancelled => return None,
            _ if failed => Step::Failed,
            _ => Step::Succeeded,
        };
        if self.word() != admitted {
            return None;
        }
        let first = call.is_first;
        let sample = Sample {
            failed,
            slow,
            first,
        };
        // A service that turns calls away to answer others is not down: an open breaker would leave it idle.
        let is_overload = matches!(call.outcome, Outcome::Overload { .. });
        let streak = if is_overload && self.evidence.is_answering(call.at.nanos) {
            self.count_streak(admitted, step)
        } else {
            self.record(admitted, call.at, sample, step).1
        };
        if !failed && !slow {
            return None;
        }
        self.evaluate(admitted, streak, call, jitter)
    }

    /// Counts the good head of the answer to a call that was admitted with this word. Returns the place of the count,
    /// for [`count_rest`](Self::count_rest).
    #[must_use]
    pub(crate) fn count_head(
        &self,
        admitted: Word,
        call: Finished,
        jitter: impl FnOnce() -> f64,
    ) -> (Option<Mark>, Option<Transition>) {
        self.note_if_good(call);
        if self.word() != admitted {
            return (None, None);
        }
        let slow = call.slow;
        let sample = Sample { slow, ..Sample::OK };
        let (mark, _) = self.record(admitted, call.at, sample, Step::Answered);
        let transition = slow.then(|| self.evaluate(admitted, 0, call, jitter));
        (Some(mark), transition.flatten())
    }

    /// Counts the end of an answer whose head has been counted.
    #[must_use]
    pub(crate) fn count_rest(
        &self,
        admitted: Word,
        mark: Mark,
        call: Finished,
        jitter: impl FnOnce() -> f64,
    ) -> Option<Transition> {
        if self.word() != admitted {
            return None;
        }
        let step = match call.outcome {
            // The count of the head stays.
            Outcome::Ignored | Outcome::Throttled { .. } | Outcome::Cancelled => return None,
            Outcome::Success => Step::Succeeded,
            Outcome::Failure | Outcome::Overload { .. } => {
                let failure = Sample {
                    failed: true,
                    slow: false,
                    first: call.is_first,
                };
                self.counts
                    .correct(admitted.epoch(), call.at, mark, failure);
                Step::BrokeOff
            }
        };
        let streak = self.count_streak(admitted, step);
        if step == Step::Succeeded {
            return None;
        }
        self.evaluate(admitted, streak, call, jitter)
    }

    /// Records a call. Returns its place, and the number of failures in a row.
    #[inline]
    fn record(&self, admitted: Word, at: At, sample: Sample, step: Step) -> (Mark, u32) {
        let mark = self.counts.record(admitted.epoch(), at, sample);
        (mark, self.count_streak(admitted, step))
    }

    /// Returns whether failures in a row are counted.
    #[inline]
    pub(crate) fn counts_rows(&self) -> bool {
        self.row.load(Ordering::Relaxed) != 0
    }

    #[inline]
    fn count_streak(&self, admitted: Word, step: Step) -> u32 {
        if !self.counts_rows() {
            return 0;
        }
        self.counts.count_streak(admitted.epoch(), step)
    }

    /// Opens the breaker, if the calls of the epoch meet a condition.
    #[cold]
    fn evaluate(
        &self,
        admitted: Word,
        streak: u32,
        call: Finished,
        jitter: impl FnOnce() -> f64,
    ) -> Option<Transition> {
        let (epoch, nanos) = (admitted.epoch(), call.at.nanos);
        let conditions = Conditions::from_words(self.conditions.get());
        let cause = self.counts.verdict(&conditions, epoch, streak, nanos)?;
        let (retry_after, jitter) = (call.outcome.retry_after(), jitter());
        // The counts are read before the transition begins the next epoch.
        let tally = self.counts.tally(epoch, nanos);
        let transition = self.change(nanos, |machine| {
            machine.trip(epoch, cause, retry_after, nanos, jitter)
        });
        let counted = |transition| Transition {
            calls: tally.calls,
            failures: tally.failures,
            slow: tally.slow,
            ..transition
        };
        transition.map(counted)
    }

    /// Gives a probe's place back and counts its result.
    #[must_use]
    pub(crate) fn end_probe(
        &self,
        probe: Probe,
        call: Finished,
        jitter: f64,
    ) -> Option<Transition> {
        self.note_if_good(call);
        let end = match call.outcome {
            Outcome::Success if !call.slow => ProbeEnd::Succeeded,
            Outcome::Ignored | Outcome::Throttled { .. } | Outcome::Cancelled => ProbeEnd::Released,
            // As in a closed breaker.
            Outcome::Overload { .. } if self.evidence.is_answering(call.at.nanos) => {
                ProbeEnd::Released
            }
            _ => ProbeEnd::Failed(call.outcome.retry_after()),
        };
        self.change(call.at.nanos, |machine| {
            machine.end_probe(probe, end, call.at.nanos, jitter)
        })
    }

    /// Counts a failure of a probe that has already counted as a success.
    #[must_use]
    pub(crate) fn disprove(&self, probe: Probe, call: Finished, jitter: f64) -> Option<Transition> {
        let end = ProbeEnd::Disproved(call.outcome.retry_after());
        self.change(call.at.nanos, |machine| {
            machine.end_probe(probe, end, call.at.nanos, jitter)
        })
    }

    pub(crate) fn force_open(&self, nanos: u64) -> Transition {
        self.change(nanos, Machine::force_open)
    }

    pub(crate) fn force_closed(&self, nanos: u64) -> Transition {
        self.change(nanos, |machine| machine.force_closed(nanos))
    }

    pub(crate) fn reset(&self, nanos: u64) -> Transition {
        self.change(nanos, |machine| machine.reset(nanos))
    }

    /// Runs `change` under the lock, and publishes the new state to calls that do not take the lock.
    #[inline(never)]
    fn change<T>(&self, nanos: u64, change: impl FnOnce(&mut Machine) -> T) -> T {
        let mut machine = lock(&self.machine);
        let epoch = machine.epoch();
        let result = change(&mut machine);
        match machine.state() {
            _ if machine.epoch() == epoch => {}
            State::Closed => self.evidence.release(),
            State::Open | State::HalfOpen => self.evidence.hold(nanos),
        }
        self.open_until
            .store(machine.open_until(), Ordering::Release);
        let word = Word::new(machine.state(), machine.epoch());
        self.word.store(word.0, Ordering::Release);
        result
    }
}
