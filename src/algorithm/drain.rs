//! Count of the calls in flight, which shows a drain when the last call has ended.
//!
//! In effect, each thread counts in its own word, so that threads do not share a word. A call may end on another thread
//! than it began. The sum of all words is therefore the number of calls, and a single word means nothing.
//!
//! A drain marks every word. Each access of a call is one addition, which also returns the mark:
//!
//! - *Call that begins*: adds one. If the word was marked, the call subtracts one from the same word and is refused.
//! - *Call that ends*: subtracts one from a word. If the word was marked, it wakes the waiter. A refused call does,
//!   too.
//! - *Drain*: marks all words, then sets `is_draining` by a swap (`AcqRel`), which shows the first drain.
//! - *Waiter*: registers, loads `is_draining` (`Acquire`), then reads all words.
//!
//! Every admitted call added one before its word was marked. A waiter reads the words after the marks, so it sees the
//! beginning of every call. It may miss the end of an admitted or a refused call, but such an end comes after a mark
//! and wakes it. Therefore a sum of 0 proves that every admitted call has ended, although the sum is no snapshot.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Bit of a word that a drain sets. The number is above it, so its carries and borrows do not change the bit.
const MARK: u64 = 1;
/// One call.
const CALL: u64 = 2;

/// The calls in flight, and the state of the drain.
pub(crate) struct InFlight {
    /// Their number is a power of two.
    stripes: Box<[Stripe]>,
    is_draining: AtomicU32,
}

/// Calls that began minus calls that ended, on some threads, in units of [`CALL`] and modulo 2⁶³; and the mark. The
/// alignment keeps two stripes out of one pair of cache lines, because lines are fetched in pairs.
#[repr(align(128))]
struct Stripe(AtomicU64);

impl InFlight {
    /// Makes a count with this number of words, a power of two.
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

    /// Begins a call. Returns `false` if a drain refuses it; the caller must then wake the waiter.
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

    /// Ends a call. Returns whether the caller must wake the waiter of a drain.
    #[inline]
    #[must_use]
    pub(crate) fn end(&self, thread: usize) -> bool {
        // A thread that sees the end of the call also sees its work.
        self.word(thread).fetch_sub(CALL, Ordering::Release) & MARK != 0
    }

    /// Refuses all further calls. Returns whether this is the first time.
    pub(crate) fn drain(&self) -> bool {
        for stripe in &self.stripes {
            stripe.0.fetch_or(MARK, Ordering::Relaxed);
        }
        self.is_draining.swap(1, Ordering::AcqRel) == 0
    }

    #[inline]
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire) != 0
    }

    /// Returns the number of calls in flight. After [`is_draining`](Self::is_draining) it is 0 only if every admitted
    /// call is over.
    pub(crate) fn count(&self) -> u64 {
        let words = self.stripes.iter();
        let words = words.map(|stripe| stripe.0.load(Ordering::Acquire) & !MARK);
        let sum = words.fold(0, u64::wrapping_add);
        // Before a drain, this sum may contain the end of a call but not its beginning on another thread.
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
        assert!(calls.drain() && !calls.drain(), "it begins once");
        assert!(calls.is_draining());
        assert!(!calls.begin(0) && !calls.begin(1));
        assert_eq!(calls.count(), 2);
        // The number in the other word is negative, which does not change its mark.
        assert!(calls.end(1), "the waiter is woken");
        assert!(!calls.begin(1));
        assert_eq!(calls.count(), 1);
        assert!(calls.end(1));
        assert_eq!(calls.count(), 0);
    }
}
