//! Metrics of the rate limit.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::telemetry::table::QUEUE_DEPTH;
use crate::telemetry::{Gauges, Handles, Instruments};

/// Calls that wait for limits of one name.
#[derive(Debug, Default)]
pub(super) struct RateLimitMetrics {
    /// Notes that a limit has been built for which calls may wait.
    pub(super) has_queue: AtomicBool,
    waiting: [AtomicU64; 1],
}

impl Instruments for RateLimitMetrics {
    fn publish(&self, handles: &mut Handles) {
        if self.has_queue.load(Ordering::Relaxed) {
            let waiting = self.waiting[0].load(Ordering::SeqCst) as f64;
            handles.set(&QUEUE_DEPTH, &[], waiting);
        }
    }
}

impl Gauges<1> for RateLimitMetrics {
    fn sums(&self) -> &[AtomicU64; 1] {
        &self.waiting
    }

    fn parts(waiting: u64) -> [u64; 1] {
        [waiting]
    }
}
