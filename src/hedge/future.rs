//! The response future of hedging.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tower::Service;

use super::operation::{Operation, is_alone, repeats};
use super::race::{End, Race, pushback};
use super::service::Policy;
use super::shared::Payment;
use crate::context::{self, ClockScope, Tried, TriedScope};
use crate::outcome::classify_result;
use crate::ready::Call;
use crate::timer::Timer;
use crate::{Classify, CloneService, Error, Outcome, Pushback, Replay};

/// A copy that may not be sent for longer is not sent: hardly any caller is still there then.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

pin_project! {
    /// The response future of [`Hedge`](super::Hedge).
    #[must_use = "futures do nothing unless polled"]
    #[project = Parts]
    pub struct ResponseFuture<S, Req, R, K>
    where
        S: Service<Req>,
    {
        #[pin]
        first: Call<S, Req>,
        // Boxed, because it is rare.
        race: Option<Box<Race<S, Req>>>,
        #[pin]
        timer: Timer,
        // What the next hedge sends.
        copy: Option<Req>,
        // Until that is due for slowness. Without one it is not.
        delay: Option<Duration>,
        // Where the attempts went.
        tried: Tried,
        // Last, so that what the attempts hold is given back first. `None` for a service that does not hedge.
        operation: Option<Operation<S, R, K>>,
    }
}

impl<S, Req, R, K> ResponseFuture<S, Req, R, K>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn new(
        first: Call<S, Req>,
        operation: Option<Operation<S, R, K>>,
        copy: Option<Req>,
        delay: Option<Duration>,
        tried: Tried,
    ) -> Self {
        Self {
            first,
            race: None,
            timer: Timer::default(),
            copy,
            delay,
            tried,
            operation,
        }
    }

    /// A call that is never hedged.
    #[inline]
    pub(super) fn passing(first: Call<S, Req>) -> Self {
        Self::new(first, None, None, None, Tried::default())
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
        if this.operation.is_none() {
            return this.first.poll(cx, || "");
        }
        let mut tried = *this.tried;
        let scopes = (ClockScope::poll(), TriedScope::enter(&mut tried));
        let poll = this.poll(cx);
        drop(scopes);
        *this.tried = tried;
        poll
    }
}

