//! The calls that wait for a permit, their order, and their longest wait.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::algorithm::queue::{Ticket, WaitQueue, Wakers};

/// Order in which waiting calls get free permits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(rename_all = "lowercase")
)]
pub enum QueueOrder {
    /// The call that has waited longest is first. This order is fair, and because waits are short, no call loses much
    /// of its deadline.
    #[default]
    Fifo,
    /// The newest call is first. It has waited least, at the cost of other calls, some of which wait in vain. Use it
    /// for callers that leave before the queue drops their calls.
    Lifo,
}

/// Longest wait of a call, by the rule of `CoDel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The longest wait.
    pub(super) wait: Duration,
    /// The longest wait while the queue is overloaded.
    pub(super) overloaded_wait: Duration,
    /// The queue is overloaded when it has not been empty for this long.
    pub(super) overloaded_after: Duration,
}

impl Bounds {
    /// Returns the time at which a call that joins at `now` has waited for too long.
    ///
    /// It is known from the start: while the call waits, the queue is not empty, so `busy_since` does not change.
    fn due(&self, now: Instant, busy_since: Instant) -> Instant {
        let overloaded = busy_since + self.overloaded_after;
        (now + self.wait).min(overloaded.max(now + self.overloaded_wait))
    }
}

/// The end of the wait of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The call has a permit.
    Granted,
    /// The call has waited for too long.
    Expired,
}

/// The waiting calls, each with the end of its wait, and the calls with a permit that have not been polled since.
#[derive(Debug)]
pub(super) struct TimedQueue {
    bounds: Bounds,
    order: QueueOrder,
    pub(super) waiting: WaitQueue<Instant>,
    granted: BTreeSet<Ticket>,
    /// The time at which a call last joined the empty queue.
    busy_since: Option<Instant>,
}

impl TimedQueue {
    pub(super) fn new(bounds: Bounds, order: QueueOrder) -> Self {
        Self {
            bounds,
            order,
            waiting: WaitQueue::new(),
            granted: BTreeSet::new(),
            busy_since: None,
        }
    }

    /// Changes the waits of later calls, and the order.
    pub(super) fn adjust(&mut self, bounds: Bounds, order: QueueOrder) {
        (self.bounds, self.order) = (bounds, order);
    }

    /// Adds a call to the queue. Returns its ticket, and the instant until which it waits at the latest.
    pub(super) fn join(&mut self, now: Instant, deadline: Option<Instant>) -> (Ticket, Instant) {
        if self.waiting.len() == 0 {
            self.busy_since = None;
        }
        let due = self.bounds.due(now, *self.busy_since.get_or_insert(now));
        let due = deadline.map_or(due, |deadline| deadline.min(due));
        (self.waiting.join(1, due), due)
    }

    /// Returns the call whose turn it is, and the result of its wait at `now`.
    pub(super) fn next(&self, now: Instant) -> Option<(Ticket, Verdict)> {
        let (ticket, due) = match self.order {
            QueueOrder::Fifo => self.waiting.first(),
            QueueOrder::Lifo => self.waiting.last(),
        }?;
        let is_late = *due < now;
        let verdict = if is_late {
            Verdict::Expired
        } else {
            Verdict::Granted
        };
        Some((ticket, verdict))
    }

    /// Ends the wait of a call with this verdict.
    pub(super) fn end(&mut self, ticket: Ticket, verdict: Verdict, wakers: &mut Wakers) {
        self.waiting.release(ticket, wakers);
        if verdict == Verdict::Granted {
            self.granted.insert(ticket);
        }
    }

    /// Returns the result of the wait of a call that has no place any more. `Granted` is returned once.
    pub(super) fn tell(&mut self, ticket: Ticket) -> Verdict {
        if self.granted.remove(&ticket) {
            Verdict::Granted
        } else {
            Verdict::Expired
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    const MS: Duration = Duration::from_millis(1);

    fn queue(order: QueueOrder) -> TimedQueue {
        let bounds = Bounds {
            wait: 100 * MS,
            overloaded_wait: 20 * MS,
            overloaded_after: 100 * MS,
        };
        TimedQueue::new(bounds, order)
    }

    #[test]
    fn a_call_may_wait_100_ms_but_20_once_the_queue_has_not_been_empty_for_100() {
        let start = Instant::now();
        let mut queue = queue(QueueOrder::Fifo);
        let mut may_wait = |at: u32| {
            let now = start + at * MS;
            (queue.join(now, None).1 - now).as_millis()
        };
        let waits = [0, 30, 80, 95, 100, 500].map(&mut may_wait);
        assert_eq!(waits, [100, 70, 20, 20, 20, 20]);
        for ticket in 0..6 {
            let left = queue.waiting.leave(ticket, &mut Wakers::default());
            left.expect("it waits");
        }
        let now = start + 600 * MS;
        assert_eq!(queue.join(now, None).1, now + 100 * MS, "it was empty");
    }

    #[test]
    fn a_deadline_that_comes_sooner_counts() {
        let now = Instant::now();
        let mut queue = queue(QueueOrder::Fifo);
        let due = |queue: &mut TimedQueue, after: u32| queue.join(now, Some(now + after * MS)).1;
        assert_eq!(due(&mut queue, 30), now + 30 * MS);
        assert_eq!(due(&mut queue, 300), now + 100 * MS);
    }

    #[test]
    fn those_who_have_waited_too_long_do_not_get_a_permit() {
        let now = Instant::now();
        for (order, turns) in [(QueueOrder::Fifo, [0, 1, 2]), (QueueOrder::Lifo, [2, 1, 0])] {
            let mut queue = queue(order);
            for at in 0..3 {
                let (ticket, _) = queue.join(now + at * MS, None);
                let wakers = &mut Wakers::default();
                let waits = queue.waiting.poll(ticket, Waker::noop(), wakers);
                assert!(waits.is_some());
            }
            // Due are 100, 100 and 100 ms: at 100 they may still go, after it they may not.
            for (ticket, at) in turns.into_iter().zip([100, 101, 102]) {
                let verdict = if at == 100 {
                    Verdict::Granted
                } else {
                    Verdict::Expired
                };
                assert_eq!(queue.next(now + at * MS), Some((ticket, verdict)));
                let mut wakers = Wakers::default();
                queue.end(ticket, verdict, &mut wakers);
                assert_eq!(wakers.len(), 1, "woken");
                assert_eq!(queue.tell(ticket), verdict);
                assert_eq!(queue.tell(ticket), Verdict::Expired, "told once");
            }
            assert_eq!(queue.next(now), None);
        }
    }
}
