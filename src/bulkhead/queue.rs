//! The calls that wait for a permit: in which order, and for how long.

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use crate::wake::remember;

/// Which of the waiting calls gets a permit that becomes free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QueueOrder {
    /// The one that has waited longest. Fair, and since the time in the queue is short, nobody who gets
    /// a permit is far from a deadline because of it.
    #[default]
    Fifo,
    /// The one that came last. It has waited least, at the cost of the others, of which some wait for
    /// nothing: for callers that go away sooner than the queue drops them.
    Lifo,
}

/// How long a call may wait: the rule of `CoDel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// At most this.
    pub(super) wait: Duration,
    /// At most this once the queue is overloaded,
    pub(super) overloaded_wait: Duration,
    /// which it is when it has not been empty for this long.
    pub(super) overloaded_after: Duration,
}

impl Bounds {
    /// When a call that comes at `now` has waited for too long.
    ///
    /// Known from the start: while it waits the queue is not empty, so the time since which it is not empty
    /// stays what it is now.
    fn due(&self, now: Instant, busy_since: Instant) -> Instant {
        let overloaded = busy_since + self.overloaded_after;
        (now + self.wait).min(overloaded.max(now + self.overloaded_wait))
    }
}

/// How the wait of a call has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has a permit.
    Granted,
    /// It has waited for too long.
    Expired,
}

/// What a call holds while it waits. Later calls have higher ones.
pub(super) type Ticket = u64;

#[derive(Debug)]
struct Waiter {
    due: Instant,
    waker: Option<Waker>,
}

/// The waiting calls, and those that do not know yet that their wait is over.
///
/// Wakers that are no longer needed are handed out, to be dropped when the lock round the queue is gone:
/// whatever else they own, a whole task perhaps, is dropped with them.
#[derive(Debug)]
pub(super) struct Queue {
    bounds: Bounds,
    order: QueueOrder,
    waiting: BTreeMap<Ticket, Waiter>,
    told: BTreeMap<Ticket, Verdict>,
    next: Ticket,
    /// Since when somebody waits.
    busy_since: Option<Instant>,
}

/// What became of a call that is no longer in the queue.
#[derive(Debug)]
pub(super) enum Removed {
    /// It was waiting.
    Waiting(#[allow(dead_code, reason = "only to be dropped")] Option<Waker>),
    /// Its wait was over already.
    Told(Verdict),
}

impl Queue {
    pub(super) fn new(bounds: Bounds, order: QueueOrder) -> Self {
        Self {
            bounds,
            order,
            waiting: BTreeMap::new(),
            told: BTreeMap::new(),
            next: 0,
            busy_since: None,
        }
    }

    /// Lets a call wait, until the instant that is returned at the latest.
    pub(super) fn insert(&mut self, now: Instant, deadline: Option<Instant>) -> (Ticket, Instant) {
        let busy_since = *self.busy_since.get_or_insert(now);
        let due = self.bounds.due(now, busy_since);
        let due = deadline.map_or(due, |deadline| deadline.min(due));
        let ticket = self.next;
        self.next += 1;
        self.waiting.insert(ticket, Waiter { due, waker: None });
        (ticket, due)
    }

    /// The call whose turn it is, and whether it can still use a permit at `now`.
    pub(super) fn first(&self, now: Instant) -> Option<(Ticket, Verdict)> {
        let first = match self.order {
            QueueOrder::Fifo => self.waiting.first_key_value(),
            QueueOrder::Lifo => self.waiting.last_key_value(),
        };
        first.map(|(ticket, waiter)| {
            let is_late = waiter.due < now;
            let verdict = if is_late {
                Verdict::Expired
            } else {
                Verdict::Granted
            };
            (*ticket, verdict)
        })
    }

    /// Ends the wait of a call. Returns whom to wake.
    pub(super) fn tell(&mut self, ticket: Ticket, verdict: Verdict) -> Option<Waker> {
        let waiter = self.take(ticket)?;
        self.told.insert(ticket, verdict);
        waiter.waker
    }

    /// How the wait of a call has ended, or `None` if it goes on; then `waker` is woken at its end, and the
    /// former one comes back.
    pub(super) fn ask(&mut self, ticket: Ticket, waker: &Waker) -> Result<Verdict, Option<Waker>> {
        if let Some(verdict) = self.told.remove(&ticket) {
            return Ok(verdict);
        }
        let waiter = self.waiting.get_mut(&ticket);
        Err(waiter.and_then(|waiter| remember(&mut waiter.waker, waker)))
    }

    /// Removes a call that does not wait any longer.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Removed> {
        if let Some(verdict) = self.told.remove(&ticket) {
            return Some(Removed::Told(verdict));
        }
        self.take(ticket)
            .map(|waiter| Removed::Waiting(waiter.waker))
    }

    fn take(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.waiting.remove(&ticket);
        if self.waiting.is_empty() {
            self.busy_since = None;
        }
        waiter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn queue(order: QueueOrder) -> Queue {
        let bounds = Bounds {
            wait: 100 * MS,
            overloaded_wait: 20 * MS,
            overloaded_after: 100 * MS,
        };
        Queue::new(bounds, order)
    }

    #[test]
    fn a_call_may_wait_100_ms_but_20_once_the_queue_has_not_been_empty_for_100() {
        let start = Instant::now();
        let mut queue = queue(QueueOrder::Fifo);
        let mut may_wait = |at: u32| {
            let now = start + at * MS;
            (queue.insert(now, None).1 - now).as_millis()
        };
        let waits = [0, 30, 80, 95, 100, 500].map(&mut may_wait);
        assert_eq!(waits, [100, 70, 20, 20, 20, 20]);
        for ticket in 0..6 {
            queue.remove(ticket).expect("it waits");
        }
        let now = start + 600 * MS;
        assert_eq!(queue.insert(now, None).1, now + 100 * MS, "it was empty");
    }

    #[test]
    fn a_deadline_that_comes_sooner_counts() {
        let now = Instant::now();
        let mut queue = queue(QueueOrder::Fifo);
        let due = |queue: &mut Queue, after: u32| queue.insert(now, Some(now + after * MS)).1;
        assert_eq!(due(&mut queue, 30), now + 30 * MS);
        assert_eq!(due(&mut queue, 300), now + 100 * MS);
    }

    #[test]
    fn those_who_have_waited_too_long_do_not_get_a_permit() {
        let now = Instant::now();
        for (order, turns) in [(QueueOrder::Fifo, [0, 1, 2]), (QueueOrder::Lifo, [2, 1, 0])] {
            let mut queue = queue(order);
            for at in 0..3 {
                let (ticket, _) = queue.insert(now + at * MS, None);
                assert!(queue.ask(ticket, Waker::noop()).unwrap_err().is_none());
            }
            // Due are 100, 100 and 100 ms: at 100 they may still go, after it they may not.
            for (ticket, at) in turns.into_iter().zip([100, 101, 102]) {
                let verdict = if at == 100 {
                    Verdict::Granted
                } else {
                    Verdict::Expired
                };
                assert_eq!(queue.first(now + at * MS), Some((ticket, verdict)));
                assert!(queue.tell(ticket, verdict).is_some(), "woken");
                assert_eq!(queue.ask(ticket, Waker::noop()).unwrap(), verdict);
                assert!(queue.remove(ticket).is_none(), "told once");
            }
            assert_eq!(queue.first(now), None);
        }
    }
}
