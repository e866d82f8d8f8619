//! Metrics of the rate limit.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::bucket::Limits;
use crate::sync::lock;
use crate::telemetry::table::{QUEUE_DEPTH, RATE_LIMIT, RATE_LIMIT_BURST, RATE_LIMIT_TOKENS};
use crate::telemetry::{Gauges, Handles, Instruments};

/// The limits of one name.
#[derive(Debug, Default)]
pub(super) struct RateLimitMetrics {
    /// Notes that a limit has been built for which calls may wait.
    pub(super) has_queue: AtomicBool,
    /// The calls that wait, and the tokens that are left.
    levels: [AtomicU64; 2],
    limits: Mutex<Sums>,
}

/// Sums over all limits of one name.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    limits: u32,
    per_second: f64,
    burst: u64,
}

impl RateLimitMetrics {
    /// Replaces the limits of one layer by others. A layer has none before it is built and after it is dropped.
    pub(super) fn replace(&self, old: Option<Limits>, new: Option<Limits>) {
        let mut sums = lock(&self.limits);
        let second = |limits: Limits| limits.rate.calls_in(Duration::from_secs(1));
        if let Some(new) = new {
            sums.limits += 1;
            sums.per_second += second(new);
            sums.burst += u64::from(new.burst);
        }
        if let Some(old) = old {
            sums.limits -= 1;
            sums.per_second -= second(old);
            sums.burst -= u64::from(old.burst);
        }
        if sums.limits == 0 {
            // Without what was lost by rounding.
            *sums = Sums::default();
        }
    }
}

/// Returns the word of a limit for its gauges.
pub(super) fn word(waiting: u64, tokens: u32) -> u64 {
    waiting.min(u64::from(u32::MAX)) << u32::BITS | u64::from(tokens)
}

impl Instruments for RateLimitMetrics {
    fn publish(&self, handles: &mut Handles) {
        if self.has_queue.load(Ordering::Relaxed) {
            let waiting = self.levels[0].load(Ordering::SeqCst) as f64;
            handles.set(&QUEUE_DEPTH, &[], waiting);
        }
        let tokens = self.levels[1].load(Ordering::SeqCst) as f64;
        let Sums {
            per_second, burst, ..
        } = *lock(&self.limits);
        handles.set(&RATE_LIMIT, &[], per_second);
        handles.set(&RATE_LIMIT_BURST, &[], burst as f64);
        handles.set(&RATE_LIMIT_TOKENS, &[], tokens);
    }
}

impl Gauges<2> for RateLimitMetrics {
    const FOLLOWED: usize = 1;

    fn sums(&self) -> &[AtomicU64; 2] {
        &self.levels
    }

    fn parts(word: u64) -> [u64; 2] {
        [word >> u32::BITS, word & u64::from(u32::MAX)]
    }
}
