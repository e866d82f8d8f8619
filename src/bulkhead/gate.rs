//! Admits calls up to the limit and queues the others. Time is an argument.
//!
//! While no call waits, entering and leaving are one atomic operation each. A call that finds no free permit locks the
//! queue, counts itself in the word and joins the queue. A leaving call that sees a waiting call in the word locks the
//! queue and hands its permit on. Both change the word in one sequentially consistent operation, which orders them:
//! either the leaving call sees the waiting one, or the call that is about to wait sees the free permit. While a call
//! waits, no new call enters, so no other call can take a permit that is handed on.

use std::task::{Poll, Waker};

use tokio::time::Instant;

use super::queue::{Bounds, QueueOrder, TimedQueue, Verdict};
use super::word::Word;
use crate::algorithm::queue::Ticket;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, lock};
use crate::wake::locked;

#[derive(Debug)]
pub(super) struct Gate {
    // All operations that change it are sequentially consistent, so that a thread that sets a level to zero and a
    // thread that publishes it cannot miss each other; see `Shown::publish`.
    word: AtomicU64,
    queue: Mutex<TimedQueue>,
    /// The greatest number of calls that may wait. Changed under the lock of the queue.
    length: AtomicU32,
}

/// The result for a call that found no free permit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The call found a free permit under the lock.
    Entered(Word),
    /// The call waits, until this instant at the latest.
    Queued(Ticket, Instant),
    /// There is no place in the queue.
    Full,
}

impl Gate {
    pub(super) fn new(limit: usize, length: usize, bounds: Bounds, order: QueueOrder) -> Self {
        Self {
            word: AtomicU64::new(Word::idle(limit).0),
            queue: Mutex::new(TimedQueue::new(bounds, order)),
            length: AtomicU32::new(length as u32),
        }
    }

    /// Returns the greatest number of calls that may wait.
    pub(super) fn length(&self) -> usize {
        self.length.load(Ordering::Relaxed) as usize
    }

    /// Changes the queue. Calls that wait keep their places and the ends of their waits.
    pub(super) fn adjust(&self, length: usize, bounds: Bounds, order: QueueOrder) {
        let mut queue = lock(&self.queue);
        queue.adjust(bounds, order);
        self.length.store(length as u32, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn word(&self) -> Word {
        Word(self.word.load(Ordering::SeqCst))
    }

    /// Takes a permit, if one is free and no call waits for it.
    #[inline]
    pub(super) fn try_enter(&self) -> Option<Word> {
        self.change(|word| word.is_free().then(|| word.entered()))
            .ok()
    }

    /// Enters regardless of the limit. `None` if the word cannot count more calls.
    pub(super) fn enter_anyway(&self) -> Option<Word> {
        self.change(|word| (!word.is_at_its_end()).then(|| word.entered()))
            .ok()
    }

    /// Gives a permit back, or to the call whose turn it is. Returns the former word.
    #[inline]
    pub(super) fn leave(&self, now: impl Fn() -> Instant) -> Word {
        let before = self.word.fetch_sub(Word::ENTERED, Ordering::SeqCst);
        let before = Word(before);
        if before.waiting() > 0 {
            self.hand_on(now);
        }
        before
    }

    /// Waits for a permit, if there is a place in the queue.
    pub(super) fn queue(&self, now: Instant, deadline: Option<Instant>) -> Turn {
        if self.length() == 0 {
            return Turn::Full;
        }
        let mut queue = lock(&self.queue);
        let length = self.length();
        let changed = self.change(|word| {
            if word.is_free() {
                Some(word.entered())
            } else {
                (word.waiting() < length).then(|| word.queued())
            }
        });
        match changed {
            Ok(word) if word.waiting() == 0 => Turn::Entered(word),
            Ok(_) => {
                let (ticket, due) = queue.join(now, deadline);
                Turn::Queued(ticket, due)
            }
            Err(_) => Turn::Full,
        }
    }

    /// Returns the result of the wait of a call if the wait has ended; else stores `waker`, which is woken at its end.
    pub(super) fn poll(&self, ticket: Ticket, waker: &Waker) -> Poll<Verdict> {
        locked(&self.queue, |queue, wakers| {
            match queue.waiting.poll(ticket, waker, wakers) {
                Some(_) => Poll::Pending,
                None => Poll::Ready(queue.tell(ticket)),
            }
        })
    }

    /// Ends the wait of a call. Returns the result of the wait, if it had ended before.
    pub(super) fn give_up(&self, ticket: Ticket) -> Option<Verdict> {
        locked(&self.queue, |queue, wakers| {
            if queue.waiting.leave(ticket, wakers).is_none() {
                return Some(queue.tell(ticket));
            }
            self.word.fetch_sub(Word::QUEUED, Ordering::SeqCst);
            None
        })
    }

    /// Sets the limit. If the limit grows, waiting calls enter up to the new limit.
    pub(super) fn set_limit(&self, limit: usize, now: Instant) {
        let changed = self.change(|word| Some(word.with_limit(limit)));
        if changed.is_ok() {
            self.hand_on(|| now);
        }
    }

    /// Sets the limit `to`, which was decided for the limit `from`. If the limit has changed in the meantime, an
    /// increase is ignored. A decrease lowers the present limit by the same amount, but not below `to`.
    pub(super) fn change_limit(&self, from: usize, to: usize, now: Instant) {
        let changed = self.change(|word| {
            let limit = word.limit();
            let to = match from.checked_sub(to) {
                _ if limit == from => to,
                Some(less) if limit > to => to.max(limit.saturating_sub(less)),
                _ => return None,
            };
            Some(word.with_limit(to))
        });
        if changed.is_ok() {
            self.hand_on(|| now);
        }
    }

    /// Gives the free permits to the waiting calls. Ends the wait of a call that has waited too long when its turn
    /// comes.
    #[cold]
    fn hand_on(&self, now: impl Fn() -> Instant) {
        self.admit_while(Word::has_room, now);
    }

    /// Gives permits to all waiting calls, regardless of the limit.
    pub(super) fn admit_all(&self, now: Instant) {
        self.admit_while(|word| !word.is_at_its_end(), || now);
    }

    fn admit_while(&self, may_enter: impl Fn(Word) -> bool, now: impl Fn() -> Instant) {
        locked(&self.queue, |queue, wakers| {
            let now = now();
            while let Some((ticket, verdict)) = queue.next(now) {
                let changed = self.change(|word| {
                    let left = may_enter(word).then(|| word.unqueued());
                    match verdict {
                        Verdict::Granted => left.map(Word::entered),
                        Verdict::Expired => left,
                    }
                });
                if changed.is_err() {
                    break;
                }
                queue.end(ticket, verdict, wakers);
            }
        });
    }

    /// Changes the word to what `next` returns. Returns the new word, or the old one if `next` returned `None`.
    #[inline]
    fn change(&self, next: impl Fn(Word) -> Option<Word>) -> Result<Word, Word> {
        let mut old = Word(self.word.load(Ordering::Acquire));
        while let Some(new) = next(old) {
            let changed =
                self.word
                    .compare_exchange_weak(old.0, new.0, Ordering::SeqCst, Ordering::Relaxed);
            match changed {
                Ok(_) => return Ok(new),
                Err(now) => old = Word(now),
            }
        }
        Err(old)
    }
}
