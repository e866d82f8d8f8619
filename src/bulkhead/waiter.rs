//! A call that waits for a permit.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::metrics::{Reason, WaitEnd};
use super::permit::Permit;
use super::queue::{Ticket, Verdict};
use super::shared::Shared;
use crate::Error;
use crate::context;
use crate::deadline::soonest;
use crate::timer::Timer;

/// A place in the queue. Given up when it is dropped; a permit that it had got already goes to the next.
pub(super) struct Place {
    shared: Arc<Shared>,
    /// `None` once the wait is over.
    ticket: Option<Ticket>,
    since: Instant,
    due: Instant,
}

impl Place {
    pub(super) fn new(shared: Arc<Shared>, ticket: Ticket, since: Instant, due: Instant) -> Self {
        Self {
            shared,
            ticket: Some(ticket),
            since,
            due,
        }
    }

    /// Leaves the queue. Returns how the wait had ended before, if it had.
    fn give_up(&mut self) -> Option<Verdict> {
        let ticket = self.ticket.take()?;
        let verdict = self.shared.gate().give_up(ticket);
        self.shared.settle();
        verdict
    }

    fn report(&self, end: WaitEnd, now: Instant) {
        let waited = now.saturating_duration_since(self.since);
        let report = |metrics: &super::metrics::BulkheadMetrics| metrics.waited(end, waited, now);
        self.shared.report(now, report);
    }

    /// The wait is over.
    fn end(&mut self, verdict: Verdict) -> Result<Permit, Error> {
        self.ticket = None;
        let now = context::fresh_now();
        let deadline = context::deadline();
        match verdict {
            Verdict::Granted => {
                // From here on the permit is back when it is dropped.
                let permit = self.shared.permit(self.shared.gate().word());
                self.shared.settle();
                if deadline.is_some_and(|deadline| deadline <= now) {
                    return Err(self.refuse(Reason::Deadline, now));
                }
                self.report(WaitEnd::Admitted, now);
                Ok(permit)
            }
            Verdict::Expired => {
                self.shared.settle();
                let is_deadline = deadline.is_some_and(|deadline| deadline <= self.due);
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
        if self.ticket.is_none() {
            return;
        }
        if self.give_up() == Some(Verdict::Granted) {
            drop(self.shared.permit(self.shared.gate().word()));
        }
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
    pub(super) fn new(place: Place) -> Self {
        let timer = Timer::default();
        Self { place, timer }
    }
}

impl Future for Waiter {
    type Output = Result<Permit, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(ticket) = this.place.ticket else {
            return Poll::Pending;
        };
        let gate = this.place.shared.gate();
        if let Poll::Ready(verdict) = gate.poll(ticket, cx.waker()) {
            return Poll::Ready(this.place.end(verdict));
        }
        // The deadline may be one that was not there yet when the call was made.
        let due = soonest(context::deadline(), this.place.due);
        context::note_queued();
        task::ready!(this.timer.poll(|| due, cx));
        // A permit that came in the meantime is as good as one that came before.
        let verdict = this.place.give_up().unwrap_or(Verdict::Expired);
        Poll::Ready(this.place.end(verdict))
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter")
            .field("since", &self.place.since)
            .field("due", &self.place.due)
            .finish_non_exhaustive()
    }
}
