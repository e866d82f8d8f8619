//! What the fallback reports.

use tokio::time::Instant;

use super::answer::NoAnswer;
use crate::telemetry::table::FALLBACKS;
use crate::telemetry::{Instruments, Series};

/// How a fallback ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ended {
    Answered,
    /// The second service failed.
    Failed,
    None(NoAnswer),
}

impl Ended {
    /// The value of the label `result`.
    fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::None(NoAnswer::None) => "no_answer",
            Self::None(NoAnswer::NotCopyable) => "not_copyable",
            Self::None(NoAnswer::NotIdempotent) => "not_idempotent",
            Self::None(NoAnswer::Deadline) => "deadline",
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct FallbackMetrics;

impl Instruments for FallbackMetrics {}

impl Series<FallbackMetrics> {
    /// A fallback acted on a failed call.
    pub(super) fn ended(&self, ended: Ended, now: Instant) {
        self.report(now, |handles| handles.count(&FALLBACKS, &[ended.label()]));
    }
}
