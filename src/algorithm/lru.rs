//! A map that knows which of its entries was used least recently. Time is an argument.
//!
//! The entries are in two segments, each a list in the order of the last use. A new entry is on *probation*. An entry
//! that is used again after a while is *protected*, so that entries with a single use evict each other, and not entries
//! in regular use. Each operation examines a bounded number of entries, however many there are.
//!
//! Callers pass the hash of a key, so that a call hashes its key once. Each key is stored once: the map leads from a
//! hash to a slot, and slots with the same hash form a list.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::mem;
use std::time::Duration;

/// The age from which a use protects an entry. It is longer than a burst of calls by one key.
pub(crate) const PROMOTE_AFTER: Duration = Duration::from_secs(1);

/// A hasher that returns the given hash of a key.
#[derive(Debug, Default)]
struct Given(u64);

impl Hasher for Given {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        debug_assert!(false, "keys are hashed before");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A part of the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// New entries.
    Probation,
    /// Entries that were used again a while after they were added.
    Protected,
}

/// The end of a list of slots with the same hash.
const NONE: u32 = u32::MAX;

/// The slots of each segment form a ring in the order of their last use. The ring begins and ends at the slot with the
/// number of the segment, which has no content.
#[derive(Debug)]
struct Slot<K, V> {
    /// `None` while the slot is free, and at the end of a ring.
    content: Option<(K, V)>,
    hash: u64,
    /// The next slot with the same hash.
    same_hash: u32,
    /// Time of its last use, in nanoseconds: the end of time at the end of a ring.
    used: u64,
    /// Time at which a use promotes it: never if it is protected.
    promote_at: u64,
    segment: Segment,
    newer: u32,
    older: u32,
}

/// An entry that was removed.
#[derive(Debug, PartialEq)]
#[must_use]
pub(crate) struct Removed<K, V> {
    pub(crate) key: K,
    pub(crate) value: V,
    pub(crate) segment: Segment,
}

/// Entries in the order of their last use.
#[derive(Debug)]
pub(crate) struct SegmentedLru<K, V> {
    /// The first slot of each hash.
    places: HashMap<u64, u32, BuildHasherDefault<Given>>,
    slots: Vec<Slot<K, V>>,
    free: Vec<u32>,
    /// An entry expires when it has not been used for this long.
    idle: u64,
    /// No entry expires before this time.
    due: u64,
}

