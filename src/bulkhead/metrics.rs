//! What the bulkhead reports.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, describe_gauge, describe_histogram, gauge, histogram,
};
use tokio::time::Instant;

use super::word::Word;
use crate::telemetry::{Gauges, Instruments, Labels, LazyMetric};
use crate::{ErrorKind, Mode};

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

    /// The value of the label `reason`.
    fn label(self) -> &'static str {
        match self {
            Self::Full => "bulkhead_full",
            Self::QueueTimeout => "queue_timeout",
            Self::Deadline => "deadline_exceeded",
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

pub(super) struct BulkheadMetrics {
    labels: Labels,
    /// The limit, the calls in flight, and those that wait.
    gauges: [Gauge; 3],
    /// By mode and reason.
    rejections: [[LazyMetric<Counter>; 3]; 2],
    /// By end.
    waits: [LazyMetric<Histogram>; 4],
}

impl Instruments for BulkheadMetrics {
    type Levels = [AtomicU64; 3];

    fn bind(labels: Labels) -> Self {
        describe_gauge!("buttress_limit", "How many calls may be in flight");
        describe_gauge!("buttress_in_flight", "Calls that hold a permit");
        describe_gauge!("buttress_queue_depth", "Calls that wait to be let through");
        describe_histogram!(
            "buttress_queue_wait_seconds",
            Unit::Seconds,
            "Time that calls waited to be let through"
        );
        let Labels { name, part } = labels;
        Self {
            labels,
            gauges: [
                gauge!("buttress_limit", "name" => name, "layer" => part),
                gauge!("buttress_in_flight", "name" => name, "layer" => part),
                gauge!("buttress_queue_depth", "name" => name, "layer" => part),
            ],
            rejections: Default::default(),
            waits: Default::default(),
        }
    }

    fn publish(&self, levels: &[AtomicU64; 3]) {
        for (gauge, level) in self.gauges.iter().zip(levels) {
            gauge.set(level.load(Ordering::SeqCst) as f64);
        }
    }
}

impl Gauges<3> for BulkheadMetrics {
    fn sums(levels: &[AtomicU64; 3]) -> &[AtomicU64; 3] {
        levels
    }

    #[inline]
    fn parts(word: u64) -> [u64; 3] {
        let word = Word::from_bits(word);
        [word.limit(), word.in_flight(), word.waiting()].map(|part| part as u64)
    }
}

impl BulkheadMetrics {
    /// A call was refused, or would have been.
    pub(super) fn rejected(&self, reason: Reason, mode: Mode, now: Instant) {
        let look_up = || self.labels.rejections(reason.label(), mode);
        self.rejections[mode as usize][reason as usize]
            .with(now, look_up, |rejections| rejections.increment(1));
    }

    /// A call has waited in the queue.
    pub(super) fn waited(&self, end: WaitEnd, waited: Duration, now: Instant) {
        let look_up = || {
            histogram!("buttress_queue_wait_seconds",
                "name" => self.labels.name,
                "layer" => self.labels.part,
                "result" => end.label())
        };
        self.waits[end as usize].with(now, look_up, |waits| waits.record(waited));
    }
}
