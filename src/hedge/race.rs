//! The attempts of a call that has more than one, or whose only one failed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use tokio::time::Instant;
use tower::Service;

use super::metrics::Hedged;
use super::shared::Shared;
use crate::outcome::classify_result;
use crate::ready::Call;
use crate::{Classify, CloneService, Error, Outcome, Pushback};

pub(super) struct Race<S, Req>
where
    S: Service<Req>,
{
    hedges: Vec<Sent<S, Req>>,
    /// How many there have been in all.
    sent: u32,
    /// An attempt has failed.
    has_failed: bool,
    /// A failed attempt is to be made again, without waiting for the delay.
    pub(super) is_repeat_due: bool,
    /// The service asked for no copy before this instant.
    pub(super) not_before: Option<Instant>,
    /// How the call ends if no other attempt does better.
    failed: Option<Result<S::Response, Error>>,
}

/// A hedge in flight.
struct Sent<S, Req>
where
    S: Service<Req>,
{
    // Before the note, so that the call is given up when that is written.
    call: Pin<Box<Call<S, Req>>>,
    /// It takes the place of an attempt that failed.
    is_repeat: bool,
    is_paid: bool,
    note: Note,
}

/// Reports what became of a hedge when it is dropped.
struct Note {
    shared: Arc<Shared>,
    result: Hedged,
}

impl Drop for Note {
    fn drop(&mut self) {
        self.shared.report(self.result, Instant::now());
    }
}

/// What the end of an attempt means for the call.
pub(super) enum End<Res> {
    /// This is how the call ends.
    Over(Result<Res, Error>),
    /// Another attempt may do better. The service may have said when to try again.
    Failed(Outcome, Option<Pushback>),
}

/// The service's word about trying again that came with a failed attempt.
pub(super) fn pushback<Res, K>(
    classify: &K,
    result: &Result<Res, Error>,
    outcome: Outcome,
) -> Option<Pushback>
where
    K: Classify<Res>,
{
    // A refusal by an inner layer is no failure, and not the word of the service.
    let has_failed = outcome.is_failure();
    has_failed
        .then(|| classify.pushback(result.as_ref()))
        .flatten()
}

impl<S, Req> Race<S, Req>
where
    S: Service<Req>,
{
    pub(super) fn new() -> Self {
        Self {
            hedges: Vec::new(),
            sent: 0,
            has_failed: false,
            is_repeat_due: false,
            not_before: None,
            failed: None,
        }
    }

    /// What is left when the first attempt has ended like this.
    pub(super) fn failed(result: Result<S::Response, Error>) -> Self {
        Self {
            has_failed: true,
            failed: Some(result),
            ..Self::new()
        }
    }

    /// An attempt has ended. A failure never beats an attempt that is still running.
    pub(super) fn ended<K>(
        &mut self,
        classify: &K,
        result: Result<S::Response, Error>,
        outcome: Outcome,
    ) -> End<S::Response>
    where
        K: Classify<S::Response>,
    {
        if !outcome.is_failure() && !says_nothing(&result) {
            return End::Over(result);
        }
        self.has_failed = true;
        let pushback = pushback(classify, &result, outcome);
        // A refusal by an inner layer says less than what the service answered.
        if self.failed.as_ref().is_none_or(says_nothing) {
            self.failed = Some(result);
        }
        End::Failed(outcome, pushback)
    }

    /// Another attempt decides how the call ends.
    ///
    /// A response may hold a permit that this attempt waits for, or a connection. An error holds nothing.
    pub(super) fn give_up_response(&mut self) {
        drop(self.failed.take_if(|failed| failed.is_ok()));
    }

    /// Sends a hedge.
    pub(super) fn send(&mut self, call: Call<S, Req>, is_paid: bool, shared: &Arc<Shared>) {
        self.give_up_response();
        self.is_repeat_due = false;
        self.sent += 1;
        self.hedges.push(Sent {
            call: Box::pin(call),
            is_repeat: self.has_failed,
            is_paid,
            note: Note {
                shared: Arc::clone(shared),
                result: Hedged::Lost,
            },
        });
    }

    /// Polls the hedges until one of them ends.
    pub(super) fn poll<K>(
        &mut self,
        classify: &K,
        cx: &mut task::Context<'_>,
    ) -> Poll<End<S::Response>>
    where
        S: CloneService<Req>,
        K: Classify<S::Response>,
    {
        for place in 0..self.hedges.len() {
            let Sent { call, note, .. } = &mut self.hedges[place];
            let Poll::Ready(result) = call.as_mut().poll(cx, || note.shared.name()) else {
                continue;
            };
            let mut sent = self.hedges.swap_remove(place);
            sent.note.result = Hedged::Failed;
            if sent.is_paid && is_rejection(&result) {
                sent.note.shared.refund();
            }
            let outcome = classify_result(classify, &result);
            let end = self.ended(classify, result, outcome);
            if let End::Over(_) = end {
                sent.note.result = Hedged::Won;
            }
            return Poll::Ready(end);
        }
        Poll::Pending
    }

    /// How many hedges have been sent.
    pub(super) fn sent(&self) -> u32 {
        self.sent
    }

    /// Says whether a hedge may still give the answer.
    ///
    /// When the others have failed, nobody waits for one that the inner service is not ready for; unless it
    /// takes the place of one that failed.
    pub(super) fn is_running(&self) -> bool {
        let mut hedges = self.hedges.iter();
        hedges.any(|hedge| !self.has_failed || hedge.is_repeat || !hedge.call.is_waiting())
    }

    /// How the call ends when no attempt is left.
    pub(super) fn into_failed(self) -> Option<Result<S::Response, Error>> {
        self.failed
    }
}

fn is_rejection<Res>(result: &Result<Res, Error>) -> bool {
    result.as_ref().is_err_and(|error| error.is_rejection())
}

/// Says whether an attempt ended in a way that is no end for the other ones, whatever it is classified as: a layer
/// inner refused it, or its copy of the request was too far behind theirs.
fn says_nothing<Res>(result: &Result<Res, Error>) -> bool {
    is_rejection(result)
        || result
            .as_ref()
            .is_err_and(|error| error.concerns_one_copy())
}
