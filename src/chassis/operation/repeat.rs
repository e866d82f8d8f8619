//! Retries: whether there is a further attempt after one that failed, and when.

use std::time::Duration;

use tokio::time::Instant;

use super::plan::Plan;
use super::race::End;
use super::retry_metrics::RetryMetrics;
use super::running::Running;
use crate::algorithm::retry::{Failure, Settings, Wait};
use crate::random::Random;
use crate::telemetry::Series;
use crate::{Budget, Classify, GaveUp, Outcome, Pushback, Replay, budget, context};

/// Retries: when, how often, and paid from what.
#[derive(Debug)]
pub struct Repeat {
    pub(crate) settings: Settings,
    pub(crate) budget: Option<Budget>,
    pub(crate) random: Random,
    pub(crate) metrics: &'static Series<RetryMetrics>,
}

impl Repeat {
    /// The budget that attempts are paid from, for inner layers that could pay as well.
    #[inline]
    pub(super) fn budget_id(&self) -> usize {
        self.budget.as_ref().map_or(0, Budget::id)
    }

    /// Returns whether the attempts are made by an outer retry.
    #[inline]
    pub(super) fn is_nested(&self) -> bool {
        context::attempt() > 0 && !self.settings.retry_nested
    }
}

impl<S, P: Plan, R, K, C> Running<S, P, R, K, C> {
    /// Decides whether there is a further attempt after one that ended so, and pays for it. Returns the wait before it.
    ///
    /// `copy` is the request that it would send, and `previous` the wait before the attempt that has ended.
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
        if self.attempt == 0 || end.outcome == Outcome::Success {
            return None;
        }
        let retry = self.held.owner.recipe.plan.retry()?;
        match self.decide(retry, end, copy, previous) {
            Ok((wait, cost)) => {
                self.paid = self.paid.saturating_add(cost);
                retry.metrics.retried(wait, Instant::now());
                Some(wait)
            }
            Err(reason) => {
                retry.metrics.gave_up(reason, Instant::now());
                if let (Err(error), false) = (&mut end.result, self.is_nested) {
                    error.set_attempts(self.attempt, retry.settings.max_attempts, reason);
                }
                None
            }
        }
    }

    /// Returns the wait before a further attempt, and what was paid for it.
    fn decide<Req, Res>(
        &self,
        retry: &Repeat,
        end: &End<Res, P>,
        copy: Option<&Req>,
        previous: Duration,
    ) -> Result<(Wait, u32), GaveUp>
    where
        R: Replay<Req>,
        K: Classify<Res>,
    {
        let (settings, recipe) = (&retry.settings, self.recipe());
        let error = end.result.as_ref().err();
        let rejection = error.filter(|error| error.is_rejection());
        let may_go_elsewhere = rejection.is_some_and(|error| error.may_go_elsewhere());
        if rejection.is_some() && !settings.retry_rejections && !may_go_elsewhere {
            return Err(GaveUp::Rejected);
        }
        if rejection.is_none() && !end.outcome.is_failure() {
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
            None => recipe.classify.pushback(end.result.as_ref()),
        };
        let retry_after = match pushback {
            Some(Pushback::DoNotRetry) => return Err(GaveUp::Pushback),
            Some(Pushback::RetryAfter(wait)) => Some(wait),
            None => None,
        };
        let copy = copy.filter(|copy| recipe.replay.is_replayable(copy));
        let request = copy.ok_or(GaveUp::NotCopyable)?;
        let may_have_acted = error.is_none_or(|error| recipe.replay.was_sent(error));
        if may_have_acted && !recipe.replay.is_idempotent(request) {
            return Err(GaveUp::NotIdempotent);
        }
        let is_overload = matches!(end.outcome, Outcome::Overload { .. });
        let failure = Failure {
            attempt: self.attempt,
            is_overload,
            retry_after,
            previous,
        };
        let (now, deadline) = (Instant::now(), context::deadline());
        let wait = settings.wait(failure, now, deadline, &mut retry.random.generator())?;
        let cost = if is_overload {
            budget::RETRY_AFTER_OVERLOAD
        } else {
            budget::RETRY
        };
        let budget = retry.budget.as_ref();
        if !budget.is_none_or(|budget| budget.withdraw(cost, now)) {
            return Err(GaveUp::Budget);
        }
        recipe.replay.abandon(request);
        Ok((wait, cost))
    }
}
