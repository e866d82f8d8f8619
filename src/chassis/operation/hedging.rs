//! The hedging of one operation, as a part of its state.

use std::time::Duration;

use tokio::time::Instant;

use super::plan::{Hedging, NEVER, Plan, Slot};
use super::running::Running;
use super::service::Recipe;
use crate::algorithm::sketch::Took;
use crate::budget::Gain;
use crate::chassis::At;
use crate::nanos::whole_nanos;
use crate::{CallOptions, Outcome, Reattempt, Replay, context};

impl<S, P: Plan, R, K, C> Running<S, P, R, K, C> {
    #[inline(always)]
    pub(super) fn begin_hedging<Req>(&mut self, request: &Req, at: &At)
    where
        R: Replay<Req>,
    {
        let is_alone = self.is_alone();
        let Recipe { plan, replay, .. } = &*self.held.owner.recipe;
        let (Some(hedger), Some(hedging)) = (plan.hedge(), self.hedging.get_mut()) else {
            return;
        };
        let is_funding = match plan.retry() {
            Some(retry) if !self.is_nested => !hedger.is_funded_by(retry.budget_id()),
            _ => !hedger.is_funded(),
        };
        if is_funding {
            hedger.enter();
        }
        // Before any code that may panic.
        *hedging = Hedging {
            is_first_open: true,
            is_funding,
            delay: NEVER,
            ..Hedging::default()
        };
        let delay = hedger.delay(at);
        let is_hedgeable = || match self.options.as_deref() {
            Some(CallOptions { no_hedge: true, .. }) => false,
            Some(CallOptions {
                idempotent: Some(is_idempotent),
                ..
            }) => *is_idempotent,
            _ => replay.is_hedgeable(request),
        };
        hedging.may_copy = (delay.is_some() || is_alone) && is_hedgeable();
        hedging.delay = delay.map_or(NEVER, whole_nanos);
    }

    /// Returns whether no retry makes further attempts, neither this operation's nor an outer one.
    #[inline(always)]
    fn is_alone(&self) -> bool {
        self.plan().retry().is_none() && context::attempt() == 0
    }

    /// Returns whether an attempt with this result is repeated at once.
    ///
    /// With a retry, the retry handles failures. An overloaded service should get fewer calls and not more.
    pub(super) fn repeats_at_once(&self, reattempt: Reattempt) -> bool {
        self.allows_retry()
            && reattempt == Reattempt::Soon
            && self.plan().hedge().is_some()
            && self.is_alone()
    }

    /// Returns whether the request may be sent twice.
    #[inline(always)]
    pub(super) fn may_copy(&self) -> bool {
        self.hedging.get().is_some_and(|hedging| hedging.may_copy)
    }

    /// Notes that no further copy is sent for this attempt.
    pub(super) fn stop_copies(&mut self) {
        if let Some(hedging) = self.hedging.get_mut() {
            hedging.may_copy = false;
        }
    }

    /// Returns the time at which a copy is due because the attempts so far are slow.
    pub(super) fn slow_at(&self) -> Option<Instant> {
        let hedging = self.hedging.get()?;
        let sent = self.held.permits.sent.max(hedging.sent_last);
        let is_due = hedging.delay != NEVER;
        is_due.then(|| self.held.core().instant(sent.saturating_add(hedging.delay)))
    }

    /// Postpones the copy that is due for slowness while the client takes the body of the first attempt. Returns
    /// whether it was postponed.
    #[cold]
    pub(super) fn put_copy_off(&mut self, now: Instant) -> bool {
        let times = self.times.get();
        let upload = times.and_then(|times| times.upload.as_ref());
        let (Some(upload), Some(hedging)) = (upload, self.hedging.get_mut()) else {
            return false;
        };
        let Some(end) = upload.end(Duration::from_nanos(hedging.delay), now) else {
            return false;
        };
        let end = self.held.core().at_instant(end).nanos();
        hedging.sent_last = end.saturating_sub(hedging.delay);
        true
    }

    /// Notes that a hedge has been sent.
    pub(super) fn note_hedge(&mut self, at: &At) {
        if let Some(hedging) = self.hedging.get_mut() {
            hedging.sent_last = at.nanos();
        }
    }

    /// Prepares a request to be sent as the hedge of this number, and keeps a copy if there may be a further attempt.
    pub(super) fn prepare_hedge<Req>(&self, request: &mut Req, number: u32, copy: &mut Option<Req>)
    where
        R: Replay<Req>,
    {
        let Recipe { plan, replay, .. } = self.recipe();
        let max_hedges = plan.hedge().map_or(0, |hedger| hedger.max_hedges());
        if number < max_hedges || self.may_repeat() {
            *copy = replay.copy(request);
        }
        if self.is_alone() {
            replay.set_attempt(request, number + 1);
        } else if self.is_repeating() {
            replay.set_attempt(request, self.attempt);
        }
    }

    /// Notes that the first attempt has ended. Only a success shows the latency of a call.
    #[inline(always)]
    pub(super) fn first_ended(&mut self, outcome: Outcome) {
        self.leave_upload_out(outcome != Outcome::Cancelled);
        let (Some(hedger), Some(hedging)) =
            (self.held.owner.recipe.plan.hedge(), self.hedging.get_mut())
        else {
            return;
        };
        if !std::mem::take(&mut hedging.is_first_open) {
            return;
        }
        hedging.has_succeeded = outcome == Outcome::Success;
        let at = self.held.core().at();
        let elapsed = Duration::from_nanos(at.nanos().saturating_sub(self.held.permits.sent));
        let took = if hedging.has_succeeded {
            Took::Exactly(elapsed)
        } else {
            Took::LongerThan(elapsed)
        };
        hedger.record(&at, took);
    }

    /// Leaves the budget that pays for hedges, if this operation funds it.
    #[inline(always)]
    pub(super) fn leave_funding(&mut self, gain: Gain) {
        let (Some(hedger), Some(hedging)) =
            (self.held.owner.recipe.plan.hedge(), self.hedging.get_mut())
        else {
            return;
        };
        if std::mem::take(&mut hedging.is_funding) {
            hedger.leave(gain);
        }
    }

    /// Notes that the attempt, with its hedges, is over.
    #[inline(always)]
    pub(super) fn end_hedging(&mut self) {
        let hedging = self.hedging.get();
        let has_succeeded = hedging.is_some_and(|hedging| hedging.has_succeeded);
        // First, because the report of the first attempt may reach a recorder that panics.
        self.leave_funding(if has_succeeded {
            Gain::FirstTry
        } else {
            Gain::Nothing
        });
        self.first_ended(Outcome::Cancelled);
    }
}
