//! The metrics of the fallback.

use metrics::{counter, describe_counter};

use crate::telemetry::{Instruments, Labels};

/// Only reports calls that failed, so the handles are looked up when that happens.
pub(super) struct FallbackMetrics {
    labels: Labels,
}

impl Instruments for FallbackMetrics {
    type Levels = ();

    fn bind(labels: Labels) -> Self {
        describe_counter!(
            "buttress_fallbacks_total",
            "Failed calls that a fallback acted on"
        );
        Self { labels }
    }
}

impl FallbackMetrics {
    /// A fallback acted on a failed call.
    pub(super) fn ended(&self, result: &'static str) {
        let fallbacks =
            counter!("buttress_fallbacks_total", "name" => self.labels.name, "result" => result);
        fallbacks.increment(1);
    }
}
