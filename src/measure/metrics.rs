//! What measure reports.

use std::time::Duration;

use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};

use tokio::time::Instant;

use crate::telemetry::{Ended, Instruments, Labels, LazyMetric};

/// The stages that are measured.
pub(super) const OPERATION: &str = "operation";
pub(super) const ATTEMPT: &str = "attempt";

pub(crate) struct MeasureMetrics {
    labels: Labels,
    /// Made when an outcome comes up first, so that those which never do are not exported.
    by_outcome: [LazyMetric<(Counter, Histogram)>; Ended::NAMES.len()],
}

impl Instruments for MeasureMetrics {
    type Levels = ();

    fn bind(labels: Labels) -> Self {
        describe_counter!("buttress_calls_total", "Calls that have ended");
        describe_histogram!(
            "buttress_call_duration_seconds",
            Unit::Seconds,
            "Time from the call to its answer"
        );
        Self {
            labels,
            by_outcome: Default::default(),
        }
    }
}

impl MeasureMetrics {
    #[inline]
    pub(super) fn ended(&self, end: Ended, duration: Duration, now: Instant) {
        let place = end as usize;
        let look_up = || {
            let Labels { name, part } = self.labels;
            let outcome = Ended::NAMES[place];
            (
                counter!("buttress_calls_total",
                    "name" => name, "stage" => part, "outcome" => outcome),
                histogram!("buttress_call_duration_seconds",
                    "name" => name, "stage" => part, "outcome" => outcome),
            )
        };
        self.by_outcome[place].with(now, look_up, |(calls, durations)| {
            calls.increment(1);
            durations.record(duration);
        });
    }
}
