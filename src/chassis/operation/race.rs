//! The attempts of a call with several attempts at a time, or whose only attempt failed and may be repeated at once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

use super::hedge_metrics::Hedged;
use super::hedger::{Hedger, Payment};
use super::plan::Plan;
use super::running::Running;
use crate::chassis::held::{Core, Held};
use crate::chassis::record::EndedBy;
use crate::chassis::single::{judge, poll_attempt, reattempt};
use crate::context::{self, GivenUp};
use crate::ready::Call;
use crate::timer::Timer;
use crate::{
    Classify, CloneService, Conflict, Effect, Error, GaveUp, Outcome, Pushback, Reattempt,
    TrackCompletion, Upload,
};

type Permits<P> = Held<Arc<Core<<P as Plan>::Operation, <P as Plan>::Attempt>>>;

pub(super) struct Race<S, Req, P>
where
    S: Service<Req>,
    P: Plan,
{
    hedges: Vec<Pin<Box<Hedge<S, Req, P>>>>,
    /// The total number of hedges.
    sent: u32,
    /// `true` if an attempt has failed.
    has_failed: bool,
    /// `true` if the service may have acted on the request of a failed attempt.
    may_have_acted: bool,
    /// `true` if a failed attempt should be repeated without waiting for the delay.
    pub(super) is_repeat_due: bool,
    /// The service has asked that no copy be sent before this instant.
    pub(super) not_before: Option<Instant>,
    /// The end of the call if no other attempt has a better result.
    failed: Option<End<S::Response, P>>,
}

pin_project! {
    /// A hedge in flight.
    struct Hedge<S, Req, P>
    where
        S: Service<Req>,
        P: Plan,
    {
        #[pin]
        call: Call<S, Req>,
        #[pin]
        timer: Timer,
        sent: SentHedge<P>,
        // `true` if the hedge replaces a failed attempt.
        is_repeat: bool,
        payment: Payment,
        // Declared last, so that the call is dropped before the note is written.
        note: Note,
    }
}

/// The permits of a hedge, and the progress of the body that it sends.
struct SentHedge<P: Plan> {
    held: Permits<P>,
    upload: Option<Upload>,
}

impl<P: Plan> SentHedge<P> {
    /// Notes that the hedge has ended, with an answer or without.
    fn leave_upload_out(&mut self, is_answered: bool) {
        if let Some(upload) = self.upload.take() {
            self.held.leave_out(&upload, is_answered);
        }
    }
}

impl<P: Plan> Drop for SentHedge<P> {
    fn drop(&mut self) {
        self.leave_upload_out(false);
    }
}

/// Reports the result of a hedge when it is dropped.
struct Note {
    hedger: Arc<Hedger>,
    result: Hedged,
}

impl Drop for Note {
    fn drop(&mut self) {
        self.hedger.report(self.result, Instant::now());
    }
}

/// An attempt that has ended, with its permits.
pub(super) struct End<Res, P: Plan> {
    pub(super) result: Result<Res, Error>,
    pub(super) outcome: Outcome,
    pub(super) reattempt: Reattempt,
    pub(super) conflict: Conflict,
    /// The reason why there is no further attempt, if it was decided.
    pub(super) gave_up: Option<GaveUp>,
    pub(super) ended_by: EndedBy,
    pub(super) held: Permits<P>,
}

impl<Res, P: Plan> End<Res, P> {
    pub(super) fn new<S, R, K, C>(
        running: &Running<S, P, R, K, C>,
        result: Result<Res, Error>,
        verdict: (Outcome, EndedBy),
        held: Permits<P>,
    ) -> Self
    where
        K: Classify<Res>,
    {
        let (outcome, ended_by) = verdict;
        let classify = &running.recipe().classify;
        let conflict = match (&result, running.effect) {
            (Err(_), _) | (_, Effect::None) => Conflict::None,
            (Ok(response), effect) => classify.conflict(response, effect),
        };
        let reattempt = match conflict {
            Conflict::None => reattempt(classify, &result, verdict),
            Conflict::InProgress => Reattempt::Later,
            Conflict::Unknown => Reattempt::Never,
        };
        let may_renew = running.plan().retry().is_some() && !running.has_renewed;
        let reattempt = match reattempt {
            Reattempt::OnceAtOnce if !may_renew => Reattempt::Never,
            reattempt => reattempt,
        };
        Self {
            reattempt,
            conflict,
            gave_up: None,
            result,
            outcome,
            ended_by,
            held,
        }
    }

