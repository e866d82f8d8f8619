//! A time that bounds a call, and the report that it was over.

use std::time::Duration;

use tokio::time::Instant;

use crate::telemetry::table::TIMEOUTS;
use crate::telemetry::{Instruments, Series};

/// A time, and where it is reported that it was over.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub(crate) time: Duration,
    pub(crate) metrics: &'static Series<TimeoutMetrics>,
}

#[derive(Debug, Default)]
pub(crate) struct TimeoutMetrics;

impl Instruments for TimeoutMetrics {}

impl Series<TimeoutMetrics> {
    /// A call was given up.
    pub(crate) fn timed_out(&self, now: Instant) {
        self.report(now, |handles| handles.count(&TIMEOUTS, &[]));
    }
}
