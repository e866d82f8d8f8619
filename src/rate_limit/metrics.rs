//! What the rate limit reports.

use std::cell::OnceCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, describe_gauge, describe_histogram, gauge, histogram,
};
use tokio::time::Instant;

use crate::Mode;
use crate::telemetry::{Gauges, Instruments, Labels, LazyMetric};

/// Why a call was refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reason {
    RateLimited,
    TooCostly,
    Deadline,
}

impl Reason {
    /// The value of the label `reason`.
    fn label(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::TooCostly => "too_costly",
            Self::Deadline => "deadline_exceeded",
        }
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Admitted,
    Rejected,
    Cancelled,
}

impl End {
    /// The value of the label `result`.
    fn label(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The calls that wait for limits of one name.
#[derive(Debug, Default)]
pub(super) struct Levels {
    has_queue: AtomicBool,
    waiting: [AtomicU64; 1],
}

impl Levels {
    /// A limit has been built for which calls may wait.
    pub(super) fn has_queue(&self) {
        self.has_queue.store(true, Ordering::Relaxed);
    }
}

pub(super) struct RateLimitMetrics {
    labels: Labels,
    /// By reason and mode.
    rejections: [[LazyMetric<Counter>; 2]; 3],
    waits: [LazyMetric<Histogram>; 3],
    /// Looked up if there is a queue.
    depth: OnceCell<Gauge>,
}

impl Instruments for RateLimitMetrics {
    type Levels = Levels;

    fn bind(labels: Labels) -> Self {
        Self {
            labels,
            rejections: Default::default(),
            waits: Default::default(),
            depth: OnceCell::new(),
        }
    }

    fn publish(&self, levels: &Levels) {
        if !levels.has_queue.load(Ordering::Relaxed) {
            return;
        }
        let depth = self.depth.get_or_init(|| {
            describe_gauge!("buttress_queue_depth", "Calls that wait to be let through");
            gauge!("buttress_queue_depth",
                "name" => self.labels.name, "layer" => self.labels.part)
        });
        depth.set(levels.waiting[0].load(Ordering::SeqCst) as f64);
    }
}

impl Gauges<1> for RateLimitMetrics {
    fn sums(levels: &Levels) -> &[AtomicU64; 1] {
        &levels.waiting
    }

    fn parts(waiting: u64) -> [u64; 1] {
        [waiting]
    }
}

impl RateLimitMetrics {
    /// A call was refused, or would have been.
    pub(super) fn rejected(&self, reason: Reason, mode: Mode, now: Instant) {
        let look_up = || self.labels.rejections(reason.label(), mode);
        self.rejections[reason as usize][mode as usize]
            .with(now, look_up, |rejections| rejections.increment(1));
    }

    /// A call that had to wait waits no more.
    pub(super) fn waited(&self, end: End, waited: Duration, now: Instant) {
        let look_up = || {
            describe_histogram!(
                "buttress_queue_wait_seconds",
                Unit::Seconds,
                "Time that calls waited to be let through"
            );
            histogram!("buttress_queue_wait_seconds",
                "name" => self.labels.name,
                "layer" => self.labels.part,
                "result" => end.label())
        };
        self.waits[end as usize].with(now, look_up, |waits| waits.record(waited));
    }
}
