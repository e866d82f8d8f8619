//! Events of the crate `tracing`.

use crate::circuit_breaker::State;
use crate::event::{Chain, Event, EventKind};

/// Records an event with the target `$target`, which must be a constant.
macro_rules! record_as {
    ($event:ident, $level:ident, $target:expr, { $($fields:tt)* }) => {
        tracing::event!(
            target: $target, tracing::Level::$level,
            name = $event.name, layer = $event.layer, $($fields)*, "{}", $event
        )
    };
}

/// Records an event. `$layers` are the layers that can cause it, because the target of each must be a constant.
macro_rules! record {
    ($event:ident, WARN if $is_warning:expr, $fields:tt, $layers:tt) => {
        if $is_warning {
            record!($event, WARN, $fields, $layers);
        } else {
            record!($event, INFO, $fields, $layers);
        }
    };
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
        EventKind::HedgeSent { number } => {
            record!(event, DEBUG, { number }, ["hedge"]);
        }
        EventKind::Paused { pause } => {
            let pause = pause.as_secs_f64();
            record!(event, DEBUG, { pause }, ["rate_limit"]);
        }
        EventKind::LimitShrunk { from, to } => {
            record!(event, DEBUG, { from, to }, ["bulkhead"]);
        }
        EventKind::DrainBegan { in_flight } => {
            record!(event, INFO, { in_flight }, ["drain"]);
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
                ["circuit_breaker" "rate_limit" "bulkhead" "deadline" "balance" "retry" "drain" "propagate_deadline" "inherit_deadline"]);
        }
        EventKind::TimedOut { limit, mode } => {
            let (limit, mode) = (limit.map(|limit| limit.as_secs_f64()), mode.label());
            record!(event, DEBUG, { limit, mode }, ["timeout" "response_timeout" "deadline" "body" "request_body"
                    "propagate_deadline" "inherit_deadline"]);
        }
        EventKind::Transition(change) => {
            let (from, to, cause) = (change.from.label(), change.to.label(), change.cause.label());
            let open_for = change.open_for.map(|time| time.as_secs_f64());
            let (calls, failures, slow) = (change.calls, change.failures, change.slow);
            record!(event, WARN if change.to == State::Open, { from, to, cause, open_for, calls, failures, slow }, ["circuit_breaker"]);
        }
        EventKind::Ejected {
            endpoint,
            method,
            mode,
        } => {
            record!(event, WARN, { endpoint, method, mode = mode.label() }, ["balance"]);
        }
        EventKind::Restored { endpoint }
        | EventKind::EndpointAdded { endpoint }
        | EventKind::EndpointRemoved { endpoint } => {
            record!(event, INFO, { endpoint }, ["balance"]);
        }
        EventKind::Health {
            endpoint,
            is_healthy,
        } => {
            record!(event, WARN if !*is_healthy, { endpoint, is_healthy }, ["balance"]);
        }
        EventKind::Failover {
            priority,
            gets_calls,
        } => {
            // The first priority gets no calls any more, or another one gets calls in its place.
            let is_warning = *gets_calls == (*priority > 0);
            record!(event, WARN if is_warning, { priority, gets_calls }, ["balance"]);
        }
        EventKind::Panic { priority, is_on } => {
            record!(event, WARN if *is_on, { priority, is_on }, ["balance"]);
        }
        EventKind::Task { task, state } => {
            record!(event, WARN if !matches!(*state, "running" | "ended"), { task, state }, ["balance"]);
        }
        EventKind::LookupFailed => {
            record!(event, WARN, { task = "discovery" }, ["balance"]);
        }
        EventKind::DrainEnded { in_flight } if *in_flight > 0 => {
            record!(event, WARN, { in_flight }, ["drain"]);
        }
        EventKind::DrainEnded { in_flight } => {
            record!(event, INFO, { in_flight }, ["drain"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Write};
    use std::sync::{Arc, Mutex};

    use tower::service_fn;
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Metadata, Subscriber};

    use crate::event::{Event, EventKind};
    use crate::sync::lock;
    use crate::{BoxError, standard};

    /// Keeps a line for each event: level, target and fields.
    #[derive(Clone, Default)]
    struct Lines {
        kept: Arc<Mutex<Vec<String>>>,
        panics: bool,
    }

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            write!(self.0, " {}={value:?}", field.name()).expect("a string takes all");
        }
    }

    impl Subscriber for Lines {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target().starts_with("buttress")
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn event(&self, event: &tracing::Event<'_>) {
            let metadata = event.metadata();
            let mut line = Line(format!("{} {}", metadata.level(), metadata.target()));
            event.record(&mut line);
            assert!(!self.panics, "the subscriber panics");
            lock(&self.kept).push(line.0);
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn a_failover_is_a_warning_and_its_end_is_not() {
        let lines = Lines::default();
        let level = |priority, gets_calls| {
            let kind = EventKind::Failover {
                priority,
                gets_calls,
            };
            tracing::subscriber::with_default(lines.clone(), || {
                super::trace(&Event {
                    name: "failover",
                    layer: "balance",
                    kind,
                });
            });
            let line = lock(&lines.kept).pop().expect("is recorded");
            line.split(' ').next().map(str::to_owned)
        };
        assert_eq!(level(0, false).as_deref(), Some("WARN"));
        assert_eq!(level(1, true).as_deref(), Some("WARN"));
        assert_eq!(level(0, true).as_deref(), Some("INFO"));
        assert_eq!(level(1, false).as_deref(), Some("INFO"));
    }

    #[test]
    fn a_subscriber_that_panics_harms_neither_the_caller_nor_the_listener() {
        let lines = Lines {
            panics: true,
            ..Lines::default()
        };
        let events = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&events);
        let breaker = crate::CircuitBreakerLayer::config("panicking_subscriber")
            .on_event(move |_| *lock(&counted) += 1)
            .build()
            .expect("is valid")
            .handle();
        tracing::subscriber::with_default(lines, || breaker.force_open());
        assert_eq!(*lock(&events), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn events_have_a_level_a_target_and_fields() {
        let lines = Lines::default();
        let _guard = tracing::subscriber::set_default(lines.clone());
        let stack = standard("traced").unlimited();
        let stack = stack.circuit_breaker(|breaker| breaker.consecutive_failures(2));
        let stack = stack
            .retry(|retry| retry.max_attempts(2))
            .build()
            .expect("is valid");
        let client = stack.wrap(service_fn(|fails: bool| async move {
            if fails {
                Err::<(), BoxError>("reset".into())
            } else {
                Ok(())
            }
        }));
        client.send(false).await.expect("succeeds");
        assert!(lock(&lines.kept).is_empty(), "nothing of a success");
        for _ in 0..2 {
            client.send(true).await.expect_err("fails");
        }
        let lines = lock(&lines.kept).clone();
        let has = |start: &str, parts: &[&str]| {
            let mut found = lines.iter().filter(|line| line.starts_with(start));
            let is_whole = |line: &String| parts.iter().all(|part| line.contains(part));
            assert!(found.any(is_whole), "{start} {parts:?} in {lines:#?}");
        };
        has(
            "DEBUG buttress::retry",
            &[
                "name=\"traced\"",
                "attempt=1",
                "wait=0.",
                "outcome=\"failure\"",
                "reset",
            ],
        );
        has(
            "DEBUG buttress::retry",
            &["attempts=2", "reason=\"exhausted\""],
        );
        has(
            "WARN buttress::circuit_breaker",
            &[
                "from=\"closed\"",
                "to=\"open\"",
                "cause=\"consecutive_failures\"",
            ],
        );
        has(
            "DEBUG buttress::circuit_breaker",
            &["reason=\"circuit_open\"", "mode=\"enforce\""],
        );
    }
}
