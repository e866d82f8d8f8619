//! The layer values of all keys.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash, RandomState};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::Key;
use super::metrics::KeyedMetrics;
use crate::Evictable;
use crate::algorithm::lru::{Removed, Segment, SegmentedLru};
use crate::algorithm::shares::Shares;
use crate::debug::debug_fields;
use crate::nanos::nanos_between;
use crate::stripe::stripes;
use crate::sync::lock;
use crate::telemetry::{Published, Series};

/// Number of shards for each thread that may run, so that two calls rarely use the same shard.
const SHARDS_PER_LANE: usize = 4;
/// Least capacity of a shard, in keys, so that a key in use rarely has to give up its slot.
const KEYS_PER_SHARD: usize = 8;
/// The number of shards that a call searches for a slot when all are taken, and the numbers of keys that it examines:
/// in the segment that it tries first, and in the other one.
const SHARDS_SEARCHED: usize = 8;
const KEYS_SEARCHED: [usize; 2] = [24, 8];
/// Number of idle keys that a call examines.
const IDLE_SEARCHED: usize = 2;

/// Keys and their layers.
pub(super) struct Keys<K, L> {
    shards: Box<[Mutex<Shard<K, L>>]>,
    seed: Seed,
    /// It also counts keys whose layer is being made.
    pub(super) shares: Shares,
    max_key_size: usize,
    /// The parts for keys without a slot, chosen by hash. A part is empty until a key needs it.
    overflow: Box<[OnceLock<Arc<L>>]>,
    /// Number of calls that found no slot for their key.
    pub(super) overflowed: AtomicU64,
    origin: Instant,
    pub(super) metrics: &'static Series<KeyedMetrics>,
    published: Published,
}

/// A layer value that only its shard holds is not in use.
type Shard<K, L> = SegmentedLru<K, Arc<L>>;

/// Secret of the hashes. A caller that does not know it cannot choose keys with the same place.
enum Seed {
    Random(RandomState),
    Fixed(u64),
}

impl Seed {
    #[inline]
    fn hash<K: Hash>(&self, key: &K) -> u64 {
        match self {
            Self::Random(state) => state.hash_one(key),
            Self::Fixed(seed) => BuildHasherDefault::<DefaultHasher>::new().hash_one((seed, key)),
        }
    }
}

/// A slot for a new key. Its drop gives the slot back; a filled one is forgotten instead.
struct Place<'a>(&'a Shares);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.give_back(Segment::Probation);
    }
}

/// The settings of [`Keys`].
#[derive(Clone, PartialEq)]
pub(super) struct Settings<L> {
    pub(super) max_keys: u32,
    pub(super) max_key_size: u32,
    pub(super) idle: Duration,
    /// The overflow parts. A missing one is made when it is needed.
    pub(super) overflow: Vec<Option<L>>,
    pub(super) seed: Option<u64>,
}

impl<K: Key, L> Keys<K, L> {
    pub(super) fn new(settings: Settings<L>, metrics: &'static Series<KeyedMetrics>) -> Self {
        let wanted = (settings.max_keys as usize / KEYS_PER_SHARD).min(stripes() * SHARDS_PER_LANE);
        // Rounded down to a power of two.
        let shards = 1_usize << wanted.max(1).ilog2();
        let idle = settings.idle.as_nanos() as u64;
        let overflow = settings.overflow.into_iter();
        Self {
            shards: (0..shards)
                .map(|_| Mutex::new(SegmentedLru::new(idle)))
                .collect(),
            seed: settings
                .seed
                .map_or_else(|| Seed::Random(RandomState::new()), Seed::Fixed),
            shares: Shares::new(settings.max_keys),
            max_key_size: settings.max_key_size as usize,
            overflow: overflow
                .map(|given| given.map_or_else(OnceLock::new, |layer| Arc::new(layer).into()))
                .collect(),
            overflowed: AtomicU64::new(0),
            origin: Instant::now(),
            metrics,
            published: Published::default(),
        }
    }

    /// Returns the layer of a key. The layer is in use until the return value is dropped.
    #[inline]
    pub(super) fn find(&self, key: K, make: impl FnOnce(&K) -> L) -> Arc<L>
    where
        L: Evictable,
    {
        let hash = self.seed.hash(&key);
        let now = Instant::now();
        let nanos = nanos_between(self.origin, now);
        let mut shard = lock(self.shard(hash, 0));
        let found = shard.get(hash, &key, nanos).map(|(layer, is_promoted)| {
            if is_promoted {
                // Under the lock, before another call can take the key's slot.
                self.shares.promoted();
            }
            Arc::clone(layer)
        });
        if shard.is_due(nanos) {
            let expired = shard.expire(nanos, IDLE_SEARCHED, may_go(now));
            drop(shard);
            if let Some(expired) = expired {
                self.shares.give_back(expired.segment);
                self.removed("expired", expired, now);
            }
        } else {
            drop(shard);
        }
        self.published.keep(self.metrics, now, nanos);
        found.unwrap_or_else(|| self.add(hash, key, make, now))
    }

