//! The response future of an operation.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

use super::hedger::Payment;
use super::plan::{NEVER, Plan, PlanFor, Slot};
use super::race::{End, Race};
use super::running::{EndOfWait, Running};
use super::service::Recipe;
use crate::chassis::held::{Held, InFlight, Owner};
use crate::chassis::record::EndedBy;
use crate::chassis::single::{complete, judge, poll_attempt};
use crate::context::{self, DirectCall, GivenUp};
use crate::deadline::soonest;
use crate::debug::debug_fields;
use crate::nanos::whole_nanos;
use crate::ready::Call;
use crate::timer::Timer;
use crate::{Classify, CloneService, Error, Outcome, Pushback, Replay, TrackCompletion};

/// The longest pushback for a copy. After a longer time, hardly any caller still waits.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

pin_project! {
    /// The response future of [`Operation`](super::Operation).
    #[must_use = "futures do nothing unless polled"]
    pub struct OperationFuture<S, Req, P, R, K, C>
    where
        S: Service<Req>,
        P: Plan,
    {
        // The attempt, or the first one of a race. Declared before the permits, so that its resources are given back
        // first.
        #[pin]
        call: Call<S, Req>,
        // Boxed, because it is rare.
        more: Option<Box<More<S, Req, P>>>,
        #[pin]
        timer: P::Timer,
        // The request of the next attempt.
        copy: Option<Req>,
        // Declared last, so that the resources of the attempts are given back first.
        running: Option<Running<S, P, R, K, C>>,
    }
}

/// The state of an operation that makes more than one attempt.
struct More<S, Req, P>
where
    S: Service<Req>,
    P: Plan,
{
    race: Option<Race<S, Req, P>>,
    /// The wait for the next attempt.
    wait: Option<Wait>,
    previous: Duration,
}

struct Wait {
    until: Instant,
    timer: Pin<Box<Timer>>,
}

impl<S, Req, P> More<S, Req, P>
where
    S: Service<Req>,
    P: Plan,
{
    fn new() -> Box<Self> {
        Box::new(Self {
            race: None,
            wait: None,
            previous: Duration::ZERO,
        })
    }
}

impl<S, Req, P, R, K, C> OperationFuture<S, Req, P, R, K, C>
where
    S: Service<Req>,
    P: Plan,
{
    #[inline(always)]
    pub(super) fn new(
        call: Call<S, Req>,
        running: Option<Running<S, P, R, K, C>>,
        copy: Option<Req>,
    ) -> Self {
        Self {
            call,
            more: None,
            timer: P::Timer::default(),
            copy,
            running,
        }
    }
}

type Answer<S, Req, P, K, C> = Result<
    <C as TrackCompletion<<S as Service<Req>>::Response, K>>::Response<
        InFlight<<P as Plan>::Operation, <P as Plan>::Attempt>,
    >,
    Error,
>;

impl<S, Req, P, R, K, C> Future for OperationFuture<S, Req, P, R, K, C>
where
    S: CloneService<Req>,
    P: PlanFor<Req>,
    R: Replay<Req>,
    K: Classify<S::Response>,
    C: TrackCompletion<S::Response, K>,
{
    type Output = Answer<S, Req, P, K, C>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(running) = this.running else {
            return Poll::Pending;
        };
        if running.renew() {
            this.timer.set(P::Timer::default());
        }
        let scope = running.scope();
        let mut attempts = Attempts {
            call: this.call,
            more: this.more,
            timer: this.timer,
            copy: this.copy,
            running,
        };
        let mut answer = attempts.poll(cx);
        running.tried = scope.tried();
        drop(scope);
        if let Poll::Ready(Err(error)) = &mut answer {
            error.leave(running.held.core().name, running.is_direct);
        }
        answer
    }
}

/// The attempts of an operation that is being polled.
struct Attempts<'a, S, Req, P, R, K, C>
where
    S: Service<Req>,
    P: Plan,
{
    call: Pin<&'a mut Call<S, Req>>,
    more: &'a mut Option<Box<More<S, Req, P>>>,
    timer: Pin<&'a mut P::Timer>,
    copy: &'a mut Option<Req>,
    running: &'a mut Running<S, P, R, K, C>,
}

