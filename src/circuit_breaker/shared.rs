//! What all handles of one breaker share: the counting while it is closed, and the lock round the state
//! machine when it is not.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::config::Listener;
use super::metrics::BreakerMetrics;
use super::permit::{BreakerPermit, Kind, Rejected, Timing};
use super::state::{
    Machine, Probe, ProbeEnd, Settings, State, Transition, TransitionCause, verdict,
};
use crate::context::{self, nanos_between};
use crate::random::Random;
use crate::stripe::stripe;
use crate::sync::{AtomicU64, Ordering, lock};
use crate::telemetry::{Published, Series};
use crate::window::{BUCKETS, CountWindow, Sample, Tally, TimeWindow};
use crate::{ErrorKind, Mode, Outcome};

/// How the calls of a closed breaker are counted.
pub(super) enum Window {
    Time(TimeWindow),
    /// The order of the last N calls is one for all threads, so they take turns.
    Count(Mutex<CountWindow>),
}

/// Where in its window a call has been counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// The slice of time, or the number of the call.
    place: u64,
    stripe: u32,
}

impl Window {
    #[inline]
    fn record(&self, epoch: u64, nanos: u64, sample: Sample) -> Mark {
        let stripe = stripe();
        let place = match self {
            Self::Time(window) => window.record(stripe, epoch, nanos, sample),
            Self::Count(window) => lock(window).record(epoch, sample),
        };
        Mark {
            place,
            stripe: stripe as u32,
        }
    }

    /// Counts a call as failed that was counted as a success.
    fn correct(&self, epoch: u64, nanos: u64, mark: Mark) {
        let failed = Sample {
            failed: true,
            slow: false,
        };
        match self {
            Self::Time(window) => {
                window.retract(mark.stripe as usize, mark.place);
                window.record(stripe(), epoch, nanos, failed);
            }
            Self::Count(window) => lock(window).correct(epoch, mark.place),
        }
    }

    /// The tallies that are evaluated: of the whole window and, so that a sudden outage is not diluted by
    /// the good time before it, of the last bucket's width.
    fn tallies(&self, epoch: u64, nanos: u64) -> [Tally; 2] {
        match self {
            Self::Time(window) => [
                window.recent(epoch, nanos),
                window.tally(epoch, nanos, BUCKETS),
            ],
            Self::Count(window) => [lock(window).tally(epoch); 2],
        }
    }
}

pub(super) struct Shared {
    /// State and epoch of the machine: all that a call on a closed breaker looks at.
    word: AtomicU64,
    /// When the open time is over, in nanoseconds since `origin`; `u64::MAX` for never.
    open_until: AtomicU64,
    window: Window,
    /// Failures in a row, in the low half, of the epoch in the high half. See [`Step`].
    streak: AtomicU64,
    machine: Mutex<Machine>,
    settings: Settings,
    mode: Mode,
    listener: Option<Listener>,
    random: Random,
    origin: Instant,
    metrics: &'static Series<BreakerMetrics>,
    published: Published,
}

/// What a call does to the failures in a row.
///
/// A head that was good ends a row of heads that were not, at once: the rest of the answer may take hours. A row of
/// answers that broke off is not ended by it, or there would be none: each of them had a good head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Succeeded,
    /// The head was good, the rest is not known.
    Answered,
    Failed,
    /// It failed after its head had been good.
    BrokeOff,
}

/// Set in a row of failures when a good head has come after it.
const ANSWERED: u64 = 1 << 31;

const STATE_BITS: u32 = 2;

const OK: Sample = Sample {
    failed: false,
    slow: false,
};

fn word(state: State, epoch: u64) -> u64 {
    epoch << STATE_BITS | state as u64
}

#[inline]
fn is(state: State, word: u64) -> bool {
    word & ((1 << STATE_BITS) - 1) == state as u64
}

