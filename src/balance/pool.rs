//! The endpoints of a balancer with their services, and the snapshots from which its handles choose.

use std::collections::HashMap;
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::task::Waker;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::background::{Lease, Task, TaskState, supervise};
use super::config::Settings;
use super::endpoint::{About, Endpoint, Host};
use super::health::Checked;
use super::host_set::{HostSet, group_of};
use super::snapshot::{Snapshot, Snapshots};
use crate::algorithm::failover::PRIORITIES;
use crate::algorithm::queue::{Ticket, WaitQueue};
use crate::algorithm::weights::Weights;
use crate::discover::{self, discard};
use crate::event::EventKind;
use crate::sync::{Mutex, lock};
use crate::telemetry::{Listener, Published};
use crate::wake::locked;

/// A change of the endpoints, with the key of the endpoint.
pub(super) type Change<S> = discover::Change<Arc<str>, Endpoint<S>>;

/// The endpoints at one time, in the order of their priorities. The indices of the two lists are the same.
pub(super) struct Set<S> {
    pub(super) hosts: Vec<Arc<Host>>,
    pub(super) services: Vec<S>,
    /// The priorities that have endpoints.
    pub(super) groups: Vec<Group>,
}

/// The endpoints of one priority in a set.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) priority: u8,
    /// `true` if one of them is a [standby](Endpoint::standby).
    pub(super) is_standby: bool,
    /// Their indices.
    pub(super) indices: Range<usize>,
    pub(super) weights: Weights,
}

impl Group {
    /// Makes the group of these endpoints, of which the first has the index `begin`.
    pub(super) fn new(begin: usize, hosts: &[Arc<Host>]) -> Self {
        Self {
            priority: hosts[0].priority(),
            is_standby: hosts.iter().any(|host| host.about.is_standby),
            indices: begin..begin + hosts.len(),
            weights: Weights::new(hosts.iter().map(|host| host.condition.weight())),
        }
    }
}

impl<S> Set<S> {
    fn new(members: impl IntoIterator<Item = (Arc<Host>, S)>) -> Self {
        let (hosts, services): (Vec<Arc<Host>>, _) = members.into_iter().unzip();
        let mut begin = 0;
        let groups = hosts.chunk_by(|one, other| one.priority() == other.priority());
        let groups = groups.map(|hosts| {
            let group = Group::new(begin, hosts);
            begin = group.indices.end;
            group
        });
        Self {
            groups: groups.collect(),
            hosts,
            services,
        }
    }
}

impl<S> Drop for Set<S> {
    fn drop(&mut self) {
        discard(self.services.drain(..));
    }
}

/// State that all handles of a balancer share.
pub(super) struct Pool<S> {
    pub(super) snapshots: Snapshots<Set<S>>,
    /// The time since which there are endpoints. A thread locks it while it makes a new snapshot.
    opened: Mutex<u64>,
    /// The calls that wait for an endpoint.
    waiting: Mutex<WaitQueue<()>>,
    /// Wakes the health check when endpoints are added or removed, and when the pool is dropped.
    pub(super) changed: Arc<Notify>,
    pub(super) host_set: Arc<HostSet>,
    pub(super) published: Published,
}

/// State that each handle has for itself.
pub(super) struct Local<S> {
    pub(super) snapshot: Snapshot<Set<S>>,
    pub(super) random: SmallRng,
    /// Notes of a policy, which the next call overwrites.
    pub(super) notes: Vec<(usize, u64)>,
}

impl<S: Clone> Pool<S> {
    pub(super) fn new(
        name: &str,
        settings: Settings,
        listener: Listener,
        endpoints: Vec<Endpoint<S>>,
    ) -> Self {
        let host_set = Arc::new(HostSet::new(name, settings, listener));
        host_set.metrics.levels().add(&host_set);
        let pool = Self {
            snapshots: Snapshots::new(Set::new([])),
            opened: Mutex::new(0),
            waiting: Mutex::new(WaitQueue::new()),
            changed: Arc::default(),
            host_set,
            published: Published::default(),
        };
        let initial = &mut endpoints.into_iter().map(insert).collect();
        pool.apply(initial, &mut Vec::new());
        pool.host_set.tell_groups();
        pool
    }