    /// Drops the result, which the caller does not get, and then settles the permits of the attempt.
    pub(super) fn discard(self) {
        let Self {
            result,
            outcome,
            ended_by,
            mut held,
            ..
        } = self;
        drop(result);
        held.settle_attempt(outcome, ended_by);
    }

    /// Returns the pushback of the service, if another attempt may be of use.
    pub(super) fn pushback<K: Classify<Res>>(&self, classify: &K) -> Option<Pushback> {
        match self.reattempt {
            Reattempt::Never => None,
            _ => classify.pushback(self.result.as_ref()),
        }
    }

    /// Returns whether the service may have acted on the request.
    pub(super) fn may_have_acted(&self) -> bool {
        let error = self.result.as_ref().err();
        error.is_none_or(|error| error.was_sent())
    }

    fn is_rejection(&self) -> bool {
        self.result
            .as_ref()
            .is_err_and(|error| error.is_rejection())
    }

    /// Returns whether the attempt does not end the race, whatever its outcome: an inner layer refused it, or its copy
    /// of the request was too far behind the others.
    fn says_nothing(&self) -> bool {
        let error = self.result.as_ref().err();
        error.is_some_and(|error| error.is_rejection() || error.concerns_one_copy())
    }

    /// Returns whether the service did its work, for this attempt.
    pub(super) fn is_success(&self) -> bool {
        self.outcome == Outcome::Success && self.conflict == Conflict::None
    }

    /// Returns whether this result ends the call, because no other attempt can have a better one.
    pub(super) fn is_last(&self) -> bool {
        let is_answer = self.conflict == Conflict::None && !self.says_nothing();
        self.reattempt == Reattempt::Never && is_answer
    }
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

    /// Notes that an attempt has failed while another one may have a better result.
    pub(super) fn failed<K, C>(
        &mut self,
        classify: &K,
        completion: &C,
        mut end: End<S::Response, P>,
    ) where
        C: TrackCompletion<S::Response, K>,
    {
        self.has_failed = true;
        self.may_have_acted |= end.may_have_acted();
        let over = match &end.result {
            Ok(response) => completion.ended(response, end.outcome, classify),
            Err(_) => Some(end.outcome),
        };
        if let Some(outcome) = over {
            // Its permits are no longer needed, although its result may be.
            end.held.settle_attempt(outcome, end.ended_by);
        }
        // An answer of the service says more than a refusal by an inner layer.
        if self.failed.as_ref().is_none_or(End::says_nothing) {
            self.failed = Some(end);
        } else {
            end.discard();
        }
    }