impl Shared {
    pub(super) fn new(
        settings: Settings,
        window: Window,
        mode: Mode,
        listener: Option<Listener>,
        random: Random,
        metrics: &'static Series<BreakerMetrics>,
    ) -> Self {
        let now = Instant::now();
        metrics.levels().created(State::Closed);
        Self {
            word: AtomicU64::new(word(State::Closed, 0)),
            open_until: AtomicU64::new(0),
            window,
            streak: AtomicU64::new(0),
            machine: Mutex::new(Machine::new(settings.clone(), now)),
            settings,
            mode,
            listener,
            random,
            origin: now,
            metrics,
            published: Published::default(),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.metrics.name()
    }

    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        is(State::Closed, self.word.load(Ordering::Acquire))
    }

    pub(super) fn state(&self) -> State {
        lock(&self.machine).state()
    }

    /// Lets a call through.
    #[inline]
    pub(super) fn admit(self: &Arc<Self>) -> Result<BreakerPermit, Rejected> {
        let word = self.word.load(Ordering::Acquire);
        if !is(State::Closed, word) {
            return self.probe(word);
        }
        let timing = self.started();
        Ok(self.permit(Kind::Counted { word, timing }))
    }

    /// When a call begins, if that matters.
    #[inline]
    fn started(&self) -> Timing {
        if self.settings.slow_calls.is_some() {
            Timing::Since(self.fresh_nanos())
        } else {
            Timing::Off
        }
    }

    /// The answer of a call begins.
    pub(super) fn stop(&self, timing: &mut Timing) {
        if let Timing::Since(_) = timing {
            *timing = if self.is_slow(*timing, self.fresh_nanos()) {
                Timing::Slow
            } else {
                Timing::Fast
            };
        }
    }

    pub(super) fn fresh_nanos(&self) -> u64 {
        self.nanos(context::fresh_now())
    }

    #[inline]
    fn permit(self: &Arc<Self>, kind: Kind) -> BreakerPermit {
        BreakerPermit::new(Arc::clone(self), kind)
    }

    /// Decides over a call on a breaker that is not closed.
    #[cold]
    fn probe(self: &Arc<Self>, word: u64) -> Result<BreakerPermit, Rejected> {
        let now = context::now();
        let mut retry_after = self.open_for_remaining(now);
        if !is(State::Open, word) || retry_after == Some(Duration::ZERO) {
            let (probe, transition) = self.change(|machine| machine.try_probe(now));
            // Before the listener is told: if it panics, the place is given back.
            let permit = probe.map(|probe| {
                let timing = self.started();
                self.permit(Kind::Probe { probe, timing })
            });
            self.publish(transition);
            if let Some(permit) = permit {
                return Ok(permit);
            }
            retry_after = self.open_for_remaining(now);
        }
        self.metrics
            .rejected(ErrorKind::CircuitOpen, self.mode, now);
        self.published.keep(self.metrics, now, self.nanos(now));
        match self.mode {
            Mode::Enforce => Err(Rejected {
                retry_after: retry_after.filter(|wait| !wait.is_zero()),
            }),
            Mode::Observe => Ok(self.permit(Kind::Uncounted)),
        }
    }

    /// How much of the open time is left. `None` if that is not known: half-open, or forced open.
    pub(super) fn open_for_remaining(&self, now: Instant) -> Option<Duration> {
        match self.open_until.load(Ordering::Acquire) {
            u64::MAX => None,
            until => Some(Duration::from_nanos(until.saturating_sub(self.nanos(now)))),
        }
    }

    #[inline]
    fn nanos(&self, now: Instant) -> u64 {
        nanos_between(self.origin, now)
    }

    /// Says whether the next call would be let through.
    pub(super) fn would_admit(&self) -> bool {
        let word = self.word.load(Ordering::Acquire);
        if self.mode == Mode::Observe {
            return true;
        }
        let now = Instant::now();
        if is(State::HalfOpen, word) {
            return lock(&self.machine).has_free_probe(now);
        }
        is(State::Closed, word) || self.open_for_remaining(now) == Some(Duration::ZERO)
    }

