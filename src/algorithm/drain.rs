//! Calls in flight, counted so that a drain knows when the last of them is over.
//!
//! Each thread counts in a word of its own, in effect, so that calls write no common word. A call may end on another
//! thread than the one on which it began: a single word says nothing, and the sum of all words is the number of calls.
//!
//! A drain marks every word. Each access of a call is one addition, which also tells it of the mark:
//!
//! - *Call that begins*: adds one. If the word was marked, it takes the one back from the same word, and is refused.
//! - *Call that ends*: takes one from a word. If the word was marked, it wakes the waiter. So does a call that is refused.
//! - *Drain*: marks all words, then stores `is_draining` (`Release`).
//! - *Waiter*: registers, loads `is_draining` (`Acquire`), then reads all words.
//!
//! Every admitted call has added its one before its word was marked, so a waiter that reads the words after the marks sees the
//! beginning of every call. It may miss an end, or the end of a refused call, but such an end comes after a mark and wakes it. So a
//! sum of 0 proves that every admitted call is over, although the sum is no snapshot.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Bit of a word that a drain sets. A carry or a borrow of the number above it leaves it alone.
const MARK: u64 = 1;
/// One call.
const CALL: u64 = 2;

/// The calls in flight, and whether they are the last.
pub(crate) struct InFlight {
    /// As many as a power of two.
    stripes: Box<[Stripe]>,
    is_draining: AtomicU32,
}

/// The beginnings less the ends of some threads, in units of [`CALL`] and modulo 2⁶³, and the mark. Aligned so that stripes do
/// not share a cache line (two of them, as they are fetched in pairs).
#[repr(align(128))]
struct Stripe(AtomicU64);

impl InFlight {
    /// Counts in so many words, a power of two.
    pub(crate) fn new(stripes: usize) -> Self {
        Self {
            stripes: (0..stripes).map(|_| Stripe(AtomicU64::new(0))).collect(),
            is_draining: AtomicU32::new(0),
        }
    }

    #[inline]
    fn word(&self, thread: usize) -> &AtomicU64 {
        &self.stripes[thread & (self.stripes.len() - 1)].0
    }

    /// Begins a call. Returns `false` if it is refused by a drain, whose waiter is to be woken.
    #[inline]
    #[must_use]
    pub(crate) fn begin(&self, thread: usize) -> bool {
        let word = self.word(thread);
        let is_refused = word.fetch_add(CALL, Ordering::Relaxed) & MARK != 0;
        if is_refused {
            word.fetch_sub(CALL, Ordering::Relaxed);
        }
        !is_refused
    }

    /// Ends a call. Returns whether the waiter of a drain is to be woken.
    #[inline]
    #[must_use]
    pub(crate) fn end(&self, thread: usize) -> bool {
        // Whoever sees that the call is over sees its work.
        self.word(thread).fetch_sub(CALL, Ordering::Release) & MARK != 0
    }

    /// Admits no further call.
    pub(crate) fn drain(&self) {
        for stripe in &self.stripes {
            stripe.0.fetch_or(MARK, Ordering::Relaxed);
        }
        self.is_draining.store(1, Ordering::Release);
    }

    #[inline]
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire) != 0
    }

    /// Returns the number of calls in flight. After [`is_draining`](Self::is_draining) it is 0 only if every admitted call is over.
    pub(crate) fn count(&self) -> u64 {
        let words = self.stripes.iter();
        let words = words.map(|stripe| stripe.0.load(Ordering::Acquire) & !MARK);
        let sum = words.fold(0, u64::wrapping_add);
        // Before a drain, of a call that moves from one word to another the end alone may be seen.
        if sum > u64::MAX / 2 { 0 } else { sum / CALL }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_may_end_on_another_thread_than_the_one_on_which_it_began() {
        let calls = InFlight::new(4);
        for thread in 0..8 {
            assert!(calls.begin(thread));
        }
        assert_eq!(calls.count(), 8);
        for left in (0..8).rev() {
            assert!(!calls.end(3));
            assert_eq!(calls.count(), left);
        }
    }

    #[test]
    fn a_drain_refuses_what_begins_and_waits_for_what_has_begun() {
        let calls = InFlight::new(2);
        assert!(calls.begin(0) && calls.begin(0));
        assert!(!calls.is_draining());
        calls.drain();
        assert!(calls.is_draining());
        assert!(!calls.begin(0) && !calls.begin(1));
        assert_eq!(calls.count(), 2);
        // The number of the other word is negative, which leaves its mark alone.
        assert!(calls.end(1), "the waiter is woken");
        assert!(!calls.begin(1));
        assert_eq!(calls.count(), 1);
        assert!(calls.end(1));
        assert_eq!(calls.count(), 0);
    }
}
