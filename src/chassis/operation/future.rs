//! The response future of an operation.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

use super::plan::{NEVER, Plan, Slot, TimerSlot};
use super::race::{End, Race, Step};
use super::running::{Attempted, Running};
use crate::chassis::held::{Held, InFlight, Owner};
use crate::chassis::part::PartFor;
use crate::chassis::record::EndedBy;
use crate::chassis::single::{complete, judge, poll_attempt};
use crate::context::{self, DirectCall};
use crate::hedge::Payment;
use crate::nanos::whole_nanos;
use crate::ready::Call;
use crate::timer::Timer;
use crate::{Classify, CloneService, Error, Outcome, Pushback, Replay, TrackCompletion};

/// A copy that may not be sent for longer is not sent: hardly any caller is still there then.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

pin_project! {
    /// The response future of [`Operation`](super::Operation).
    #[must_use = "futures do nothing unless polled"]
    #[project = Parts]
    pub struct OperationFuture<S, Req, P, R, K, C>
    where
        S: Service<Req>,
        P: Plan,
    {
        // The attempt, or the first one of a race. Before the permits, so that what it holds is given back first.
        #[pin]
        call: Call<S, Req>,
        // Boxed, because it is rare.
        more: Option<Box<More<S, Req, P>>>,
        #[pin]
        timer: P::Timer,
        // The request of the next attempt.
        copy: Option<Req>,
        // Last, so that what the attempts hold is given back first.
        running: Option<Running<S, P, R, K>>,
        completion: C,
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
    fn new() -> Self {
        Self {
            race: None,
            wait: None,
            previous: Duration::ZERO,
        }
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
        running: Option<Running<S, P, R, K>>,
        copy: Option<Req>,
        completion: C,
    ) -> Self {
        Self {
            call,
            more: None,
            timer: P::Timer::default(),
            copy,
            running,
            completion,
        }
    }
}

type Answer<S, Req, P, K, C> = Result<
    <C as TrackCompletion<<S as Service<Req>>::Response, K>>::Response<
        InFlight<<P as Plan>::Operation, <P as Plan>::Attempt>,
    >,
    Error,
>;

/// The end of an attempt: in the place of the only one, or that of a race.
enum Ended<Res, P: Plan> {
    Only(Result<Res, Error>, (Outcome, EndedBy)),
    Race(End<Res, P>),
    /// The deadline has come.
    Deadline(Instant),
}

impl<S, Req, P, R, K, C> Future for OperationFuture<S, Req, P, R, K, C>
where
    S: CloneService<Req>,
    P: Plan<Attempt: PartFor<Req>>,
    R: Replay<Req>,
    K: Classify<S::Response>,
    C: TrackCompletion<S::Response, K>,
{
    type Output = Answer<S, Req, P, K, C>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(running) = this.running.as_mut() else {
            return Poll::Pending;
        };
        if running.renew() {
            this.timer.set(P::Timer::default());
        }
        let scope = running.scope();
        let mut answer = this.poll(cx);
        if let Some(running) = this.running {
            running.tried = scope.tried();
            drop(scope);
            if let Poll::Ready(Err(error)) = &mut answer {
                error.leave(running.held.core().name, running.is_direct);
            }
        }
        answer
    }
}

