//! The metrics of retry.

use tokio::time::Instant;

use super::plan::Plan;
use super::race::End;
use crate::algorithm::retry::Wait;
use crate::event::EventKind;
use crate::telemetry::table::{RETRY_DECISIONS, RETRY_DELAY};
use crate::telemetry::{Initial, Report, Series};
use crate::{Error, GaveUp};

/// The value of the label `decision` for a further attempt.
const RETRIED: &str = "retried";

impl GaveUp {
    /// Returns the value of the label `decision`.
    pub(crate) fn label(self) -> &'static str {
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
}

impl Report {
    /// Notes that a further attempt follows the one that has ended, whose number is given.
    pub(super) fn retried<Res, P: Plan>(
        &self,
        wait: Wait,
        attempt: u32,
        end: &End<Res, P>,
        now: Instant,
    ) {
        let source = if wait.by_retry_after {
            "retry_after"
        } else {
            "backoff"
        };
        self.report(now, |handles| {
            handles.count(&RETRY_DECISIONS, &[RETRIED]);
            handles.record(&RETRY_DELAY, &[source], wait.duration);
        });
        self.tell(|| EventKind::Retry {
            attempt,
            wait: wait.duration,
            by_retry_after: wait.by_retry_after,
            outcome: end.outcome,
            error: end.result.as_ref().err(),
        });
    }

    /// Notes that a further attempt follows although the budget does not pay for it.
    #[cold]
    pub(super) fn observed_budget(&self, now: Instant) {
        self.report(now, |handles| {
            handles.count(&RETRY_DECISIONS, &["budget_observed"]);
        });
    }

    /// Notes that no attempt follows the failed one, whose number is given.
    pub(crate) fn gave_up(
        &self,
        reason: GaveUp,
        attempts: u32,
        error: Option<&Error>,
        now: Instant,
    ) {
        self.report(now, |handles| {
            handles.count(&RETRY_DECISIONS, &[reason.label()]);
        });
        self.tell(|| EventKind::GaveUp {
            attempts,
            reason,
            error,
        });
    }
}
