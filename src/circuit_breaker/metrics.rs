//! Metrics of the circuit breaker.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::time::Instant;

use crate::algorithm::breaker::{State, Transition, TransitionCause};
use crate::event::EventKind;
use crate::telemetry::table::{BREAKER_OPENINGS, BREAKER_STATE, BREAKER_TRANSITIONS};
use crate::telemetry::{Handles, Instruments, Report};

const STATES: [State; 3] = [State::Closed, State::Open, State::HalfOpen];

impl State {
    /// Returns the value of the labels `state` and `to`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl TransitionCause {
    /// Returns the value of the label `cause`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::FailureShare => "failure_share",
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::SlowCalls => "slow_calls",
            Self::OpenTimeOver => "open_time_over",
            Self::ProbesFailed => "probes_failed",
            Self::ProbesSucceeded => "probes_succeeded",
            Self::Forced => "forced",
            Self::Reset => "reset",
        }
    }
}

/// Numbers of breakers of one name in each state.
#[derive(Debug, Default)]
pub(super) struct BreakerMetrics([AtomicI64; STATES.len()]);

impl BreakerMetrics {
    /// Adds `breakers` to the number of breakers in this state.
    pub(super) fn add(&self, state: State, breakers: i64) {
        self.0[state as usize].fetch_add(breakers, Ordering::Relaxed);
    }
}

impl Instruments for BreakerMetrics {
    fn publish(&self, handles: &mut Handles) {
        for (state, level) in STATES.into_iter().zip(&self.0) {
            let level = level.load(Ordering::Relaxed) as f64;
            handles.set(&BREAKER_STATE, &[state.label()], level);
        }
    }
}

impl Report<BreakerMetrics> {
    /// Notes that a breaker has changed its state.
    pub(super) fn changed(&self, transition: Transition, now: Instant) {
        self.levels().add(transition.from, -1);
        self.levels().add(transition.to, 1);
        self.publish(now);
        let values = [transition.to.label(), transition.cause.label()];
        self.report(now, |handles| {
            handles.count(&BREAKER_TRANSITIONS, &values);
            if transition.to == State::Open {
                handles.count(&BREAKER_OPENINGS, &[]);
            }
        });
        self.tell_change(EventKind::Transition(transition));
    }
}
