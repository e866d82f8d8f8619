//! What all services of one bulkhead share.

use std::cell::Cell;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::gate::Gate;
use super::limit::{LimitPolicy, Sample, check_limit};
use super::metrics::{BulkheadMetrics, IN_FLIGHT, Reason};
use super::permit::{BulkheadPermit, Started};
use super::waiter::Waiter;
use super::word::{MAX, Word};
use crate::context::{self, nanos_between};
use crate::error::Check;
use crate::telemetry::{Series, Shown};
use crate::{ConfigError, Error, Mode, Outcome};

/// Every so many calls of a thread one looks at the clock, to see whether it is time to publish the gauges. Odd, so
/// that of two bulkheads in one stack each has its turn.
const LOOK_EVERY: u32 = 31;

pub(super) struct Shared {
    gate: Gate,
    /// What adapts the limit. Without it calls have no need of the clock.
    policy: Option<Box<dyn LimitPolicy>>,
    /// The limit to begin with.
    initial: usize,
    mode: Mode,
    origin: Instant,
    pub(super) metrics: &'static Series<BulkheadMetrics>,
    shown: Shown<3>,
}

/// What the bulkhead says to a call that finds no free permit.
pub(super) enum Admission {
    /// It has one after all.
    Admitted(BulkheadPermit),
    /// It waits for its turn, if there is a place in the queue when it is polled.
    PutOff(Waiter),
    Refused(Error),
}

