//! What all services of one bulkhead share.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::gate::Gate;
use super::limit::{LimitPolicy, Sample, check_limit};
use super::metrics::{BulkheadMetrics, IN_FLIGHT, Reason, WaitEnd};
use super::word::{MAX, Word};
use crate::algorithm::evidence::{Evidence, Terms};
use crate::chassis::{At, EndedBy, Record};
use crate::error::Check;
use crate::nanos::whole_nanos;
use crate::telemetry::{Series, Shown};
use crate::{ConfigError, Error, Mode, Outcome};

pub(super) struct Shared {
    gate: Gate,
    /// What adapts the limit. Without it calls have no need of the clock.
    policy: Option<Box<dyn LimitPolicy>>,
    /// What decides about calls that end early, for the policy.
    evidence: Evidence,
    /// The limit to begin with.
    initial: usize,
    mode: Mode,
    metrics: &'static Series<BulkheadMetrics>,
    shown: Shown<3>,
}

impl Shared {
    pub(super) fn new(
        gate: Gate,
        policy: Option<Box<dyn LimitPolicy>>,
        terms: Terms,
        mode: Mode,
        metrics: &'static Series<BulkheadMetrics>,
    ) -> Self {
        let word = gate.word();
        Self {
            policy,
            evidence: Evidence::new(terms),
            initial: word.limit(),
            mode,
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

    pub(super) fn mode(&self) -> Mode {
        self.mode
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

    /// Counts a call that is refused, or would be.
    #[cold]
    pub(super) fn reject(&self, reason: Reason, now: Instant) -> Error {
        self.metrics.rejected(reason.kind(), self.mode, now);
        self.settle();
        Error::rejected(reason.kind(), self.name(), None)
    }

    /// Counts a wait that is over.
    pub(super) fn waited(&self, end: WaitEnd, since: Instant, now: Instant) {
        let waited = now.saturating_duration_since(since);
        self.metrics.waited(end, waited, now);
    }

    /// Gives the slot of a call back. Returns how the gate stood before.
    #[inline]
    pub(super) fn leave(&self, at: &At) -> Word {
        let before = self.gate.leave(|| at.instant());
        self.left(before);
        before
    }

    /// A call has left; the gate stood so before.
    #[inline]
    fn left(&self, before: Word) {
        // Unless its permit went to the next.
        if before.waiting() > 0 || self.is_far_from_shown(before.left()) {
            self.settle();
        }
    }

    /// Lets the policy know of a call whose slot has been given back: whatever the policy does, that is not lost.
    #[cold]
    #[inline(never)]
    pub(super) fn adapt(
        &self,
        before: Word,
        in_flight: u32,
        to_head: Option<Duration>,
        record: &Record<'_>,
    ) {
        let Some(policy) = &self.policy else { return };
        let held = record.duration();
        let round_trip = to_head.unwrap_or(held);
        let outcome = match (record.outcome, to_head) {
            (Outcome::Success, _) => {
                let took = whole_nanos(round_trip);
                self.evidence.note_good(took, record.at.nanos());
                Outcome::Success
            }
            (_, None) => record.outcome_by(&self.evidence),
            (outcome, Some(_)) => outcome,
        };
        let timed_out = match record.ended_by {
            EndedBy::Timeout => true,
            EndedBy::Deadline | EndedBy::Caller => outcome.is_failure(),
            _ => false,
        };
        let sample = Sample {
            now: record.at.instant(),
            round_trip,
            held,
            in_flight: before.in_flight().max(in_flight as usize),
            limit: before.limit(),
            outcome,
            timed_out,
        };
        self.change_limit(policy.as_ref(), &sample);
    }

    fn change_limit(&self, policy: &dyn LimitPolicy, sample: &Sample) {
        let limit = policy.update(sample).clamp(1, MAX);
        if limit != sample.limit {
            self.gate.change_limit(sample.limit, limit, sample.now);
            self.publish(sample.now);
        }
    }

    /// Publishes the gauges if they show something far from what there is.
    #[inline(always)]
    pub(super) fn look(&self, word: Word, at: &At) {
        if self.is_far_from_shown(word) {
            self.publish(at.instant());
        }
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
    pub(super) fn publish(&self, now: Instant) {
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
