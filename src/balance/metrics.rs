//! What the balancer reports.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, Mutex};

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use tokio::time::Instant;

use super::condition::EndpointState;
use super::outlier::EjectionMethod;
use super::priority::PRIORITIES;
use super::roster::Roster;
use crate::Mode;
use crate::sync::{AtomicU32, Ordering, lock};
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

/// The values of the label `priority`.
const NUMBERS: [&str; PRIORITIES] = ["0", "1", "2", "3", "4", "5", "6", "7"];

/// The balancers of one name.
#[derive(Default)]
pub(super) struct Levels {
    rosters: Mutex<Vec<Arc<Roster>>>,
    /// The priorities whose shares are shown, a bit each: none before there were several.
    shown: AtomicU32,
}

impl Levels {
    pub(super) fn add(&self, roster: &Arc<Roster>) {
        lock(&self.rosters).push(Arc::clone(roster));
    }

    pub(super) fn remove(&self, roster: &Arc<Roster>) {
        lock(&self.rosters).retain(|kept| !Arc::ptr_eq(kept, roster));
    }

    /// The share of the calls that each priority gets that is shown: the mean over the balancers that have endpoints.
    fn shares(&self) -> impl Iterator<Item = (usize, f64)> {
        let (mut sums, mut balancers) = ([0.0; PRIORITIES], 0.0_f64);
        for roster in lock(&self.rosters).iter() {
            let (shares, priorities) = roster.shares();
            for (sum, share) in sums.iter_mut().zip(shares) {
                *sum += share;
                balancers += share;
            }
            self.shown.fetch_or(priorities, Ordering::Relaxed);
        }
        let shown = self.shown.load(Ordering::Relaxed);
        let shares = sums.map(|sum| sum / balancers.max(1.0));
        let shares = shares.into_iter().enumerate();
        shares.filter(move |(priority, _)| shown & 1 << priority != 0)
    }
}

impl fmt::Debug for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Levels")
            .field(&lock(&self.rosters).len())
            .finish()
    }
}

pub(super) struct BalanceMetrics {
    labels: Labels,
    states: [Gauge; STATES.len()],
    /// Looked up when there are several groups.
    shares: RefCell<[Option<Gauge>; PRIORITIES]>,
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
            shares: RefCell::default(),
            refusals: Kept::default(),
        }
    }

    fn publish(&self, levels: &Levels) {
        let mut counts = [0; STATES.len()];
        for roster in lock(&levels.rosters).iter() {
            roster.count(&mut counts);
        }
        for (gauge, count) in self.states.iter().zip(counts) {
            gauge.set(count as f64);
        }
        let mut gauges = self.shares.borrow_mut();
        for (priority, share) in levels.shares() {
            gauges[priority]
                .get_or_insert_with(|| self.share(priority))
                .set(share);
        }
    }
}

impl BalanceMetrics {
    fn share(&self, priority: usize) -> Gauge {
        describe_gauge!(
            "buttress_priority_share",
            "Share of the calls of a balancer that goes to the endpoints of this priority"
        );
        gauge!("buttress_priority_share",
            "name" => self.labels.name, "priority" => NUMBERS[priority])
    }

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
