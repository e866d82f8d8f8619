//! Metrics of the bulkhead.

use std::sync::atomic::{AtomicU64, Ordering};

use super::word::Word;
use crate::telemetry::{Gauges, Handles, Instruments, table};

/// The place of the calls in flight among the levels.
pub(super) const IN_FLIGHT: usize = 1;

/// The limit, the calls in flight, and the waiting calls.
#[derive(Debug, Default)]
pub(super) struct BulkheadMetrics([AtomicU64; 3]);

impl Instruments for BulkheadMetrics {
    fn publish(&self, handles: &mut Handles) {
        let gauges = [&table::LIMIT, &table::IN_FLIGHT, &table::QUEUE_DEPTH];
        for (gauge, level) in gauges.into_iter().zip(&self.0) {
            handles.set(gauge, &[], level.load(Ordering::SeqCst) as f64);
        }
    }
}

impl Gauges<3> for BulkheadMetrics {
    fn sums(&self) -> &[AtomicU64; 3] {
        &self.0
    }

    #[inline]
    fn parts(word: u64) -> [u64; 3] {
        let word = Word(word);
        [word.limit(), word.in_flight(), word.waiting()].map(|part| part as u64)
    }
}