impl Shared {
    pub(super) fn new(
        gate: Gate,
        policy: Option<Box<dyn LimitPolicy>>,
        mode: Mode,
        origin: Instant,
        metrics: &'static Series<BulkheadMetrics>,
    ) -> Self {
        let word = gate.word();
        Self {
            policy,
            initial: word.limit(),
            mode,
            origin,
            shown: Shown::new(metrics, word.bits()),
            metrics,
            gate,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.metrics.name()
    }

    #[inline]
    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Says whether calls are timed.
    #[inline]
    pub(super) fn is_adaptive(&self) -> bool {
        self.policy.is_some()
    }

    /// Says whether a call that comes now is not rejected at once.
    pub(super) fn would_admit(&self) -> bool {
        let word = self.gate.word();
        word.is_free() || word.waiting() < self.gate.length() || self.mode == Mode::Observe
    }

    /// Says whether a call that comes now goes on to the inner service at once.
    #[inline]
    pub(super) fn lets_pass(&self) -> bool {
        self.gate.word().is_free() || self.mode == Mode::Observe
    }

    /// Says whether it is as it was when it was built.
    pub(super) fn is_idle(&self) -> bool {
        self.gate.word() == Word::idle(self.initial)
    }

    pub(super) fn set_limit(&self, limit: usize) -> Result<(), ConfigError> {
        let check = Check::new("bulkhead", self.name())?;
        check_limit(check, "limit", limit)?;
        let now = Instant::now();
        self.gate.set_limit(limit, now);
        self.publish(now);
        Ok(())
    }

    /// Lets a call in, if there is a free permit.
    #[inline]
    pub(super) fn try_admit(self: &Arc<Self>) -> Option<BulkheadPermit> {
        let word = self.gate.try_enter()?;
        Some(self.permit(word))
    }

    /// Decides over a call that has found no free permit.
    #[cold]
    pub(super) fn admit_to_full(self: &Arc<Self>) -> Admission {
        let now = context::now();
        if self.mode == Mode::Observe {
            let Some(word) = self.gate.enter_anyway() else {
                self.reject(Reason::Full, now);
                return Admission::Admitted(BulkheadPermit::none());
            };
            let permit = self.permit(word);
            if word.in_flight() > word.limit() + self.gate.length() {
                self.reject(Reason::Full, now);
            }
            return Admission::Admitted(permit);
        }
        let deadline = context::deadline();
        if self.gate.length() > 0 && deadline.is_some_and(|deadline| deadline <= now) {
            return Admission::Refused(self.reject(Reason::Deadline, now));
        }
        if self.gate.word().waiting() >= self.gate.length() {
            return Admission::Refused(self.reject(Reason::Full, now));
        }
        Admission::PutOff(Waiter::new(Arc::clone(self), now))
    }

    /// One call more waits.
    pub(super) fn joined(&self, now: Instant) {
        self.keep(now);
    }

    /// Counts a call that is refused, or would be.
    #[cold]
    pub(super) fn reject(&self, reason: Reason, now: Instant) -> Error {
        self.metrics.rejected(reason.kind(), self.mode, now);
        self.keep(now);
        Error::rejected(reason.kind(), self.name(), None)
    }

    /// The permit of a call that has entered; the gate stood so when it had.
    #[inline]
    pub(super) fn permit(self: &Arc<Self>, word: Word) -> BulkheadPermit {
        let started = self.is_adaptive().then(|| Started {
            at: NonZeroU64::MIN.saturating_add(self.nanos(context::now())),
            in_flight: word.in_flight() as u32,
            head: None,
        });
        // Whatever the recorder does from here on, the permit is given back.
        let permit = BulkheadPermit::new(Arc::clone(self), started);
        self.look(word);
        permit
    }

    /// Gives the permit of a call back.
    #[inline]
    pub(super) fn leave(&self) {
        let before = self.gate.leave(context::fresh_now);
        self.left(before);
    }

    /// A call has left; the gate stood so before.
    #[inline]
    fn left(&self, before: Word) {
        // Unless its permit went to the next.
        if before.waiting() > 0 || self.is_far_from_shown(before.left()) {
            self.settle();
        }
    }

    /// How long a call has had its permit.
    fn held(&self, started: &Started, now: Instant) -> Duration {
        let ended = NonZeroU64::MIN.saturating_add(self.nanos(now)).get();
        Duration::from_nanos(ended.saturating_sub(started.at.get()))
    }

    /// The head of an answer has come, the rest of which goes on.
    pub(super) fn answered(&self, started: &mut Started) {
        let took = self.held(started, context::fresh_now()).as_micros();
        let took = u32::try_from(took).unwrap_or(u32::MAX);
        started.head = Some(NonZeroU32::MIN.saturating_add(took));
    }

    /// Gives the permit of a call back, and lets the policy know of it.
    pub(super) fn end(&self, started: Started, outcome: Outcome, timed_out: bool) {
        let now = context::fresh_now();
        let word = self.gate.leave(|| now);
        self.left(word);
        let Some(policy) = &self.policy else { return };
        let held = self.held(&started, now);
        let to_head = started.head.map(|micros| u64::from(micros.get() - 1));
        // After the permit is back: whatever the policy does, it is not lost.
        self.adapt(
            policy.as_ref(),
            &Sample {
                now,
                round_trip: to_head.map_or(held, Duration::from_micros),
                held,
                in_flight: word.in_flight().max(started.in_flight as usize),
                limit: word.limit(),
                outcome,
                timed_out,
            },
        );
    }

    fn adapt(&self, policy: &dyn LimitPolicy, sample: &Sample) {
        let limit = policy.update(sample).clamp(1, MAX);
        if limit != sample.limit {
            self.gate.change_limit(sample.limit, limit, sample.now);
            self.publish(sample.now);
        }
    }

    /// Publishes the gauges now and then, without a reading of the clock if possible.
    #[inline]
    fn look(&self, word: Word) {
        thread_local! { static CALLS: Cell<u32> = const { Cell::new(0) } }
        if let Some(now) = context::known_now() {
            return self.keep(now);
        }
        let calls = CALLS.get();
        CALLS.set(if calls == 0 {
            LOOK_EVERY - 1
        } else {
            calls - 1
        });
        if calls == 0 || self.is_far_from_shown(word) {
            self.look_at_the_clock();
        }
    }

    #[cold]
    fn look_at_the_clock(&self) {
        self.keep(context::now());
    }

    /// Publishes the gauges if it is time to.
    #[inline]
    fn keep(&self, now: Instant) {
        self.shown
            .keep(self.metrics, || self.bits(), now, self.nanos(now));
    }

    #[inline]
    fn nanos(&self, now: Instant) -> u64 {
        nanos_between(self.origin, now)
    }

    #[inline]
    fn bits(&self) -> u64 {
        self.gate.word().bits()
    }

    /// Says whether the calls in flight are to be published.
    #[inline]
    fn is_far_from_shown(&self, word: Word) -> bool {
        self.shown
            .is_outdated_in::<BulkheadMetrics>(IN_FLIGHT, word.bits())
    }

    /// Publishes the gauges if they show something far from what there is.
    #[inline]
    pub(super) fn settle(&self) {
        if self.shown.is_outdated::<BulkheadMetrics>(self.bits()) {
            self.publish(Instant::now());
        }
    }

    #[cold]
    fn publish(&self, now: Instant) {
        self.shown.publish(self.metrics, || self.bits(), now);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.shown.remove(self.metrics);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.gate.word();
        f.debug_struct("Bulkhead")
            .field("name", &self.name())
            .field("limit", &word.limit())
            .field("in_flight", &word.in_flight())
            .field("queued", &word.waiting())
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}
