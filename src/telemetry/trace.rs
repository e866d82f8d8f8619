//! Events of the crate `tracing`.

use crate::circuit_breaker::State;
use crate::event::{Chain, Event, EventKind};

/// Records an event with this target, which must be a constant.
macro_rules! record_as {
    ($event:ident, $level:ident, $target:expr, { $($fields:tt)* }) => {
        tracing::event!(
            target: $target, tracing::Level::$level,
            name = $event.name, layer = $event.layer, $($fields)*, "{}", $event
        )
    };
}

/// Records an event of one of these layers, whose name is the end of its target.
macro_rules! record {
    ($event:ident, $level:ident, $fields:tt, [$($layer:literal)*]) => {
        match $event.layer {
            $($layer => record_as!($event, $level, concat!("buttress::", $layer), $fields),)*
            _ => record_as!($event, $level, "buttress", $fields),
        }
    };
}

/// Records an event with its fields.
pub(super) fn trace(event: &Event<'_>) {
    match &event.kind {
        EventKind::Retry {
            attempt,
            wait,
            by_retry_after,
            outcome,
            error,
        } => {
            let error = error.map(|error| tracing::field::display(Chain(error)));
            let (wait, outcome) = (wait.as_secs_f64(), outcome.label());
            record!(event, DEBUG, { attempt, wait, by_retry_after, outcome, error }, ["retry"]);
        }
        EventKind::GaveUp {
            attempts,
            reason,
            error,
        } => {
            let error = error.map(|error| tracing::field::display(Chain(error)));
            record!(event, DEBUG, { attempts, reason = reason.label(), error }, ["retry"]);
        }
        EventKind::Hedge { result } => {
            record!(event, DEBUG, { result = result.label() }, ["hedge"]);
        }
        EventKind::Refused {
            reason,
            mode,
            retry_after,
        } => {
            let retry_after = retry_after.map(|after| after.as_secs_f64());
            let (reason, mode) = (reason.label(), mode.label());
            record!(event, DEBUG, { reason, mode, retry_after },
                ["circuit_breaker" "rate_limit" "bulkhead" "deadline" "balance" "retry"]);
        }
        EventKind::TimedOut { limit } => {
            let limit = limit.map(|limit| limit.as_secs_f64());
            record!(event, DEBUG, { limit }, ["timeout" "response_timeout" "deadline"]);
        }
        EventKind::Transition(change) => {
            let (from, to, cause) = (change.from.label(), change.to.label(), change.cause.label());
            let open_for = change.open_for.map(|time| time.as_secs_f64());
            if change.to == State::Open {
                record!(event, WARN, { from, to, cause, open_for }, ["circuit_breaker"]);
            } else {
                record!(event, INFO, { from, to, cause, open_for }, ["circuit_breaker"]);
            }
        }
        EventKind::Ejected {
            endpoint,
            method,
            mode,
        } => {
            record!(event, WARN, { endpoint, method, mode = mode.label() }, ["balance"]);
        }
    }
}
