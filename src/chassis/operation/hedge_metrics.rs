//! The metrics of hedging.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::event::EventKind;
use crate::telemetry::table::{HEDGE_DELAY, HEDGES};
use crate::telemetry::{Handles, Initial, Instruments, Report, Series};

/// Result of a hedge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hedged {
    /// It gave the answer.
    Won,
    /// Another attempt gave the answer first, or the caller dropped the call.
    Lost,
    /// It failed, or an inner layer refused it.
    Failed,
    /// It was not sent, because the allowance or the budget was used up.
    DeniedBudget,
    /// It was not sent, because all calls are slow.
    DeniedSlowdown,
}

impl Hedged {
    /// Returns the value of the label `result`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::DeniedBudget => "denied_budget",
            Self::DeniedSlowdown => "denied_slowdown",
        }
    }
}

/// The delay, in nanoseconds. If several layers have one name, the delay of the last used layer.
#[derive(Debug, Default)]
pub(crate) struct HedgeMetrics(AtomicU64);

impl HedgeMetrics {
    pub(crate) fn set(&self, delay: Option<Duration>) {
        let nanos = delay.map_or(0, |delay| delay.as_nanos() as u64);
        self.0.store(nanos, Ordering::Relaxed);
    }
}

impl Instruments for HedgeMetrics {
    fn publish(&self, handles: &mut Handles) {
        let delay = Duration::from_nanos(self.0.load(Ordering::Relaxed));
        handles.set(&HEDGE_DELAY, &[], delay.as_secs_f64());
    }
}

impl Series<HedgeMetrics> {
    /// Returns the series of the hedges of this name.
    pub(crate) fn of_hedge(name: &str, delay: Option<Duration>) -> &'static Self {
        let results = [
            Hedged::Won,
            Hedged::Lost,
            Hedged::Failed,
            Hedged::DeniedBudget,
            Hedged::DeniedSlowdown,
        ];
        let counters = results.map(|result| Initial::of(&HEDGES, &[result.label()]));
        let series = Self::of(name, "hedge");
        series.levels().set(delay);
        series.begin(counters)
    }
}

impl Report<HedgeMetrics> {
    /// Notes that a hedge is over, or was denied.
    pub(crate) fn hedged(&self, result: Hedged, now: Instant) {
        self.report(now, |handles| handles.count(&HEDGES, &[result.label()]));
        self.tell(|| EventKind::Hedge { result });
    }

    /// Notes that the hedge of this number was sent.
    pub(crate) fn sent(&self, number: u32) {
        self.tell(|| EventKind::HedgeSent { number });
    }
}
