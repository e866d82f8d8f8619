//! Backoff: the wait before the next attempt.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::ConfigError;
use crate::error::Check;

/// Backoff: the wait of a retry before the next attempt.
///
/// The default of retry is [`exponential`](Self::exponential) with full jitter: the n-th wait is random and evenly
/// distributed from 0 to `min(cap, base · 2ⁿ)`, n = 0 for the first. The cap is applied before the jitter, so waits do
/// not accumulate at the cap. Source: Marc Brooker, *Exponential Backoff And Jitter*, AWS Architecture Blog, 2015.
///
/// The layer that uses the backoff checks its values: times above zero and at most 365 days, and a base no longer than
/// the cap.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use buttress::{Backoff, Jitter};
///
/// let base = Duration::from_millis(50);
/// let waits = Backoff::exponential(base, Duration::from_secs(2)).jitter(Jitter::None);
/// let waits: Vec<_> = waits.delays(1).take(7).map(|wait| wait.as_millis()).collect();
/// assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 2000]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(deny_unknown_fields)
)]
#[must_use]
pub struct Backoff {
    #[cfg_attr(feature = "serde", serde(default))]
    growth: Growth,
    #[cfg_attr(feature = "serde", serde(default))]
    jitter: Jitter,
    #[cfg_attr(feature = "serde", serde(with = "crate::duration_text"))]
    base: Duration,
    #[cfg_attr(feature = "serde", serde(with = "crate::duration_text"))]
    cap: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(rename_all = "lowercase")
)]
enum Growth {
    Constant,
    Linear,
    #[default]
    Exponential,
    Decorrelated,
}

/// Random spread of a wait, so that callers that failed together do not retry together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(rename_all = "lowercase")
)]
#[non_exhaustive]
pub enum Jitter {
    /// A random time from zero to the whole wait. The default, with the fewest collisions for a given wait.
    #[default]
    Full,
    /// Half of the wait, and a random part of the other half.
    Equal,
    /// The whole wait, the same for all callers.
    None,
}

impl Backoff {
    const fn new(growth: Growth, base: Duration, cap: Duration) -> Self {
        Self {
            growth,
            jitter: Jitter::Full,
            base,
            cap,
        }
    }

    /// Makes a backoff that doubles with every retry, from `base` up to `cap`.
    pub const fn exponential(base: Duration, cap: Duration) -> Self {
        Self::new(Growth::Exponential, base, cap)
    }

    /// Makes a backoff that grows by `step` with every retry, up to `cap`.
    pub const fn linear(step: Duration, cap: Duration) -> Self {
        Self::new(Growth::Linear, step, cap)
    }

    /// Makes a backoff whose wait is always the same.
    pub const fn constant(wait: Duration) -> Self {
        Self::new(Growth::Constant, wait, wait)
    }

    /// Makes a backoff with random waits from `base` to three times the former wait, at most `cap`. It has no other
    /// jitter.
    pub const fn decorrelated(base: Duration, cap: Duration) -> Self {
        Self::new(Growth::Decorrelated, base, cap)
    }

    /// Makes a backoff for writers that collide on one row or object: exponential from 100 ms up to 2 s.
    ///
    /// The long first wait costs little without contention. With contention, it spreads many writers at once.
    pub const fn contention() -> Self {
        Self::exponential(Duration::from_millis(100), Duration::from_secs(2))
    }

