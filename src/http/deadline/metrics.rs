//! What the propagation of deadlines reports.

use crate::Mode;
use crate::telemetry::{Instruments, Labels};

/// Only reports requests that are not sent, so the handle is looked up when that happens.
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
}
