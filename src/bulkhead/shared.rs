//! The state that all services of one bulkhead share.

use std::time::Duration;

use tokio::time::Instant;

use super::config::Settings;
use super::gate::Gate;
use super::limit::{LimitPolicy, Sample};
use super::metrics::{BulkheadMetrics, IN_FLIGHT};
use super::word::{MAX, Word};
use crate::algorithm::evidence::Evidence;
use crate::chassis::{At, EndedBy, Record};
use crate::debug::debug_fields;
use crate::event::EventKind;
use crate::nanos::whole_nanos;
use crate::sync::{AtomicU32, Mutex, Ordering};
use crate::telemetry::{Report, Shown};
use crate::{Error, ErrorKind, Mode, Outcome};

pub(super) struct Shared {
    pub(super) gate: Gate,
    /// Policy that adapts the limit. Without a policy, calls do not need the clock.
    pub(super) policy: Option<Box<dyn LimitPolicy>>,
    /// Decides about calls that end early, for the policy.
    pub(super) evidence: Evidence,
    /// The initial limit.
    pub(super) initial: usize,
    /// The mode in force, for calls.
    pub(super) mode: AtomicU32,
    /// The settings of the code. Other settings replace some of them.
    pub(super) code: Settings,
    /// The settings in force. Locked only by changes, so that no two of them mix.
    pub(super) in_force: Mutex<Settings>,
    pub(super) report: Report<BulkheadMetrics>,
    pub(super) shown: Shown<BulkheadMetrics, 3>,
}

impl Shared {
    /// Returns the mode in force.
    pub(super) fn mode(&self) -> Mode {
        Mode::from_word(self.mode.load(Ordering::Relaxed))
    }

    /// Changes the mode. If the bulkhead only observes from now on, the calls that wait are admitted.
    pub(super) fn begin_mode(&self, mode: Mode, now: Instant) {
        self.mode.store(mode.word(), Ordering::Relaxed);
        if mode == Mode::Observe {
            self.gate.admit_all(now);
        }
    }

    /// Counts a call that is refused, or would be.
    #[inline]
    pub(super) fn refuse(&self, reason: ErrorKind, at: &At) -> Result<(), Error> {
        let refused = self.report.refuse(reason, self.mode(), None, at.instant());
        self.show(at);
        refused
    }

    /// Gives the slot of a call back. Returns the former word of the gate.
    #[inline]
    pub(super) fn leave(&self, at: &At) -> Word {
        let before = self.gate.leave(|| at.instant());
        // Its permit may have gone to the next call.
        if before.waiting() > 0 || self.is_far_from_shown(before.left()) {
            self.show(at);
        }
        before
    }

    /// Reports a call to the policy after its slot was given back, so that the slot is not lost, whatever the policy
    /// does.
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
            (Outcome::Throttled { retry_after }, _) if self.code.one_quota => {
                Outcome::Overload { retry_after }
            }
            (_, None) => record.outcome_by(&self.evidence),
            (_, Some(_)) if record.ended_by == EndedBy::DeadlineAnswer => {
                record.outcome_by(&self.evidence)
            }
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
        let limit = policy.update(&sample).clamp(1, MAX);
        if limit != sample.limit {
            self.gate.change_limit(sample.limit, limit, sample.now);
            self.publish(sample.now);
        }
        if limit < sample.limit {
            let (from, to) = (sample.limit, limit);
            self.report.tell(|| EventKind::LimitShrunk { from, to });
        }
    }

    /// Publishes the gauges if the shown number of calls in flight is far from the true one.
    #[inline(always)]
    pub(super) fn show_in_flight(&self, word: Word, at: &At) {
        if self.is_far_from_shown(word) {
            self.publish(at.instant());
        }
    }

    #[inline]
    fn is_far_from_shown(&self, word: Word) -> bool {
        self.shown.is_outdated_in(IN_FLIGHT, word.0)
    }

    /// Publishes the gauges if a shown value is far from the true one.
    #[cold]
    #[inline(never)]
    pub(super) fn show(&self, at: &At) {
        let word = || self.gate.word().0;
        self.shown.catch_up(word, || at.instant());
    }

    #[cold]
    pub(super) fn publish(&self, now: Instant) {
        self.shown.publish(|| self.gate.word().0, now);
    }
}

debug_fields!(Shared as Bulkhead { shown.series.name(), gate.word(), mode() });
