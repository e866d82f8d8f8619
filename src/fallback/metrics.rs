//! The metrics of the fallback.

use tokio::time::Instant;

use crate::telemetry::table::FALLBACKS;
use crate::telemetry::{Instruments, Series};

#[derive(Debug, Default)]
pub(super) struct FallbackMetrics;

impl Instruments for FallbackMetrics {}

impl Series<FallbackMetrics> {
    /// A fallback acted on a failed call.
    pub(super) fn ended(&self, result: &'static str, now: Instant) {
        self.report(now, |handles| handles.count(&FALLBACKS, &[result]));
    }
}
