//! What the balancer reports.

use std::fmt;
use std::sync::{Arc, Mutex};

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use tokio::time::Instant;

use super::condition::EndpointState;
use super::outlier::EjectionMethod;
use super::roster::Roster;
use crate::Mode;
use crate::sync::lock;
use crate::telemetry::{Instruments, Kept, Labels};

const STATES: [EndpointState; 4] = [
    EndpointState::Ready,
    EndpointState::Ejected,
    EndpointState::SlowStart,
    EndpointState::Unhealthy,
];

impl EndpointState {
    /// The value of the label `state`.
    fn label(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Ejected => "ejected",
            Self::SlowStart => "slow_start",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// The balancers of one name.
#[derive(Default)]
pub(super) struct Levels(Mutex<Vec<Arc<Roster>>>);

impl Levels {
    pub(super) fn add(&self, roster: &Arc<Roster>) {
        lock(&self.0).push(Arc::clone(roster));
    }

    pub(super) fn remove(&self, roster: &Arc<Roster>) {
        lock(&self.0).retain(|kept| !Arc::ptr_eq(kept, roster));
    }
}

impl fmt::Debug for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Levels").field(&lock(&self.0).len()).finish()
    }
}

pub(super) struct BalanceMetrics {
    labels: Labels,
    states: [Gauge; STATES.len()],
    refusals: Kept<Counter>,
}

impl Instruments for BalanceMetrics {
    type Levels = Levels;

    fn bind(labels: Labels) -> Self {
        describe_gauge!(
            "buttress_endpoints",
            "Endpoints of a balancer that are in this state"
        );
        Self {
            labels,
            states: STATES.map(|state| {
                gauge!("buttress_endpoints", "name" => labels.name, "state" => state.label())
            }),
            refusals: Kept::default(),
        }
    }

    fn publish(&self, levels: &Levels) {
        let mut counts = [0; STATES.len()];
        for roster in lock(&levels.0).iter() {
            roster.count(&mut counts);
        }
        for (gauge, count) in self.states.iter().zip(counts) {
            gauge.set(count as f64);
        }
    }
}

impl BalanceMetrics {
    /// An endpoint was ejected, or would have been. Looked up each time: that is rare.
    pub(super) fn ejected(&self, method: EjectionMethod, mode: Mode) {
        describe_counter!(
            "buttress_ejections_total",
            "Endpoints that were left out because they failed more than the others"
        );
        let labels = [
            ("name", self.labels.name),
            ("method", method.label()),
            ("mode", mode.label()),
        ];
        counter!("buttress_ejections_total", &labels).increment(1);
    }

    /// A call was refused because there is no endpoint.
    pub(super) fn refused(&self, now: Instant) {
        let look_up = || self.labels.rejections("no_endpoints", Mode::Enforce);
        self.refusals
            .with(now, look_up, |refusals| refusals.increment(1));
    }
}