    /// Says whether a new breaker may take its place.
    pub(super) fn is_evictable(&self, now: Instant) -> bool {
        lock(&self.machine).is_evictable(now)
    }

    pub(super) fn force_open(&self) {
        self.steer(Machine::force_open);
    }

    pub(super) fn force_closed(&self) {
        self.steer(|machine| machine.force_closed(Instant::now()));
    }

    pub(super) fn reset(&self) {
        self.steer(|machine| machine.reset(Instant::now()));
    }

    fn steer(&self, steer: impl FnOnce(&mut Machine) -> Transition) {
        let transition = self.change(steer);
        self.publish(Some(transition));
    }

    /// Runs `change` under the lock, and shows the state it led to to calls that do not take the lock.
    fn change<T>(&self, change: impl FnOnce(&mut Machine) -> T) -> T {
        let mut machine = lock(&self.machine);
        let result = change(&mut machine);
        let open_until = machine
            .open_until()
            .map_or(u64::MAX, |until| self.nanos(until));
        self.open_until.store(open_until, Ordering::Release);
        let word = word(machine.state(), machine.epoch());
        self.word.store(word, Ordering::Release);
        result
    }

    /// Reports a change of state. No lock is held, so the listener may use the breaker.
    fn publish(&self, transition: Option<Transition>) {
        let Some(transition) = transition else { return };
        if transition.from == transition.to {
            return;
        }
        self.metrics.changed(transition, context::now());
        if let Some(listener) = &self.listener {
            listener.call(&transition);
        }
    }

    /// Counts a call that began while the breaker was closed, and the head of whose answer is good. Returns where.
    pub(super) fn count_head(&self, admitted: u64, timing: Timing) -> Option<Mark> {
        if self.word.load(Ordering::Acquire) != admitted {
            return None;
        }
        let (now, slow) = self.ended(timing);
        let sample = Sample { slow, ..OK };
        let (mark, _) = self.record(admitted, sample, Step::Answered, now);
        if slow {
            self.evaluate(admitted >> STATE_BITS, 0, None, now);
        }
        Some(mark)
    }

    /// A call is over whose head was counted as a success.
    pub(super) fn count_rest(&self, admitted: u64, mark: Mark, outcome: Outcome) {
        if self.word.load(Ordering::Acquire) != admitted {
            return;
        }
        let epoch = admitted >> STATE_BITS;
        match outcome {
            // What its head says stays.
            Outcome::Ignored | Outcome::Cancelled => {}
            Outcome::Success => {
                self.count_streak(epoch, Step::Succeeded);
            }
            Outcome::Failure | Outcome::Overload { .. } => {
                let now = context::now();
                self.window.correct(epoch, self.nanos(now), mark);
                let streak = self.count_streak(epoch, Step::BrokeOff);
                self.evaluate(epoch, streak, outcome.retry_after(), now);
            }
        }
    }

    /// Counts a call that began while the breaker was closed.
    #[inline]
    pub(super) fn count(&self, admitted: u64, outcome: Outcome, timing: Timing) {
        match (outcome, timing) {
            (Outcome::Success, Timing::Off) => self.count_success(admitted),
            (Outcome::Ignored | Outcome::Cancelled, _) => {}
            _ => self.count_other(admitted, outcome, timing),
        }
    }

    fn count_success(&self, admitted: u64) {
        if self.word.load(Ordering::Acquire) == admitted {
            self.record(admitted, OK, Step::Succeeded, context::now());
        }
    }

    /// Counts a call that failed, or may have been slow.
    #[cold]
    fn count_other(&self, admitted: u64, outcome: Outcome, timing: Timing) {
        if self.word.load(Ordering::Acquire) != admitted {
            return;
        }
        let (now, slow) = self.ended(timing);
        let failed = outcome.is_failure();
        let step = if failed {
            Step::Failed
        } else {
            Step::Succeeded
        };
        let (_, streak) = self.record(admitted, Sample { failed, slow }, step, now);
        if failed || slow {
            let epoch = admitted >> STATE_BITS;
            self.evaluate(epoch, streak, outcome.retry_after(), now);
        }
    }

