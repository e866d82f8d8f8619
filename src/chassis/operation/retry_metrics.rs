//! The metrics of retry.

use tokio::time::Instant;

use crate::GaveUp;
use crate::algorithm::retry::Wait;
use crate::telemetry::table::{RETRY_DECISIONS, RETRY_DELAY};
use crate::telemetry::{Initial, Series};

/// The value of the label `decision` for a further attempt.
const RETRIED: &str = "retried";

impl GaveUp {
    /// Returns the value of the label `decision`.
    fn label(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Budget => "budget",
            Self::Deadline => "deadline",
            Self::ResponseTimeout => "response_timeout",
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

impl Series {
    /// Returns the series of the retries of this name.
    pub(crate) fn of_retry(name: &str) -> &'static Self {
        let reasons = [GaveUp::Exhausted, GaveUp::Budget, GaveUp::Deadline];
        let decisions = reasons.map(GaveUp::label).into_iter().chain([RETRIED]);
        let counters = decisions.map(|decision| Initial::of(&RETRY_DECISIONS, &[decision]));
        Self::of(name, "retry").begin(counters)
    }

    /// Notes that a further attempt follows.
    pub(crate) fn retried(&self, wait: Wait, now: Instant) {
        let source = if wait.by_retry_after {
            "retry_after"
        } else {
            "backoff"
        };
        self.report(now, |handles| {
            handles.count(&RETRY_DECISIONS, &[RETRIED]);
            handles.record(&RETRY_DELAY, &[source], wait.duration);
        });
    }

    /// Notes that no attempt follows the failed one.
    pub(crate) fn gave_up(&self, reason: GaveUp, now: Instant) {
        self.report(now, |handles| {
            handles.count(&RETRY_DECISIONS, &[reason.label()]);
        });
    }
}