    /// Gives a key a layer of its own, if there is a slot for it.
    #[cold]
    fn add(&self, hash: u64, key: K, make: impl FnOnce(&K) -> L, now: Instant) -> Arc<L>
    where
        L: Evictable,
    {
        let nanos = nanos_between(self.origin, now);
        if key.heap_size() > self.max_key_size {
            self.metrics.happened("oversized", now);
            return self.share(hash, &key, make);
        }
        let Some(place) = self.make_place(hash, now) else {
            self.overflowed.fetch_add(1, Ordering::Relaxed);
            self.metrics.happened("overflowed", now);
            return self.share(hash, &key, make);
        };
        // No lock is held: this is the user's code.
        let layer = Arc::new(make(&key));
        let key = key.into_compact();
        let mut shard = lock(self.shard(hash, 0));
        let (layer, spare) = shard.add(hash, key, layer, nanos);
        let layer = Arc::clone(layer);
        drop(shard);
        // Another call may have been faster.
        if spare.is_none() {
            mem::forget(place);
            self.metrics.levels().changed(1);
            self.metrics.happened("added", now);
        }
        layer
    }

    /// Returns the overflow part of a key, which it shares with others.
    fn share(&self, hash: u64, key: &K, make: impl FnOnce(&K) -> L) -> Arc<L> {
        let part = self.overflow_part(hash);
        if let Some(layer) = part.get() {
            return Arc::clone(layer);
        }
        // Not in the initializer, because the user's code could enter it again.
        let layer = Arc::new(make(key));
        Arc::clone(part.get_or_init(|| layer))
    }

    fn overflow_part(&self, hash: u64) -> &OnceLock<Arc<L>> {
        let part = u64::from(hash as u32) * self.overflow.len() as u64;
        &self.overflow[(part >> 32) as usize]
    }

    /// Takes a free slot, or the slot of a key that is not needed.
    fn make_place(&self, hash: u64, now: Instant) -> Option<Place<'_>>
    where
        L: Evictable,
    {
        if self.shares.take() {
            return Some(Place(&self.shares));
        }
        let nanos = nanos_between(self.origin, now);
        let victims = self.shares.victims(nanos);
        for ((segment, before), mut candidates) in victims.into_iter().zip(KEYS_SEARCHED) {
            for step in 0..self.shards.len().min(SHARDS_SEARCHED) {
                let mut shard = lock(self.shard(hash, step));
                let evicted = shard.evict(segment, before, nanos, &mut candidates, may_go(now));
                drop(shard);
                if let Some(evicted) = evicted {
                    self.shares.taken_over(evicted.segment);
                    let place = Place(&self.shares);
                    self.removed("evicted", evicted, now);
                    return Some(place);
                }
            }
        }
        None
    }

    /// Returns the layer of a key, if it has one.
    pub(super) fn get(&self, key: &K) -> Option<Arc<L>> {
        let hash = self.seed.hash(key);
        lock(self.shard(hash, 0)).peek(hash, key).map(Arc::clone)
    }

    /// Returns the overflow part of a key, if any key has needed it.
    pub(super) fn overflow(&self, key: &K) -> Option<&L> {
        let part = self.overflow_part(self.seed.hash(key));
        part.get().map(AsRef::as_ref)
    }

    pub(super) fn remove(&self, key: &K) -> bool {
        let hash = self.seed.hash(key);
        let removed = lock(self.shard(hash, 0)).remove(hash, key);
        let was_there = removed.is_some();
        if let Some(removed) = removed {
            self.shares.give_back(removed.segment);
            self.removed("removed", removed, Instant::now());
        }
        was_there
    }

    /// Returns the shard of a key, or the shard `step` places after it.
    #[inline]
    fn shard(&self, hash: u64, step: usize) -> &Mutex<Shard<K, L>> {
        // Neither the lowest bits nor the highest, because these distinguish keys within a shard.
        let place = (hash >> 32) as usize + step;
        &self.shards[place & (self.shards.len() - 1)]
    }
}

/// Returns whether a layer is not in use, and can be forgotten.
fn may_go<L: Evictable>(now: Instant) -> impl FnMut(&mut Arc<L>) -> bool {
    // Under the lock only a call in flight can hold the layer, and all changes by earlier calls are visible.
    move |layer| Arc::get_mut(layer).is_some_and(|layer| layer.is_evictable(now))
}

impl<K, L> Keys<K, L> {
    /// Counts a key that has been taken out. No lock is held: dropping the key and its layer runs the user's code.
    #[cold]
    fn removed(&self, event: &'static str, removed: Removed<K, Arc<L>>, now: Instant) {
        self.metrics.levels().changed(-1);
        self.metrics.happened(event, now);
        drop(removed);
    }
}

impl<K, L> Drop for Keys<K, L> {
    fn drop(&mut self) {
        self.metrics
            .levels()
            .changed(-i64::from(self.shares.taken()));
        self.metrics.publish(Instant::now());
    }
}

debug_fields!([K, L] Keys<K, L> { metrics, shares });

#[cfg(test)]
mod tests {
    use crate::keyed::config::Config;

    fn hashes(seed: Option<u64>) -> Vec<u64> {
        let config = Config::<(), (), u32, ()>::new("seeds".into(), (), ());
        let config = match seed {
            Some(seed) => config.seed(seed),
            None => config,
        };
        let keys = config.build().unwrap().shared.keys.clone();
        (0..16).map(|key| keys.seed.hash(&key)).collect()
    }

    #[test]
    fn no_two_layers_put_the_same_keys_into_the_same_places() {
        let differ = |one: Vec<u64>, other: Vec<u64>| one.iter().zip(&other).all(|(a, b)| a != b);
        assert!(differ(hashes(None), hashes(None)));
        assert!(differ(hashes(Some(1)), hashes(Some(2))));
        assert_eq!(hashes(Some(1)), hashes(Some(1)), "a seed repeats them");
    }
}
