//! The state of an operation that runs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::plan::{Hedging, NEVER, Plan, Repeat, Slot};
use super::service::{Recipe, Shared};
use crate::algorithm::retry::{Failure, Wait};
use crate::algorithm::sketch::Took;
use crate::budget::{self, Gain};
use crate::chassis::At;
use crate::chassis::held::{Held, Owner};
use crate::chassis::part::PartFor;
use crate::context::{self, OperationScope, Tried};
use crate::deadline::soonest;
use crate::nanos::whole_nanos;
use crate::{Classify, Error, ErrorKind, GaveUp, Mode, Outcome, Pushback, Replay};

/// An operation that runs: its permits, its place in the budget, its attempts so far.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Running<S, P: Plan, R, K> {
    pub(super) held: Held<Arc<Shared<S, P, R, K>>>,
    /// The number of the attempt, from 1; 0 if the operation was refused.
    pub(super) attempt: u32,
    /// Tokens paid for retries.
    paid: u32,
    /// Where its attempts went.
    pub(super) tried: Tried,
    has_succeeded: bool,
    /// Its attempts are those of an outer retry.
    is_nested: bool,
    is_in_budget: bool,
    /// A layer that judges the result has called it directly.
    pub(super) is_direct: bool,
    /// The service may have acted on the request of an attempt that was made again.
    may_have_acted: bool,
    pub(super) times: P::Times,
    pub(super) hedging: P::Hedging,
}

impl<S, P: Plan, R, K> Running<S, P, R, K> {
    #[inline(always)]
    pub(super) fn new(shared: &Arc<Shared<S, P, R, K>>) -> Self {
        Self {
            held: Held::new(Arc::clone(shared)),
            attempt: 0,
            paid: 0,
            tried: Tried::default(),
            has_succeeded: false,
            is_nested: false,
            is_in_budget: false,
            is_direct: false,
            may_have_acted: false,
            times: P::Times::default(),
            hedging: P::Hedging::default(),
        }
    }

