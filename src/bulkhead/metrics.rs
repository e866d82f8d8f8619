//! What the bulkhead reports.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::word::Word;
use crate::ErrorKind;
use crate::telemetry::{Gauges, Handles, Instruments, Series, table};

/// The place of the calls in flight among the levels.
pub(super) const IN_FLIGHT: usize = 1;

/// Why a call was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Full,
    QueueTimeout,
    Deadline,
}

impl Reason {
    pub(super) fn kind(self) -> ErrorKind {
        match self {
            Self::Full => ErrorKind::BulkheadFull,
            Self::QueueTimeout => ErrorKind::QueueTimeout,
            Self::Deadline => ErrorKind::DeadlineExceeded,
        }
    }
}

/// How a wait in the queue ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitEnd {
    Admitted,
    Timeout,
    Deadline,
    Cancelled,
}

impl WaitEnd {
    /// The value of the label `result`.
    fn label(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Timeout => "timeout",
            Self::Deadline => "deadline",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The limit, the calls in flight, and those that wait.
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
        let word = Word::from_bits(word);
        [word.limit(), word.in_flight(), word.waiting()].map(|part| part as u64)
    }
}

impl Series<BulkheadMetrics> {
    /// A call has waited in the queue.
    pub(super) fn waited(&self, end: WaitEnd, waited: Duration, now: Instant) {
        self.report(now, |handles| {
            handles.record(&table::QUEUE_WAIT, &[end.label()], waited);
        });
    }
}