impl<S, Req, R, K> Parts<'_, S, Req, R, K>
where
    S: CloneService<Req>,
    R: Replay<Req>,
    K: Classify<S::Response>,
{
    #[inline]
    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<S::Response, Error>> {
        if self.race.is_some() {
            return self.poll_race(cx);
        }
        let Some(operation) = self.operation.as_mut() else {
            return Poll::Pending;
        };
        operation.note_funding();
        let (first, is_queued) = context::is_queued_after(|| self.first.as_mut().poll(cx, || ""));
        if !is_queued {
            operation.sent();
        } else if first.is_pending() {
            // It waits for a permit or for its turn under a rate, and so would a copy.
            operation.queued();
            return Poll::Pending;
        }
        if let Poll::Ready(result) = first {
            let name = || operation.policy().shared.name();
            let result = result.map_err(|error| Error::of_service(error, name));
            let outcome = classify_result(&operation.policy().classify, &result);
            operation.first_ended(outcome);
            if self.copy.is_none() || !repeats(outcome) {
                *self.operation = None;
                return Poll::Ready(result);
            }
            let pushback = pushback(&operation.policy().classify, &result, outcome);
            self.first.set(Call::Done);
            *self.race = Some(Box::new(Race::failed(result)));
            self.obey(outcome, pushback);
        } else if !self.is_slow(cx) || !self.send() {
            return Poll::Pending;
        }
        self.poll_race(cx)
    }

    /// Polls all attempts, and begins another one when that is due.
    #[cold]
    fn poll_race(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<S::Response, Error>> {
        loop {
            while let Poll::Ready(end) = self.poll_attempts(cx) {
                match end {
                    End::Over(result) => {
                        // The losers are gone, and accounted for, before the caller goes on.
                        self.first.set(Call::Done);
                        *self.race = None;
                        *self.operation = None;
                        return Poll::Ready(result);
                    }
                    End::Failed(outcome, pushback) => self.obey(outcome, pushback),
                }
            }
            let is_running = self.is_running();
            if self.is_copy_due(is_running, cx) && self.send() {
                continue;
            }
            if is_running {
                if let Some(race) = self.race.as_mut() {
                    race.give_up_response();
                }
                return Poll::Pending;
            }
            if self.is_repeat_due() {
                // The service has asked for time. The failure is kept, as a copy may still be denied then.
                return Poll::Pending;
            }
            *self.operation = None;
            let race = self.race.take();
            let failed = race.and_then(|race| race.into_failed());
            return failed.map_or(Poll::Pending, Poll::Ready);
        }
    }

    /// Polls the attempts until one of them ends.
    fn poll_attempts(&mut self, cx: &mut task::Context<'_>) -> Poll<End<S::Response>> {
        let (Some(operation), Some(race)) = (self.operation.as_mut(), self.race.as_mut()) else {
            return Poll::Pending;
        };
        if operation.is_first_open() {
            let name = || operation.policy().shared.name();
            if let Poll::Ready(result) = self.first.as_mut().poll(cx, name) {
                let outcome = classify_result(&operation.policy().classify, &result);
                operation.first_ended(outcome);
                self.first.set(Call::Done);
                let classify = &operation.policy().classify;
                return Poll::Ready(race.ended(classify, result, outcome));
            }
        }
        race.poll(&operation.policy().classify, cx)
    }

    /// Says whether any attempt is in flight.
    fn is_running(&self) -> bool {
        let first = self
            .operation
            .as_ref()
            .is_some_and(Operation::is_first_open);
        first || self.race.as_ref().is_some_and(|race| race.is_running())
    }

    /// Notes what the end of an attempt means for further copies.
    fn obey(&mut self, outcome: Outcome, pushback: Option<Pushback>) {
        let Some(race) = self.race.as_mut() else {
            return;
        };
        race.is_repeat_due |= repeats(outcome);
        match pushback {
            None => {}
            Some(Pushback::DoNotRetry) => *self.copy = None,
            Some(Pushback::RetryAfter(wait)) => {
                let at = context::saturating_add(context::fresh_now(), wait);
                let is_in_time = context::deadline().is_none_or(|deadline| at < deadline);
                if is_in_time && wait <= MAX_RETRY_AFTER {
                    race.not_before = race.not_before.max(Some(at));
                    self.timer.set(Timer::default());
                } else {
                    *self.copy = None;
                }
            }
        }
    }

    /// Returns whether a failed attempt is to be made again, now or when the service takes calls again.
    fn is_repeat_due(&self) -> bool {
        let is_due = self.race.as_ref().is_some_and(|race| race.is_repeat_due);
        is_due && self.copy.is_some()
    }

    /// Returns whether the next copy is due, because an attempt has failed or because those that run are slow.
    fn is_copy_due(&mut self, is_running: bool, cx: &mut task::Context<'_>) -> bool {
        if !self.is_repeat_due() {
            return is_running && self.is_slow(cx);
        }
        let not_before = self.race.as_ref().and_then(|race| race.not_before);
        not_before.is_none_or(|at| self.timer.as_mut().poll_at(at, cx).is_ready())
    }

    /// Says whether the call takes so long that the next hedge is due.
    #[inline]
    fn is_slow(&mut self, cx: &mut task::Context<'_>) -> bool {
        let (Some(operation), Some(delay), Some(_)) = (&self.operation, *self.delay, &self.copy)
        else {
            return false;
        };
        let at = || {
            let at = context::saturating_add(operation.sent_last(), delay);
            let not_before = self.race.as_ref().and_then(|race| race.not_before);
            not_before.map_or(at, |not_before| at.max(not_before))
        };
        self.timer.as_mut().poll(at, cx).is_ready()
    }

    /// Sends a hedge, if it may be sent. If not, no further one will be.
    #[cold]
    fn send(&mut self) -> bool {
        let (Some(operation), Some(mut request)) = (self.operation.as_mut(), self.copy.take())
        else {
            return false;
        };
        self.timer.set(Timer::default());
        let now = context::fresh_now();
        let Policy { shared, replay, .. } = operation.policy();
        let is_late = context::deadline().is_some_and(|deadline| deadline <= now);
        if is_late || !replay.is_replayable(&request) {
            return false;
        }
        let payment = shared.pay(now);
        if payment == Payment::Denied {
            return false;
        }
        let race = self.race.get_or_insert_with(|| Box::new(Race::new()));
        let number = race.sent() + 1;
        if number < shared.max_hedges() {
            *self.copy = replay.copy(&request);
        }
        if is_alone() {
            replay.set_attempt(&mut request, number + 1);
        }
        let call = Call::waiting(operation.template().service(), request);
        race.send(call, payment == Payment::Paid, shared);
        operation.hedged(now);
        true
    }
}

impl<S, Req, R, K> fmt::Debug for ResponseFuture<S, Req, R, K>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("first", &self.first)
            .field("delay", &self.delay)
            .finish_non_exhaustive()
    }
}