    /// Makes a new snapshot with these changes, and returns the number of applied changes. Changes that make no sense
    /// (a weight out of range, an unknown key) are left out. If a service panics in its `clone`, nothing changes, and
    /// the changes stay in the list.
    pub(super) fn change(&self, changes: &mut Vec<Change<S>>) -> usize {
        let mut moves = Vec::new();
        let made = self.apply(changes, &mut moves);
        for (endpoint, has_come) in &moves {
            self.host_set.metrics.tell_change(if *has_come {
                EventKind::EndpointAdded { endpoint }
            } else {
                EventKind::EndpointRemoved { endpoint }
            });
        }
        self.host_set.tell_groups();
        made
    }

    /// Does the same without a report. Adds the keys of the endpoints that have come, with `true`, and gone to `moves`.
    fn apply(&self, changes: &mut Vec<Change<S>>, moves: &mut Vec<(Arc<str>, bool)>) -> usize {
        let peers = &self.host_set;
        let now = peers.nanos(Instant::now());
        let mut opened = lock(&self.opened);
        let old = self.set();
        let members = old.hosts.iter().cloned().zip(old.services.iter().cloned());
        let mut members: Vec<_> = members.map(Some).collect();
        let keys = old.hosts.iter().map(|host| Arc::clone(&host.about.key));
        let mut indices: HashMap<_, _> = keys.zip(0..).collect();
        if members.is_empty() {
            *opened = now;
        }
        // Endpoints that join soon after the first one begin together with it, so that the first one does not get all
        // calls.
        let is_late = !members.is_empty() && now.saturating_sub(*opened) >= peers.slow_start;
        let mut latencies = [None; PRIORITIES];
        let mut host = |about: About| {
            let latency = *latencies[usize::from(about.priority)]
                .get_or_insert_with(|| median_latency(group_of(&old.hosts, about.priority), now));
            Arc::new(Host::new(about, peers, latency, now, is_late))
        };
        // Dropped without a lock, because the drop runs code of the user.
        let (mut gone, mut odd) = (Vec::new(), Vec::new());
        let mut dismiss = |(host, service): (Arc<Host>, S)| {
            host.leave();
            gone.push((host, service));
        };
        let mut made = 0;
        let mut assessed = peers.reassess(now);
        for change in changes.drain(..) {
            match change {
                Change::Insert(key, target) => {
                    let (properties, endpoint) = target.split();
                    let (about, service) = (endpoint.about.with(properties), endpoint.service);
                    if about.check(self.name()).is_err() {
                        odd.push((about, service));
                        continue;
                    }
                    moves.push((Arc::clone(&key), true));
                    let place = *indices.entry(key).or_insert(members.len());
                    members.resize_with(members.len().max(place + 1), || None);
                    let former = members[place].replace((host(about), service));
                    former.map(&mut dismiss);
                }
                Change::Update(key, properties) => {
                    let member = indices.get(&key).and_then(|place| members[*place].as_mut());
                    let Some((former, _)) = member else {
                        continue;
                    };
                    let weight = former.condition.weight();
                    let about = former.about.clone();
                    let about = About { weight, ..about }.with(properties);
                    if about.check(self.name()).is_err() {
                        continue;
                    }
                    if about.keeps_statistics_of(&former.about) {
                        assessed.reweigh(former, about.weight);
                    } else {
                        std::mem::replace(former, host(about)).leave();
                    }
                }
                Change::Remove(key) => {
                    let Some(place) = indices.remove(&key) else {
                        continue;
                    };
                    members[place].take().map(&mut dismiss);
                    moves.push((key, false));
                }
            }
            made += 1;
        }
        if made == 0 {
            drop(assessed);
            drop(opened);
        } else {
            let mut members: Vec<_> = members.into_iter().flatten().collect();
            members.sort_by_key(|(host, _)| host.priority());
            let set = Set::new(members);
            let former = assessed.replace(&set.hosts);
            drop(assessed);
            let replaced = self.snapshots.replace(set);
            drop(opened);
            self.wake();
            self.changed.notify_one();
            peers.metrics.publish(Instant::now());
            drop((former, replaced));
        }
        drop(old);
        discard(odd);
        discard(gone);
        made
    }
}

/// Returns the change that adds an endpoint.
pub(super) fn insert<S>(endpoint: Endpoint<S>) -> Change<S> {
    Change::Insert(Arc::clone(&endpoint.about.key), endpoint.into())
}

