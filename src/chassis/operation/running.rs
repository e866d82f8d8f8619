//! The state of a running operation.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::plan::{NEVER, Plan, PlanFor, Slot, time_of};
use super::repeat::Repeat;
use super::service::{Recipe, SharedRef};
use crate::budget::Gain;
use crate::chassis::At;
use crate::chassis::held::{Held, finally};
use crate::chassis::limit::Span;
use crate::context::{self, OperationScope, Tried};
use crate::debug::debug_fields;
use crate::nanos::saturating_add;
use crate::telemetry::Series;
use crate::{CallOptions, Effect, Error, ErrorKind, Mode, Replay, Stage, Upload};

/// A running operation: its permits, its place in the budget, its attempts so far.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Running<S, P: Plan, R, K, C> {
    pub(super) held: Held<SharedRef<S, P, R, K, C>>,
    /// The number of the attempt, from 1; 0 if the operation was refused.
    pub(super) attempt: u32,
    /// Tokens paid for retries.
    pub(super) paid: u32,
    /// Endpoints to which its attempts were sent.
    pub(super) tried: Tried,
    /// The trace that an earlier attempt may have left.
    pub(super) effect: Effect,
    pub(super) has_succeeded: bool,
    /// `true` after the attempt that may be made [once](crate::Reattempt::OnceAtOnce).
    pub(super) has_renewed: bool,
    /// `true` if a layer that decides on the result has called it directly.
    pub(super) is_direct: bool,
    /// `true` if the service may have acted on the request of an attempt that was repeated.
    pub(super) may_have_acted: bool,
    /// `true` if an outer retry makes the attempts and has the place in the budget.
    pub(super) is_nested: bool,
    /// `true` if its answer is a stream, which the deadline of the plan does not end.
    pub(super) is_stream: bool,
    /// The settings of this call. Boxed, because they are rare.
    pub(super) options: Option<Box<CallOptions>>,
    pub(super) times: P::Times,
    pub(super) hedging: P::Hedging,
}

/// The end of the wait for the head of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndOfWait {
    pub(super) at: Option<Instant>,
    /// `true` for the response timeout, `false` for the deadline.
    pub(super) is_response_timeout: bool,
}

impl EndOfWait {
    pub(super) fn has_come(self, now: Instant) -> bool {
        self.at.is_some_and(|at| at <= now)
    }
}

impl<S, P: Plan, R, K, C> Running<S, P, R, K, C> {
    #[inline(always)]
    pub(super) fn new(shared: &SharedRef<S, P, R, K, C>) -> Self {
        Self {
            held: Held::new(Arc::clone(shared)),
            attempt: 0,
            paid: 0,
            tried: Tried::default(),
            effect: Effect::None,
            has_succeeded: false,
            has_renewed: false,
            is_direct: false,
            may_have_acted: false,
            is_nested: false,
            is_stream: false,
            options: None,
            times: P::Times::default(),
            hedging: P::Hedging::default(),
        }
    }

