//! What the balancer reports.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};
use tokio::time::Instant;

use super::background::{Task, TaskState};
use super::host_set::{EndpointState, HostSet};
use super::label::{Directory, Label, Shown};
use crate::Mode;
use crate::algorithm::failover::PRIORITIES;
use crate::algorithm::outlier::EjectionMethod;
use crate::sync::{AtomicU32, Ordering, lock};
use crate::telemetry::{Ended, Instruments, Labels, LazyMetric};

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
    host_sets: Mutex<Vec<Arc<HostSet>>>,
    pub(super) labels: Directory,
    /// What is shown of the endpoints of each label, at its place. Held by the one who shows it.
    endpoints: Mutex<Vec<Option<Shown>>>,
    /// The priorities whose shares are shown, a bit each: none before there were several.
    shown: AtomicU32,
    /// The tasks that are shown, a bit each: none before there was one.
    shown_tasks: AtomicU32,
}

impl Levels {
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

pub(super) struct BalanceMetrics {
    labels: Labels,
    states: [Gauge; STATES.len()],
    /// Looked up when there are several groups.
    shares: RefCell<[Option<Gauge>; PRIORITIES]>,
    /// Looked up when there is such a task.
    tasks: RefCell<[Option<Gauge>; Task::ALL.len()]>,
    refusals: LazyMetric<Counter>,
    /// At the indices of their labels.
    endpoints: RefCell<Vec<Option<EndpointMetrics>>>,
}

/// The handles of one label.
struct EndpointMetrics {
    /// The label's.
    id: u64,
    calls: [LazyMetric<Counter>; Ended::NAMES.len()],
    in_flight: Gauge,
    latency: Gauge,
    ready: Gauge,
}

impl EndpointMetrics {
    fn bind(name: &'static str, label: &Label) -> Self {
        describe_counter!(
            "buttress_endpoint_calls_total",
            "Calls to an endpoint of a balancer that have ended"
        );
        describe_gauge!(
            "buttress_endpoint_in_flight",
            "Calls that are in flight on an endpoint of a balancer"
        );
        describe_gauge!(
            "buttress_endpoint_latency_seconds",
            Unit::Seconds,
            "Latency of an endpoint as the balancer estimates it"
        );
        describe_gauge!(
            "buttress_endpoint_ready",
            "Endpoints of this label that are neither ejected nor unhealthy"
        );
        let labels = [
            metrics::Label::new("name", name),
            metrics::Label::new("endpoint", Arc::clone(&label.key)),
        ];
        let labels = || labels.iter();
        Self {
            id: label.id,
            calls: Default::default(),
            in_flight: gauge!("buttress_endpoint_in_flight", labels()),
            latency: gauge!("buttress_endpoint_latency_seconds", labels()),
            ready: gauge!("buttress_endpoint_ready", labels()),
        }
    }
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
            tasks: RefCell::default(),
            refusals: LazyMetric::default(),
            endpoints: RefCell::default(),
        }
    }

    fn publish(&self, levels: &Levels) {
        let mut counts = [0; STATES.len()];
        for host_set in lock(&levels.host_sets).iter() {
            host_set.count(&mut counts);
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
        let mut gauges = self.tasks.borrow_mut();
        for (task, is_running) in levels.tasks() {
            gauges[task as usize]
                .get_or_insert_with(|| self.is_running(task))
                .set(f64::from(u8::from(is_running)));
        }
        let Some(mut endpoints) = levels.endpoints() else {
            return;
        };
        for place in endpoints.iter_mut() {
            let Some(shown) = place else { continue };
            self.with(&shown.label, |metrics| {
                shown
                    .label
                    .show(|calls| metrics.in_flight.set(calls as f64));
                metrics.latency.set(shown.latency);
                metrics.ready.set(shown.ready as f64);
            });
            if shown.endpoints == 0 {
                *place = None;
            }
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

    fn is_running(&self, task: Task) -> Gauge {
        let (metric, description) = match task {
            Task::Discovery => (
                "buttress_discovery_running",
                "1 while the endpoints of the balancers of this name are being discovered, 0 if not",
            ),
            Task::HealthCheck => (
                "buttress_health_check_running",
                "1 while the endpoints of the balancers of this name are being checked, 0 if not",
            ),
        };
        describe_gauge!(metric, description);
        gauge!(metric, "name" => self.labels.name)
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

    /// Uses the handles of a label.
    fn with(&self, label: &Label, used: impl FnOnce(&EndpointMetrics)) {
        let mut endpoints = self.endpoints.borrow_mut();
        if endpoints.len() <= label.place {
            endpoints.resize_with(label.place + 1, || None);
        }
        let metrics = &mut endpoints[label.place];
        match metrics {
            Some(metrics) if metrics.id == label.id => used(metrics),
            _ => used(metrics.insert(EndpointMetrics::bind(self.labels.name, label))),
        }
    }

    /// A call to an endpoint has ended; `is_idle` if no other is in flight.
    pub(super) fn ended(&self, label: &Label, end: Ended, is_idle: bool, now: Instant) {
        self.with(label, |metrics| {
            let look_up = || {
                counter!("buttress_endpoint_calls_total",
                    "name" => self.labels.name, "endpoint" => Arc::clone(&label.key),
                    "outcome" => Ended::NAMES[end as usize])
            };
            metrics.calls[end as usize].with(now, look_up, |calls| calls.increment(1));
            if is_idle {
                label.show(|calls| metrics.in_flight.set(calls as f64));
            }
        });
    }

    /// A call was refused because there is no endpoint.
    pub(super) fn refused(&self, now: Instant) {
        let look_up = || self.labels.rejections("no_endpoints", Mode::Enforce);
        self.refusals
            .with(now, look_up, |refusals| refusals.increment(1));
    }
}