impl<S> Pool<S> {
    pub(super) fn name(&self) -> &'static str {
        self.host_set.metrics.name()
    }

    pub(super) fn set(&self) -> Arc<Set<S>> {
        self.snapshots.latest().value
    }

    /// Returns the endpoint with this key.
    pub(super) fn host(&self, key: &str) -> Option<Arc<Host>> {
        let set = self.set();
        let host = set.hosts.iter().find(|host| &*host.about.key == key);
        host.cloned()
    }

    /// Returns the state of a new handle.
    pub(super) fn local(&self) -> Local<S> {
        Local {
            snapshot: self.snapshots.latest(),
            random: self.host_set.random.generator(),
            notes: Vec::new(),
        }
    }

    /// Registers `waker`, which is woken when the endpoints or a task have changed. Gives the call a place if it has
    /// none.
    pub(super) fn wait(&self, ticket: &mut Option<Ticket>, waker: &Waker) {
        locked(&self.waiting, |waiting, wakers| {
            let ticket = *ticket.get_or_insert_with(|| waiting.join(1, ()));
            waiting.poll(ticket, waker, wakers);
        });
    }

    pub(super) fn stop_waiting(&self, ticket: Ticket) {
        locked(&self.waiting, |waiting, wakers| {
            waiting.leave(ticket, wakers)
        });
    }

    fn wake(&self) {
        locked(&self.waiting, |waiting, wakers| {
            waiting.wake(usize::MAX, wakers);
        });
    }

    /// Runs this task until it ends or the last handle is dropped. It replaces an earlier task of its kind. See
    /// [`supervise`].
    pub(super) fn run_in_background<F>(
        self: &Arc<Self>,
        task: Task,
        run: impl FnMut(&Arc<Lease<S>>, bool) -> F + Clone + Send + 'static,
        panicked: impl Fn(&Lease<S>) -> TaskState + Clone + Send + 'static,
    ) where
        S: Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let pool = Arc::downgrade(self);
        let start = move |number, has_moved| {
            let lease = Lease::new(Weak::clone(&pool), task, number);
            let task = supervise(lease, has_moved, run.clone(), panicked.clone());
            tokio::spawn(task).abort_handle()
        };
        self.host_set.tasks.start(task, Box::new(start));
        self.task_has_changed();
    }

    pub(super) fn task_has_changed(&self) {
        self.wake();
        self.host_set.metrics.publish(Instant::now());
    }
}

/// Returns the median of the known latencies of these endpoints; zero if none is known.
fn median_latency(hosts: &[Arc<Host>], now: u64) -> f64 {
    let known = hosts.iter().map(|host| host.latency(now));
    let mut known: Vec<f64> = known.filter(|latency| *latency > 0.0).collect();
    let middle = known.len() / 2;
    if known.is_empty() {
        return 0.0;
    }
    *known.select_nth_unstable_by(middle, f64::total_cmp).1
}

impl<S: Clone + Send + Sync + 'static> Checked for Pool<S> {
    type Service = S;

    fn ids(&self) -> Vec<u32> {
        self.set().hosts.iter().map(|host| host.id).collect()
    }

    fn service(&self, id: u32) -> Option<S> {
        let set = self.set();
        let place = set.hosts.iter().position(|host| host.id == id)?;
        Some(set.services[place].clone())
    }

    fn found(&self, id: u32, is_healthy: bool) {
        if let Some(host) = self.set().hosts.iter().find(|host| host.id == id) {
            host.found(is_healthy);
        }
    }
}

impl<S> Drop for Pool<S> {
    fn drop(&mut self) {
        let (set, peers) = (self.set(), &self.host_set);
        peers.tasks.end();
        self.changed.notify_one();
        peers.metrics.levels().remove(peers);
        set.hosts.iter().for_each(|host| host.leave());
        let _replaced = peers.reassess(0).replace(&[]);
        peers.metrics.publish(Instant::now());
    }
}

impl<S> Local<S> {
    /// Returns the same state for another handle, with random numbers of its own.
    pub(super) fn fork(&mut self) -> Self {
        Self {
            snapshot: self.snapshot.clone(),
            random: self.random.fork(),
            notes: Vec::new(),
        }
    }
}