impl<S, Req, P, R, K, C> Parts<'_, S, Req, P, R, K, C>
where
    S: CloneService<Req>,
    P: Plan<Attempt: PartFor<Req>>,
    R: Replay<Req>,
    K: Classify<S::Response>,
    C: TrackCompletion<S::Response, K>,
{
    #[inline(always)]
    fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Answer<S, Req, P, K, C>> {
        let Some(running) = self.running.as_mut() else {
            return Poll::Pending;
        };
        if self.more.is_none() {
            if let Poll::Ready(result) = poll_attempt(self.call.as_mut(), &mut running.held, cx) {
                let verdict = judge(&running.recipe().classify, &result);
                if running.plan().hedge().is_some() {
                    running.first_ended(verdict.0);
                }
                if verdict.0 == Outcome::Success {
                    running.succeeded();
                    return Poll::Ready(self.complete(result, verdict));
                }
                return self.poll_on(Some(Ended::Only(result, verdict)), cx);
            }
        }
        self.poll_on(None, cx)
    }

    /// All but the first attempt's success.
    #[inline(never)]
    fn poll_on(
        &mut self,
        mut ended: Option<Ended<S::Response, P>>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Answer<S, Req, P, K, C>> {
        let mut is_polled = ended.is_none() && self.more.is_none();
        loop {
            let now_ended = match ended.take() {
                Some(ended) => ended,
                None => match ready!(self.poll_attempts(std::mem::take(&mut is_polled), cx)) {
                    Ok(ended) => ended,
                    Err(error) => return Poll::Ready(self.end(error, EndedBy::Deadline)),
                },
            };
            let Some(running) = self.running.as_mut() else {
                return Poll::Pending;
            };
            let previous = self
                .more
                .as_ref()
                .map_or(Duration::ZERO, |more| more.previous);
            let wait = match now_ended {
                Ended::Deadline(deadline) => {
                    let error = running.end_at_deadline(deadline);
                    return Poll::Ready(self.end(error, EndedBy::Deadline));
                }
                Ended::Only(result, (outcome, _))
                    if running.repeats_at_once(outcome) && running.has_copy(self.copy.as_ref()) =>
                {
                    self.begin_race(result);
                    continue;
                }
                Ended::Only(mut result, verdict) => {
                    let (outcome, ended_by) = verdict;
                    let next = if outcome == Outcome::Success {
                        running.succeeded();
                        None
                    } else {
                        running.next(Attempted {
                            result: &mut result,
                            outcome,
                            copy: self.copy.as_ref(),
                            previous,
                        })
                    };
                    let Some(wait) = next else {
                        return Poll::Ready(self.complete(result, verdict));
                    };
                    // Before the permits, and before the wait: it may hold a connection.
                    drop(result);
                    running.held.settle_attempt(outcome, ended_by);
                    wait
                }
                Ended::Race(mut end) => {
                    let next = if end.outcome == Outcome::Success {
                        running.succeeded();
                        None
                    } else {
                        running.next(Attempted {
                            result: &mut end.result,
                            outcome: end.outcome,
                            copy: self.copy.as_ref(),
                            previous,
                        })
                    };
                    let Some(wait) = next else {
                        return Poll::Ready(self.complete_race(end));
                    };
                    end.discard();
                    wait
                }
            };
            running.end_hedging();
            self.call.set(Call::Done);
            self.timer.set(P::Timer::default());
            let more = self.more.get_or_insert_with(|| Box::new(More::new()));
            more.race = None;
            more.previous = wait.duration;
            more.wait = Some(Wait {
                until: wait.until,
                timer: Box::pin(Timer::default()),
            });
        }
    }

    /// Polls what there is at the moment: the wait for the next attempt, the attempt, or all of a race. An error ends the
    /// operation.
    fn poll_attempts(
        &mut self,
        is_polled: bool,
        cx: &mut task::Context<'_>,
    ) -> Poll<Result<Ended<S::Response, P>, Error>> {
        if self.more.as_ref().is_some_and(|more| more.wait.is_some()) {
            if let Err(error) = ready!(self.poll_wait(cx)) {
                return Poll::Ready(error);
            }
        }
        if self.more.as_ref().is_some_and(|more| more.race.is_some()) {
            return self.poll_race(cx).map(Ok);
        }
        let Some(running) = self.running.as_mut() else {
            return Poll::Pending;
        };
        if !is_polled {
            if let Poll::Ready(result) = poll_attempt(self.call.as_mut(), &mut running.held, cx) {
                let verdict = judge(&running.recipe().classify, &result);
                running.first_ended(verdict.0);
                return Poll::Ready(Ok(Ended::Only(result, verdict)));
            }
        }
        loop {
            ready!(self.poll_timer(cx));
            self.timer.set(P::Timer::default());
            let Some(due) = self.due() else {
                return Poll::Pending;
            };
            let Some(running) = self.running.as_mut() else {
                return Poll::Pending;
            };
            let now = Instant::now();
            let has_come = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            if has_come(due.timeout) {
                self.call.set(Call::Done);
                let result = Err(running.end_at_timeout());
                let verdict = judge(&running.recipe().classify, &result);
                running.first_ended(verdict.0);
                return Poll::Ready(Ok(Ended::Only(result, verdict)));
            }
            if let Some(deadline) = due.deadline.filter(|deadline| *deadline <= now) {
                return Poll::Ready(Ok(Ended::Deadline(deadline)));
            }
            if has_come(due.copy) && self.send(now) {
                return self.poll_race(cx).map(Ok);
            }
        }
    }

    /// Waits for the next attempt, and begins it.
    #[allow(
        clippy::type_complexity,
        reason = "an end of the wait that is none of an attempt"
    )]
    fn poll_wait(
        &mut self,
        cx: &mut task::Context<'_>,
    ) -> Poll<Result<(), Result<Ended<S::Response, P>, Error>>> {
        let (Some(running), Some(more)) = (self.running.as_mut(), self.more.as_mut()) else {
            return Poll::Pending;
        };
        let Some(Wait { until, timer }) = &mut more.wait else {
            return Poll::Ready(Ok(()));
        };
        let until = *until;
        let end = running
            .deadline()
            .map_or(until, |deadline| deadline.min(until));
        ready!(timer.as_mut().poll_at(end, cx));
        let now = Instant::now();
        let deadline = context::deadline().filter(|deadline| *deadline <= now);
        if let Some(deadline) = deadline {
            // The wait would have ended in time, but the task was woken too late.
            return Poll::Ready(Err(if until <= now {
                Err(running.end_late(now))
            } else {
                Ok(Ended::Deadline(deadline))
            }));
        }
        more.wait = None;
        let Some(mut request) = self.copy.take() else {
            return Poll::Pending;
        };
        running.attempt += 1;
        if let Some(times) = running.times.get_mut() {
            times.timeout_at = NEVER;
        }
        running.held.permits.begin_again();
        let _direct = DirectCall::enter();
        context::set_attempt(running.attempt);
        let at = running.held.core().at_instant(now);
        let begun = running.begin_attempt(&mut request, self.copy, &at);
        let call = match begun {
            Ok(()) => Call::waiting(running.held.owner.service(), request),
            Err(error) => Call::failed(error),
        };
        self.call.set(call);
        Poll::Ready(Ok(()))
    }

    /// Ends the operation without an answer of its attempts.
    fn end(&mut self, error: Error, ended_by: EndedBy) -> Answer<S, Req, P, K, C> {
        // The attempts are gone, and accounted for, before the caller goes on.
        self.call.set(Call::Done);
        if let Some(race) = self.more.as_mut().and_then(|more| more.race.as_mut()) {
            race.abandon(ended_by);
        }
        *self.more = None;
        let Some(running) = self.running.as_mut() else {
            return Err(error);
        };
        running.end_hedging();
        running.held.settle_attempt(Outcome::Cancelled, ended_by);
        let result = Err(error);
        let (outcome, _) = judge(&running.recipe().classify, &result);
        self.complete(result, (outcome, ended_by))
    }

    /// Gives the answer of the only attempt to the caller.
    #[inline(always)]
    fn complete(
        &mut self,
        result: Result<S::Response, Error>,
        verdict: (Outcome, EndedBy),
    ) -> Answer<S, Req, P, K, C> {
        let Some(Running { held, .. }) = self.running.as_mut() else {
            return Err(Error::late(""));
        };
        let Held { owner, permits } = held;
        let classify = &owner.recipe.classify;
        complete(
            owner.core(),
            permits,
            result,
            verdict,
            classify,
            self.completion,
        )
    }

    /// Gives the answer of a race to the caller.
    fn complete_race(&mut self, mut end: End<S::Response, P>) -> Answer<S, Req, P, K, C> {
        // The losers are gone, and accounted for, before the caller goes on.
        self.call.set(Call::Done);
        if let Some(race) = self.more.as_mut().and_then(|more| more.race.as_mut()) {
            race.abandon(EndedBy::Hedge);
        }
        *self.more = None;
        let Some(running) = self.running.as_mut() else {
            return Err(Error::late(""));
        };
        running.end_hedging();
        let Held { owner, permits } = &mut end.held;
        permits.take_operation(&mut running.held.permits);
        running.held.abandon(EndedBy::Hedge);
        complete(
            owner,
            permits,
            end.result,
            (end.outcome, end.ended_by),
            &running.recipe().classify,
            self.completion,
        )
    }
}

