//! What the balancer reports.

use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use tokio::time::Instant;

use super::background::{Task, TaskState};
use super::host_set::{EndpointState, HostSet};
use super::label::{Directory, Label, Shown};
use crate::Mode;
use crate::algorithm::failover::PRIORITIES;
use crate::algorithm::outlier::EjectionMethod;
use crate::sync::{AtomicU32, Ordering, lock};
use crate::telemetry::{Handles, Instruments, Series, table};

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
pub(super) struct BalanceMetrics {
    host_sets: Mutex<Vec<Arc<HostSet>>>,
    pub(super) labels: Directory,
    /// What is shown of the endpoints of each label, at its place. Held by the one who shows it.
    endpoints: Mutex<Vec<Option<Shown>>>,
    /// The priorities whose shares are shown, a bit each: none before there were several.
    shown: AtomicU32,
    /// The tasks that are shown, a bit each: none before there was one.
    shown_tasks: AtomicU32,
}

impl BalanceMetrics {
    pub(super) fn add(&self, host_set: &Arc<HostSet>) {
        lock(&self.host_sets).push(Arc::clone(host_set));
    }

    pub(super) fn remove(&self, host_set: &Arc<HostSet>) {
        lock(&self.host_sets).retain(|kept| !Arc::ptr_eq(kept, host_set));
    }

    /// What is to be shown of the endpoints of each label. `None` if another thread shows it: that one then looks again.
    fn endpoints(&self) -> Option<MutexGuard<'_, Vec<Option<Shown>>>> {
        let mut shown = match self.endpoints.try_lock() {
            Ok(shown) => shown,
            Err(TryLockError::Poisoned(shown)) => shown.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        for shown in shown.iter_mut().flatten() {
            *shown = Shown::none(&shown.label);
        }
        for host_set in lock(&self.host_sets).iter() {
            host_set.show(&mut shown);
        }
        Some(shown)
    }

    /// The share of the calls that each priority gets that is shown: the mean over the balancers that have endpoints.
    fn shares(&self) -> impl Iterator<Item = (usize, f64)> {
        let (mut sums, mut balancers) = ([0.0; PRIORITIES], 0.0_f64);
        for host_set in lock(&self.host_sets).iter() {
            let (shares, priorities) = host_set.shares();
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

    /// The tasks that are shown, and whether all balancers that have one run it.
    fn tasks(&self) -> impl Iterator<Item = (Task, bool)> {
        let host_sets = lock(&self.host_sets);
        let mut is_running = [false; Task::ALL.len()];
        for task in Task::ALL {
            let states = host_sets.iter().map(|host_set| host_set.tasks.state(task));
            let mut states = states.filter(|state| *state != TaskState::Absent);
            if let Some(first) = states.next() {
                self.shown_tasks
                    .fetch_or(1 << task as u32, Ordering::Relaxed);
                is_running[task as usize] = first.is_running() && states.all(TaskState::is_running);
            }
        }
        let shown = self.shown_tasks.load(Ordering::Relaxed);
        let tasks = Task::ALL.into_iter().zip(is_running);
        tasks.filter(move |(task, _)| shown & 1 << *task as u32 != 0)
    }
}

impl Instruments for BalanceMetrics {
    fn publish(&self, handles: &mut Handles) {
        let mut counts = [0; STATES.len()];
        for host_set in lock(&self.host_sets).iter() {
            host_set.count(&mut counts);
        }
        for (state, count) in STATES.into_iter().zip(counts) {
            handles.set(&table::ENDPOINTS, &[state.label()], count as f64);
        }
        for (priority, share) in self.shares() {
            handles.set(&table::PRIORITY_SHARE, &[NUMBERS[priority]], share);
        }
        for (task, is_running) in self.tasks() {
            let gauge = match task {
                Task::Discovery => &table::DISCOVERY_RUNNING,
                Task::HealthCheck => &table::HEALTH_CHECK_RUNNING,
            };
            handles.set(gauge, &[], f64::from(u8::from(is_running)));
        }
        let Some(mut endpoints) = self.endpoints() else {
            return;
        };
        for place in endpoints.iter_mut() {
            let Some(shown) = place else { continue };
            let handles = shown.label.handles(handles);
            shown.label.show_in_flight(handles);
            handles.set(&table::ENDPOINT_LATENCY, &[], shown.latency);
            handles.set(&table::ENDPOINT_READY, &[], shown.ready as f64);
            if shown.endpoints == 0 {
                *place = None;
            }
        }
    }
}

impl Label {
    fn handles<'a>(&self, handles: &'a mut Handles) -> &'a mut Handles {
        handles.of_endpoint(self.place, self.id, &self.key)
    }

    fn show_in_flight(&self, handles: &mut Handles) {
        self.show(|calls| handles.set(&table::ENDPOINT_IN_FLIGHT, &[], calls as f64));
    }
}

impl Series<BalanceMetrics> {
    /// An endpoint was ejected, or would have been.
    pub(super) fn ejected(&self, method: EjectionMethod, mode: Mode, now: Instant) {
        let values = [method.label(), mode.label()];
        self.report(now, |handles| handles.count(&table::EJECTIONS, &values));
    }

    /// A call to an endpoint has ended; `is_idle` if no other is in flight.
    pub(super) fn ended(&self, label: &Label, outcome: &'static str, is_idle: bool, now: Instant) {
        self.report(now, |handles| {
            let handles = label.handles(handles);
            handles.count(&table::ENDPOINT_CALLS, &[outcome]);
            if is_idle {
                label.show_in_flight(handles);
            }
        });
    }
}
