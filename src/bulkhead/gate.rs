//! Who may enter, and who has to wait. The time is an argument.
//!
//! While nobody waits, entering and leaving are one atomic operation each. Who finds no room puts himself
//! into the queue under its lock, and counts himself in the word there; who leaves and sees that
//! somebody waits takes the lock and hands the permit on. The word orders the two: either the one who
//! leaves sees the one who waits, or the one who wants to wait sees the room. And while somebody waits
//! nobody else enters, so a permit cannot be snatched on its way.

use std::task::{Poll, Waker};

use tokio::time::Instant;

use super::queue::{Bounds, Queue, QueueOrder, Removed, Ticket, Verdict};
use super::word::Word;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::wake::Wakers;

#[derive(Debug)]
pub(super) struct Gate {
    // All operations on it that change something are sequentially consistent, so that one who sets a level
    // to zero and one who shows it cannot both miss each other; see `Shown::publish`.
    word: AtomicU64,
    queue: Mutex<Queue>,
    /// How many may wait.
    length: usize,
}

/// What became of a call that found no free permit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// There was one after all.
    Entered(Word),
    /// It waits, until this instant at the latest.
    Queued(Ticket, Instant),
    /// There is no place in the queue.
    Full,
}

impl Gate {
    pub(super) fn new(limit: usize, length: usize, bounds: Bounds, order: QueueOrder) -> Self {
        Self {
            word: AtomicU64::new(Word::idle(limit).bits()),
            queue: Mutex::new(Queue::new(bounds, order)),
            length,
        }
    }

    #[inline]
    pub(super) fn word(&self) -> Word {
        Word::from_bits(self.word.load(Ordering::SeqCst))
    }

    /// How many may wait.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Takes a permit, if there is one that nobody waits for.
    #[inline]
    pub(super) fn try_enter(&self) -> Option<Word> {
        self.change(|word| word.is_free().then(|| word.entered()))
            .ok()
    }

    /// Enters whatever the limit is. `None` if that is beyond counting.
    pub(super) fn enter_anyway(&self) -> Option<Word> {
        self.change(|word| (!word.is_at_its_end()).then(|| word.entered()))
            .ok()
    }

    /// Gives a permit back, to the one whose turn it is. Returns what was before.
    #[inline]
    pub(super) fn leave(&self, now: impl Fn() -> Instant) -> Word {
        let before = self.word.fetch_sub(Word::ENTERED, Ordering::SeqCst);
        let before = Word::from_bits(before);
        if before.waiting() > 0 {
            self.hand_on(now);
        }
        before
    }

    /// Waits for a permit, if there is a place in the queue.
    pub(super) fn queue(&self, now: Instant, deadline: Option<Instant>) -> Turn {
        if self.length == 0 {
            return Turn::Full;
        }
        let mut queue = lock(&self.queue);
        let changed = self.change(|word| {
            if word.is_free() {
                Some(word.entered())
            } else {
                (word.waiting() < self.length).then(|| word.queued())
            }
        });
        match changed {
            Ok(word) if word.waiting() == 0 => Turn::Entered(word),
            Ok(_) => {
                let (ticket, due) = queue.insert(now, deadline);
                Turn::Queued(ticket, due)
            }
            Err(_) => Turn::Full,
        }
    }

    /// Says how the wait of a call has ended, if it has.
    pub(super) fn poll(&self, ticket: Ticket, waker: &Waker) -> Poll<Verdict> {
        let asked = lock(&self.queue).ask(ticket, waker);
        match asked {
            Ok(verdict) => Poll::Ready(verdict),
            Err(_former_waker) => Poll::Pending,
        }
    }

    /// Ends the wait of a call. Returns how it had ended before, if it had.
    pub(super) fn give_up(&self, ticket: Ticket) -> Option<Verdict> {
        let removed = {
            let mut queue = lock(&self.queue);
            let removed = queue.remove(ticket);
            if let Some(Removed::Waiting(_)) = removed {
                self.word.fetch_sub(Word::QUEUED, Ordering::SeqCst);
            }
            removed
        };
        match removed {
            Some(Removed::Told(verdict)) => Some(verdict),
            Some(Removed::Waiting(_)) | None => None,
        }
    }

    /// Sets the limit. If it is higher than before, as many enter as fit.
    pub(super) fn set_limit(&self, limit: usize, now: Instant) {
        let changed = self.change(|word| Some(word.with_limit(limit)));
        if changed.is_ok() {
            self.hand_on(|| now);
        }
    }

    /// Sets the limit. If it is no longer what it was when that was decided, a higher one is dropped, and a lower
    /// one is as much lower than the limit there is, but not lower than was decided.
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

    /// Gives the free permits to those who wait.
    #[cold]
    fn hand_on(&self, now: impl Fn() -> Instant) {
        let mut woken = Wakers::default();
        loop {
            let word = self.word();
            if word.waiting() == 0 || !word.has_room() {
                break;
            }
            woken.extend(self.grant(now()));
        }
        // Without the lock, which they will take; and when nothing is left to be done that a panic could prevent.
        woken.wake();
    }

    /// Gives a free permit to the one whose turn it is, or tells him that he has waited too long.
    fn grant(&self, now: Instant) -> Option<Waker> {
        let mut queue = lock(&self.queue);
        let (ticket, verdict) = queue.first(now)?;
        let changed = self.change(|word| match verdict {
            Verdict::Granted => word.has_room().then(|| word.unqueued().entered()),
            Verdict::Expired => Some(word.unqueued()),
        });
        changed.ok()?;
        queue.tell(ticket, verdict)
    }

    /// Changes the word as long as `next` says to what. Returns what it is then, or was when not.
    #[inline]
    fn change(&self, next: impl Fn(Word) -> Option<Word>) -> Result<Word, Word> {
        let mut old = Word::from_bits(self.word.load(Ordering::Acquire));
        while let Some(new) = next(old) {
            let changed = self.word.compare_exchange_weak(
                old.bits(),
                new.bits(),
                Ordering::SeqCst,
                Ordering::Relaxed,
            );
            match changed {
                Ok(_) => return Ok(new),
                Err(now) => old = Word::from_bits(now),
            }
        }
        Err(old)
    }
}
