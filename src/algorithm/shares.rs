//! The division of the slots between keys that are new and keys in regular use.
//!
//! A key in regular use is in the segment [`Protected`](Segment::Protected). Three quarters of the slots are reserved
//! for such keys: a new key takes the slot of such a key only while there are more of them, or if the key has not been
//! used for a minute. A flood of keys with a single use therefore does not evict most keys in regular use, and a
//! quarter of the slots is always available to new keys. A new key can take any free slot, and the slot of any other
//! new key.

use crate::sync::{AtomicU64, Ordering};
use std::time::Duration;

use super::lru::Segment;

/// A protected key that has not been used for this long has no reserved slot. Longer than the time between two calls of
/// a key in regular use.
const RESERVED_FOR: Duration = Duration::from_secs(60);

/// One protected key. The unit 1 is one key on probation.
const PROTECTED: u64 = 1 << 32;

/// Counts the taken slots, and decides which keys give up their slots.
///
/// The counts are one word, so that slots are never taken twice. A decision may be outdated when it is applied, so
/// concurrent calls may take a few of the reserved slots.
#[derive(Debug)]
pub(crate) struct Shares {
    slots: u32,
    reserved: u32,
    /// The protected keys in the upper half, those on probation in the lower half.
    counts: AtomicU64,
}

impl Shares {
    pub(crate) fn new(slots: u32) -> Self {
        Self {
            slots,
            reserved: slots - slots.div_ceil(4),
            counts: AtomicU64::new(0),
        }
    }

    /// Returns the number of slots that are taken.
    pub(crate) fn taken(&self) -> u32 {
        sum(self.counts.load(Ordering::Relaxed)) as u32
    }

    /// Takes a free slot for a new key. Returns whether there was one.
    pub(crate) fn take(&self) -> bool {
        let (counts, order) = (&self.counts, Ordering::Relaxed);
        let take = |counts| (sum(counts) < u64::from(self.slots)).then_some(counts + 1);
        counts.fetch_update(order, order, take).is_ok()
    }

    /// Gives back the slot of a key.
    pub(crate) fn give_back(&self, segment: Segment) {
        let count = match segment {
            Segment::Probation => 1,
            Segment::Protected => PROTECTED,
        };
        self.counts.fetch_sub(count, Ordering::Relaxed);
    }

    /// Notes that a new key has taken the slot of one of this segment.
    pub(crate) fn taken_over(&self, from: Segment) {
        if from == Segment::Protected {
            self.counts.fetch_sub(PROTECTED - 1, Ordering::Relaxed);
        }
    }

    /// Notes that a key is protected from now on.
    pub(crate) fn promoted(&self) {
        self.counts.fetch_add(PROTECTED - 1, Ordering::Relaxed);
    }

    /// Returns the segments of the keys whose slots a new key may take, in the order of the search. Each has the time
    /// in nanoseconds before which such a key must have been last used.
    pub(crate) fn victims(&self, now: u64) -> [(Segment, u64); 2] {
        let protected = self.counts.load(Ordering::Relaxed) / PROTECTED;
        let probation = (Segment::Probation, u64::MAX);
        if protected > u64::from(self.reserved) {
            return [(Segment::Protected, u64::MAX), probation];
        }
        let out_of_use = now.saturating_sub(RESERVED_FOR.as_nanos() as u64);
        [probation, (Segment::Protected, out_of_use)]
    }
}

/// Returns the keys of both segments together.
fn sum(counts: u64) -> u64 {
    counts / PROTECTED + counts % PROTECTED
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = RESERVED_FOR.as_nanos() as u64;

    fn shares(slots: u32, probation: u32, protected: u32) -> Shares {
        let shares = Shares::new(slots);
        for taken in 0..probation + protected {
            assert!(shares.take());
            if taken < protected {
                shares.promoted();
            }
        }
        shares
    }

    #[test]
    fn every_slot_is_for_every_key_while_it_is_free() {
        for protected in 0..=8 {
            let shares = shares(8, 8 - protected, protected);
            assert!(!shares.take());
            assert_eq!(shares.taken(), 8);
            if protected < 8 {
                shares.give_back(Segment::Probation);
            } else {
                shares.give_back(Segment::Protected);
            }
            assert_eq!(shares.taken(), 7);
            assert!(shares.take());
        }
    }

    #[test]
    fn new_keys_leave_three_quarters_of_the_slots_to_keys_in_regular_use() {
        let before = |protected| shares(8, 8 - protected, protected).victims(2 * MINUTE);
        let (probation, protected) = (Segment::Probation, Segment::Protected);
        for few in 0..=6 {
            let expected = [(probation, u64::MAX), (protected, MINUTE)];
            assert_eq!(before(few), expected);
        }
        for many in [7, 8] {
            let expected = [(protected, u64::MAX), (probation, u64::MAX)];
            assert_eq!(before(many), expected, "a quarter is for new keys");
        }
    }

    #[test]
    fn a_single_slot_goes_from_key_to_key() {
        let shares = shares(1, 0, 1);
        assert_eq!(shares.victims(0)[0], (Segment::Protected, u64::MAX));
        shares.taken_over(Segment::Protected);
        assert_eq!(shares.victims(0)[0].0, Segment::Probation);
        assert_eq!(shares.taken(), 1);
    }
}
