//! What timeout and deadline report.

use metrics::{Counter, counter, describe_counter};

use crate::Mode;
use crate::telemetry::{Instruments, Labels};

pub(crate) struct TimeoutMetrics {
    labels: Labels,
    timeouts: Counter,
}

impl Instruments for TimeoutMetrics {
    type Levels = ();

    fn bind(labels: Labels) -> Self {
        describe_counter!(
            "buttress_timeouts_total",
            "Calls that were given up because their time was over"
        );
        Self {
            labels,
            timeouts: counter!("buttress_timeouts_total",
                "name" => labels.name, "layer" => labels.part),
        }
    }
}

impl TimeoutMetrics {
    /// A call was given up.
    pub(crate) fn timed_out(&self) {
        self.timeouts.increment(1);
    }

    /// A call was not begun, because its deadline had passed. Rare enough to look the handle up.
    pub(crate) fn refused(&self) {
        let rejections = self.labels.rejections("deadline_exceeded", Mode::Enforce);
        rejections.increment(1);
    }
}
