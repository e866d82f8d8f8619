//! Queue of the calls that wait for tokens, in the order in which they came.
//!
//! Only the first call takes tokens and waits until there are enough. When it leaves, for whatever reason, it wakes the
//! next call. Each call is therefore woken once for its turn, and a call that leaves early makes no gap.

use std::task::Waker;

use super::bucket::Bucket;
use crate::algorithm::gcra::Taken;
use crate::algorithm::queue::{Ticket, WaitQueue, Wakers};
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::wake::locked;

/// The calls that wait for the tokens of one limit, each with the time after which a turn is of no use.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<WaitQueue<u64>>,
    /// The number of calls. A new call reads it to decide whether it waits, and the gauge shows it: see
    /// `Shown::publish`.
    length: AtomicU64,
}

/// A place in the queue, or none yet. Times are nanoseconds of the clock of the limit.
#[derive(Debug)]
pub(super) struct Place {
    ticket: Option<Ticket>,
    pub(super) cost: u32,
    /// The time after which a turn is of no use.
    pub(super) until: u64,
}

/// Next step of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Step {
    /// The call has its tokens, and has left the queue.
    Go,
    /// The call's turn will not come in time. The call has left the queue.
    GiveUp,
    /// The call tries again at this time, or when it is woken.
    Wait(u64),
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::new(WaitQueue::new()),
            length: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub(super) fn len(&self) -> u64 {
        self.length.load(Ordering::SeqCst)
    }

    /// Returns the number of tokens for which a new call would have to wait, in addition to its own.
    pub(super) fn cost(&self) -> u64 {
        lock(&self.waiting).cost()
    }

    /// Polls a call: gives it its tokens if it is the first one, or else a place if it has none.
    pub(super) fn step(&self, place: &mut Place, now: u64, waker: &Waker, bucket: &Bucket) -> Step {
        self.change(|waiting, wakers| {
            let step = place.step(waiting, now, bucket);
            match step {
                Step::Go | Step::GiveUp => place.leave(waiting, wakers),
                Step::Wait(_) => place.stay(waiting, waker, wakers),
            }
            step
        })
    }

    /// Leaves the queue without a turn.
    pub(super) fn leave(&self, place: &mut Place) {
        self.change(|waiting, wakers| place.leave(waiting, wakers));
    }

    /// Ends the wait of calls whose turn will not come in time, or only after `latest`, and wakes the first call.
    /// Called after a change of the limit.
    pub(super) fn reconsider(&self, now: u64, latest: u64, bucket: &Bucket) {
        let (burst, mut all) = (bucket.gcra.burst(), 0);
        let stays = |cost, until: &u64| {
            let with_it = all + u64::from(cost);
            let at = now.checked_add(bucket.gcra.wait(now, with_it));
            let stays = cost <= burst && at.is_some_and(|at| at <= latest.min(*until));
            if stays {
                all = with_it;
            }
            stays
        };
        // Locked even if it looks empty, because a call may be about to take a place by the former limit.
        self.change(|waiting, wakers| {
            waiting.retain(stays, wakers);
            waiting.wake(1, wakers);
        });
    }

    /// Wakes all calls. They keep their places.
    pub(super) fn wake_all(&self) {
        self.change(|waiting, wakers| waiting.wake(usize::MAX, wakers));
    }

    fn change<R>(&self, change: impl FnOnce(&mut WaitQueue<u64>, &mut Wakers) -> R) -> R {
        locked(&self.waiting, |waiting, wakers| {
            let result = change(waiting, wakers);
            self.length.store(waiting.len() as u64, Ordering::SeqCst);
            result
        })
    }
}

impl Place {
    pub(super) fn new(cost: u32, until: u64) -> Self {
        Self {
            ticket: None,
            cost,
            until,
        }
    }

    /// Returns whether the call has joined the queue and not left it.
    pub(super) fn is_taken(&self) -> bool {
        self.ticket.is_some()
    }

    fn step(&self, waiting: &WaitQueue<u64>, now: u64, bucket: &Bucket) -> Step {
        let (cost, until) = (self.cost, self.until);
        let in_time = |wait: u64| now.checked_add(wait).filter(|at| *at <= until);
        if self.is_first(waiting) {
            return match bucket.take(now, cost) {
                Taken::Yes => Step::Go,
                Taken::Early(wait) => in_time(wait).map_or(Step::GiveUp, Step::Wait),
                Taken::TooCostly | Taken::Stale => Step::GiveUp,
            };
        }
        if now >= until || cost > bucket.gcra.burst() {
            return Step::GiveUp;
        }
        let ahead = match self.ticket.map(|ticket| (ticket, waiting.get(ticket))) {
            None => waiting.cost(),
            // Another call has ended the wait of this one.
            Some((_, None)) => return Step::GiveUp,
            Some((_, Some(known))) if *known <= until => return Step::Wait(until),
            // The call has less time than when it joined.
            Some((ticket, Some(_))) => waiting.cost_ahead(ticket),
        };
        let tokens = ahead.saturating_add(u64::from(cost));
        let wait = bucket.gcra.wait(now, tokens);
        in_time(wait).map_or(Step::GiveUp, |_| Step::Wait(until))
    }

    /// Returns whether the call is the first one, or would be.
    fn is_first(&self, waiting: &WaitQueue<u64>) -> bool {
        self.ticket == waiting.first().map(|(first, _)| first)
    }

    /// Takes the place, or keeps it.
    fn stay(&mut self, waiting: &mut WaitQueue<u64>, waker: &Waker, wakers: &mut Wakers) {
        let join = || waiting.join(self.cost, self.until);
        let ticket = *self.ticket.get_or_insert_with(join);
        if let Some(until) = waiting.poll(ticket, waker, wakers) {
            *until = self.until;
        }
    }

    /// Gives the place up. Wakes the next call if it was the first place.
    fn leave(&mut self, waiting: &mut WaitQueue<u64>, wakers: &mut Wakers) {
        let is_first = self.is_first(waiting);
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        waiting.leave(ticket, wakers);
        if is_first {
            waiting.wake(1, wakers);
        }
    }
}