/// The next instants at which something is due for an attempt that is pending.
struct Due {
    first: Instant,
    timeout: Option<Instant>,
    deadline: Option<Instant>,
    copy: Option<Instant>,
}

/// Hedging.
impl<S, Req, P, R, K, C> Parts<'_, S, Req, P, R, K, C>
where
    S: CloneService<Req>,
    P: Plan<Attempt: PartFor<Req>>,
    R: Replay<Req>,
    K: Classify<S::Response>,
    C: TrackCompletion<S::Response, K>,
{
    fn race(&mut self) -> Option<&mut Race<S, Req, P>> {
        self.more.as_mut()?.race.as_mut()
    }

    /// Waits until something is due.
    fn poll_timer(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        let Some(timer) = self.timer.as_mut().timer() else {
            return Poll::Pending;
        };
        if timer.is_set() {
            return timer.poll_set(cx);
        }
        let Some(due) = self.due() else {
            return Poll::Pending;
        };
        let timer = self.timer.as_mut().timer();
        timer.map_or(Poll::Pending, |timer| timer.poll_at(due.first, cx))
    }

    /// Returns the instants at which something is due.
    fn due(&mut self) -> Option<Due> {
        let running = self.running.as_mut()?;
        let race = self.more.as_ref().and_then(|more| more.race.as_ref());
        let is_first_running = running.held.is_sent() && !matches!(*self.call, Call::Done);
        if race.is_none() && !is_first_running {
            // The parts that an attempt waits for bound the wait.
            return None;
        }
        let limit = running.held.owner.recipe.plan.timeout();
        let mut timeout = None;
        if let (Some(limit), Some(times), true) = (limit, running.times.get_mut(), is_first_running)
        {
            let core = running.held.owner.core();
            if times.timeout_at == NEVER {
                let now = core.at().nanos();
                times.timeout_at = now.saturating_add(whole_nanos(limit.time));
            }
            timeout = Some(core.instant(times.timeout_at));
        }
        let mut copy = None;
        if running.has_copy(self.copy.as_ref()) {
            let not_before = race.and_then(|race| race.not_before);
            copy = if race.is_some_and(|race| race.is_repeat_due) {
                not_before
            } else {
                running
                    .slow_at()
                    .map(|at| not_before.map_or(at, |not_before| at.max(not_before)))
            };
        }
        let deadline = running.deadline();
        let first = [timeout, deadline, copy].into_iter().flatten().min()?;
        Some(Due {
            first,
            timeout,
            deadline,
            copy,
        })
    }

    /// The only attempt has failed, and is made again at once.
    #[cold]
    fn begin_race(&mut self, result: Result<S::Response, Error>) {
        let Some(running) = self.running.as_mut() else {
            return;
        };
        self.call.set(Call::Done);
        self.timer.set(P::Timer::default());
        let held = running.held.detach_attempt();
        let end = End::new(&running.recipe().classify, result, held);
        let mut race = Race::new();
        let step = race.ended(&running.recipe().classify, self.completion, end);
        let more = self.more.get_or_insert_with(|| Box::new(More::new()));
        more.race = Some(race);
        if let Step::Failed(outcome, pushback) = step {
            self.obey(outcome, pushback);
        }
    }

    /// Notes what the end of an attempt means for further copies.
    fn obey(&mut self, outcome: Outcome, pushback: Option<Pushback>) {
        let (Some(running), Some(more)) = (self.running.as_mut(), self.more.as_mut()) else {
            return;
        };
        let Some(race) = more.race.as_mut() else {
            return;
        };
        race.is_repeat_due |= running.repeats_at_once(outcome);
        // The next event may be due sooner than when the timer was set.
        self.timer.set(P::Timer::default());
        match pushback {
            None => {}
            Some(Pushback::DoNotRetry) => running.stop_copies(),
            Some(Pushback::RetryAfter(wait)) => {
                let at = crate::nanos::saturating_add(Instant::now(), wait);
                let is_in_time = context::deadline().is_none_or(|deadline| at < deadline);
                if is_in_time && wait <= MAX_RETRY_AFTER {
                    race.not_before = race.not_before.max(Some(at));
                } else {
                    running.stop_copies();
                }
            }
        }
    }

    /// Polls all attempts, and begins another one when that is due.
    #[cold]
    #[inline(never)]
    fn poll_race(&mut self, cx: &mut task::Context<'_>) -> Poll<Ended<S::Response, P>> {
        loop {
            while let Poll::Ready(step) = self.poll_racers(cx) {
                match step {
                    Step::Over(end) => return Poll::Ready(Ended::Race(end)),
                    Step::Failed(outcome, pushback) => self.obey(outcome, pushback),
                }
            }
            let is_repeat_due = self.is_repeat_due();
            let is_immediate =
                is_repeat_due && self.race().is_some_and(|race| race.not_before.is_none());
            if is_immediate && self.send(Instant::now()) {
                continue;
            }
            let (is_running, is_repeat_due) = (self.is_running(), self.is_repeat_due());
            if !is_running && !is_repeat_due {
                let failed = self.race().and_then(Race::take_failed);
                return failed.map_or(Poll::Pending, |end| Poll::Ready(Ended::Race(end)));
            }
            if self.poll_timer(cx).is_ready() {
                self.timer.set(P::Timer::default());
                if let Some(due) = self.due() {
                    let now = Instant::now();
                    let has_come = |at: Option<Instant>| at.is_some_and(|at| at <= now);
                    if has_come(due.timeout) {
                        let Some(running) = self.running.as_mut() else {
                            return Poll::Pending;
                        };
                        let error = running.end_at_timeout();
                        match self.first_ended(Err(error)) {
                            Some(Step::Over(end)) => return Poll::Ready(Ended::Race(end)),
                            Some(Step::Failed(outcome, pushback)) => self.obey(outcome, pushback),
                            None => {}
                        }
                    } else if let Some(deadline) = due.deadline.filter(|at| *at <= now) {
                        return Poll::Ready(Ended::Deadline(deadline));
                    } else if has_come(due.copy) {
                        self.send(now);
                    }
                    continue;
                }
            }
            // Else the service has asked for time. The failure is kept, as a copy may still be denied then.
            if let (true, Some(race)) = (is_running, self.race()) {
                race.give_up_response();
            }
            return Poll::Pending;
        }
    }

    /// Polls the attempts until one of them ends.
    fn poll_racers(&mut self, cx: &mut task::Context<'_>) -> Poll<Step<S::Response, P>> {
        if self.is_first_running() {
            let Some(running) = self.running.as_mut() else {
                return Poll::Pending;
            };
            let polled = poll_attempt(self.call.as_mut(), &mut running.held, cx);
            if let Poll::Ready(result) = polled {
                return self.first_ended(result).map_or(Poll::Pending, Poll::Ready);
            }
        }
        let (Some(running), Some(more)) = (self.running.as_ref(), self.more.as_mut()) else {
            return Poll::Pending;
        };
        let Some(race) = more.race.as_mut() else {
            return Poll::Pending;
        };
        let limit = running.plan().timeout().map(|limit| limit.time);
        let classify = &running.recipe().classify;
        let time_out = || running.end_at_timeout();
        race.poll(classify, self.completion, limit, time_out, cx)
    }

    /// The first attempt of a race has ended.
    fn first_ended(&mut self, result: Result<S::Response, Error>) -> Option<Step<S::Response, P>> {
        let running = self.running.as_mut()?;
        self.call.set(Call::Done);
        let held = running.held.detach_attempt();
        let end = End::new(&running.recipe().classify, result, held);
        running.first_ended(end.outcome);
        let race = self.more.as_mut()?.race.as_mut()?;
        Some(race.ended(&running.recipe().classify, self.completion, end))
    }

    fn is_first_running(&self) -> bool {
        !matches!(*self.call, Call::Done)
    }

    /// Returns whether any attempt is in flight.
    fn is_running(&mut self) -> bool {
        let running = self.running.as_ref();
        let has_timeout = running.is_some_and(|running| running.plan().timeout().is_some());
        let race = self.race();
        race.is_some_and(|race| race.is_running(has_timeout)) || self.is_first_running()
    }

    /// Returns whether a failed attempt is to be made again, now or when the service takes calls again.
    fn is_repeat_due(&mut self) -> bool {
        let is_due = self.race().is_some_and(|race| race.is_repeat_due);
        let running = self.running.as_ref();
        is_due && running.is_some_and(|running| running.has_copy(self.copy.as_ref()))
    }

    /// Sends a hedge, if it may be sent. If not, no further one will be.
    #[cold]
    #[inline(never)]
    fn send(&mut self, now: Instant) -> bool {
        let Some(running) = self.running.as_mut() else {
            return false;
        };
        self.timer.set(P::Timer::default());
        let shared = Arc::clone(&running.held.owner);
        let (replay, hedge) = (&shared.recipe.replay, shared.recipe.plan.hedge());
        let is_late = context::deadline().is_some_and(|deadline| deadline <= now);
        let is_possible = self
            .copy
            .as_ref()
            .is_some_and(|copy| replay.is_replayable(copy));
        let (false, true, Some(hedge)) = (is_late, is_possible, hedge) else {
            running.stop_copies();
            return false;
        };
        let core = Arc::clone(shared.core());
        let at = core.at_instant(now);
        let payment = hedge.pay(&at);
        if payment == Payment::Denied {
            running.stop_copies();
            return false;
        }
        let Some(mut request) = self.copy.take() else {
            return false;
        };
        let more = self.more.get_or_insert_with(|| Box::new(More::new()));
        let race = more.race.get_or_insert_with(Race::new);
        let number = race.sent() + 1;
        running.prepare_hedge(&mut request, number, self.copy);
        if number >= hedge.max_hedges() {
            running.stop_copies();
        }
        // It may hold a permit that this attempt needs.
        race.give_up_response();
        let mut held = Held::new(core);
        let _direct = DirectCall::enter();
        let call = match held.admit(&request, &at) {
            Ok(()) => Call::waiting(shared.service(), request),
            Err(error) => Call::failed(error),
        };
        race.send(call, held, payment == Payment::Paid, hedge);
        running.note_hedge(&at);
        true
    }
}

impl<S, Req, P, R, K, C> fmt::Debug for OperationFuture<S, Req, P, R, K, C>
where
    S: Service<Req>,
    P: Plan,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperationFuture")
            .field("call", &self.call)
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}