    /// Returns the time at which the operation must be over, if the plan enforces a deadline.
    #[inline(always)]
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.times.get()?.span.deadline
    }

    /// Returns the latest time until which the caller waits for the head of the answer.
    pub(super) fn end_of_wait(&self, deadline: Option<Instant>) -> EndOfWait {
        let began = self.times.get().and_then(|times| times.span.began);
        let response = self.response_timeout().zip(began);
        let response = response.map(|(time, began)| saturating_add(began, time));
        let is_sooner = |at| deadline.is_none_or(|deadline| at < deadline);
        let is_response_timeout = response.is_some_and(is_sooner);
        EndOfWait {
            at: if is_response_timeout {
                response
            } else {
                deadline
            },
            is_response_timeout,
        }
    }

    /// Returns whether the end of the attempt's time is known. It is known once the attempt was found pending.
    pub(super) fn is_timed(&self) -> bool {
        let times = self.times.get();
        times.is_none_or(|times| times.timeout_at != NEVER)
    }

    #[inline(always)]
    pub(super) fn recipe(&self) -> &Recipe<P, R, K, C> {
        &self.held.owner.recipe
    }

    #[inline(always)]
    pub(super) fn plan(&self) -> &P {
        &self.held.owner.recipe.plan
    }

    /// Returns the time of each attempt that this call has chosen.
    fn own_timeout(&self) -> Option<Duration> {
        let options = self.times.get().and(self.options.as_ref());
        options?.timeout
    }

    /// Returns the time of each attempt that the plan sets.
    #[inline(always)]
    fn timeout_of_plan(&self) -> Option<Duration> {
        time_of(self.times.get()?.numbers.timeout)
    }

    /// Returns the time of each attempt.
    #[inline(always)]
    pub(super) fn timeout(&self) -> Option<Duration> {
        let own = match &self.options {
            Some(_) => self.own_timeout(),
            None => None,
        };
        own.or_else(|| self.timeout_of_plan())
    }

    /// Returns the time of an attempt whose end is a failure of the service. `None` if the call has chosen a time that is shorter
    /// than that of the plan: its end is that of a deadline, as a caller must not decide what others get.
    pub(super) fn timeout_that_fails(&self) -> Option<Duration> {
        let of_plan = self.timeout_of_plan();
        match self.own_timeout() {
            Some(own) => of_plan.filter(|of_plan| own >= *of_plan).map(|_| own),
            None => of_plan,
        }
    }

    /// Returns the time of all attempts until the head of the answer. It is not less than the time that the call has chosen for one.
    fn response_timeout(&self) -> Option<Duration> {
        let time = time_of(self.times.get()?.numbers.response_timeout)?;
        Some(self.own_timeout().map_or(time, |own| time.max(own)))
    }

    /// Returns whether the options of the call permit further attempts.
    #[inline(always)]
    pub(super) fn allows_retry(&self) -> bool {
        let options = self.options.as_ref();
        options.is_none_or(|options| !options.no_retry)
    }

    /// Returns how many attempts the call may make, if it makes its own.
    #[inline(always)]
    pub(super) fn max_attempts(&self) -> u32 {
        match self.plan().retry() {
            Some(retry) if self.allows_retry() => match self.times.get() {
                Some(times) => times.numbers.max_attempts,
                None => retry.max_attempts,
            },
            _ => 1,
        }
    }

    /// Begins the operation, with these options and those of the request.
    #[inline(always)]
    pub(super) fn begin<Req>(
        &mut self,
        request: &Req,
        options: Option<CallOptions>,
        at: &At,
    ) -> Result<(), Error>
    where
        P: PlanFor<Req>,
        R: Replay<Req>,
    {
        self.held.begin(at)?;
        let Recipe { plan, replay, .. } = &*self.held.owner.recipe;
        let asked = replay.call_options(request);
        if options.is_some() || asked.is_some() {
            self.options = Some(Box::new(CallOptions::both(options, asked)));
        }
        if let (Some(_), Some(times)) = (plan.deadline(), self.times.get_mut()) {
            times.numbers = plan.numbers();
            let (own, declared) = match &self.options {
                Some(options) => (options.deadline.unwrap_or(Duration::MAX), options.stream),
                None => (Duration::MAX, None),
            };
            self.is_stream = declared.unwrap_or_else(|| plan.is_stream(request));
            let time = if self.is_stream {
                own
            } else {
                time_of(times.numbers.deadline).map_or(own, |time| time.min(own))
            };
            if times.span.begin(time, || at.instant()).is_err() {
                return Err(self.refuse_late(at));
            }
            if times.numbers.response_timeout != NEVER && times.span.began.is_none() {
                times.span.began = Some(at.instant());
            }
        }
        if let Some(retry) = self.plan().retry() {
            if retry.is_nested() {
                self.is_nested = true;
            } else {
                // A plan with a deadline has checked it already.
                let is_late = |deadline| deadline <= at.instant();
                if self.plan().deadline().is_none() && context::deadline().is_some_and(is_late) {
                    return Err(self.refuse_late(at));
                }
                if let Some(budget) = &retry.budget {
                    budget.enter();
                }
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
        P: PlanFor<Req>,
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
        if let Some(upload) = self.upload(request) {
            if let Some(times) = self.times.get_mut() {
                times.upload = Some(upload);
            }
        }
        self.held.admit(request, at)?;
        if self.plan().hedge().is_some() && self.held.is_sent() {
            self.held.permits.sent = at.nanos();
        }
        Ok(())
    }

    /// Returns the progress of the body of a request that is about to be sent, if an attempt has a timeout.
    #[inline(always)]
    pub(super) fn upload<Req>(&self, request: &mut Req) -> Option<Upload>
    where
        R: Replay<Req>,
    {
        self.timeout()?;
        self.recipe().replay.upload(request)
    }

    /// Notes that the time of the attempt is over, if the timeout only observes. Returns whether the attempt goes on.
    #[cold]
    pub(super) fn observe_timeout(&mut self, now: Instant) -> bool {
        let limit = self.plan().timeout();
        let Some(limit) = limit.filter(|limit| limit.mode == Mode::Observe) else {
            return false;
        };
        limit.end(self.timeout(), now);
        if let Some(times) = self.times.get_mut() {
            times.timeout_at = NEVER - 1;
        }
        true
    }

    /// Returns the time of each copy that a hedge sends.
    pub(super) fn timeout_of_copies(&self) -> Option<Duration> {
        let limit = self.plan().timeout();
        let is_enforced = limit.is_none_or(|limit| limit.mode == Mode::Enforce);
        self.timeout().filter(|_| is_enforced)
    }

    /// Extends the time of the attempt if the client takes the body of the request, or has just taken the rest of it.
    /// Returns whether it was extended.
    #[cold]
    pub(super) fn extend_timeout(&mut self, now: Instant) -> bool {
        let (Some(time), Some(times)) = (self.timeout(), self.times.get_mut()) else {
            return false;
        };
        let upload = times.upload.as_ref();
        let Some(end) = upload.and_then(|upload| upload.end(time, now)) else {
            return false;
        };
        times.timeout_at = self.held.core().at_instant(end).nanos();
        true
    }

    /// Notes that the attempt has ended, with an answer or without, and subtracts its upload from the time of the
    /// service.
    #[inline(always)]
    pub(super) fn leave_upload_out(&mut self, is_answered: bool) {
        let times = self.times.get_mut();
        if let Some(upload) = times.and_then(|times| times.upload.take()) {
            self.held.leave_out(&upload, is_answered);
        }
    }

    /// Returns whether the operation makes its own further attempts.
    #[inline(always)]
    pub(super) fn is_repeating(&self) -> bool {
        self.plan().retry().is_some() && !self.is_nested
    }

    /// Returns whether a further attempt after this one is possible.
    #[inline(always)]
    pub(super) fn may_repeat(&self) -> bool {
        self.is_repeating() && self.attempt < self.max_attempts()
    }

    /// Refuses an operation whose deadline had passed before it began.
    #[cold]
    #[inline(never)]
    fn refuse_late(&mut self, at: &At) -> Error {
        let (plan, now) = (self.plan(), at.instant());
        let kind = ErrorKind::DeadlineExceeded;
        match (plan.deadline(), plan.retry()) {
            (Some(limit), _) => limit.metrics.refused(kind, Mode::Enforce, None, now),
            (None, Some(retry)) => retry.metrics.refused(kind, Mode::Enforce, None, now),
            (None, None) => {}
        }
        let error = Error::rejected(kind, self.held.core().name, None);
        self.held.settle_refused(at);
        error
    }

    /// Sets the context of inner calls and polls.
    #[inline(always)]
    pub(super) fn scope(&self) -> OperationScope {
        let attempt = match self.plan().retry() {
            Some(retry) if !self.is_nested => Some((self.attempt, retry.budget_id())),
            _ => None,
        };
        let is_stream = self.times.get().map(|_| self.is_stream);
        OperationScope::enter(self.deadline(), attempt, self.tried, is_stream)
    }

    /// Adopts the context of the poll. An operation may be polled inside of another operation than it was called in,
    /// for example over a buffer. Returns whether it must be over sooner than was known.
    #[inline(always)]
    pub(super) fn renew(&mut self) -> bool {
        let times = self.times.get_mut();
        let is_sooner = times.is_some_and(|times| times.span.renew());
        if self.attempt > 0 && !self.is_nested && self.plan().retry().is_some_and(Repeat::is_nested)
        {
            self.leave_budget();
            self.is_nested = true;
        }
        let is_funding = self.hedging.get().is_some_and(|hedging| hedging.is_funding);
        if is_funding && self.plan().hedge().is_some_and(|hedge| hedge.is_funded()) {
            self.leave_funding(Gain::Nothing);
        }
        is_sooner
    }

    /// Leaves the budget. A success of the first attempt adds tokens; a later success refunds the payments.
    #[inline(always)]
    fn leave_budget(&mut self) {
        let retry = self.plan().retry();
        let retry = retry.filter(|_| self.attempt > 0 && !self.is_nested);
        if let Some(budget) = retry.and_then(|retry| retry.budget.as_ref()) {
            budget.leave(match self.has_succeeded {
                false => Gain::Nothing,
                true if self.attempt == 1 => Gain::FirstTry,
                true => Gain::Refund(self.paid),
            });
        }
    }

    /// Ends the wait for the head of the answer, and returns the error.
    #[cold]
    pub(super) fn end_wait(&self, end: EndOfWait) -> Error {
        let (plan, name) = (self.plan(), self.held.core().name);
        if let (true, Some(limit)) = (end.is_response_timeout, plan.response_timeout()) {
            let time = self.response_timeout().unwrap_or_default();
            limit.end(Some(time), Instant::now());
            let mut error = Error::timed_out(ErrorKind::Timeout, name, time);
            error.0.stage = Stage::AllAttempts;
            return error;
        }
        if let (Some(limit), Some(times)) = (plan.deadline(), self.times.get()) {
            limit.end(time_of(times.numbers.deadline), Instant::now());
        }
        let span = self.times.get().map_or(Span::default(), |times| times.span);
        span.error(name)
    }

    /// Ends an attempt at its timeout, and returns the error.
    #[cold]
    pub(super) fn end_at_timeout(&self) -> Error {
        let name = self.held.core().name;
        match self.plan().timeout() {
            Some(limit) => limit.end(self.timeout(), Instant::now()),
            None => Series::of_time(name, "timeout", Duration::MAX)
                .timed_out(crate::Mode::Enforce, Instant::now()),
        }
        Error::timed_out(ErrorKind::Timeout, name, self.timeout().unwrap_or_default())
    }
}

impl<S, P: Plan, R, K, C> Drop for Running<S, P, R, K, C> {
    #[inline]
    fn drop(&mut self) {
        // The budget is left even after a recorder has panicked.
        finally(self, Self::end_hedging, Self::leave_budget);
    }
}

debug_fields!([S, P: Plan, R, K, C] Running<S, P, R, K, C> { attempt, deadline(), held });
