//! What all services of one bulkhead share.

use std::cell::Cell;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::gate::Gate;
use super::limit::{LimitPolicy, Sample, check_limit};
use super::metrics::{BulkheadMetrics, Reason};
use super::permit::{Permit, Started};
use super::waiter::Waiter;
use super::word::{MOST, Word};
use crate::context::{self, nanos_between};
use crate::error::Check;
use crate::sync::{AtomicU64, Ordering};
use crate::telemetry::{Published, Series};
use crate::{ConfigError, Error, Mode, Outcome};

/// Every so many calls of a thread one looks at the clock, to see whether it is time to publish the gauges. Odd, so
/// that of two bulkheads in one stack each has its turn.
const LOOK_EVERY: u32 = 31;
/// A call also looks when the calls in flight are twice or half as many as was last published, and this many
/// more or less.
const LOOK_FROM: usize = 8;

pub(super) struct Shared {
    gate: Gate,
    /// What adapts the limit. Without it calls have no need of the clock.
    policy: Option<Box<dyn LimitPolicy>>,
    /// The limit to begin with.
    initial: usize,
    mode: Mode,
    origin: Instant,
    /// The levels that were published last.
    shown: AtomicU64,
    metrics: &'static Series<BulkheadMetrics>,
    published: Published,
}

/// What the bulkhead says to a call that finds no free permit.
pub(super) enum Admission {
    /// It has one after all.
    Admitted(Permit),
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
        metrics.levels().moved(None, Some(word));
        Self {
            policy,
            initial: word.limit(),
            mode,
            origin,
            shown: AtomicU64::new(word.bits()),
            metrics,
            published: Published::default(),
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
    pub(super) fn try_admit(self: &Arc<Self>) -> Option<Permit> {
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
                return Admission::Admitted(Permit::none());
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
        self.show_if_due(now);
    }

    /// Counts a call that is refused, or would be.
    #[cold]
    pub(super) fn reject(&self, reason: Reason, now: Instant) -> Error {
        self.metrics.report(now, |metrics| {
            metrics.rejected(reason, self.mode, now);
        });
        self.show_if_due(now);
        Error::rejected(reason.kind(), self.name(), None)
    }

    pub(super) fn report(&self, now: Instant, report: impl Fn(&BulkheadMetrics)) {
        self.metrics.report(now, report);
    }

    /// The permit of a call that has entered; the gate stood so when it had.
    #[inline]
    pub(super) fn permit(self: &Arc<Self>, word: Word) -> Permit {
        let started = self.is_adaptive().then(|| Started {
            at: NonZeroU64::MIN.saturating_add(self.nanos(context::now())),
            in_flight: word.in_flight() as u32,
        });
        // Whatever the recorder does from here on, the permit is given back.
        let permit = Permit::new(Arc::clone(self), started);
        self.look(word);
        permit
    }

    /// Gives the permit of a call back.
    #[inline]
    pub(super) fn leave(&self) {
        let word = self.gate.leave(context::fresh_now);
        if word.in_flight() == 1 {
            self.settle();
        }
    }

    /// Gives the permit of a call back, and lets the policy know of it.
    pub(super) fn end(&self, started: Started, outcome: Outcome, timed_out: bool) {
        let now = context::fresh_now();
        let word = self.gate.leave(|| now);
        if word.in_flight() == 1 {
            self.settle();
        }
        let Some(policy) = &self.policy else { return };
        let ended = NonZeroU64::MIN.saturating_add(self.nanos(now)).get();
        // After the permit is back: whatever the policy does, it is not lost.
        self.adapt(
            policy.as_ref(),
            &Sample {
                now,
                round_trip: Duration::from_nanos(ended.saturating_sub(started.at.get())),
                in_flight: word.in_flight().max(started.in_flight as usize),
                limit: word.limit(),
                outcome,
                timed_out,
            },
        );
    }

    fn adapt(&self, policy: &dyn LimitPolicy, sample: &Sample) {
        let limit = policy.update(sample).clamp(1, MOST);
        if limit != sample.limit {
            self.gate.change_limit(sample.limit, limit, sample.now);
        }
    }

    /// Publishes the gauges now and then, without a reading of the clock if possible.
    #[inline]
    fn look(&self, word: Word) {
        thread_local! { static CALLS: Cell<u32> = const { Cell::new(0) } }
        if let Some(now) = context::known_now() {
            return self.show_if_due(now);
        }
        let calls = CALLS.get();
        CALLS.set(if calls == 0 {
            LOOK_EVERY - 1
        } else {
            calls - 1
        });
        let (level, shown) = (word.in_flight(), self.shown().in_flight());
        if calls == 0 || level.abs_diff(shown) >= LOOK_FROM + level.min(shown) {
            self.look_at_the_clock();
        }
    }

    #[cold]
    fn look_at_the_clock(&self) {
        self.show_if_due(context::now());
    }

    #[inline]
    fn show_if_due(&self, now: Instant) {
        if self.published.is_due(self.nanos(now)) {
            self.publish(now);
        }
    }

    #[inline]
    fn nanos(&self, now: Instant) -> u64 {
        nanos_between(self.origin, now)
    }

    #[inline]
    fn shown(&self) -> Word {
        Word::from_bits(self.shown.load(Ordering::SeqCst))
    }

    /// Publishes the gauges if one of them shows something where there is nothing any longer.
    #[inline]
    pub(super) fn settle(&self) {
        if is_settled(self.shown(), self.gate.word()) {
            self.publish(Instant::now());
        }
    }

    /// Publishes the gauges.
    ///
    /// Two threads may do so at once, and the one with the older levels may be the last one to set the
    /// gauges. It then sees that the levels have changed meanwhile, and does it again. And if a level
    /// returns to zero, either the one who brought it there sees that it is shown, or the one who shows it
    /// sees that it has gone.
    #[cold]
    fn publish(&self, now: Instant) {
        loop {
            let word = self.gate.word();
            let shown = Word::from_bits(self.shown.swap(word.bits(), Ordering::SeqCst));
            let levels = self.metrics.levels();
            levels.moved(Some(shown), Some(word));
            let changes = levels.changes();
            self.metrics.publish(now);
            if levels.changes() == changes && !is_settled(word, self.gate.word()) {
                return;
            }
        }
    }
}

/// Says whether a level was above zero and is zero now.
#[inline]
fn is_settled(before: Word, now: Word) -> bool {
    (before.in_flight() > 0 && now.in_flight() == 0) || (before.waiting() > 0 && now.waiting() == 0)
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The gauges must not show a bulkhead that no longer exists.
        self.metrics.levels().moved(Some(self.shown()), None);
        self.metrics.publish(Instant::now());
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
