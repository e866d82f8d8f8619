//! The metrics of measure.

use std::time::Duration;

use tokio::time::Instant;

use crate::telemetry::table::{CALL_DURATION, CALLS};
use crate::telemetry::{Ended, Instruments, Series};

/// The stages that are measured.
pub(super) const OPERATION: &str = "operation";
pub(super) const ATTEMPT: &str = "attempt";

#[derive(Debug, Default)]
pub(crate) struct MeasureMetrics;

impl Instruments for MeasureMetrics {}

impl Series<MeasureMetrics> {
    #[inline]
    pub(super) fn ended(&self, end: Ended, duration: Duration, now: Instant) {
        let outcome = &[end.label()];
        self.report(now, |handles| {
            handles.count(&CALLS, outcome);
            handles.record(&CALL_DURATION, outcome, duration);
        });
    }
}
