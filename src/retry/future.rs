//! The response future of retry.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};
use tower::Service;

use super::service::{Operation, Policy};
use super::state::{Failure, Wait};
use crate::context::{self, ClockScope, Tried, TriedScope};
use crate::outcome::classify_result;
use crate::ready::Call;
use crate::{Classify, CloneService, Error, GaveUp, Outcome, Pushback, Replay, budget};

pin_project! {
    /// The response future of [`Retry`](super::Retry).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, R, K>
    where
        S: Service<Req>,
    {
        #[pin]
        step: Step<S, Req>,
        // What the next attempt sends.
        copy: Option<Req>,
        previous: Duration,
        // Where the attempts went.
        tried: Tried,
        // Last, so that what the attempt holds is given back first when both are dropped. `None` for a call
        // that is not retried.
        operation: Option<Operation<S, R, K>>,
    }
}

pin_project! {
    #[project = StepProj]
    enum Step<S, Req>
    where
        S: Service<Req>,
    {
        Attempt { #[pin] call: Call<S, Req> },
        Wait { #[pin] sleep: Sleep },
    }
}

impl<S, Req, R, K> ResponseFuture<S, Req, R, K>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn new(
        operation: Option<Operation<S, R, K>>,
        call: Call<S, Req>,
        copy: Option<Req>,
        tried: Tried,
    ) -> Self {
        Self {
            step: Step::Attempt { call },
            copy,
            previous: Duration::ZERO,
            tried,
            operation,
        }
    }

    /// A call that is not retried.
    #[inline]
    pub(super) fn passing(call: Call<S, Req>) -> Self {
        Self::new(None, call, None, Tried::default())
    }
}

impl<S, Req, R, K> Future for ResponseFuture<S, Req, R, K>
where
    S: CloneService<Req>,
    R: Replay<Req>,
    K: Classify<S::Response>,
{
    type Output = Result<S::Response, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(operation) = this.operation.as_mut() else {
            return match this.step.project() {
                StepProj::Attempt { call } => call.poll(cx, || ""),
                StepProj::Wait { .. } => Poll::Pending,
            };
        };
        let _clock = ClockScope::poll();
        if !operation.is_nested && operation.shared.policy().is_nested() {
            // Called outside of the attempt that polls it, as over a buffer.
            operation.become_nested();
        }
        let _tried = TriedScope::enter(this.tried);
        let mut attempt = (!operation.is_nested).then(|| operation.scope());
        loop {
            match this.step.as_mut().project() {
                StepProj::Attempt { call } => {
                    let name = || operation.shared.policy().metrics.name();
                    let mut result = ready!(call.poll(cx, name));
                    let attempted = Attempted {
                        result: &mut result,
                        copy: this.copy.as_ref(),
                        previous: *this.previous,
                    };
                    let Some(wait) = operation.next(attempted) else {
                        return Poll::Ready(result);
                    };
                    // Before the wait: it may hold a connection.
                    drop(result);
                    *this.previous = wait.duration;
                    let sleep = sleep_until(wait.until);
                    this.step.set(Step::Wait { sleep });
                }
                StepProj::Wait { sleep } => {
                    ready!(sleep.poll(cx));
                    let now = context::fresh_now();
                    if context::deadline().is_some_and(|deadline| deadline <= now) {
                        // The wait would have ended in time, but the task was woken too late.
                        let Policy {
                            settings, metrics, ..
                        } = operation.shared.policy();
                        metrics.gave_up(GaveUp::Deadline, now);
                        let mut error = Error::late(metrics.name());
                        let max_attempts = settings.max_attempts;
                        error.set_attempts(operation.attempt, max_attempts, GaveUp::Deadline);
                        return Poll::Ready(Err(error));
                    }
                    operation.attempt += 1;
                    drop(attempt.take());
                    attempt = Some(operation.scope());
                    let Policy {
                        settings, replay, ..
                    } = operation.shared.policy();
                    let is_last = operation.attempt >= settings.max_attempts;
                    let Some(mut request) = this.copy.take() else {
                        return Poll::Pending;
                    };
                    if !is_last {
                        *this.copy = replay.copy(&request);
                    }
                    replay.set_attempt(&mut request, operation.attempt);
                    let call = Call::waiting(operation.shared.service(), request);
                    this.step.set(Step::Attempt { call });
                }
            }
        }
    }
}

/// An attempt that is over.
struct Attempted<'a, Req, Res> {
    result: &'a mut Result<Res, Error>,
    /// What the next attempt would send.
    copy: Option<&'a Req>,
    /// The wait before this attempt.
    previous: Duration,
}

impl<S, R, K> Operation<S, R, K> {
    /// Says how long to wait for the next attempt, if there is to be one, and pays for it.
    #[inline]
    fn next<Req, Res>(&mut self, attempted: Attempted<'_, Req, Res>) -> Option<Wait>
    where
        R: Replay<Req>,
        K: Classify<Res>,
    {
        match classify_result(&self.shared.policy().classify, &*attempted.result) {
            Outcome::Success => {
                self.succeeded();
                None
            }
            outcome => self.report_next(attempted, outcome),
        }
    }

    #[cold]
    fn report_next<Req, Res>(
        &mut self,
        attempted: Attempted<'_, Req, Res>,
        outcome: Outcome,
    ) -> Option<Wait>
    where
        R: Replay<Req>,
        K: Classify<Res>,
    {
        let next = self.decide(&attempted, outcome);
        let Policy {
            settings, metrics, ..
        } = self.shared.policy();
        match next {
            Ok(wait) => metrics.retried(wait, context::now()),
            Err(reason) => metrics.gave_up(reason, context::now()),
        }
        if let (Err(reason), Err(error)) = (next, attempted.result) {
            if !self.is_nested {
                error.set_attempts(self.attempt, settings.max_attempts, reason);
            }
        }
        next.ok()
    }

    fn decide<Req, Res>(
        &mut self,
        attempted: &Attempted<'_, Req, Res>,
        outcome: Outcome,
    ) -> Result<Wait, GaveUp>
    where
        R: Replay<Req>,
        K: Classify<Res>,
    {
        let Policy {
            settings,
            replay,
            classify,
            random,
            ..
        } = self.shared.policy();
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
        let may_have_acted = error.is_none_or(|error| replay.was_sent(error));
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
        let now = context::fresh_now();
        let deadline = context::deadline();
        let wait = settings.wait(failure, now, deadline, &mut random.generator())?;
        let cost = if is_overload {
            budget::RETRY_AFTER_OVERLOAD
        } else {
            budget::RETRY
        };
        if !self.pay(cost, now) {
            return Err(GaveUp::Budget);
        }
        self.shared.policy().replay.abandon(request);
        Ok(wait)
    }
}

impl<S, Req, R, K> fmt::Debug for ResponseFuture<S, Req, R, K>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ResponseFuture");
        debug.field(
            "attempt",
            &self.operation.as_ref().map(|operation| operation.attempt),
        );
        match &self.step {
            Step::Attempt { call } => debug.field("call", call),
            Step::Wait { sleep } => debug.field("wait", sleep),
        };
        debug.finish_non_exhaustive()
    }
}
