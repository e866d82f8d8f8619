//! What the circuit breaker reports.

use std::sync::atomic::{AtomicI64, Ordering};

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

use tokio::time::Instant;

use crate::Mode;
use crate::algorithm::breaker::{State, Transition, TransitionCause};
use crate::telemetry::{Instruments, Labels, LazyMetric};

const STATES: [State; 3] = [State::Closed, State::Open, State::HalfOpen];

impl State {
    /// The value of the label `state`.
    fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl TransitionCause {
    /// The value of the label `cause`.
    fn label(self) -> &'static str {
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

/// How many breakers of one name are in each state.
#[derive(Debug, Default)]
pub(super) struct Levels([AtomicI64; STATES.len()]);

impl Levels {
    pub(super) fn created(&self, state: State) {
        self.0[state as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self, state: State) {
        self.0[state as usize].fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn moved(&self, from: State, to: State) {
        self.dropped(from);
        self.created(to);
    }
}

pub(super) struct BreakerMetrics {
    labels: Labels,
    states: [Gauge; STATES.len()],
    rejections: [LazyMetric<Counter>; 2],
}

impl Instruments for BreakerMetrics {
    type Levels = Levels;

    fn bind(labels: Labels) -> Self {
        describe_gauge!(
            "buttress_breaker_state",
            "1 for the state that the circuit breaker is in, 0 for the others"
        );
        describe_counter!(
            "buttress_breaker_transitions_total",
            "Changes of state of the circuit breaker"
        );
        Self {
            labels,
            states: STATES.map(|state| {
                gauge!("buttress_breaker_state", "name" => labels.name, "state" => state.label())
            }),
            rejections: Default::default(),
        }
    }

    fn publish(&self, levels: &Levels) {
        for (gauge, level) in self.states.iter().zip(&levels.0) {
            gauge.set(level.load(Ordering::Relaxed) as f64);
        }
    }
}

impl BreakerMetrics {
    /// A call was refused, or would have been.
    pub(super) fn rejected(&self, mode: Mode, now: Instant) {
        let look_up = || self.labels.rejections("circuit_open", mode);
        self.rejections[mode as usize].with(now, look_up, |rejections| rejections.increment(1));
    }

    /// The state changed. Rare enough to look the handle up.
    pub(super) fn changed(&self, transition: Transition, levels: &Levels) {
        self.publish(levels);
        counter!("buttress_breaker_transitions_total",
            "name" => self.labels.name,
            "to" => transition.to.label(),
            "cause" => transition.cause.label())
        .increment(1);
    }
}
