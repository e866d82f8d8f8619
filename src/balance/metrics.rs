//! Metrics of the balancer.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::Instant;

use super::background::{Task, TaskState};
use super::host_set::{EndpointState, HostSet};
use super::label::{Directory, Label, Shown};
use crate::algorithm::failover::PRIORITIES;
use crate::algorithm::outlier::EjectionMethod;
use crate::event::EventKind;
use crate::sync::{AtomicU32, Ordering, lock, try_lock};
use crate::telemetry::{Handles, Initial, Instruments, Report, Series, table};
use crate::{ErrorKind, Mode};

const STATES: [EndpointState; 4] = [
    EndpointState::Ready,
    EndpointState::Ejected,
    EndpointState::SlowStart,
    EndpointState::Unhealthy,
];

impl EndpointState {
    /// Returns the value of the label `state`.
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
    /// Values that are shown for the endpoints of each label, at the place of the label. Locked by the thread that
    /// shows them.
    endpoints: Mutex<Vec<Option<Shown>>>,
    /// One bit for each priority whose share is shown, set once there were several priorities. After them one bit for
    /// each task, set once there was one.
    shown: AtomicU32,
}

impl BalanceMetrics {
    pub(super) fn add(&self, host_set: &Arc<HostSet>) {
        lock(&self.host_sets).push(Arc::clone(host_set));
    }

    pub(super) fn remove(&self, host_set: &Arc<HostSet>) {
        lock(&self.host_sets).retain(|kept| !Arc::ptr_eq(kept, host_set));
    }

    /// Returns the values to show for the endpoints of each label. `None` if another thread shows them; that thread
    /// then shows them once more.
    fn endpoints(&self) -> Option<MutexGuard<'_, Vec<Option<Shown>>>> {
        let mut shown = try_lock(&self.endpoints)?;
        for shown in shown.iter_mut().flatten() {
            *shown = Shown::none(&shown.label);
        }
        for host_set in lock(&self.host_sets).iter() {
            host_set.show(&mut shown);
        }
        Some(shown)
    }

    /// Returns whether an optional gauge is shown: from the first time that it had a value.
    fn is_shown(&self, bit: usize, is_there: bool) -> bool {
        let shown = u32::from(is_there) << bit;
        (shown | self.shown.fetch_or(shown, Ordering::Relaxed)) & 1 << bit != 0
    }

    /// Returns the share of the calls that each priority gets: the mean over the balancers that have endpoints.
    fn shares(&self) -> [Option<f64>; PRIORITIES] {
        let (mut sums, mut balancers) = ([0.0; PRIORITIES], 0.0_f64);
        // One bit for each priority of the balancers that have several.
        let mut several = 0_u32;
        for host_set in lock(&self.host_sets).iter() {
            let mut own = 0_u32;
            host_set.for_each_group(|group| {
                sums[usize::from(group.priority)] += group.share;
                balancers += group.share;
                own |= 1 << group.priority;
            });
            if own.count_ones() > 1 {
                several |= own;
            }
        }
        std::array::from_fn(|place| {
            let is_shown = self.is_shown(place, several & 1 << place != 0);
            is_shown.then(|| sums[place] / balancers.max(1.0))
        })
    }

    /// Returns `true` if all balancers with such a task run it, `None` if there never was one.
    fn is_running(&self, task: Task) -> Option<bool> {
        let host_sets = lock(&self.host_sets);
        let states = host_sets.iter().map(|host_set| host_set.tasks.state(task));
        let mut states = states
            .filter(|state| *state != TaskState::Absent)
            .peekable();
        let is_there = states.peek().is_some();
        let is_shown = self.is_shown(PRIORITIES + task as usize, is_there);
        is_shown.then(|| is_there && states.all(TaskState::is_running))
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
        for (priority, share) in NUMBERS.into_iter().zip(self.shares()) {
            if let Some(share) = share {
                handles.set(&table::PRIORITY_SHARE, &[priority], share);
            }
        }
        for task in Task::ALL {
            let gauge = match task {
                Task::Discovery => &table::DISCOVERY_RUNNING,
                Task::HealthCheck => &table::HEALTH_CHECK_RUNNING,
            };
            if let Some(is_running) = self.is_running(task) {
                handles.set(gauge, &[], f64::from(u8::from(is_running)));
            }
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
    /// Returns the series of the balancers of this name. `ejects` is the mode of outlier ejection.
    pub(super) fn of_balance(name: &str, ejects: Option<Mode>) -> &'static Self {
        let methods = [
            EjectionMethod::LeaveOneOut,
            EjectionMethod::ConsecutiveFailures,
        ];
        let ejections = ejects.into_iter().flat_map(|mode| {
            let values = methods.map(|method| [method.label(), mode.label()]);
            values.map(|values| Initial::of(&table::EJECTIONS, &values))
        });
        let rejections = Initial::rejections(ErrorKind::NoEndpoints, Mode::Enforce);
        Self::of(name, "balance").begin(ejections.chain([rejections]))
    }

    /// Notes that a call to an endpoint that has this label has ended.
    #[inline(never)]
    pub(super) fn ended(&self, label: &Label, outcome: &'static str, now: Instant) {
        let is_idle = label.end();
        self.report(now, |handles| {
            let handles = label.handles(handles);
            handles.count(&table::ENDPOINT_CALLS, &[outcome]);
            if is_idle {
                label.show_in_flight(handles);
            }
        });
    }
}

impl Report<BalanceMetrics> {
    /// Reports that an endpoint was ejected, or would have been.
    pub(super) fn ejected(&self, endpoint: &str, method: EjectionMethod, mode: Mode, now: Instant) {
        let values = [method.label(), mode.label()];
        self.report(now, |handles| handles.count(&table::EJECTIONS, &values));
        self.tell_change(EventKind::Ejected {
            endpoint,
            method: method.label(),
            mode,
        });
    }

    /// Reports the priorities whose bits differ. The lower bits are the priorities that get calls, the higher bits
    /// those in panic.
    pub(super) fn groups_changed(&self, before: u32, now: u32) {
        let calls = |bits: u32| bits & ((1 << PRIORITIES) - 1);
        // If a balancer gets its first endpoints or loses its last ones, calls do not move between priorities.
        let is_failover = calls(before) != 0 && calls(now) != 0;
        for place in 0..2 * PRIORITIES {
            if (before ^ now) >> place & 1 == 0 {
                continue;
            }
            let (priority, is_on) = ((place % PRIORITIES) as u8, now >> place & 1 != 0);
            if place >= PRIORITIES {
                self.tell_change(EventKind::Panic { priority, is_on });
            } else if is_failover {
                self.tell_change(EventKind::Failover {
                    priority,
                    gets_calls: is_on,
                });
            }
        }
    }

    /// Reports the new state of discovery or of the health check.
    pub(super) fn task_changed(&self, task: Task, state: TaskState) {
        let state = match state {
            TaskState::Running => "running",
            TaskState::Recovering => "recovering",
            TaskState::Stopped => "stopped",
            TaskState::Ended => "ended",
            // The next call ends these states.
            TaskState::Absent | TaskState::Restarting | TaskState::Interrupted => return,
        };
        let task = match task {
            Task::Discovery => "discovery",
            Task::HealthCheck => "health_check",
        };
        self.tell_change(EventKind::Task { task, state });
    }
}
