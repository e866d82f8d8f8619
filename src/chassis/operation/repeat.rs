//! Retries: the decision about a further attempt, and its time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::plan::Plan;
use super::race::End;
use super::running::Running;
use crate::algorithm::retry::{Failure, Settings, Wait};
use crate::random::Random;
use crate::sync::{Mutex, lock};
use crate::telemetry::Report;
use crate::{
    Attempts, Budget, Classify, Conflict, Effect, Error, ErrorKind, GaveUp, Outcome, Pushback,
    Reattempt, Replay, budget, context,
};

/// The rule of retries: their waits, their number and their budget.
#[derive(Debug)]
pub struct Repeat {
    /// Locked only when an attempt has failed.
    pub(crate) settings: Arc<Mutex<Settings>>,
    /// The number of attempts, unless the plan has [`Numbers`](super::plan::Numbers) of its own.
    pub(crate) max_attempts: u32,
    pub(crate) retry_nested: bool,
    pub(crate) budget: Option<Budget>,
    pub(crate) random: Random,
    pub(crate) metrics: Report,
}

impl Repeat {
    /// Returns the budget that pays for attempts, for inner layers that could pay as well.
    #[inline]
    pub(super) fn budget_id(&self) -> usize {
        self.budget.as_ref().map_or(0, Budget::id)
    }

    /// Returns whether the attempts are made by an outer retry.
    #[inline]
    pub(super) fn is_nested(&self) -> bool {
        context::attempt() > 0 && !self.retry_nested
    }
}

impl<S, P: Plan, R, K, C> Running<S, P, R, K, C> {
    /// Decides whether a further attempt follows an attempt with this result, and pays for it. Returns the wait before
    /// it.
    ///
    /// `copy` is the request of the further attempt, and `previous` the wait before the attempt that has ended.
    #[cold]
    #[inline(never)]
    pub(super) fn next<Req, Res>(
        &mut self,
        end: &mut End<Res, P>,
        copy: Option<&Req>,
        previous: Duration,
    ) -> Option<Wait>
    where
        R: Replay<Req>,
        K: Classify<Res>,
    {
        if self.attempt == 0 || end.is_success() {
            return None;
        }
        let retry = self.held.owner.recipe.plan.retry()?;
        match self.decide(retry, end, copy, previous) {
            Ok((wait, paid, effect)) => {
                self.paid = self.paid.saturating_add(paid);
                self.may_have_acted |= end.may_have_acted();
                self.has_renewed |= end.reattempt == Reattempt::OnceAtOnce;
                if effect != Effect::None {
                    self.effect = effect;
                }
                retry
                    .metrics
                    .retried(wait, self.attempt, end, Instant::now());
                Some(wait)
            }
            Err(reason) => {
                end.gave_up = Some(reason);
                if let Err(error) = &mut end.result {
                    if self.may_have_acted {
                        error.set_sent();
                    }
                    if !self.is_nested {
                        error.set_attempts(self.attempt, self.max_attempts(), reason);
                    }
                }
                let error = end.result.as_ref().err();
                let metrics = &retry.metrics;
                metrics.gave_up(reason, self.attempt, error, Instant::now());
                None
            }
        }
    }

    /// Notes that the deadline or the response timeout ends the operation, after several attempts or during the wait
    /// for the next one.
    #[cold]
    pub(super) fn give_up_repeating(&self, error: &mut Error) {
        let retry = self.plan().retry();
        let Some(retry) = retry.filter(|_| self.is_repeating()) else {
            return;
        };
        let reason = match error.kind() {
            ErrorKind::Timeout => GaveUp::ResponseTimeout,
            _ => GaveUp::Deadline,
        };
        error.set_attempts(self.attempt, self.max_attempts(), reason);
        let metrics = &retry.metrics;
        metrics.gave_up(reason, self.attempt, Some(error), Instant::now());
    }