impl<K: Eq, V> SegmentedLru<K, V> {
    /// Makes an empty map. `idle` is in nanoseconds, like all times.
    pub(crate) fn new(idle: u64) -> Self {
        let end = |segment| Slot {
            content: None,
            hash: 0,
            same_hash: NONE,
            used: u64::MAX,
            promote_at: u64::MAX,
            segment,
            newer: segment as u32,
            older: segment as u32,
        };
        Self {
            places: HashMap::default(),
            slots: vec![end(Segment::Probation), end(Segment::Protected)],
            free: Vec::new(),
            idle,
            due: u64::MAX,
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.slots.len() - 2 - self.free.len()
    }

    #[inline]
    fn find(&self, hash: u64, key: &K) -> Option<u32> {
        let mut place = *self.places.get(&hash)?;
        loop {
            // The end of the list is no slot.
            let slot = self.slots.get(place as usize)?;
            match &slot.content {
                Some((there, _)) if there == key => return Some(place),
                _ => place = slot.same_hash,
            }
        }
    }

    /// Returns the value of a key, without using it.
    pub(crate) fn peek(&self, hash: u64, key: &K) -> Option<&V> {
        self.value(self.find(hash, key)?)
    }

    #[inline]
    fn value(&self, place: u32) -> Option<&V> {
        let (_, value) = self.slots[place as usize].content.as_ref()?;
        Some(value)
    }

    /// Uses a key now. Returns its value, and whether this use has made it protected.
    #[inline]
    pub(crate) fn get(&mut self, hash: u64, key: &K, now: u64) -> Option<(&V, bool)> {
        let place = self.find(hash, key)?;
        let is_promoted = self.slots[place as usize].promote_at <= now;
        if is_promoted {
            self.promote(place);
        }
        self.touch(place, now);
        Some((self.value(place)?, is_promoted))
    }

    #[cold]
    fn promote(&mut self, place: u32) {
        self.unlink(place);
        let slot = &mut self.slots[place as usize];
        (slot.segment, slot.promote_at) = (Segment::Protected, u64::MAX);
        self.link(place);
    }

    /// Adds a key on probation. A key that is there already keeps its value, and is used now. Returns the value of the
    /// key, and the key and value that were not needed.
    pub(crate) fn add(&mut self, hash: u64, key: K, value: V, now: u64) -> (&V, Option<(K, V)>) {
        let (place, spare) = match self.find(hash, &key) {
            Some(place) => {
                self.touch(place, now);
                (place, Some((key, value)))
            }
            None => (self.insert(hash, key, value, now), None),
        };
        let value = self.value(place).expect("it has been found or added");
        (value, spare)
    }

    fn insert(&mut self, hash: u64, key: K, value: V, now: u64) -> u32 {
        let slot = Slot {
            content: Some((key, value)),
            hash,
            same_hash: NONE,
            used: now,
            promote_at: now.saturating_add(PROMOTE_AFTER.as_nanos() as u64),
            segment: Segment::Probation,
            newer: NONE,
            older: NONE,
        };
        let place = self.free.pop().unwrap_or(self.slots.len() as u32);
        match self.slots.get_mut(place as usize) {
            Some(free) => *free = slot,
            None => self.slots.push(slot),
        }
        if let Some(other) = self.places.insert(hash, place) {
            self.slots[place as usize].same_hash = other;
        }
        self.link(place);
        self.due = self.due.min(now.saturating_add(self.idle));
        place
    }

    pub(crate) fn remove(&mut self, hash: u64, key: &K) -> Option<Removed<K, V>> {
        let place = self.find(hash, key)?;
        self.take(place)
    }

    /// Returns whether an entry may have expired.
    #[inline]
    pub(crate) fn is_due(&self, now: u64) -> bool {
        self.due < now
    }

    /// Removes an entry that has expired and `may_go`. It examines at most `candidates` entries. An entry that may not
    /// go counts as used now, so that the next call examines others.
    pub(crate) fn expire(
        &mut self,
        now: u64,
        candidates: usize,
        mut may_go: impl FnMut(&mut V) -> bool,
    ) -> Option<Removed<K, V>> {
        let limit = now.saturating_sub(self.idle);
        let mut removed = None;
        for _ in 0..candidates {
            let segment = self.longest_unused();
            if removed.is_some() || self.oldest_use(segment) >= limit {
                break;
            }
            removed = self.evict(segment, limit, now, &mut 1, &mut may_go);
        }
        let oldest = self.oldest_use(self.longest_unused());
        self.due = oldest.saturating_add(self.idle);
        removed
    }

    /// Returns the segment with the entry that was used least recently.
    fn longest_unused(&self) -> Segment {
        if self.oldest_use(Segment::Probation) <= self.oldest_use(Segment::Protected) {
            Segment::Probation
        } else {
            Segment::Protected
        }
    }

    /// Returns the least recently used entry of a segment, or the end of its ring if there is none.
    fn oldest(&self, segment: Segment) -> u32 {
        self.slots[segment as usize].newer
    }

    /// Returns the last use of the least recently used entry of a segment, or the end of time if there is none.
    fn oldest_use(&self, segment: Segment) -> u64 {
        self.slots[self.oldest(segment) as usize].used
    }

    /// Removes the least recently used entry of a segment that `may_go` and was last used before `limit`.
    ///
    /// It examines at most `candidates` entries, and subtracts the number of examined ones. An entry that may not go
    /// counts as used now, so that the next call examines others.
    pub(crate) fn evict(
        &mut self,
        segment: Segment,
        limit: u64,
        now: u64,
        candidates: &mut usize,
        mut may_go: impl FnMut(&mut V) -> bool,
    ) -> Option<Removed<K, V>> {
        // At most once around the ring: an entry that may not go becomes the newest.
        let last = self.slots[segment as usize].older;
        while *candidates > 0 && self.oldest_use(segment) < limit {
            *candidates -= 1;
            let place = self.oldest(segment);
            let (_, value) = self.slots[place as usize].content.as_mut()?;
            if may_go(value) {
                return self.take(place);
            }
            self.touch(place, now);
            if place == last {
                break;
            }
        }
        None
    }

    fn take(&mut self, place: u32) -> Option<Removed<K, V>> {
        self.unlink(place);
        let slot = &mut self.slots[place as usize];
        let (hash, next, segment) = (slot.hash, slot.same_hash, slot.segment);
        let (key, value) = slot.content.take()?;
        self.free.push(place);
        let first = self.places.get_mut(&hash)?;
        if *first != place {
            let mut before = *first as usize;
            while self.slots[before].same_hash != place {
                before = self.slots[before].same_hash as usize;
            }
            self.slots[before].same_hash = next;
        } else if next == NONE {
            self.places.remove(&hash);
        } else {
            *first = next;
        }
        Some(Removed {
            key,
            value,
            segment,
        })
    }

    #[inline]
    fn touch(&mut self, place: u32, now: u64) {
        let slot = &mut self.slots[place as usize];
        slot.used = now;
        let end = slot.segment as usize;
        if self.slots[end].older != place {
            self.unlink(place);
            self.link(place);
        }
    }

    /// Puts a slot at the newer end of the ring of its segment.
    fn link(&mut self, place: u32) {
        let end = self.slots[place as usize].segment as u32;
        let newest = mem::replace(&mut self.slots[end as usize].older, place);
        self.slots[newest as usize].newer = place;
        let slot = &mut self.slots[place as usize];
        (slot.older, slot.newer) = (newest, end);
    }

    /// Takes a slot out of its ring.
    fn unlink(&mut self, place: u32) {
        let slot = &self.slots[place as usize];
        let (older, newer) = (slot.older, slot.newer);
        self.slots[older as usize].newer = newer;
        self.slots[newer as usize].older = older;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IDLE: u64 = 30;
    const PROMOTE: u64 = PROMOTE_AFTER.as_nanos() as u64;

    /// Few hashes, so that different keys share one.
    fn hash(key: u8) -> u64 {
        u64::from(key % 3)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Get(u8),
        Add(u8),
        Remove(u8),
        /// Examines this number of entries of a segment that were last used this long ago. Values with a bit in common
        /// with the mask may not go.
        Evict(Segment, usize, u64, u32),
        /// Examines this number of entries, with the same mask.
        Expire(usize, u32),
    }

    fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
        let key = || 0_u8..12;
        let segment = prop_oneof![Just(Segment::Probation), Just(Segment::Protected)];
        let step = prop_oneof![
            6 => key().prop_map(Step::Get),
            6 => key().prop_map(Step::Add),
            2 => key().prop_map(Step::Remove),
            3 => (segment, 0_usize..6, 0_u64..20, any::<u32>())
                .prop_map(|(segment, n, age, mask)| Step::Evict(segment, n, age, mask)),
            2 => (0_usize..4, any::<u32>()).prop_map(|(n, mask)| Step::Expire(n, mask)),
        ];
        let later = prop_oneof![5 => 0_u64..5, 1 => Just(PROMOTE - 1), 1 => Just(PROMOTE)];
        prop::collection::vec((step, later), 0..200)
    }

    /// An entry of the model.
    #[derive(Clone, Copy, Debug)]
    struct Entry {
        key: u8,
        value: u32,
        used: u64,
        added: u64,
    }

    /// A list for each segment, the oldest first.
    #[derive(Default)]
    struct Model([Vec<Entry>; 2]);

    impl Model {
        fn take(&mut self, key: u8) -> Option<(Segment, Entry)> {
            for segment in [Segment::Probation, Segment::Protected] {
                let list = &mut self.0[segment as usize];
                if let Some(place) = list.iter().position(|entry| entry.key == key) {
                    return Some((segment, list.remove(place)));
                }
            }
            None
        }

        fn put(&mut self, segment: Segment, entry: Entry, now: u64) {
            self.0[segment as usize].push(Entry { used: now, ..entry });
        }

        /// The value that is evicted, and how many were looked at.
        fn evict(
            &mut self,
            segment: Segment,
            limit: u64,
            now: u64,
            most: usize,
            mask: u32,
        ) -> (Option<u32>, usize) {
            let list = &mut self.0[segment as usize];
            for looked in 0..list.len().min(most) {
                if list[0].used >= limit {
                    return (None, looked);
                }
                let entry = list.remove(0);
                if entry.value & mask == 0 {
                    return (Some(entry.value), looked + 1);
                }
                list.push(Entry { used: now, ..entry });
            }
            (None, list.len().min(most))
        }

        fn oldest(&self, segment: Segment) -> u64 {
            let oldest = self.0[segment as usize].first();
            oldest.map_or(u64::MAX, |entry| entry.used)
        }
    }

    proptest! {
        #[test]
        fn acts_as_two_lists_in_the_order_of_last_use(steps in steps()) {
            let mut model = Model::default();
            let mut lru = SegmentedLru::new(IDLE);
            let mut now = 0;
            for (value, (step, later)) in (1_u32..).zip(steps) {
                now += later;
                match step {
                    Step::Get(key) => {
                        let expected = model.take(key).map(|(segment, entry)| {
                            let is_promoted =
                                segment == Segment::Probation && entry.added + PROMOTE <= now;
                            let segment = if is_promoted { Segment::Protected } else { segment };
                            model.put(segment, entry, now);
                            (entry.value, is_promoted)
                        });
                        let there = lru.peek(hash(key), &key).copied();
                        prop_assert_eq!(there, expected.map(|(value, _)| value));
                        let got = lru.get(hash(key), &key, now);
                        prop_assert_eq!(got.map(|(value, is_promoted)| (*value, is_promoted)), expected);
                    }
                    Step::Add(key) => {
                        let there = model.take(key);
                        let new = Entry { key, value, used: now, added: now };
                        let (segment, entry) = there.unwrap_or((Segment::Probation, new));
                        let (kept, spare) = lru.add(hash(key), key, value, now);
                        prop_assert_eq!(*kept, entry.value);
                        prop_assert_eq!(spare, there.map(|_| (key, value)));
                        model.put(segment, entry, now);
                    }
                    Step::Remove(key) => {
                        let expected = model.take(key).map(|(segment, Entry { value, .. })| {
                            Removed { key, value, segment }
                        });
                        prop_assert_eq!(lru.remove(hash(key), &key), expected);
                    }
                    Step::Evict(segment, candidates, age, mask) => {
                        let limit = if age == 0 { u64::MAX } else { now.saturating_sub(age) };
                        let expected = model.evict(segment, limit, now, candidates, mask);
                        let mut left = candidates;
                        let may_go = |value: &mut u32| *value & mask == 0;
                        let removed = lru.evict(segment, limit, now, &mut left, may_go);
                        let removed = removed.map(|removed| removed.value);
                        prop_assert_eq!((removed, candidates - left), expected);
                    }
                    Step::Expire(candidates, mask) => {
                        let limit = now.saturating_sub(IDLE);
                        let is_due = lru.is_due(now);
                        let mut expected = None;
                        for _ in 0..candidates {
                            let (probation, protected) =
                                (model.oldest(Segment::Probation), model.oldest(Segment::Protected));
                            if expected.is_some() || probation.min(protected) >= limit {
                                break;
                            }
                            prop_assert!(is_due, "an entry has expired");
                            let oldest = if probation <= protected {
                                Segment::Probation
                            } else {
                                Segment::Protected
                            };
                            expected = model.evict(oldest, limit, now, 1, mask).0;
                        }
                        let removed = lru.expire(now, candidates, |value| *value & mask == 0);
                        prop_assert_eq!(removed.map(|removed| removed.value), expected);
                        let left = model.oldest(Segment::Probation).min(model.oldest(Segment::Protected));
                        prop_assert_eq!(lru.is_due(now), left < limit, "is due only then");
                    }
                }
                prop_assert_eq!(lru.len(), model.0.iter().map(Vec::len).sum::<usize>());
                prop_assert!(lru.slots.len() <= 2 + 12, "free slots are used again");
                prop_assert!(lru.places.len() <= 3);
            }
        }
    }
}
