//! The metrics of timeout and deadline.

use tokio::time::Instant;

use crate::telemetry::table::TIMEOUTS;
use crate::telemetry::{Instruments, Series};

#[derive(Debug, Default)]
pub(crate) struct TimeoutMetrics;

impl Instruments for TimeoutMetrics {}

impl Series<TimeoutMetrics> {
    /// A call was given up.
    pub(crate) fn timed_out(&self, now: Instant) {
        self.report(now, |handles| handles.count(&TIMEOUTS, &[]));
    }
}