    /// Notes that another attempt decides how the call ends.
    ///
    /// Drops a failed response, which may hold a connection, or a permit that the other attempt waits for. An error
    /// holds nothing.
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
        upload: Option<Upload>,
        payment: Payment,
        hedger: &Arc<Hedger>,
    ) {
        self.is_repeat_due = false;
        self.sent += 1;
        self.hedges.push(Box::pin(Hedge {
            call,
            timer: Timer::default(),
            sent: SentHedge { held, upload },
            is_repeat: self.has_failed,
            payment,
            note: Note {
                hedger: Arc::clone(hedger),
                result: Hedged::Lost,
            },
        }));
    }

    /// Polls the hedges until one of them ends.
    pub(super) fn poll<R, K, C>(
        &mut self,
        running: &Running<S, P, R, K, C>,
        cx: &mut task::Context<'_>,
    ) -> Poll<End<S::Response, P>>
    where
        S: CloneService<Req>,
        K: Classify<S::Response>,
    {
        for place in 0..self.hedges.len() {
            let mut hedge = self.hedges[place].as_mut().project();
            let result = match poll_attempt(hedge.call.as_mut(), &mut hedge.sent.held, cx) {
                Poll::Ready(result) => result,
                Poll::Pending => {
                    let time = running.timeout_of_copies();
                    let Some(time) = time.filter(|_| hedge.sent.held.is_sent()) else {
                        continue;
                    };
                    let end = || crate::nanos::saturating_add(Instant::now(), time);
                    if hedge.timer.as_mut().poll(end, cx).is_pending() {
                        continue;
                    }
                    let upload = hedge.sent.upload.as_ref();
                    let end = upload.and_then(|upload| upload.end(time, Instant::now()));
                    if end.is_some_and(|end| hedge.timer.poll_at(end, cx).is_pending()) {
                        continue;
                    }
                    let time = running.timeout_that_fails();
                    context::give_up(GivenUp::over(time), || hedge.call.set(Call::Done));
                    if time.is_none() {
                        hedge.sent.leave_upload_out(false);
                        let held = &mut hedge.sent.held;
                        held.settle_attempt(Outcome::Cancelled, EndedBy::Deadline);
                    }
                    Err(running.end_at_timeout())
                }
            };
            hedge.call.set(Call::Done);
            let mut ended = self.hedges.swap_remove(place);
            let hedge = ended.as_mut().project();
            hedge.note.result = Hedged::Failed;
            let verdict = judge(&running.recipe().classify, &result);
            hedge.sent.leave_upload_out(true);
            let held = hedge.sent.held.detach_attempt();
            let end = End::new(running, result, verdict, held);
            if end.is_rejection() {
                hedge.note.hedger.refund(*hedge.payment);
            }
            if end.is_last() {
                hedge.note.result = Hedged::Won;
            }
            return Poll::Ready(end);
        }
        Poll::Pending
    }

    /// Returns whether the service may have acted on the request of an attempt that has failed, or of a hedge.
    pub(super) fn may_have_acted(&self) -> bool {
        self.may_have_acted || self.sent > 0
    }

    /// Returns the number of hedges that have been sent.
    pub(super) fn sent(&self) -> u32 {
        self.sent
    }

    /// Returns whether a hedge may still give the answer.
    ///
    /// When the other attempts have failed, the call does not wait for a hedge for which the inner service is not
    /// ready. It waits if the hedge replaces a failed attempt, has a timeout of its own, or still waits for a part,
    /// which bounds the wait.
    pub(super) fn is_running(&self, has_timeout: bool) -> bool {
        self.hedges.iter().any(|hedge| {
            let hedge = hedge.as_ref().project_ref();
            // Without a result of another attempt, the call has to wait for the hedge.
            let is_needed = self.failed.is_none();
            let is_bounded = is_needed || !self.has_failed || *hedge.is_repeat || has_timeout;
            is_bounded || !hedge.sent.held.is_sent() || !hedge.call.is_waiting()
        })
    }

    /// Takes the result of a call that has no attempt left.
    pub(super) fn take_failed(&mut self) -> Option<End<S::Response, P>> {
        let mut end = self.failed.take()?;
        if let (true, Err(error)) = (self.may_have_acted, &mut end.result) {
            error.set_sent();
        }
        Some(end)
    }

    /// Drops the remaining hedges.
    pub(super) fn abandon(&mut self, ended_by: EndedBy) {
        for mut hedge in self.hedges.drain(..) {
            let mut hedge = hedge.as_mut().project();
            context::give_up(ended_by.into(), || hedge.call.set(Call::Done));
            hedge.sent.leave_upload_out(false);
            hedge.sent.held.abandon(ended_by);
        }
    }
}
