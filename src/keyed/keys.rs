//! The layer values of all keys.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::lru::{Hashed, Lru};
use super::metrics::{Event, KeyedMetrics};
use crate::Forget;
use crate::context::{self, nanos_between};
use crate::lane::lanes;
use crate::sync::lock;
use crate::telemetry::{Instruments, Published, Series};

/// How many shards there are for each thread that may come, so that two calls rarely meet in one.
const SHARDS_PER_LANE: usize = 4;
/// How many keys a shard has room for at least, so that a key that has to go is rarely one in use.
const KEYS_PER_SHARD: usize = 8;
/// In how many shards a place is looked for when all are taken, and at how many keys in all.
const SHARDS_SEARCHED: usize = 8;
const KEYS_SEARCHED: usize = 32;
/// At how many idle keys a call looks.
const IDLE_SEARCHED: usize = 2;

/// The keys and their layers.
pub(super) struct Keys<K, L> {
    shards: Box<[Mutex<Shard<K, L>>]>,
    /// Seeded for each layer, so that nobody can choose keys that meet in one place.
    hasher: RandomState,
    /// How many places are taken, or will be at once. Never more than `most`.
    taken: AtomicUsize,
    most: usize,
    idle: Duration,
    /// For the keys that there is no place for.
    overflow: OnceLock<Arc<L>>,
    origin: Instant,
    metrics: &'static Series<KeyedMetrics>,
    published: Published,
}

/// A layer value that only its shard holds is not in use.
type Shard<K, L> = Lru<K, Arc<L>>;

/// A place for one key, given back unless it is filled.
struct Place<'a> {
    taken: &'a AtomicUsize,
    is_filled: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.is_filled {
            self.taken.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<K: Hash + Eq + Clone, L> Keys<K, L> {
    pub(super) fn new(
        max_keys: usize,
        idle: Duration,
        overflow: Option<L>,
        metrics: &'static Series<KeyedMetrics>,
    ) -> Self {
        let wanted = (max_keys / KEYS_PER_SHARD).min(lanes() * SHARDS_PER_LANE);
        // Rounded down to a power of two.
        let shards = 1_usize << wanted.max(1).ilog2();
        Self {
            shards: (0..shards).map(|_| Mutex::new(Lru::new())).collect(),
            hasher: RandomState::new(),
            taken: AtomicUsize::new(0),
            most: max_keys,
            idle,
            overflow: overflow
                .map(Arc::new)
                .map(OnceLock::from)
                .unwrap_or_default(),
            origin: Instant::now(),
            metrics,
            published: Published::default(),
        }
    }

    /// How many keys there are, those included whose layer is just being made.
    pub(super) fn len(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// The layer of a key. It is in use until what is returned is dropped.
    #[inline]
    pub(super) fn find(&self, key: K, make: impl FnOnce(&K) -> L) -> Arc<L>
    where
        L: Forget,
    {
        let key = self.hashed(key);
        let now = context::now();
        let nanos = nanos_between(self.origin, now);
        let mut shard = lock(self.shard(key.hash, 0));
        let found = shard.get(&key, nanos).map(Arc::clone);
        let idle_before = nanos.saturating_sub(self.idle.as_nanos() as u64);
        let expired = if shard.is_oldest_before(idle_before) {
            let mut candidates = IDLE_SEARCHED;
            shard.evict(idle_before, nanos, &mut candidates, may_go(now))
        } else {
            None
        };
        drop(shard);
        if expired.is_some() {
            let _place = self.place();
            self.removed(Event::Expired, expired, now);
        }
        self.published.keep(self.metrics, now, nanos);
        found.unwrap_or_else(|| self.add(key, make, now))
    }

    /// Gives a key a layer of its own, if there is a place for it.
    #[cold]
    fn add(&self, key: Hashed<K>, make: impl FnOnce(&K) -> L, now: Instant) -> Arc<L>
    where
        L: Forget,
    {
        let nanos = nanos_between(self.origin, now);
        let Some(mut place) = self.make_place(&key, now) else {
            self.happened(Event::Overflowed, now);
            let common = self.overflow.get().map(Arc::clone);
            return common.unwrap_or_else(|| {
                // Not in the initialiser, which code of the user's must not come back to.
                let layer = Arc::new(context::unclocked(|| make(&key.key)));
                Arc::clone(self.overflow.get_or_init(|| layer))
            });
        };
        // No lock is held: this is code of the user's.
        let layer = Arc::new(context::unclocked(|| make(&key.key)));
        let mut shard = lock(self.shard(key.hash, 0));
        let (layer, spare) = shard.add(key, layer, nanos);
        let layer = Arc::clone(layer);
        drop(shard);
        // Another call may have been faster.
        if spare.is_none() {
            place.is_filled = true;
            self.metrics.levels().changed(1);
            self.happened(Event::Added, now);
        }
        layer
    }

    /// Takes a free place, or that of a key that is not needed.
    fn make_place(&self, key: &Hashed<K>, now: Instant) -> Option<Place<'_>>
    where
        L: Forget,
    {
        let free = |taken| (taken < self.most).then_some(taken + 1);
        let took = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, free);
        if took.is_ok() {
            return Some(self.place());
        }
        let nanos = nanos_between(self.origin, now);
        let mut candidates = KEYS_SEARCHED;
        for step in 0..self.shards.len().min(SHARDS_SEARCHED) {
            let mut shard = lock(self.shard(key.hash, step));
            let evicted = shard.evict(u64::MAX, nanos, &mut candidates, may_go(now));
            drop(shard);
            if evicted.is_some() {
                let place = self.place();
                self.removed(Event::Evicted, evicted, now);
                return Some(place);
            }
        }
        None
    }

    /// A place that has been taken.
    fn place(&self) -> Place<'_> {
        Place {
            taken: &self.taken,
            is_filled: false,
        }
    }

    /// The layer of a key, if it has one.
    pub(super) fn get(&self, key: &K) -> Option<Arc<L>> {
        let key = self.hashed(key.clone());
        lock(self.shard(key.hash, 0)).peek(&key).map(Arc::clone)
    }

    /// The layer of the keys that there was no place for.
    pub(super) fn overflow(&self) -> Option<&L> {
        self.overflow.get().map(AsRef::as_ref)
    }

    pub(super) fn remove(&self, key: &K) -> bool {
        let key = self.hashed(key.clone());
        let removed = lock(self.shard(key.hash, 0)).remove(&key);
        let was_there = removed.is_some();
        if was_there {
            let _place = self.place();
            self.removed(Event::Removed, removed, Instant::now());
        }
        was_there
    }

    fn hashed(&self, key: K) -> Hashed<K> {
        Hashed {
            hash: self.hasher.hash_one(&key),
            key,
        }
    }

    /// The shard of a key, or one some steps further.
    #[inline]
    fn shard(&self, hash: u64, step: usize) -> &Mutex<Shard<K, L>> {
        // Neither the lowest bits nor the highest: those tell keys apart within a shard.
        let place = (hash >> 32) as usize + step;
        &self.shards[place & (self.shards.len() - 1)]
    }
}

