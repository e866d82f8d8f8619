//! A map that knows which of its entries was used least recently. Time is an argument.
//!
//! The keys come with their hash, so that a call hashes its key once. Entries stand in a list by the time of
//! their last use, and each operation looks at a bounded number of them, however many there are.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A key and its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hashed<K> {
    pub(super) hash: u64,
    pub(super) key: K,
}

impl<K> Hash for Hashed<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Takes the hash that a key comes with.
#[derive(Debug, Default)]
pub(super) struct Given(u64);

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

/// The end of the list.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Slot<K, V> {
    /// `None` while the slot is free.
    content: Option<(Hashed<K>, V)>,
    /// When it was last used, in nanoseconds.
    used: u64,
    newer: u32,
    older: u32,
}

/// Entries in the order of their last use.
#[derive(Debug)]
pub(super) struct Lru<K, V> {
    places: HashMap<Hashed<K>, u32, BuildHasherDefault<Given>>,
    slots: Vec<Slot<K, V>>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
}

impl<K: Eq + Clone, V> Lru<K, V> {
    pub(super) fn new() -> Self {
        Self {
            places: HashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.places.len()
    }

    /// The value of a key, without using it.
    pub(super) fn peek(&self, key: &Hashed<K>) -> Option<&V> {
        let place = *self.places.get(key)?;
        let (_, value) = self.slots[place as usize].content.as_ref()?;
        Some(value)
    }

    /// Uses a key now.
    #[inline]
    pub(super) fn get(&mut self, key: &Hashed<K>, now: u64) -> Option<&V> {
        let place = *self.places.get(key)?;
        self.touch(place, now);
        let (_, value) = self.slots[place as usize].content.as_ref()?;
        Some(value)
    }

    /// Adds a key, unless it is there: then its value stays. Uses it now and returns its value, and the one
    /// that was not needed.
    pub(super) fn add(&mut self, key: Hashed<K>, value: V, now: u64) -> (&V, Option<V>) {
        let (place, spare) = match self.places.entry(key) {
            Entry::Occupied(there) => (*there.get(), Some(value)),
            Entry::Vacant(vacant) => {
                let content = Some((vacant.key().clone(), value));
                let slot = Slot {
                    content,
                    used: now,
                    newer: NONE,
                    older: NONE,
                };
                let place = if let Some(place) = self.free.pop() {
                    self.slots[place as usize] = slot;
                    place
                } else {
                    self.slots.push(slot);
                    (self.slots.len() - 1) as u32
                };
                vacant.insert(place);
                link(&mut self.slots, &mut self.newest, &mut self.oldest, place);
                (place, None)
            }
        };
        if spare.is_some() {
            self.touch(place, now);
        }
        match &self.slots[place as usize].content {
            Some((_, value)) => (value, spare),
            None => unreachable!("a place in the map is that of an entry"),
        }
    }

    pub(super) fn remove(&mut self, key: &Hashed<K>) -> Option<V> {
        let place = *self.places.get(key)?;
        self.take(place)
    }

    /// Says whether the least recently used entry was last used before `limit`.
    #[inline]
    pub(super) fn is_oldest_before(&self, limit: u64) -> bool {
        let oldest = self.slots.get(self.oldest as usize);
        oldest.is_some_and(|slot| slot.used < limit)
    }

    /// Removes the least recently used entry that `may_go` and was last used before `limit`.
    ///
    /// Looks at `candidates` entries at most, takes what it has looked at off that number, and lets an entry
    /// that may not go count as used now: the next look is at others.
    pub(super) fn evict(
        &mut self,
        limit: u64,
        now: u64,
        candidates: &mut usize,
        mut may_go: impl FnMut(&mut V) -> bool,
    ) -> Option<V> {
        let mut left = self.places.len().min(*candidates);
        while left > 0 && self.is_oldest_before(limit) {
            left -= 1;
            *candidates -= 1;
            let place = self.oldest;
            let (_, value) = self.slots[place as usize].content.as_mut()?;
            if may_go(value) {
                return self.take(place);
            }
            self.touch(place, now);
        }
        None
    }

    fn take(&mut self, place: u32) -> Option<V> {
        let (key, _) = self.slots[place as usize].content.as_ref()?;
        // First, because comparing keys is code of the user, which may panic.
        self.places.remove(key);
        unlink(&mut self.slots, &mut self.newest, &mut self.oldest, place);
        self.free.push(place);
        let (_, value) = self.slots[place as usize].content.take()?;
        Some(value)
    }

    #[inline]
    fn touch(&mut self, place: u32, now: u64) {
        self.slots[place as usize].used = now;
        if self.newest != place {
            unlink(&mut self.slots, &mut self.newest, &mut self.oldest, place);
            link(&mut self.slots, &mut self.newest, &mut self.oldest, place);
        }
    }
}

/// Puts a slot at the newer end of the list.
fn link<K, V>(slots: &mut [Slot<K, V>], newest: &mut u32, oldest: &mut u32, place: u32) {
    let older = std::mem::replace(newest, place);
    let slot = &mut slots[place as usize];
    (slot.older, slot.newer) = (older, NONE);
    match slots.get_mut(older as usize) {
        Some(older) => older.newer = place,
        None => *oldest = place,
    }
}

/// Takes a slot out of the list.
fn unlink<K, V>(slots: &mut [Slot<K, V>], newest: &mut u32, oldest: &mut u32, place: u32) {
    let Slot { newer, older, .. } = slots[place as usize];
    match slots.get_mut(newer as usize) {
        Some(slot) => slot.older = older,
        None => *newest = older,
    }
    match slots.get_mut(older as usize) {
        Some(slot) => slot.newer = newer,
        None => *oldest = newer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Few hashes, so that different keys share one.
    fn hashed(key: u8) -> Hashed<u8> {
        let hash = u64::from(key % 3);
        Hashed { hash, key }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Get(u8),
        Add(u8),
        Remove(u8),
        /// Looks at so many, last used so long ago; values with a bit in common with the mask may not go.
        Evict(usize, u64, u32),
    }

    fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
        let key = || 0_u8..12;
        let step = prop_oneof![
            3 => key().prop_map(Step::Get),
            3 => key().prop_map(Step::Add),
            1 => key().prop_map(Step::Remove),
            2 => (0_usize..6, 0_u64..20, any::<u32>()).prop_map(|(n, age, mask)| Step::Evict(n, age, mask)),
        ];
        prop::collection::vec((step, 0_u64..5), 0..200)
    }

    proptest! {
        #[test]
        fn acts_as_a_list_in_the_order_of_last_use(steps in steps()) {
            // The oldest first: key, value, last use.
            let mut model: Vec<(u8, u32, u64)> = Vec::new();
            let mut lru = Lru::new();
            let mut now = 0;
            for (value, (step, later)) in (1_u32..).zip(steps) {
                now += later;
                let place = |key, model: &[(u8, u32, u64)]| model.iter().position(|entry| entry.0 == key);
                match step {
                    Step::Get(key) => {
                        let expected = place(key, &model).map(|place| {
                            let (_, value, _) = model.remove(place);
                            model.push((key, value, now));
                            value
                        });
                        prop_assert_eq!(lru.peek(&hashed(key)).copied(), expected);
                        prop_assert_eq!(lru.get(&hashed(key), now).copied(), expected);
                    }
                    Step::Add(key) => {
                        let there = place(key, &model).map(|place| model.remove(place).1);
                        let (kept, spare) = lru.add(hashed(key), value, now);
                        prop_assert_eq!(*kept, there.unwrap_or(value));
                        prop_assert_eq!(spare, there.map(|_| value));
                        model.push((key, there.unwrap_or(value), now));
                    }
                    Step::Remove(key) => {
                        let expected = place(key, &model).map(|place| model.remove(place).1);
                        prop_assert_eq!(lru.remove(&hashed(key)), expected);
                    }
                    Step::Evict(candidates, age, mask) => {
                        let limit = if age == 0 { u64::MAX } else { now.saturating_sub(age) };
                        let (mut expected, mut looked) = (None, 0);
                        for _ in 0..model.len().min(candidates) {
                            if model[0].2 >= limit {
                                break;
                            }
                            looked += 1;
                            let (key, value, _) = model.remove(0);
                            if value & mask == 0 {
                                expected = Some(value);
                                break;
                            }
                            model.push((key, value, now));
                        }
                        let mut left = candidates;
                        let evicted = lru.evict(limit, now, &mut left, |value| *value & mask == 0);
                        prop_assert_eq!((evicted, candidates - left), (expected, looked));
                    }
                }
                prop_assert_eq!(lru.len(), model.len());
                prop_assert!(lru.slots.len() <= 12, "free slots are used again");
            }
        }
    }
}
