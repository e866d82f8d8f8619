//! What the bulkhead reports.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, describe_gauge, describe_histogram, gauge, histogram,
};
use tokio::time::Instant;

use super::word::Word;
use crate::telemetry::{Instruments, Kept, Labels};
use crate::{ErrorKind, Mode};

/// What the gauges show: the sums over all bulkheads of one name.
#[derive(Debug, Default)]
pub(super) struct Levels {
    limit: AtomicU64,
    in_flight: AtomicU64,
    queued: AtomicU64,
    /// How often they changed.
    changes: AtomicU64,
}

impl Levels {
    /// Puts what a bulkhead shows now, if it still exists, in the place of what it showed before.
    pub(super) fn moved(&self, from: Option<Word>, to: Option<Word>) {
        let add = |level: &AtomicU64, part: fn(Word) -> usize| {
            let [from, to] = [from, to].map(|word| word.map_or(0, part) as u64);
            // Wraps where it falls; the sum does not.
            level.fetch_add(to.wrapping_sub(from), Ordering::SeqCst);
        };
        add(&self.limit, Word::limit);
        add(&self.in_flight, Word::in_flight);
        add(&self.queued, Word::waiting);
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }
}

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
    limit: Gauge,
    in_flight: Gauge,
    queue_depth: Gauge,
    /// By mode and reason.
    rejections: [[Kept<Counter>; 3]; 2],
    /// By end.
    waits: [Kept<Histogram>; 4],
}

impl Instruments for BulkheadMetrics {
    type Levels = Levels;

    fn bind(labels: Labels) -> Self {
        describe_gauge!("buttress_limit", "How many calls may be in flight");
        describe_gauge!("buttress_in_flight", "Calls that hold a permit");
        describe_gauge!("buttress_queue_depth", "Calls that wait for a permit");
        describe_histogram!(
            "buttress_queue_wait_seconds",
            Unit::Seconds,
            "Time that calls waited to be let through"
        );
        let Labels { name, part } = labels;
        Self {
            labels,
            limit: gauge!("buttress_limit", "name" => name, "layer" => part),
            in_flight: gauge!("buttress_in_flight", "name" => name, "layer" => part),
            queue_depth: gauge!("buttress_queue_depth", "name" => name, "layer" => part),
            rejections: Default::default(),
            waits: Default::default(),
        }
    }

    fn publish(&self, levels: &Levels) {
        let shown = [
            (&self.limit, &levels.limit),
            (&self.in_flight, &levels.in_flight),
            (&self.queue_depth, &levels.queued),
        ];
        for (gauge, level) in shown {
            gauge.set(level.load(Ordering::SeqCst) as f64);
        }
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