    /// Sets the random spread of the waits. Full jitter by default.
    pub const fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// Returns an endless iterator over the waits of one operation. The same seed gives the same waits.
    #[must_use]
    pub fn delays(&self, seed: u64) -> Delays {
        Delays {
            backoff: self.clone(),
            retry: 0,
            previous: Duration::ZERO,
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// Returns the base of the waits: the first wait of a growing backoff, or the constant wait.
    pub(crate) fn base(&self) -> Duration {
        self.base
    }

    /// Returns the wait before retry number `retry` (0 for the first), after the wait `previous`.
    pub(crate) fn delay(&self, retry: u32, previous: Duration, random: &mut SmallRng) -> Duration {
        let mut between = |from: Duration, to: Duration| {
            let (from, to) = (from.as_nanos() as u64, to.as_nanos() as u64);
            Duration::from_nanos(random.random_range(from..=to.max(from)))
        };
        let ceiling = match self.growth {
            Growth::Constant => self.base,
            Growth::Linear => self.base.saturating_mul(retry.saturating_add(1)),
            Growth::Exponential => (self.base).saturating_mul(2_u32.saturating_pow(retry)),
            Growth::Decorrelated => {
                let most = previous.max(self.base).saturating_mul(3);
                return between(self.base, most.min(self.cap));
            }
        };
        let ceiling = ceiling.min(self.cap);
        match self.jitter {
            Jitter::Full => between(Duration::ZERO, ceiling),
            Jitter::Equal => between(ceiling / 2, ceiling),
            Jitter::None => ceiling,
        }
    }

    pub(crate) fn check(&self, check: Check<'_>, field: &'static str) -> Result<(), ConfigError> {
        check.duration(field, self.base)?;
        check.duration(field, self.cap)?;
        let is_longer = self.base > self.cap;
        check.that(!is_longer, field, self, "a base no longer than the cap")
    }
}

/// The waits of one operation. Made by [`Backoff::delays`].
#[derive(Clone, Debug)]
pub struct Delays {
    backoff: Backoff,
    retry: u32,
    previous: Duration,
    random: SmallRng,
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = (self.backoff).delay(self.retry, self.previous, &mut self.random);
        (self.previous, self.retry) = (wait, self.retry.saturating_add(1));
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: Duration = Duration::from_millis(50);
    const CAP: Duration = Duration::from_secs(2);

    fn waits(backoff: &Backoff, retry: u32, count: usize) -> Vec<f64> {
        let mut random = SmallRng::seed_from_u64(1);
        let draw = || {
            backoff
                .delay(retry, Duration::ZERO, &mut random)
                .as_secs_f64()
        };
        std::iter::repeat_with(draw).take(count).collect()
    }

    #[test]
    fn full_jitter_is_even_over_whole_seconds() {
        let backoff = Backoff::exponential(Duration::from_secs(1), Duration::from_secs(8));
        let waits = waits(&backoff, 3, 10_000);
        let mean = waits.iter().sum::<f64>() / 10_000.0;
        let variance = waits.iter().map(|wait| (wait - mean).powi(2)).sum::<f64>() / 10_000.0;
        assert!((mean - 4.0).abs() < 0.1, "{mean}");
        assert!((variance - 64.0 / 12.0).abs() < 0.2, "{variance}");
    }

    #[test]
    fn grows_without_overflow_at_any_retry() {
        for retry in [63, 64, 1_000, u32::MAX] {
            let mut random = SmallRng::seed_from_u64(1);
            let mut plain = |backoff: Backoff| {
                let backoff = backoff.jitter(Jitter::None);
                backoff.delay(retry, Duration::ZERO, &mut random)
            };
            assert_eq!(plain(Backoff::exponential(BASE, CAP)), CAP);
            assert_eq!(plain(Backoff::linear(BASE, CAP)), CAP);
            assert_eq!(plain(Backoff::constant(BASE)), BASE);
        }
    }

    #[test]
    fn equal_jitter_waits_at_least_half() {
        let backoff = Backoff::constant(Duration::from_secs(1)).jitter(Jitter::Equal);
        let waits = waits(&backoff, 0, 1_000);
        assert!(waits.iter().all(|wait| (0.5..=1.0).contains(wait)));
    }

    #[test]
    fn a_seed_gives_the_same_waits() {
        let waits = |seed| -> Vec<_> { Backoff::contention().delays(seed).take(9).collect() };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }

    proptest! {
        #[test]
        fn no_wait_exceeds_the_cap(
            base in 1_u64..u64::MAX / 4, over in 0_u64..u64::MAX / 4, retry: u32, seed: u64,
        ) {
            let (base, cap) = (Duration::from_nanos(base), Duration::from_nanos(base + over));
            let mut random = SmallRng::seed_from_u64(seed);
            for growth in [Growth::Constant, Growth::Linear, Growth::Exponential, Growth::Decorrelated] {
                for jitter in [Jitter::Full, Jitter::Equal, Jitter::None] {
                    let backoff = Backoff { growth, jitter, base, cap };
                    let first = backoff.delay(retry, Duration::ZERO, &mut random);
                    prop_assert!(first <= cap);
                    prop_assert!(backoff.delay(retry, first, &mut random) <= cap);
                }
            }
        }
    }
}
