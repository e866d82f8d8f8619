//! Weighted rendezvous hashing: each endpoint has a score for a key, and the least one wins.

use std::hash::{Hash, Hasher};

/// Returns the score of an endpoint for a key. When an endpoint is removed, only the keys for which it has the least
/// score move. The share of keys of an endpoint is in proportion to its weight.
pub(crate) fn score(key: &impl Hash, endpoint: &str, weight: f64) -> f64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    (key, endpoint).hash(&mut hasher);
    let share = (hasher.finish() >> 11) as f64 / (1u64 << 53) as f64;
    -share.max(f64::MIN_POSITIVE).ln() / weight
}

/// FNV-1a with a final mixing step. Its hashes are the same in each run, unlike those of the standard library.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ self.0 >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ mixed >> 32
    }
}
