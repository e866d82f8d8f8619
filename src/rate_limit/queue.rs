//! Those who wait for tokens, in the order in which they came.
//!
//! Only the first one takes tokens and knows when there will be enough; when it leaves, for whatever reason, it wakes
//! the next. So each waiter is woken once for its turn, and one that goes away leaves no gap.

use std::collections::BTreeMap;
use std::mem;
use std::task::Waker;

use crate::algorithm::gcra::Taken;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::wake::{Wakers, remember};

/// What they wait for, as it is at one moment.
pub(super) trait Tokens {
    /// Takes so many tokens, all or none.
    fn take(&self, cost: u32) -> Taken;

    /// The nanoseconds until so many could have been taken.
    fn wait(&self, tokens: u64) -> u64;

    /// The most that one call can take.
    fn burst(&self) -> u32;
}

/// The waiters of one limit.
#[derive(Debug)]
pub(super) struct Queue {
    line: Mutex<Line>,
    /// How many there are, for those who come and need not wait, and for the gauge: see `Shown::publish`.
    waiting: AtomicU64,
}

#[derive(Debug, Default)]
struct Line {
    waiters: BTreeMap<u64, Waiter>,
    next: u64,
    /// What all of them together will take.
    cost: u64,
}

#[derive(Debug)]
struct Waiter {
    cost: u32,
    until: u64,
    waker: Option<Waker>,
}

/// A place in the queue, or none yet. Times are nanoseconds of the clock of the limit.
#[derive(Debug)]
pub(super) struct Place {
    ticket: Option<u64>,
    pub(super) cost: u32,
    /// A turn that comes later is of no use.
    pub(super) until: u64,
}

/// What a waiter has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Step {
    /// It has its tokens, and no place any more.
    Go,
    /// Its turn will not come in time. It has no place any more.
    GiveUp,
    /// Come again at this time, or when woken.
    Wait(u64),
}

impl Place {
    pub(super) fn new(cost: u32, until: u64) -> Self {
        Self {
            ticket: None,
            cost,
            until,
        }
    }

    /// Says whether it has been in the queue and not left it.
    pub(super) fn is_taken(&self) -> bool {
        self.ticket.is_some()
    }
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            line: Mutex::new(Line::default()),
            waiting: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub(super) fn len(&self) -> u64 {
        self.waiting.load(Ordering::SeqCst)
    }

    /// What a call would have to wait for, besides its own tokens.
    pub(super) fn cost(&self) -> u64 {
        lock(&self.line).cost
    }

    /// Moves a call on: gives it a place if it has none and needs one, or its tokens if it is its turn.
    pub(super) fn step(
        &self,
        place: &mut Place,
        now: u64,
        waker: &Waker,
        tokens: &impl Tokens,
    ) -> Step {
        let (step, next) = {
            // Dropped after the lock: with its last waker, a task may be dropped that waits here as well.
            let _old;
            let mut line = lock(&self.line);
            let step = line.step(place, now, tokens);
            let next = match step {
                Step::Go | Step::GiveUp => {
                    let (gone, next) = line.leave(place);
                    _old = gone.and_then(|waiter| waiter.waker);
                    next
                }
                Step::Wait(_) => {
                    _old = line.stay(place, waker);
                    None
                }
            };
            self.publish(&line);
            (step, next)
        };
        wake(next);
        step
    }

    /// Leaves without having had a turn.
    pub(super) fn leave(&self, place: &mut Place) {
        let (_gone, next) = {
            let mut line = lock(&self.line);
            let left = line.leave(place);
            self.publish(&line);
            left
        };
        wake(next);
    }

    /// After the limit has changed: sends those away whose turn will not come in time, and lets the first one look
    /// again.
    pub(super) fn reconsider(&self, now: u64, tokens: &impl Tokens) {
        let woken = {
            // Locked even if it looks empty: somebody may be about to take a place by what was true before.
            let mut line = lock(&self.line);
            let woken = line.reconsider(now, tokens);
            self.publish(&line);
            woken
        };
        woken.wake();
    }

    fn publish(&self, line: &Line) {
        let waiting = line.waiters.len() as u64;
        self.waiting.store(waiting, Ordering::SeqCst);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Line {
    fn step(&self, place: &Place, now: u64, tokens: &impl Tokens) -> Step {
        let Place { cost, until, .. } = *place;
        let first = self.waiters.first_key_value().map(|(ticket, _)| *ticket);
        let in_time = |wait: u64| now.checked_add(wait).filter(|at| *at <= until);
        if first == place.ticket {
            return match tokens.take(cost) {
                Taken::Yes => Step::Go,
                Taken::Early(wait) => in_time(wait).map_or(Step::GiveUp, Step::Wait),
                Taken::TooCostly | Taken::Stale => Step::GiveUp,
            };
        }
        let ahead = match place.ticket {
            None => self.cost,
            Some(ticket) => match self.waiters.get(&ticket) {
                // It had to go.
                None => return Step::GiveUp,
                Some(_) if now >= until => return Step::GiveUp,
                Some(waiter) if waiter.until <= until => return Step::Wait(until),
                // It has less time than when it came.
                Some(_) => {
                    let ahead = self.waiters.range(..ticket);
                    ahead.map(|(_, waiter)| u64::from(waiter.cost)).sum()
                }
            },
        };
        let wait = tokens.wait(ahead.saturating_add(u64::from(cost)));
        match in_time(wait) {
            Some(_) if cost <= tokens.burst() && now < until => Step::Wait(until),
            _ => Step::GiveUp,
        }
    }

    /// Takes a place, or keeps it. Returns the waker that is no longer needed.
    fn stay(&mut self, place: &mut Place, waker: &Waker) -> Option<Waker> {
        let Place { cost, until, .. } = *place;
        let ticket = *place.ticket.get_or_insert_with(|| {
            let ticket = self.next;
            self.next += 1;
            self.cost += u64::from(cost);
            let waiter = Waiter {
                cost,
                until,
                waker: None,
            };
            self.waiters.insert(ticket, waiter);
            ticket
        });
        let waiter = self.waiters.get_mut(&ticket)?;
        waiter.until = until;
        remember(&mut waiter.waker, waker)
    }

    /// Gives a place up. Returns who had it, and who is to be woken: the next, if it was the first.
    fn leave(&mut self, place: &mut Place) -> (Option<Waiter>, Option<Waker>) {
        let Some(ticket) = place.ticket.take() else {
            return (None, None);
        };
        let first = self.waiters.first_key_value().map(|(ticket, _)| *ticket);
        let Some(gone) = self.waiters.remove(&ticket) else {
            return (None, None);
        };
        self.cost -= u64::from(gone.cost);
        let next = match self.waiters.first_entry() {
            Some(mut next) if first == Some(ticket) => next.get_mut().waker.take(),
            _ => None,
        };
        (Some(gone), next)
    }

    fn reconsider(&mut self, now: u64, tokens: &impl Tokens) -> Wakers {
        let (mut woken, burst) = (Wakers::default(), tokens.burst());
        let mut ahead = 0;
        for (ticket, mut waiter) in mem::take(&mut self.waiters) {
            let cost = u64::from(waiter.cost);
            let at = now.checked_add(tokens.wait(ahead + cost));
            let stays = waiter.cost <= burst && at.is_some_and(|at| at <= waiter.until);
            if !stays || self.waiters.is_empty() {
                woken.extend(waiter.waker.take());
            }
            if stays {
                ahead += cost;
                self.waiters.insert(ticket, waiter);
            }
        }
        self.cost = ahead;
        woken
    }
}
