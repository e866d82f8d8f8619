//! The attempts of a call that has more than one at a time, or whose only one failed and may be made again at once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

use super::plan::Plan;
use crate::chassis::held::{Core, Held};
use crate::chassis::record::EndedBy;
use crate::chassis::single::{judge, poll_attempt};
use crate::hedge::{Hedged, Shared};
use crate::ready::Call;
use crate::timer::Timer;
use crate::{Classify, CloneService, Error, Outcome, Pushback, TrackCompletion};

type Permits<P> = Held<Arc<Core<<P as Plan>::Operation, <P as Plan>::Attempt>>>;

pub(super) struct Race<S, Req, P>
where
    S: Service<Req>,
    P: Plan,
{
    hedges: Vec<Sent<S, Req, P>>,
    /// The number of hedges in all.
    sent: u32,
    /// An attempt has failed.
    has_failed: bool,
    /// The service may have acted on the request of an attempt that failed.
    may_have_acted: bool,
    /// A failed attempt is to be made again, without waiting for the delay.
    pub(super) is_repeat_due: bool,
    /// The service asked for no copy before this instant.
    pub(super) not_before: Option<Instant>,
    /// The end of the call if no other attempt does better.
    failed: Option<End<S::Response, P>>,
}

/// A hedge in flight.
struct Sent<S, Req, P>
where
    S: Service<Req>,
    P: Plan,
{
    // Before the note, so that the call is given up when that is written.
    hedge: Pin<Box<Hedge<S, Req, P>>>,
    /// It takes the place of an attempt that failed.
    is_repeat: bool,
    is_paid: bool,
    note: Note,
}

pin_project! {
    struct Hedge<S, Req, P>
    where
        S: Service<Req>,
        P: Plan,
    {
        #[pin]
        call: Call<S, Req>,
        #[pin]
        timer: Timer,
        held: Permits<P>,
    }
}

/// Reports the fate of a hedge when it is dropped.
struct Note {
    shared: Arc<Shared>,
    result: Hedged,
}

impl Drop for Note {
    fn drop(&mut self) {
        self.shared.report(self.result, Instant::now());
    }
}

/// An attempt that has ended, with its permits.
pub(super) struct End<Res, P: Plan> {
    pub(super) result: Result<Res, Error>,
    pub(super) outcome: Outcome,
    pub(super) ended_by: EndedBy,
    pub(super) held: Permits<P>,
}

impl<Res, P: Plan> End<Res, P> {
    pub(super) fn new<K>(classify: &K, result: Result<Res, Error>, held: Permits<P>) -> Self
    where
        K: Classify<Res>,
    {
        let (outcome, ended_by) = judge(classify, &result);
        Self {
            result,
            outcome,
            ended_by,
            held,
        }
    }

    /// Drops the result, which is of no use to the caller, and then ends the permits of the attempt.
    pub(super) fn discard(self) {
        let Self {
            result,
            outcome,
            ended_by,
            mut held,
        } = self;
        drop(result);
        held.settle_attempt(outcome, ended_by);
    }

    /// Ends the permits of an attempt that is over, although its result may still be of use.
    fn settle_if_over<K, C>(&mut self, classify: &K, completion: &C)
    where
        C: TrackCompletion<Res, K>,
    {
        let over = match &self.result {
            Ok(response) => completion.ended(response, self.outcome, classify),
            Err(_) => Some(self.outcome),
        };
        if let Some(outcome) = over {
            self.held.settle_attempt(outcome, self.ended_by);
        }
    }

    /// The service's word about trying again that came with a failed attempt.
    pub(super) fn pushback<K: Classify<Res>>(&self, classify: &K) -> Option<Pushback> {
        // A refusal by an inner layer is no failure, and not the word of the service.
        let has_failed = self.outcome.is_failure();
        has_failed
            .then(|| classify.pushback(self.result.as_ref()))
            .flatten()
    }

    fn may_have_acted(&self) -> bool {
        self.result
            .as_ref()
            .err()
            .is_none_or(|error| error.was_sent())
    }

    fn is_rejection(&self) -> bool {
        self.result
            .as_ref()
            .is_err_and(|error| error.is_rejection())
    }

    /// Returns whether the attempt ended in a way that does not end the race, whatever it is classified as: an inner layer
    /// refused it, or its copy of the request was too far behind the others.
    fn says_nothing(&self) -> bool {
        let error = self.result.as_ref().err();
        error.is_some_and(|error| error.is_rejection() || error.concerns_one_copy())
    }
}

/// The meaning of an attempt's end for the call.
pub(super) enum Step<Res, P: Plan> {
    /// This is how the call ends.
    Over(End<Res, P>),
    /// Another attempt may do better. The service may have said when to try again.
    Failed(Outcome, Option<Pushback>),
}