    /// When the operation must be over, if the plan enforces a deadline.
    #[inline(always)]
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.times.get()?.deadline
    }

    #[inline(always)]
    fn may_copy(&self) -> bool {
        self.hedging.get().is_some_and(|hedging| hedging.may_copy)
    }

    #[inline(always)]
    pub(super) fn recipe(&self) -> &Recipe<P, R, K> {
        &self.held.owner.recipe
    }

    #[inline(always)]
    pub(super) fn plan(&self) -> &P {
        &self.held.owner.recipe.plan
    }

    /// Begins the operation.
    #[inline(always)]
    pub(super) fn begin<Req>(&mut self, request: &Req, at: &At) -> Result<(), Error>
    where
        P: Plan<Operation: PartFor<Req>>,
    {
        let Held { owner, permits } = &mut self.held;
        permits.admit_operation(owner.core(), request, at)?;
        let limit = self.held.owner.recipe.plan.deadline();
        if let (Some(limit), Some(times)) = (limit, self.times.get_mut()) {
            let inherited = context::deadline();
            if limit.time < Duration::MAX || inherited.is_some() {
                let now = at.instant();
                let own = crate::nanos::saturating_add(now, limit.time);
                let deadline = soonest(inherited, own);
                (times.began, times.deadline) = (Some(now), Some(deadline));
                if deadline <= now {
                    return Err(self.refuse_late(at));
                }
            }
        }
        if let Some(retry) = self.plan().retry() {
            if retry.is_nested() {
                self.is_nested = true;
            } else {
                // A plan with a deadline has looked at it.
                let is_late = |deadline| deadline <= at.instant();
                if self.plan().deadline().is_none() && context::deadline().is_some_and(is_late) {
                    return Err(self.refuse_late(at));
                }
                if let Some(budget) = &retry.budget {
                    budget.enter();
                }
                self.is_in_budget = true;
            }
        }
        self.attempt = 1;
        Ok(())
    }

    /// Begins an attempt, which a part may refuse or make wait.
    #[inline(always)]
    pub(super) fn begin_attempt<Req>(
        &mut self,
        request: &mut Req,
        copy: &mut Option<Req>,
        at: &At,
    ) -> Result<(), Error>
    where
        P: Plan<Attempt: PartFor<Req>>,
        R: Replay<Req>,
    {
        if self.plan().hedge().is_some() {
            self.begin_hedging(request, at);
        }
        if self.may_repeat() || self.may_copy() {
            *copy = self.recipe().replay.copy(request);
        }
        if self.is_repeating() {
            self.recipe().replay.set_attempt(request, self.attempt);
        }
        self.held.admit(request, at)?;
        if self.plan().hedge().is_some() {
            self.held.permits.sent = at.nanos();
        }
        Ok(())
    }

    /// The operation makes its own further attempts.
    #[inline(always)]
    fn is_repeating(&self) -> bool {
        self.plan().retry().is_some() && !self.is_nested
    }

    /// Returns whether a further attempt after this one is possible.
    #[inline(always)]
    fn may_repeat(&self) -> bool {
        let retry = self.plan().retry();
        !self.is_nested && retry.is_some_and(|retry| self.attempt < retry.settings.max_attempts)
    }

    /// The deadline had passed before the operation began.
    #[cold]
    #[inline(never)]
    fn refuse_late(&mut self, at: &At) -> Error {
        let (plan, now) = (self.plan(), at.instant());
        let kind = ErrorKind::DeadlineExceeded;
        match (plan.deadline(), plan.retry()) {
            (Some(limit), _) => limit.metrics.rejected(kind, Mode::Enforce, now),
            (None, Some(retry)) => retry.metrics.rejected(kind, Mode::Enforce, now),
            (None, None) => {}
        }
        let error = Error::rejected(kind, self.held.core().name, None);
        let Held { owner, permits } = &mut self.held;
        permits.settle_refused(owner.core(), at);
        error
    }

    /// Sets the context of what is called or polled inside.
    #[inline(always)]
    pub(super) fn scope(&self) -> OperationScope {
        let attempt = match self.plan().retry() {
            Some(retry) if !self.is_nested => Some((self.attempt, retry.budget_id())),
            _ => None,
        };
        OperationScope::enter(self.deadline(), attempt, self.tried)
    }

    /// Takes up what was not known when the call was made: an operation may be polled inside of another one than that it was
    /// called in, as over a buffer.
    /// Returns whether it must be over sooner than was known.
    #[inline(always)]
    pub(super) fn renew(&mut self) -> bool {
        let mut is_sooner = false;
        if let (Some(times), Some(inherited)) = (self.times.get_mut(), context::deadline()) {
            is_sooner = times.deadline.is_none_or(|deadline| inherited < deadline);
            times.deadline = Some(soonest(times.deadline, inherited));
        }
        if self.is_in_budget && self.plan().retry().is_some_and(Repeat::is_nested) {
            self.leave_budget();
            self.is_nested = true;
        }
        let is_funding = self.hedging.get().is_some_and(|hedging| hedging.is_funding);
        if is_funding && self.plan().hedge().is_some_and(|hedge| hedge.is_funded()) {
            self.leave_funding(Gain::Nothing);
        }
        is_sooner
    }

    #[inline(always)]
    pub(super) fn succeeded(&mut self) {
        self.has_succeeded = true;
    }

    /// Leaves the budget. The first attempt that succeeds brings tokens; later ones bring back what was paid.
    #[inline(always)]
    fn leave_budget(&mut self) {
        if !std::mem::take(&mut self.is_in_budget) {
            return;
        }
        let retry = self.plan().retry();
        if let Some(budget) = retry.and_then(|retry| retry.budget.as_ref()) {
            budget.leave(match self.has_succeeded {
                false => Gain::Nothing,
                true if self.attempt == 1 => Gain::FirstTry,
                true => Gain::Refund(self.paid),
            });
        }
    }

    /// The wait for the next attempt is over, and the deadline with it: the task was woken too late.
    #[cold]
    pub(super) fn end_late(&self, now: Instant) -> Error {
        let mut error = Error::late(self.held.core().name);
        if let Some(retry) = self.plan().retry() {
            retry.metrics.gave_up(GaveUp::Deadline, now);
            let max_attempts = retry.settings.max_attempts;
            error.set_attempts(self.attempt, max_attempts, GaveUp::Deadline);
        }
        error
    }

    /// The deadline has come.
    #[cold]
    pub(super) fn end_at_deadline(&self, deadline: Instant) -> Error {
        let name = self.held.core().name;
        if let Some(limit) = self.plan().deadline() {
            let now = Instant::now();
            limit.metrics.timed_out(now);
        }
        match self.times.get().and_then(|times| times.began) {
            Some(began) => {
                let allowed = deadline.saturating_duration_since(began);
                Error::timed_out(ErrorKind::DeadlineExceeded, name, allowed)
            }
            None => Error::late(name),
        }
    }

    /// The time of an attempt is over.
    #[cold]
    pub(super) fn end_at_timeout(&self) -> Error {
        let time = self.plan().timeout().map_or(Duration::ZERO, |limit| {
            let now = Instant::now();
            limit.metrics.timed_out(now);
            limit.time
        });
        Error::timed_out(ErrorKind::Timeout, self.held.core().name, time)
    }
}

