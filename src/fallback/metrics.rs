//! What the fallback reports.

use metrics::{counter, describe_counter};

use super::answer::NoAnswer;
use crate::telemetry::{Instruments, Labels};

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
            Self::None(NoAnswer::Deadline) => "deadline",
        }
    }
}

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
    pub(super) fn ended(&self, ended: Ended) {
        counter!("buttress_fallbacks_total", "name" => self.labels.name, "result" => ended.label())
            .increment(1);
    }
}
