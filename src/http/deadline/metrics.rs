//! The metrics of the propagation of deadlines.

use metrics::counter;

use crate::Mode;
use crate::telemetry::{Instruments, Labels};

/// Only reports requests that are not sent or are late, so the handles are looked up when that happens.
pub(super) struct PropagateMetrics {
    labels: Labels,
}

impl Instruments for PropagateMetrics {
    type Levels = ();

    fn bind(labels: Labels) -> Self {
        Self { labels }
    }
}

impl PropagateMetrics {
    /// A request was not sent, because there was no time left for it.
    pub(super) fn refused(&self) {
        let rejections = self.labels.rejections("deadline_exceeded", Mode::Enforce);
        rejections.increment(1);
    }

    /// A client ended a call when the time was over that it was told.
    pub(super) fn timed_out(&self) {
        let Labels { name, part, .. } = self.labels;
        counter!("buttress_timeouts_total", "name" => name, "layer" => part).increment(1);
    }
}
