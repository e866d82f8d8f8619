//! What hedging reports.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use crate::telemetry::{Instruments, Labels};

/// What became of a hedge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hedged {
    /// It gave the answer.
    Won,
    /// Another attempt gave the answer first, or the caller went away.
    Lost,
    /// It failed, or an inner layer refused it.
    Failed,
    /// It was not sent, because there was no budget for it.
    DeniedBudget,
    /// It was not sent, because all calls are slow.
    DeniedSlowdown,
}

impl Hedged {
    /// The value of the label `result`.
    fn label(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::DeniedBudget => "denied_budget",
            Self::DeniedSlowdown => "denied_slowdown",
        }
    }
}

/// The delay, in nanoseconds. Of several layers with one name, that of the one which was used last.
#[derive(Debug, Default)]
pub(crate) struct Levels {
    delay: AtomicU64,
}

impl Levels {
    pub(crate) fn set(&self, delay: Option<Duration>) {
        let nanos = delay.map_or(0, |delay| delay.as_nanos() as u64);
        self.delay.store(nanos, Ordering::Relaxed);
    }
}

pub(crate) struct HedgeMetrics {
    labels: Labels,
    delay: Gauge,
}

impl Instruments for HedgeMetrics {
    type Levels = Levels;

    fn bind(labels: Labels) -> Self {
        describe_counter!(
            "buttress_hedges_total",
            "What became of the hedges that were due"
        );
        describe_gauge!(
            "buttress_hedge_delay_seconds",
            Unit::Seconds,
            "Time after which a call is hedged; 0 if it is not known yet"
        );
        Self {
            labels,
            delay: gauge!("buttress_hedge_delay_seconds", "name" => labels.name),
        }
    }

    fn publish(&self, levels: &Levels) {
        let nanos = levels.delay.load(Ordering::Relaxed);
        self.delay.set(Duration::from_nanos(nanos));
    }
}

impl HedgeMetrics {
    /// A hedge is over, or was denied. Rare enough to look the handle up.
    pub(crate) fn hedged(&self, result: Hedged) {
        counter!("buttress_hedges_total",
            "name" => self.labels.name, "result" => result.label())
        .increment(1);
    }
}
