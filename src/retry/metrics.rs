//! What retry reports.

use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

use crate::algorithm::retry::Wait;
use crate::telemetry::{Instruments, Labels};
use crate::{GaveUp, Mode};

impl GaveUp {
    /// The value of the label `decision`.
    fn label(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Budget => "budget",
            Self::Deadline => "deadline",
            Self::RetryAfter => "retry_after",
            Self::NotRetryable => "not_retryable",
            Self::NotIdempotent => "not_idempotent",
            Self::NotCopyable => "not_copyable",
            Self::Rejected => "rejected",
            Self::Pushback => "pushback",
            Self::Nested => "nested",
        }
    }
}

/// Only reports attempts that failed, so the handles are looked up when that happens.
pub(crate) struct RetryMetrics {
    labels: Labels,
}

impl Instruments for RetryMetrics {
    type Levels = ();

    fn bind(labels: Labels) -> Self {
        describe_counter!(
            "buttress_retry_decisions_total",
            "What was decided after an attempt failed"
        );
        describe_histogram!(
            "buttress_retry_delay_seconds",
            Unit::Seconds,
            "Time waited before a further attempt"
        );
        Self { labels }
    }
}

impl RetryMetrics {
    /// A further attempt follows.
    pub(crate) fn retried(&self, wait: Wait) {
        self.decided("retried");
        let source = if wait.by_retry_after {
            "retry_after"
        } else {
            "backoff"
        };
        histogram!("buttress_retry_delay_seconds", "name" => self.labels.name, "source" => source)
            .record(wait.duration);
    }

    /// The attempt that failed was the last.
    pub(crate) fn gave_up(&self, reason: GaveUp) {
        self.decided(reason.label());
    }

    fn decided(&self, decision: &'static str) {
        counter!("buttress_retry_decisions_total",
            "name" => self.labels.name, "decision" => decision)
        .increment(1);
    }

    /// An operation was not begun, because its deadline had passed.
    pub(crate) fn refused(&self) {
        let rejections = self.labels.rejections("deadline_exceeded", Mode::Enforce);
        rejections.increment(1);
    }
}