    /// Enters a call of a closed breaker, and says where, and how many failures in a row there are.
    #[inline]
    fn record(&self, admitted: u64, sample: Sample, step: Step, now: Instant) -> (Mark, u32) {
        let epoch = admitted >> STATE_BITS;
        let nanos = self.nanos(now);
        let mark = self.window.record(epoch, nanos, sample);
        self.published.keep(self.metrics, now, nanos);
        (mark, self.count_streak(epoch, step))
    }

    /// When a call has ended, and whether it was slow.
    #[cold]
    fn ended(&self, timing: Timing) -> (Instant, bool) {
        let now = match timing {
            Timing::Since(_) => context::fresh_now(),
            _ => context::now(),
        };
        (now, self.is_slow(timing, self.nanos(now)))
    }

    fn is_slow(&self, timing: Timing, now: u64) -> bool {
        match (timing, self.settings.slow_calls) {
            (Timing::Slow, _) => true,
            (Timing::Since(started), Some((limit, _))) => {
                Duration::from_nanos(now.saturating_sub(started)) > limit
            }
            _ => false,
        }
    }

    /// Counts failures in a row, and says how many there are.
    #[inline]
    fn count_streak(&self, epoch: u64, step: Step) -> u32 {
        /// The low half counts; the high half is the epoch, so that no failure counts in another one.
        const MAX: u64 = u32::MAX as u64;
        if self.settings.consecutive_failures.is_none() {
            return 0;
        }
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

    #[cold]
    fn evaluate(&self, epoch: u64, streak: u32, retry_after: Option<Duration>, now: Instant) {
        let settings = &self.settings;
        let in_a_row = settings.consecutive_failures.is_some_and(|n| streak >= n);
        let cause = if in_a_row {
            Some(TransitionCause::ConsecutiveFailures)
        } else {
            let tallies = self.window.tallies(epoch, self.nanos(now));
            let mut tallies = tallies.into_iter();
            tallies.find_map(|tally| verdict(settings, tally))
        };
        let Some(cause) = cause else { return };
        let jitter = self.random.symmetric();
        let transition =
            self.change(|machine| machine.trip(epoch, cause, retry_after, now, jitter));
        self.publish(transition);
    }

    #[cold]
    pub(super) fn end_probe(&self, probe: Probe, outcome: Outcome, timing: Timing) {
        let (now, slow) = self.ended(timing);
        let end = match outcome {
            Outcome::Success if slow => ProbeEnd::Failed(None),
            Outcome::Success => ProbeEnd::Succeeded,
            Outcome::Failure => ProbeEnd::Failed(None),
            Outcome::Overload { retry_after } => ProbeEnd::Failed(retry_after),
            Outcome::Ignored | Outcome::Cancelled => ProbeEnd::Released,
        };
        self.change_by(probe, end, now);
    }

    /// A probe has ended that counts as a success already.
    #[cold]
    pub(super) fn disprove(&self, probe: Probe, outcome: Outcome) {
        let retry_after = match outcome {
            Outcome::Failure => None,
            Outcome::Overload { retry_after } => retry_after,
            Outcome::Success | Outcome::Ignored | Outcome::Cancelled => return,
        };
        self.change_by(probe, ProbeEnd::Disproved(retry_after), context::now());
    }

    fn change_by(&self, probe: Probe, end: ProbeEnd, now: Instant) {
        let jitter = self.random.symmetric();
        let transition = self.change(|machine| machine.end_probe(probe, end, now, jitter));
        self.publish(transition);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.metrics.levels().dropped(self.state());
        // The gauges must not show a breaker that no longer exists, until the next one is used.
        self.metrics.publish(Instant::now());
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("name", &self.name())
            .field("state", &self.state())
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}