impl<S, Req, P> Race<S, Req, P>
where
    S: Service<Req>,
    P: Plan,
{
    pub(super) fn new() -> Self {
        Self {
            hedges: Vec::new(),
            sent: 0,
            has_failed: false,
            may_have_acted: false,
            is_repeat_due: false,
            not_before: None,
            failed: None,
        }
    }

    /// An attempt has ended. A failure never beats an attempt that is still running.
    pub(super) fn ended<K, C>(
        &mut self,
        classify: &K,
        completion: &C,
        mut end: End<S::Response, P>,
    ) -> Step<S::Response, P>
    where
        K: Classify<S::Response>,
        C: TrackCompletion<S::Response, K>,
    {
        if !end.outcome.is_failure() && !end.says_nothing() {
            return Step::Over(end);
        }
        self.has_failed = true;
        self.may_have_acted |= end.may_have_acted();
        let (outcome, pushback) = (end.outcome, end.pushback(classify));
        end.settle_if_over(classify, completion);
        // A refusal by an inner layer says less than what the service answered.
        if self.failed.as_ref().is_none_or(End::says_nothing) {
            self.failed = Some(end);
        } else {
            end.discard();
        }
        Step::Failed(outcome, pushback)
    }

    /// Another attempt decides how the call ends.
    ///
    /// A response may hold a permit that this attempt waits for, or a connection. An error holds nothing.
    pub(super) fn give_up_response(&mut self) {
        if let Some(end) = self.failed.take_if(|failed| failed.result.is_ok()) {
            end.discard();
        }
    }

    /// Sends a hedge.
    pub(super) fn send(
        &mut self,
        call: Call<S, Req>,
        held: Permits<P>,
        is_paid: bool,
        shared: &Arc<Shared>,
    ) {
        self.is_repeat_due = false;
        self.sent += 1;
        self.hedges.push(Sent {
            hedge: Box::pin(Hedge {
                call,
                timer: Timer::default(),
                held,
            }),
            is_repeat: self.has_failed,
            is_paid,
            note: Note {
                shared: Arc::clone(shared),
                result: Hedged::Lost,
            },
        });
    }

    /// Polls the hedges until one of them ends. An attempt has this time at most; `time_out` makes the error when
    /// it is over.
    pub(super) fn poll<K, C>(
        &mut self,
        classify: &K,
        completion: &C,
        limit: Option<Duration>,
        time_out: impl Fn() -> Error,
        cx: &mut task::Context<'_>,
    ) -> Poll<Step<S::Response, P>>
    where
        S: CloneService<Req>,
        K: Classify<S::Response>,
        C: TrackCompletion<S::Response, K>,
    {
        for place in 0..self.hedges.len() {
            let running = self.hedges[place].hedge.as_mut().project();
            let mut pending = running.call;
            let result = match poll_attempt(pending.as_mut(), running.held, cx) {
                Poll::Ready(result) => result,
                Poll::Pending => {
                    let (Some(limit), true) = (limit, running.held.is_sent()) else {
                        continue;
                    };
                    let end = || crate::nanos::saturating_add(Instant::now(), limit);
                    if running.timer.poll(end, cx).is_pending() {
                        continue;
                    }
                    Err(time_out())
                }
            };
            pending.set(Call::Done);
            let mut sent = self.hedges.swap_remove(place);
            sent.note.result = Hedged::Failed;
            let held = sent.hedge.as_mut().project().held.detach_attempt();
            let end = End::new(classify, result, held);
            if sent.is_paid && end.is_rejection() {
                sent.note.shared.refund();
            }
            let step = self.ended(classify, completion, end);
            if let Step::Over(_) = step {
                sent.note.result = Hedged::Won;
            }
            return Poll::Ready(step);
        }
        Poll::Pending
    }

    /// Returns the number of hedges that have been sent.
    pub(super) fn sent(&self) -> u32 {
        self.sent
    }

    /// Returns whether a hedge may still give the answer.
    ///
    /// When the others have failed, the call does not wait for a hedge that the inner service is not ready for; unless the
    /// hedge takes the place of one that failed, has a timeout of its own, or still waits for a part, which bounds the wait.
    pub(super) fn is_running(&self, has_timeout: bool) -> bool {
        let may_answer = |sent: &Sent<S, Req, P>| {
            let is_bounded = !self.has_failed || sent.is_repeat || has_timeout;
            let is_queued = !sent.hedge.as_ref().project_ref().held.is_sent();
            is_bounded || is_queued || !sent.hedge.as_ref().project_ref().call.is_waiting()
        };
        self.hedges.iter().any(may_answer)
    }

    /// Takes the end of a call that has no attempt left.
    pub(super) fn take_failed(&mut self) -> Option<End<S::Response, P>> {
        let mut end = self.failed.take()?;
        if let (true, Err(error)) = (self.may_have_acted, &mut end.result) {
            error.set_sent();
        }
        Some(end)
    }

    /// Gives up the hedges that are left.
    pub(super) fn abandon(&mut self, ended_by: EndedBy) {
        for mut sent in self.hedges.drain(..) {
            let mut hedge = sent.hedge.as_mut().project();
            hedge.call.set(Call::Done);
            hedge.held.abandon(ended_by);
        }
    }
}
