//! A call that waits for a permit.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::gate::Turn;
use super::metrics::{Reason, WaitEnd};
use super::permit::BulkheadPermit;
use super::queue::{Ticket, Verdict};
use super::shared::Shared;
use crate::Error;
use crate::context;
use crate::deadline::soonest;
use crate::timer::Timer;

/// A place in the queue. Given up when it is dropped; a permit that it had got already goes to the next.
struct Place {
    shared: Arc<Shared>,
    wait: Wait,
    since: Instant,
    due: Instant,
    /// The soonest that was in force at any poll: it may be one that was not there yet when the call was made.
    deadline: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Wait {
    /// It takes its place when it is polled, so that a future which nobody polls keeps nobody waiting.
    Unpolled,
    Queued(Ticket),
    Over,
}

impl Place {
    /// Takes a place, unless there is a permit by now.
    fn take(&mut self) -> Result<Option<BulkheadPermit>, Error> {
        let now = context::fresh_now();
        self.wait = Wait::Over;
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(self.shared.reject(Reason::Deadline, now));
        }
        match self.shared.gate().queue(now, self.deadline) {
            Turn::Entered(word) => Ok(Some(self.shared.permit(word))),
            Turn::Queued(ticket, due) => {
                self.wait = Wait::Queued(ticket);
                (self.since, self.due) = (now, due);
                self.shared.joined(now);
                Ok(None)
            }
            Turn::Full => Err(self.shared.reject(Reason::Full, now)),
        }
    }

    /// Leaves the queue. Returns how the wait had ended before, if it had. A permit may come with that.
    fn give_up(&mut self, ticket: Ticket) -> Option<Verdict> {
        self.wait = Wait::Over;
        self.shared.gate().give_up(ticket)
    }

    fn report(&self, end: WaitEnd, now: Instant) {
        let waited = now.saturating_duration_since(self.since);
        self.shared.metrics.waited(end, waited, now);
    }

    /// The wait is over.
    fn end(&mut self, verdict: Verdict) -> Result<BulkheadPermit, Error> {
        self.wait = Wait::Over;
        let now = context::fresh_now();
        match verdict {
            Verdict::Granted => {
                // From here on the permit is back when it is dropped.
                let permit = self.shared.permit(self.shared.gate().word());
                self.shared.settle();
                if self.deadline.is_some_and(|deadline| deadline <= now) {
                    return Err(self.refuse(Reason::Deadline, now));
                }
                self.report(WaitEnd::Admitted, now);
                Ok(permit)
            }
            Verdict::Expired => {
                self.shared.settle();
                let is_deadline = self.deadline.is_some_and(|deadline| deadline <= self.due);
                let reason = if is_deadline {
                    Reason::Deadline
                } else {
                    Reason::QueueTimeout
                };
                Err(self.refuse(reason, now))
            }
        }
    }

    fn refuse(&self, reason: Reason, now: Instant) -> Error {
        let end = match reason {
            Reason::Deadline => WaitEnd::Deadline,
            Reason::QueueTimeout | Reason::Full => WaitEnd::Timeout,
        };
        self.report(end, now);
        self.shared.reject(reason, now)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Wait::Queued(ticket) = self.wait else {
            return;
        };
        if self.give_up(ticket) == Some(Verdict::Granted) {
            drop(self.shared.permit(self.shared.gate().word()));
        }
        self.shared.settle();
        self.report(WaitEnd::Cancelled, Instant::now());
    }
}

pin_project! {
    /// A place in the queue, and the timer that bounds the wait.
    pub(super) struct Waiter {
        place: Place,
        #[pin]
        timer: Timer,
    }
}

impl Waiter {
    pub(super) fn new(shared: Arc<Shared>, now: Instant) -> Self {
        Self {
            place: Place {
                shared,
                wait: Wait::Unpolled,
                since: now,
                due: now,
                deadline: context::deadline(),
            },
            timer: Timer::default(),
        }
    }
}

impl Future for Waiter {
    type Output = Result<BulkheadPermit, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let place = this.place;
        if let Some(deadline) = context::deadline() {
            place.deadline = Some(soonest(place.deadline, deadline));
        }
        if let Wait::Unpolled = place.wait {
            if let Some(permit) = place.take()? {
                return Poll::Ready(Ok(permit));
            }
        }
        let Wait::Queued(ticket) = place.wait else {
            return Poll::Pending;
        };
        if let Poll::Ready(verdict) = place.shared.gate().poll(ticket, cx.waker()) {
            return Poll::Ready(place.end(verdict));
        }
        place.due = soonest(place.deadline, place.due);
        context::note_queued();
        task::ready!(this.timer.poll_at(place.due, cx));
        // A permit that came in the meantime is as good as one that came before.
        let verdict = place.give_up(ticket).unwrap_or(Verdict::Expired);
        Poll::Ready(place.end(verdict))
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter")
            .field("wait", &self.place.wait)
            .field("since", &self.place.since)
            .field("due", &self.place.due)
            .finish_non_exhaustive()
    }
}
