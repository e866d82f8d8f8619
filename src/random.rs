//! The source of all random numbers: it can have a seed, and is shared without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use rand::SeedableRng;
use rand::rngs::{SmallRng, SysRng};

/// The odd constant of `SplitMix64`: repeated addition visits all 2⁶⁴ states before one repeats.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// A source of generators, each with a seed of its own.
///
/// Two calls never share a sequence, also when they run on different threads. With a fixed seed and a single thread,
/// all random numbers repeat exactly.
#[derive(Debug)]
pub(crate) struct Random {
    state: AtomicU64,
}

impl Random {
    /// Starts at `seed`, or at a seed from the operating system if there is none.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        let seed = seed.unwrap_or_else(|| {
            use rand::TryRng;
            // Without entropy (a sandbox early at boot), layers must still have different seeds.
            static FALLBACK: AtomicU64 = AtomicU64::new(0);
            SysRng
                .try_next_u64()
                .unwrap_or_else(|_| FALLBACK.fetch_add(STEP.rotate_left(32), Ordering::Relaxed))
        });
        Self {
            state: AtomicU64::new(seed),
        }
    }

    /// Returns a generator with a sequence of its own.
    pub(crate) fn generator(&self) -> SmallRng {
        SmallRng::seed_from_u64(self.state.fetch_add(STEP, Ordering::Relaxed))
    }

    /// Returns a number from -1 to 1, evenly distributed.
    pub(crate) fn symmetric(&self) -> f64 {
        use rand::RngExt;
        self.generator().random_range(-1.0..=1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn a_seed_repeats_and_generators_differ() {
        let draw = |random: &Random| random.generator().next_u64();
        let (one, same, other) = (
            Random::new(Some(1)),
            Random::new(Some(1)),
            Random::new(Some(2)),
        );
        let first = draw(&one);
        assert_eq!(first, draw(&same));
        assert_ne!(first, draw(&one));
        assert_ne!(first, draw(&other));
        assert_ne!(draw(&Random::new(None)), draw(&Random::new(None)));
    }
}