/// The next instants at which a pending attempt needs an action.
struct Due {
    first: Instant,
    timeout: Option<Instant>,
    end: EndOfWait,
    copy: Option<Instant>,
}

impl<S, Req, P, R, K, C> Attempts<'_, S, Req, P, R, K, C>
where
    S: CloneService<Req>,
    P: PlanFor<Req>,
    R: Replay<Req>,
    K: Classify<S::Response>,
    C: TrackCompletion<S::Response, K>,
{
    #[inline(always)]
    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Answer<S, Req, P, K, C>> {
        if self.more.is_some() {
            return self.poll_on(None, cx);
        }
        match poll_attempt(self.call.as_mut(), &mut self.running.held, cx) {
            Poll::Ready(result) => {
                let verdict = judge(&self.running.recipe().classify, &result);
                self.running.first_ended(verdict.0);
                if verdict.0 != Outcome::Success {
                    let end = self.detach(result, verdict);
                    return self.poll_on(Some(Poll::Ready(end)), cx);
                }
                self.running.has_succeeded = true;
                let Held { owner, permits } = &mut self.running.held;
                let (core, recipe) = (owner.core(), &owner.recipe);
                let times = &self.running.times;
                Poll::Ready(complete(
                    core,
                    permits,
                    result,
                    verdict,
                    || times.get()?.span.deadline,
                    &recipe.classify,
                    &recipe.completion,
                ))
            }
            Poll::Pending if self.timer.get().is_none() => Poll::Pending,
            Poll::Pending => self.poll_on(Some(Poll::Pending), cx),
        }
    }

    /// Polls the operation in all cases but a success of the first attempt. `polled` is the result of polling the first
    /// attempt, if it was polled.
    #[inline(never)]
    fn poll_on(
        &mut self,
        mut polled: Option<Poll<End<S::Response, P>>>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Answer<S, Req, P, K, C>> {
        loop {
            let mut end = match ready!(self.poll_attempts(polled.take(), cx)) {
                Ok(end) => end,
                Err(late) => return Poll::Ready(self.end_early(late)),
            };
            let previous = self
                .more
                .as_ref()
                .map_or(Duration::ZERO, |more| more.previous);
            let next = self.running.next(&mut end, self.copy.as_ref(), previous);
            let Some(wait) = next else {
                self.running.has_succeeded = end.is_success();
                return Poll::Ready(self.complete(end));
            };
            // Before the wait, because the result may hold a connection.
            end.discard();
            self.running.end_hedging();
            self.timer.set(P::Timer::default());
            let more = self.more.get_or_insert_with(More::new);
            more.race = None;
            more.previous = wait.duration;
            more.wait = Some(Wait {
                until: wait.until,
                timer: Box::pin(Timer::default()),
            });
        }
    }

    /// Polls the wait for the next attempt, or all attempts in flight. Sends another attempt when one is due. An error
    /// means that the deadline has passed or the response timeout is over.
    fn poll_attempts(
        &mut self,
        mut polled: Option<Poll<End<S::Response, P>>>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Result<End<S::Response, P>, Error>> {
        ready!(self.poll_wait(cx))?;
        loop {
            while let Poll::Ready(end) = polled.take().unwrap_or_else(|| self.poll_running(cx)) {
                if let Some(end) = self.ended(end) {
                    return Poll::Ready(Ok(end));
                }
            }
            let is_held_back = self.race().is_some_and(|race| race.not_before.is_some());
            if self.is_repeat_due() && !is_held_back && self.send(Instant::now()) {
                continue;
            }
            let is_running = self.is_running();
            if !is_running && !self.is_repeat_due() {
                let failed = self.race().and_then(Race::take_failed);
                return failed.map_or(Poll::Pending, |end| Poll::Ready(Ok(end)));
            }
            let Poll::Ready(due) = self.poll_due(cx) else {
                // Otherwise the service has asked for time. The failure is kept, because a copy may still be denied at
                // that time.
                if let (true, Some(race)) = (is_running, self.race()) {
                    race.give_up_response();
                }
                return Poll::Pending;
            };
            let now = Instant::now();
            let has_come = |at: &Instant| *at <= now;
            if due.timeout.as_ref().is_some_and(has_come) {
                if self.running.extend_timeout(now) || self.running.observe_timeout(now) {
                    polled = Some(Poll::Pending);
                    continue;
                }
                let time = self.running.timeout_that_fails();
                context::give_up(GivenUp::over(time), || self.call.set(Call::Done));
                if time.is_none() {
                    self.running.leave_upload_out(false);
                    let held = &mut self.running.held;
                    held.settle_attempt(Outcome::Cancelled, EndedBy::Deadline);
                }
                let error = self.running.end_at_timeout();
                polled = Some(Poll::Ready(self.end_first(Err(error))));
            } else if due.end.has_come(now) {
                return Poll::Ready(Err(self.running.end_wait(due.end)));
            } else if !due.copy.as_ref().is_some_and(has_come)
                || self.is_put_off(now)
                || !self.send(now)
            {
                polled = Some(Poll::Pending);
            }
        }
    }

    /// Returns whether a due copy has to wait, because the client still takes the body of the request.
    fn is_put_off(&mut self, now: Instant) -> bool {
        !self.is_repeat_due() && self.running.put_copy_off(now)
    }

    /// Polls the attempts until one of them ends.
    fn poll_running(&mut self, cx: &mut task::Context<'_>) -> Poll<End<S::Response, P>> {
        if self.is_first_running() {
            let polled = poll_attempt(self.call.as_mut(), &mut self.running.held, cx);
            if let Poll::Ready(result) = polled {
                return Poll::Ready(self.end_first(result));
            }
        }
        match self.more.as_mut().and_then(|more| more.race.as_mut()) {
            Some(race) => race.poll(self.running, cx),
            None => Poll::Pending,
        }
    }

    /// Notes that the attempt, or the first one of a race, has ended.
    fn end_first(&mut self, result: Result<S::Response, Error>) -> End<S::Response, P> {
        let verdict = judge(&self.running.recipe().classify, &result);
        self.running.first_ended(verdict.0);
        self.detach(result, verdict)
    }

    fn detach(
        &mut self,
        result: Result<S::Response, Error>,
        verdict: (Outcome, EndedBy),
    ) -> End<S::Response, P> {
        self.call.set(Call::Done);
        let held = self.running.held.detach_attempt();
        End::new(self.running, result, verdict, held)
    }

    /// Returns an attempt that has ended, unless another one may do better.
    fn ended(&mut self, end: End<S::Response, P>) -> Option<End<S::Response, P>> {
        let is_repeated = self.running.repeats_at_once(end.reattempt);
        let is_alone = self.race().is_none() && !(is_repeated && self.has_copy());
        if is_alone || end.is_last() {
            return Some(end);
        }
        let recipe = self.running.recipe();
        let pushback = end.pushback(&recipe.classify);
        let more = self.more.get_or_insert_with(More::new);
        let race = more.race.get_or_insert_with(Race::new);
        race.failed(&recipe.classify, &recipe.completion, end);
        race.is_repeat_due |= is_repeated;
        // The next event may be due sooner than the timer.
        self.timer.set(P::Timer::default());
        match pushback {
            None => {}
            Some(Pushback::DoNotRetry) => self.running.stop_copies(),
            Some(Pushback::RetryAfter(wait)) => {
                let at = crate::nanos::saturating_add(Instant::now(), wait);
                let is_in_time = !self.running.end_of_wait(context::deadline()).has_come(at);
                if is_in_time && wait <= MAX_RETRY_AFTER {
                    race.not_before = race.not_before.max(Some(at));
                } else {
                    self.running.stop_copies();
                }
            }
        }
        None
    }

    /// Waits for the next attempt, and begins it.
    fn poll_wait(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        let running = &mut *self.running;
        let Some(more) = self.more.as_mut() else {
            return Poll::Ready(Ok(()));
        };
        let Some(Wait { until, timer }) = &mut more.wait else {
            return Poll::Ready(Ok(()));
        };
        let until = *until;
        let end = soonest(running.deadline(), until);
        ready!(timer.as_mut().poll_at(end, cx));
        let now = Instant::now();
        let end = running.end_of_wait(context::deadline());
        if end.has_come(now) {
            return Poll::Ready(Err(if until <= now && !end.is_response_timeout {
                // The wait would have ended in time, but the task was woken too late.
                Error::late(running.held.core().name)
            } else {
                running.end_wait(end)
            }));
        }
        more.wait = None;
        let Some(mut request) = self.copy.take() else {
            return Poll::Pending;
        };
        running.attempt += 1;
        if let Some(times) = running.times.get_mut() {
            times.timeout_at = NEVER;
            times.upload = None;
        }
        running.held.begin_again();
        let _direct = DirectCall::enter();
        context::set_attempt(running.attempt, !running.may_repeat());
        let at = running.held.core().at_instant(now);
        let begun = running.begin_attempt(&mut request, self.copy, &at);
        let owner = &running.held.owner;
        self.call.set(Call::of(begun, || owner.service(), request));
        Poll::Ready(Ok(()))
    }

    /// Drops the remaining attempts. They are dropped and counted before the caller continues.
    fn give_up(&mut self, ended_by: EndedBy) {
        context::give_up(ended_by.into(), || self.call.set(Call::Done));
        if let Some(race) = self.race() {
            race.abandon(ended_by);
        }
        *self.more = None;
        self.running.end_hedging();
    }

    /// Ends the operation at its deadline, or at the end of its response timeout.
    fn end_early(&mut self, mut error: Error) -> Answer<S, Req, P, K, C> {
        if self.more.is_none() && !self.running.held.is_sent() {
            // The attempt has waited for a part since it began.
            error.set_direct();
        }
        let is_waiting = self.more.as_ref().is_some_and(|more| more.wait.is_some());
        if is_waiting || self.running.attempt > 1 {
            self.running.give_up_repeating(&mut error);
        }
        self.give_up(EndedBy::Deadline);
        let held = &mut self.running.held;
        held.settle_attempt(Outcome::Cancelled, EndedBy::Deadline);
        let result = Err(error);
        let (outcome, _) = judge(&self.running.recipe().classify, &result);
        let end = self.detach(result, (outcome, EndedBy::Deadline));
        self.complete(end)
    }

    /// Gives the result of an attempt to the caller.
    fn complete(&mut self, mut end: End<S::Response, P>) -> Answer<S, Req, P, K, C> {
        self.running.annotate(&mut end);
        self.give_up(EndedBy::Hedge);
        let Held { owner, permits } = &mut end.held;
        permits.take_operation(&mut self.running.held.permits);
        self.running.held.abandon(EndedBy::Hedge);
        let (verdict, times) = ((end.outcome, end.ended_by), &self.running.times);
        let Recipe {
            classify,
            completion,
            ..
        } = self.running.recipe();
        let deadline = || times.get()?.span.deadline;
        complete(
            owner, permits, end.result, verdict, deadline, classify, completion,
        )
    }

    fn race(&mut self) -> Option<&mut Race<S, Req, P>> {
        self.more.as_mut()?.race.as_mut()
    }

    fn is_first_running(&self) -> bool {
        !matches!(*self.call, Call::Done)
    }

    /// Returns whether any attempt is in flight.
    fn is_running(&mut self) -> bool {
        let has_timeout = self.running.timeout().is_some();
        let is_racing = |race: &mut Race<_, _, _>| race.is_running(has_timeout);
        self.is_first_running() || self.race().is_some_and(is_racing)
    }

    /// Returns whether a copy of the request could be sent.
    fn has_copy(&self) -> bool {
        self.running.may_copy() && self.copy.is_some()
    }

    /// Returns whether a failed attempt should be repeated, now or after the time that the service asked for.
    fn is_repeat_due(&mut self) -> bool {
        self.race().is_some_and(|race| race.is_repeat_due) && self.has_copy()
    }

    /// Waits until an action is due.
    fn poll_due(&mut self, cx: &mut task::Context<'_>) -> Poll<Due> {
        // If its time is not known, the attempt may have waited for a part when the timer was set.
        let is_timed = self.running.is_timed();
        let is_set = is_timed && self.timer.get().is_some_and(Timer::is_set);
        let first = if is_set { None } else { self.due() };
        match (self.timer.as_mut().get_pin(), first) {
            (Some(timer), _) if is_set => ready!(timer.poll_set(cx)),
            (Some(timer), Some(due)) => ready!(timer.poll_at(due.first, cx)),
            _ => return Poll::Pending,
        }
        self.timer.set(P::Timer::default());
        self.due().map_or(Poll::Pending, Poll::Ready)
    }

    /// Returns the instants at which an action is due.
    fn due(&mut self) -> Option<Due> {
        let is_first_running = self.is_first_running() && self.running.held.is_sent();
        let has_copy = self.has_copy();
        let running = &mut *self.running;
        let race = self.more.as_ref().and_then(|more| more.race.as_ref());
        let end = running.end_of_wait(running.deadline());
        let is_waiting = race.is_none() && !is_first_running;
        if is_waiting && !end.is_response_timeout {
            // While an attempt waits for a part, the part ends the wait at the deadline.
            return None;
        }
        let time = running.timeout();
        let mut timeout = None;
        if let (Some(time), Some(times), true) = (time, running.times.get_mut(), is_first_running) {
            let core = running.held.owner.core();
            if times.timeout_at == NEVER {
                let now = core.at().nanos();
                times.timeout_at = now.saturating_add(whole_nanos(time));
            }
            timeout = Some(core.instant(times.timeout_at));
        }
        let mut copy = None;
        if has_copy && !is_waiting {
            let not_before = race.and_then(|race| race.not_before);
            copy = if race.is_some_and(|race| race.is_repeat_due) {
                not_before
            } else {
                running
                    .slow_at()
                    .map(|at| not_before.map_or(at, |then| at.max(then)))
            };
        }
        let first = [timeout, end.at, copy].into_iter().flatten().min()?;
        Some(Due {
            first,
            timeout,
            end,
            copy,
        })
    }

    /// Sends a hedge, if it is permitted. If not, no further hedge is sent.
    #[cold]
    #[inline(never)]
    fn send(&mut self, now: Instant) -> bool {
        let running = &mut *self.running;
        self.timer.set(P::Timer::default());
        let shared = Arc::clone(&running.held.owner);
        let (replay, hedger) = (&shared.recipe.replay, shared.recipe.plan.hedge());
        let is_late = running.end_of_wait(context::deadline()).has_come(now);
        let is_possible = self
            .copy
            .as_ref()
            .is_some_and(|copy| replay.is_replayable(copy));
        let (false, true, Some(hedger)) = (is_late, is_possible, hedger) else {
            running.stop_copies();
            return false;
        };
        let core = Arc::clone(shared.core());
        let at = core.at_instant(now);
        let payment = hedger.pay(&at);
        if payment == Payment::Denied {
            running.stop_copies();
            return false;
        }
        let Some(mut request) = self.copy.take() else {
            return false;
        };
        let is_first_sent =
            running.held.is_sent() && !self.call.is_waiting() && !matches!(*self.call, Call::Done);
        let more = self.more.get_or_insert_with(More::new);
        let race = more.race.get_or_insert_with(Race::new);
        let number = race.sent() + 1;
        if is_first_sent || race.may_have_acted() {
            running.effect = replay.effect(&request);
        }
        running.prepare_hedge(&mut request, number, self.copy);
        let upload = running.upload(&mut request);
        if number >= hedger.max_hedges() {
            running.stop_copies();
        }
        // The response may hold a permit that this attempt needs.
        race.give_up_response();
        let mut held = Held::new(core);
        let _direct = DirectCall::enter();
        let admitted = held.admit(&request, &at);
        let call = Call::of(admitted, || shared.service(), request);
        race.send(call, held, upload, payment, hedger);
        running.note_hedge(&at);
        hedger.sent(number);
        true
    }
}

debug_fields!(
    [S: Service<Req>, Req, P: Plan, R, K, C] OperationFuture<S, Req, P, R, K, C>
    { call, running }
);
