//! The state of a bulkhead in one atomic word.

use crate::debug::debug_fields;

/// The numbers of calls in flight and of waiting calls, and the limit. One atomic operation reads all three.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

/// Enough for any process, also if the bulkhead only observes.
const IN_FLIGHT_BITS: u32 = 24;
const LIMIT_BITS: u32 = 20;
const WAITING_BITS: u32 = 20;

const LIMIT_AT: u32 = IN_FLIGHT_BITS;
const WAITING_AT: u32 = IN_FLIGHT_BITS + LIMIT_BITS;

/// The highest limit and the longest queue that can be set.
pub(super) const MAX: usize = 1_000_000;

const _: () = assert!(IN_FLIGHT_BITS + LIMIT_BITS + WAITING_BITS == u64::BITS);
const _: () = assert!(MAX < 1 << LIMIT_BITS && MAX < 1 << WAITING_BITS);

impl Word {
    /// One call in flight.
    pub(super) const ENTERED: u64 = 1;
    /// One call that waits.
    pub(super) const QUEUED: u64 = 1 << WAITING_AT;

    /// Makes a word without calls in flight or waiting calls.
    pub(super) fn idle(limit: usize) -> Self {
        debug_assert!(limit <= MAX);
        Self((limit as u64) << LIMIT_AT)
    }

    #[inline]
    pub(super) fn in_flight(self) -> usize {
        (self.0 & ((1 << IN_FLIGHT_BITS) - 1)) as usize
    }

    #[inline]
    pub(super) fn limit(self) -> usize {
        ((self.0 >> LIMIT_AT) & ((1 << LIMIT_BITS) - 1)) as usize
    }

    #[inline]
    pub(super) fn waiting(self) -> usize {
        (self.0 >> WAITING_AT) as usize
    }

    /// Returns whether there is a free permit for the call whose turn it is.
    #[inline]
    pub(super) fn has_room(self) -> bool {
        self.in_flight() < self.limit()
    }

    /// Returns whether a new call may take a permit: one is free, and no call waits for it.
    #[inline]
    pub(super) fn is_free(self) -> bool {
        self.has_room() && self.waiting() == 0
    }

    /// Returns whether the count of the calls in flight is full.
    pub(super) fn is_at_its_end(self) -> bool {
        self.in_flight() + 1 == 1 << IN_FLIGHT_BITS
    }

    #[inline]
    pub(super) fn entered(self) -> Self {
        Self(self.0 + Self::ENTERED)
    }

    #[inline]
    pub(super) fn left(self) -> Self {
        Self(self.0 - Self::ENTERED)
    }

    pub(super) fn queued(self) -> Self {
        Self(self.0 + Self::QUEUED)
    }

    pub(super) fn unqueued(self) -> Self {
        Self(self.0 - Self::QUEUED)
    }

    pub(super) fn with_limit(self, limit: usize) -> Self {
        debug_assert!(limit <= MAX);
        let others = self.0 & !(((1 << LIMIT_BITS) - 1) << LIMIT_AT);
        Self(others | (limit as u64) << LIMIT_AT)
    }
}

debug_fields!(Word { in_flight(), limit(), waiting() });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_word_do_not_touch() {
        let mut word = Word::idle(MAX);
        assert_eq!(
            (word.in_flight(), word.limit(), word.waiting()),
            (0, MAX, 0)
        );
        for _ in 0..3 {
            word = word.entered().queued();
        }
        word = Word(word.0 - Word::ENTERED - Word::QUEUED).with_limit(7);
        assert_eq!((word.in_flight(), word.limit(), word.waiting()), (2, 7, 2));
        assert!(word.has_room() && !word.is_free() && word.unqueued().unqueued().is_free());
        let most = Word((1 << IN_FLIGHT_BITS) - 1);
        assert!(most.is_at_its_end() && !Word(most.0 - 1).is_at_its_end());
    }
}