/// An attempt that is over.
pub(super) struct Attempted<'a, Req, Res> {
    pub(super) result: &'a mut Result<Res, Error>,
    pub(super) outcome: Outcome,
    /// The request that the next attempt would send.
    pub(super) copy: Option<&'a Req>,
    /// The wait before this attempt.
    pub(super) previous: Duration,
}

impl<S, P: Plan, R, K> Running<S, P, R, K> {
    /// Decides whether there is a further attempt, and pays for it. Returns the wait before it.
    #[cold]
    #[inline(never)]
    pub(super) fn next<Req, Res>(&mut self, attempted: Attempted<'_, Req, Res>) -> Option<Wait>
    where
        R: Replay<Req>,
        K: Classify<Res>,
    {
        if self.attempt == 0 || self.plan().retry().is_none() {
            return None;
        }
        let next = self.decide(&attempted);
        let retry = self.plan().retry()?;
        match next {
            Ok(wait) => retry.metrics.retried(wait, Instant::now()),
            Err(reason) => retry.metrics.gave_up(reason, Instant::now()),
        }
        if let (Err(reason), Err(error)) = (next, attempted.result) {
            if self.may_have_acted {
                error.set_sent();
            }
            if !self.is_nested {
                error.set_attempts(self.attempt, retry.settings.max_attempts, reason);
            }
        }
        next.ok()
    }

    fn decide<Req, Res>(&mut self, attempted: &Attempted<'_, Req, Res>) -> Result<Wait, GaveUp>
    where
        R: Replay<Req>,
        K: Classify<Res>,
    {
        let Recipe {
            plan,
            replay,
            classify,
            ..
        } = &*self.held.owner.recipe;
        let Some(Repeat {
            settings, random, ..
        }) = plan.retry()
        else {
            return Err(GaveUp::Exhausted);
        };
        let outcome = attempted.outcome;
        let error = attempted.result.as_ref().err();
        let rejection = error.filter(|error| error.is_rejection());
        let may_go_elsewhere = rejection.is_some_and(|error| error.may_go_elsewhere());
        if rejection.is_some() && !settings.retry_rejections && !may_go_elsewhere {
            return Err(GaveUp::Rejected);
        }
        if rejection.is_none() && !outcome.is_failure() {
            return Err(GaveUp::NotRetryable);
        }
        if self.is_nested {
            return Err(GaveUp::Nested);
        }
        if self.attempt >= settings.max_attempts {
            return Err(GaveUp::Exhausted);
        }
        let pushback = match rejection {
            // When the one that refused will take calls again does not matter to another.
            Some(_) if may_go_elsewhere => None,
            Some(error) => error.retry_after().map(Pushback::RetryAfter),
            None => classify.pushback(attempted.result.as_ref()),
        };
        let retry_after = match pushback {
            Some(Pushback::DoNotRetry) => return Err(GaveUp::Pushback),
            Some(Pushback::RetryAfter(wait)) => Some(wait),
            None => None,
        };
        let copy = attempted.copy.filter(|copy| replay.is_replayable(copy));
        let request = copy.ok_or(GaveUp::NotCopyable)?;
        let may_have_acted = error.is_none_or(|error| error.was_sent());
        if may_have_acted && !replay.is_idempotent(request) {
            return Err(GaveUp::NotIdempotent);
        }
        let is_overload = matches!(outcome, Outcome::Overload { .. });
        let failure = Failure {
            attempt: self.attempt,
            is_overload,
            retry_after,
            previous: attempted.previous,
        };
        let now = Instant::now();
        let wait = settings.wait(failure, now, context::deadline(), &mut random.generator())?;
        let cost = if is_overload {
            budget::RETRY_AFTER_OVERLOAD
        } else {
            budget::RETRY
        };
        if !self.pay(cost, now) {
            return Err(GaveUp::Budget);
        }
        self.recipe().replay.abandon(request);
        self.may_have_acted |= may_have_acted;
        Ok(wait)
    }

    /// Pays for a retry, if the budget allows it.
    fn pay(&mut self, cost: u32, now: Instant) -> bool {
        let retry = self.plan().retry();
        let Some(budget) = retry.and_then(|retry| retry.budget.as_ref()) else {
            return true;
        };
        let allowed = budget.withdraw(cost, now);
        if allowed {
            self.paid = self.paid.saturating_add(cost);
        }
        allowed
    }
}

/// Hedging.
impl<S, P: Plan, R, K> Running<S, P, R, K> {
    #[inline(always)]
    fn begin_hedging<Req>(&mut self, request: &Req, at: &At)
    where
        R: Replay<Req>,
    {
        let is_alone = self.is_alone();
        let Recipe { plan, replay, .. } = &*self.held.owner.recipe;
        let (Some(hedge), Some(hedging)) = (plan.hedge(), self.hedging.get_mut()) else {
            return;
        };
        let is_funding = match plan.retry() {
            Some(retry) if !self.is_nested => !hedge.is_funded_by(retry.budget_id()),
            _ => !hedge.is_funded(),
        };
        if is_funding {
            hedge.enter();
        }
        // Before anything that may panic.
        *hedging = Hedging {
            is_first_open: true,
            may_copy: false,
            is_funding,
            has_succeeded: false,
            delay: NEVER,
            sent_last: 0,
        };
        let delay = hedge.delay(at);
        hedging.may_copy = (delay.is_some() || is_alone) && replay.is_idempotent(request);
        hedging.delay = delay.map_or(NEVER, whole_nanos);
    }

    /// Returns whether no retry makes further attempts, neither this operation's nor an outer one.
    #[inline(always)]
    pub(super) fn is_alone(&self) -> bool {
        self.plan().retry().is_none() && context::attempt() == 0
    }

    /// Returns whether an attempt that ended so is made again at once.
    ///
    /// Where there is a retry, failures are its business; and a service that is overloaded wants fewer calls, not more.
    pub(super) fn repeats_at_once(&self, outcome: Outcome) -> bool {
        outcome == Outcome::Failure && self.plan().hedge().is_some() && self.is_alone()
    }

    /// Returns whether a copy of the request could be sent.
    pub(super) fn has_copy<Req>(&self, copy: Option<&Req>) -> bool {
        self.may_copy() && copy.is_some()
    }

    /// No further copy is sent for this attempt.
    pub(super) fn stop_copies(&mut self) {
        if let Some(hedging) = self.hedging.get_mut() {
            hedging.may_copy = false;
        }
    }

    /// Returns when a copy is due because the attempts so far are slow.
    pub(super) fn slow_at(&self) -> Option<Instant> {
        let hedging = self.hedging.get()?;
        let sent = self.held.permits.sent.max(hedging.sent_last);
        let is_due = hedging.delay != NEVER;
        is_due.then(|| self.held.core().instant(sent.saturating_add(hedging.delay)))
    }

    /// A hedge has been sent.
    pub(super) fn note_hedge(&mut self, at: &At) {
        if let Some(hedging) = self.hedging.get_mut() {
            hedging.sent_last = at.nanos();
        }
    }

    /// Makes a request that is sent as the hedge of this number, and keeps a copy if there may be a further attempt.
    pub(super) fn prepare_hedge<Req>(&self, request: &mut Req, number: u32, copy: &mut Option<Req>)
    where
        R: Replay<Req>,
    {
        let Recipe { plan, replay, .. } = &*self.held.owner.recipe;
        let max_hedges = plan.hedge().map_or(0, |hedge| hedge.max_hedges());
        if number < max_hedges || self.may_repeat() {
            *copy = replay.copy(request);
        }
        if self.is_alone() {
            replay.set_attempt(request, number + 1);
        } else if self.is_repeating() {
            replay.set_attempt(request, self.attempt);
        }
    }

    /// The first attempt has ended. Only a success says how long a call takes.
    #[inline(always)]
    pub(super) fn first_ended(&mut self, outcome: Outcome) {
        let Some(hedging) = self.hedging.get_mut() else {
            return;
        };
        if !std::mem::take(&mut hedging.is_first_open) {
            return;
        }
        hedging.has_succeeded = outcome == Outcome::Success;
        let at = self.held.core().at();
        let elapsed = Duration::from_nanos(at.nanos().saturating_sub(self.held.permits.sent));
        let took = if outcome == Outcome::Success {
            Took::Exactly(elapsed)
        } else {
            Took::LongerThan(elapsed)
        };
        if let Some(hedge) = self.plan().hedge() {
            hedge.record(&at, took);
        }
    }

    #[inline(always)]
    fn leave_funding(&mut self, gain: Gain) {
        let Some(hedging) = self.hedging.get_mut() else {
            return;
        };
        if std::mem::take(&mut hedging.is_funding) {
            if let Some(hedge) = self.plan().hedge() {
                hedge.leave(gain);
            }
        }
    }

    /// The attempt, with its hedges, is over.
    #[inline(always)]
    pub(super) fn end_hedging(&mut self) {
        let has_succeeded = self
            .hedging
            .get()
            .is_some_and(|hedging| hedging.has_succeeded);
        // First, as the record of the first attempt may be told to a recorder that panics.
        self.leave_funding(if has_succeeded {
            Gain::FirstTry
        } else {
            Gain::Nothing
        });
        self.first_ended(Outcome::Cancelled);
    }
}

impl<S, P: Plan, R, K> Drop for Running<S, P, R, K> {
    #[inline]
    fn drop(&mut self) {
        /// Leaves the budget, also after a recorder has panicked.
        struct Last<'a, S, P: Plan, R, K>(&'a mut Running<S, P, R, K>);

        impl<S, P: Plan, R, K> Drop for Last<'_, S, P, R, K> {
            #[inline]
            fn drop(&mut self) {
                self.0.leave_budget();
            }
        }

        Last(self).0.end_hedging();
    }
}

impl<S, P: Plan, R, K> fmt::Debug for Running<S, P, R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("attempt", &self.attempt)
            .field("deadline", &self.deadline())
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}