/// Says whether a layer is not in use, and holds nothing against its key.
fn may_go<L: Forget>(now: Instant) -> impl FnMut(&mut Arc<L>) -> bool {
    // Under the lock nobody but a call in flight can hold it, and all that those did to it is seen.
    move |layer| Arc::get_mut(layer).is_some_and(|layer| layer.can_forget(now))
}

impl<K, L> Keys<K, L> {
    pub(super) fn name(&self) -> &'static str {
        self.metrics.name()
    }

    /// A layer has been taken out. No lock is held: dropping it is code of the user's.
    #[cold]
    fn removed(&self, event: Event, layer: Option<Arc<L>>, now: Instant) {
        self.metrics.levels().changed(-1);
        self.happened(event, now);
        drop(layer);
    }

    fn happened(&self, event: Event, now: Instant) {
        self.metrics.report(now, |metrics| {
            metrics.happened(event, now);
            metrics.publish(self.metrics.levels());
        });
    }
}

impl<K, L> Drop for Keys<K, L> {
    fn drop(&mut self) {
        let keys = i64::try_from(*self.taken.get_mut()).unwrap_or(i64::MAX);
        self.metrics.levels().changed(-keys);
        self.metrics.publish(Instant::now());
    }
}

impl<K, L> fmt::Debug for Keys<K, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("name", &self.name())
            .field("keys", &self.taken)
            .field("max_keys", &self.most)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_layers_put_the_same_keys_into_the_same_places() {
        let hashes = || {
            let keys = Keys::<u32, ()>::new(100, Duration::MAX, None, Series::of("seeds", "keyed"));
            (0..16).map(|key| keys.hashed(key).hash).collect::<Vec<_>>()
        };
        let (one, other) = (hashes(), hashes());
        assert!(one.iter().zip(&other).all(|(one, other)| one != other));
    }
}