    /// Adds the attempts of the operation to a response.
    pub(super) fn annotate<Res>(&self, end: &mut End<Res, P>)
    where
        K: Classify<Res>,
    {
        let is_result_unknown = end.conflict != Conflict::None;
        let attempts = Attempts {
            made: self.attempt,
            gave_up: end.gave_up,
            is_result_unknown,
        };
        let is_special = attempts.made > 1 || attempts.gave_up.is_some() || is_result_unknown;
        if let (Ok(response), true, false) = (&mut end.result, is_special, self.is_nested) {
            self.recipe().classify.annotate(response, attempts);
        }
    }

    /// Returns the wait before a further attempt, its payment, and the trace that this attempt may have left.
    fn decide<Req, Res>(
        &self,
        retry: &Repeat,
        end: &End<Res, P>,
        copy: Option<&Req>,
        previous: Duration,
    ) -> Result<(Wait, u32, Effect), GaveUp>
    where
        R: Replay<Req>,
        K: Classify<Res>,
    {
        let (settings, recipe) = (lock(&retry.settings).clone(), self.recipe());
        let error = end.result.as_ref().err();
        let rejection = error.filter(|error| error.is_rejection());
        let may_go_elsewhere = rejection.is_some_and(|error| error.may_go_elsewhere());
        if rejection.is_some() && !settings.retry_rejections && !may_go_elsewhere {
            return Err(GaveUp::Rejected);
        }
        let is_at_once = end.reattempt == Reattempt::OnceAtOnce;
        if end.reattempt == Reattempt::Never && rejection.is_none() {
            return Err(GaveUp::NotRetryable);
        }
        if self.is_nested {
            return Err(GaveUp::Nested);
        }
        if self.attempt >= self.max_attempts() {
            return Err(GaveUp::Exhausted);
        }
        let pushback = match rejection {
            // The time in the refusal of one endpoint does not concern another endpoint.
            Some(_) if may_go_elsewhere => None,
            Some(error) => error.retry_after().map(Pushback::RetryAfter),
            None => recipe.classify.pushback(end.result.as_ref()),
        };
        // The overloaded endpoint is avoided, and another one takes the attempt.
        let goes_elsewhere =
            matches!(end.outcome, Outcome::Overload { .. }) && context::tried().has_others();
        let retry_after = match pushback {
            Some(Pushback::DoNotRetry) => return Err(GaveUp::Pushback),
            Some(Pushback::RetryAfter(_)) if goes_elsewhere => None,
            Some(Pushback::RetryAfter(wait)) => Some(wait),
            None => None,
        };
        let copy = copy.filter(|copy| recipe.replay.is_replayable(copy));
        let request = copy.ok_or(GaveUp::NotCopyable)?;
        let may_have_acted = end.may_have_acted();
        // After a 401 an inner layer has renewed the token, and the service did not act.
        let marked = self.options.as_ref().and_then(|own| own.idempotent);
        let is_idempotent = || marked.unwrap_or_else(|| recipe.replay.is_idempotent(request));
        if may_have_acted && !is_at_once && !is_idempotent() {
            return Err(GaveUp::NotIdempotent);
        }
        let is_overload = end.reattempt == Reattempt::Later && !goes_elsewhere;
        let failure = Failure {
            attempt: self.attempt,
            is_overload,
            is_at_once,
            retry_after,
            previous,
        };
        let (now, latest) = (Instant::now(), self.end_of_wait(context::deadline()));
        let wait = settings.wait(failure, now, latest.at, &mut retry.random.generator());
        let wait = wait.map_err(|reason| match reason {
            GaveUp::Deadline if latest.is_response_timeout => GaveUp::ResponseTimeout,
            reason => reason,
        })?;
        let cost = if is_overload {
            budget::RETRY_AFTER_OVERLOAD
        } else {
            budget::RETRY
        };
        let paid = match &retry.budget {
            Some(budget) => match budget.withdraw(cost, now) {
                Some(paid) => paid,
                None if budget.only_observes() => {
                    retry.metrics.observed_budget(now);
                    0
                }
                None => return Err(GaveUp::Budget),
            },
            None => 0,
        };
        let is_throttled = matches!(end.outcome, Outcome::Throttled { .. });
        let effect = if may_have_acted && !is_at_once && !is_throttled {
            recipe.replay.effect(request)
        } else {
            Effect::None
        };
        recipe.replay.abandon(request);
        Ok((wait, paid, effect))
    }
}
