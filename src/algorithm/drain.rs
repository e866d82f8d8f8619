//! Calls in flight, counted so that a drain knows when the last of them is over.
//!
//! Each thread counts in a word of its own, in effect: calls touch no common word that is written. A call may end on another
//! thread than the one on which it began, so a single word says nothing, and the sum of all words is the number of calls.
//!
//! The sum is no snapshot, and yet a sum of 0 during a drain proves that every admitted call is over. Call and drain access two
//! places in opposite orders, all accesses are sequentially consistent:
//!
//! - *Call that begins*: adds one to a word, then reads `is_draining`. If a drain has begun, it takes the one back from the same
//!   word and is refused.
//! - *Drain*: sets `is_draining`, then reads the words.
//!
//! So the drain sees the beginning of every call that was admitted. It may miss an end, and then reads again:
//!
//! - *Call that ends, or is refused*: takes one from a word, then reads `is_draining`. If a drain has begun, its waiter is woken.
//! - *Waiter*: registers, then reads the words.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The calls in flight, and whether they are the last.
pub(crate) struct InFlight {
    /// As many as a power of two.
    stripes: Box<[Stripe]>,
    is_draining: AtomicU32,
}

/// The beginnings less the ends of some threads, modulo 2⁶⁴. Aligned so that stripes do not share a cache line (two of them, as
/// they are fetched in pairs).
#[repr(align(128))]
struct Stripe(AtomicU64);

impl InFlight {
    /// `stripes` is a power of two.
    pub(crate) fn new(stripes: usize) -> Self {
        Self {
            stripes: (0..stripes).map(|_| Stripe(AtomicU64::new(0))).collect(),
            is_draining: AtomicU32::new(0),
        }
    }

    fn stripe(&self, thread: usize) -> &AtomicU64 {
        &self.stripes[thread & (self.stripes.len() - 1)].0
    }

    /// Begins a call. Returns `false` if it is refused, because a drain has begun, whose waiter is to be woken.
    #[inline]
    #[must_use]
    pub(crate) fn begin(&self, thread: usize) -> bool {
        let stripe = self.stripe(thread);
        stripe.fetch_add(1, Ordering::SeqCst);
        let is_admitted = !self.is_draining();
        if !is_admitted {
            stripe.fetch_sub(1, Ordering::SeqCst);
        }
        is_admitted
    }

    /// Ends a call. Returns whether a drain has begun, whose waiter is to be woken.
    #[inline]
    #[must_use]
    pub(crate) fn end(&self, thread: usize) -> bool {
        self.stripe(thread).fetch_sub(1, Ordering::SeqCst);
        self.is_draining()
    }

    /// Admits no further call.
    pub(crate) fn drain(&self) {
        self.is_draining.store(1, Ordering::SeqCst);
    }

    #[inline]
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::SeqCst) != 0
    }

    /// Returns the number of calls in flight. During a drain it is 0 only if every admitted call is over.
    pub(crate) fn count(&self) -> u64 {
        let words = self.stripes.iter();
        let words = words.map(|stripe| stripe.0.load(Ordering::SeqCst));
        let sum = words.fold(0, u64::wrapping_add);
        // Outside a drain, of a call that moves from one word to another the end alone may be seen.
        if sum > u64::MAX / 2 { 0 } else { sum }
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
        for _ in 0..8 {
            assert!(!calls.end(3));
        }
        assert_eq!(calls.count(), 0);
    }

    #[test]
    fn a_drain_refuses_what_begins_and_waits_for_what_has_begun() {
        let calls = InFlight::new(2);
        assert!(calls.begin(0));
        calls.drain();
        assert!(!calls.begin(1));
        assert_eq!(calls.count(), 1);
        assert!(calls.end(1), "its waiter is woken");
        assert_eq!(calls.count(), 0);
    }
}
