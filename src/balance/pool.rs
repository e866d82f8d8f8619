//! The endpoints of a balancer, and the snapshots of them that its handles choose from.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex, Weak};
use std::task::Waker;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::background::{Attended, Background, Lease, Task};
use super::endpoint::{Endpoint, Host, PoolContext, check_weight};
use super::health::Checked;
use super::host_set::HostSet;
use super::metrics::BalanceMetrics;
use super::outlier::OutlierEjection;
use super::priority::{Failover, PRIORITIES};
use crate::algorithm::queue::{Ticket, WaitQueue};
use crate::discover::{Target, discard};
use crate::random::Random;
use crate::sync::{AtomicU64, Ordering, lock};
use crate::telemetry::{Published, Series};
use crate::wake::locked;
use crate::{ConfigError, ErrorKind, Mode};

/// The endpoints at one time, in the order of their priorities. The indices of the two lists are the same.
pub(super) struct Set<S> {
    pub(super) hosts: Vec<Arc<Host>>,
    pub(super) services: Vec<S>,
    /// The greatest weight.
    pub(super) max_weight: f64,
    /// The groups, if there are several. Most balancers have one.
    pub(super) groups: Vec<Group>,
}

/// The endpoints of one priority in a set.
pub(super) struct Group {
    pub(super) priority: u8,
    /// Their indices.
    pub(super) indices: Range<usize>,
    /// The greatest weight.
    pub(super) max_weight: f64,
}

impl<S> Set<S> {
    fn new(hosts: Vec<Arc<Host>>, services: Vec<S>) -> Self {
        let mut begin = 0;
        let groups = hosts.chunk_by(|one, other| one.priority == other.priority);
        let groups = groups.map(|hosts| {
            let indices = begin..begin + hosts.len();
            begin = indices.end;
            Group {
                priority: hosts[0].priority,
                indices,
                max_weight: max_weight(hosts),
            }
        });
        let groups: Vec<_> = groups.collect();
        Self {
            max_weight: max_weight(&hosts),
            groups: if groups.len() > 1 { groups } else { Vec::new() },
            hosts,
            services,
        }
    }

    /// The endpoints of this priority.
    fn group(&self, priority: u8) -> &[Arc<Host>] {
        let hosts = &self.hosts;
        let begin = hosts.partition_point(|host| host.priority < priority);
        let end = hosts.partition_point(|host| host.priority <= priority);
        &hosts[begin..end]
    }
}

impl<S> Drop for Set<S> {
    fn drop(&mut self) {
        discard(self.services.drain(..));
    }
}

fn max_weight(hosts: &[Arc<Host>]) -> f64 {
    let weights = hosts.iter().map(|host| host.weight());
    weights.fold(0.0, f64::max)
}

/// A change of the endpoints.
pub(super) enum Change<S> {
    /// A new endpoint, or one in the place of that with the same key.
    Insert(Endpoint<S>),
    /// Other properties of an endpoint. Those that are not set stay.
    Update(Arc<str>, Target<()>),
    Remove(Arc<str>),
}

/// What all handles of a balancer share.
pub(super) struct Pool<S> {
    /// Goes up with each snapshot. Read in each call, so that the lock is taken only for a new one.
    generation: AtomicU64,
    current: Mutex<(u64, Arc<Set<S>>)>,
    /// Held by the one who makes a new snapshot: where each endpoint has its place.
    indices: Mutex<HashMap<Arc<str>, usize>>,
    /// Since when there are endpoints. Written by the one who makes a new snapshot.
    opened: AtomicU64,
    /// The calls that wait for an endpoint.
    waiting: Mutex<WaitQueue<()>>,
    background: Background,
    /// Wakes the health check when endpoints come or go.
    changed: Arc<Notify>,
    pub(super) host_set: Arc<HostSet>,
    metrics: &'static Series<BalanceMetrics>,
    published: Published,
    pub(super) context: PoolContext,
    pub(super) max_wait: Duration,
}

/// What a handle has of the pool for itself.
pub(super) struct Local<S> {
    generation: u64,
    pub(super) set: Arc<Set<S>>,
    pub(super) random: SmallRng,
}

impl<S: Clone> Pool<S> {
    pub(super) fn new(
        context: PoolContext,
        max_wait: Duration,
        ejection: Option<OutlierEjection>,
        failover: Failover,
        random: Random,
        metrics: &'static Series<BalanceMetrics>,
        endpoints: Vec<Endpoint<S>>,
    ) -> Self {
        let host_set = Arc::new(HostSet::new(context, ejection, failover, random, metrics));
        metrics.levels().add(&host_set);
        let pool = Self {
            generation: AtomicU64::new(0),
            current: Mutex::new((0, Arc::new(Set::new(Vec::new(), Vec::new())))),
            indices: Mutex::default(),
            opened: AtomicU64::new(0),
            waiting: Mutex::new(WaitQueue::new()),
            background: Background::default(),
            changed: Arc::default(),
            host_set,
            metrics,
            published: Published::default(),
            context,
            max_wait,
        };
        pool.change(&mut endpoints.into_iter().map(Change::Insert).collect());
        pool
    }

    /// Makes a new snapshot with these changes. Those that make no sense (an odd weight, an unknown key) are
    /// left out; returns how many were made. If a service panics that is cloned, nothing is changed and they stay.
    pub(super) fn change(&self, changes: &mut Vec<Change<S>>) -> usize {
        let now = self.context.nanos(Instant::now());
        let mut indices = lock(&self.indices);
        let old = self.latest().1;
        let (mut hosts, mut services) = (old.hosts.clone(), old.services.clone());
        let is_late = self.is_open_for_a_while(hosts.is_empty(), now);
        let mut peers = [None; PRIORITIES];
        let mut host = |endpoint: &Endpoint<()>| {
            let priority = endpoint.priority;
            let latency = *peers[usize::from(priority)]
                .get_or_insert_with(|| median_latency(&old, priority, now));
            let host = Host::new(
                endpoint,
                self.context,
                &self.host_set,
                latency,
                now,
                is_late,
            );
            Arc::new(host)
        };
        // Dropped without a lock: that runs code of the user.
        let (mut gone, mut odd) = (Vec::new(), Vec::new());
        let mut made = 0;
        for change in changes.drain(..) {
            match change {
                Change::Insert(endpoint) => {
                    if endpoint.check(self.name()).is_err() {
                        odd.push(endpoint);
                        continue;
                    }
                    let (endpoint, service) = endpoint.split();
                    let host = host(&endpoint);
                    if let Some(place) = indices.get(&endpoint.key) {
                        let former = std::mem::replace(&mut hosts[*place], host);
                        former.leave();
                        let service = std::mem::replace(&mut services[*place], service);
                        gone.push((former, service));
                    } else {
                        indices.insert(endpoint.key, hosts.len());
                        hosts.push(host);
                        services.push(service);
                    }
                }
                Change::Update(key, properties) => {
                    let Some(place) = indices.get(&key) else {
                        continue;
                    };
                    let former = &mut hosts[*place];
                    let endpoint = former.describe().with(properties);
                    if endpoint.check(self.name()).is_err() {
                        continue;
                    }
                    if former.is_where(&endpoint) {
                        former.reweigh(endpoint.weight);
                    } else {
                        std::mem::replace(former, host(&endpoint)).leave();
                    }
                }
                Change::Remove(key) => {
                    let Some(place) = indices.remove(&key) else {
                        continue;
                    };
                    let former = hosts.swap_remove(place);
                    former.leave();
                    gone.push((former, services.swap_remove(place)));
                    if let Some(moved) = hosts.get(place) {
                        indices.insert(Arc::clone(&moved.key), place);
                    }
                }
            }
            made += 1;
        }
        if made > 0 {
            sort(&mut hosts, &mut services, &mut indices);
            self.host_set.set(&hosts, now);
            let is_empty = hosts.is_empty();
            let set = Arc::new(Set::new(hosts, services));
            let replaced = {
                let mut current = lock(&self.current);
                current.0 += 1;
                self.generation.store(current.0, Ordering::Release);
                std::mem::replace(&mut current.1, set)
            };
            drop(indices);
            if !is_empty {
                self.wake();
            }
            self.changed.notify_one();
            self.metrics.publish(Instant::now());
            drop(replaced);
        } else {
            drop(indices);
        }
        drop(old);
        discard(odd);
        discard(gone);
        made
    }

    /// Says whether there have been endpoints for as long as a slow start takes. Those that come sooner begin with those that
    /// are there: the first that is discovered must not get the calls of all.
    fn is_open_for_a_while(&self, is_empty: bool, now: u64) -> bool {
        if is_empty {
            self.opened.store(now, Ordering::Relaxed);
            return false;
        }
        let opened = self.opened.load(Ordering::Relaxed);
        now.saturating_sub(opened) >= self.context.slow_start()
    }

    /// Changes a weight.
    pub(super) fn reweigh(&self, key: &str, weight: f64) -> Result<bool, ConfigError> {
        check_weight(self.name(), weight)?;
        let properties = Target::new(()).weight(weight);
        Ok(self.change(&mut vec![Change::Update(key.into(), properties)]) > 0)
    }
}

impl<S> Pool<S> {
    pub(super) fn name(&self) -> &'static str {
        self.metrics.name()
    }

    fn latest(&self) -> (u64, Arc<Set<S>>) {
        let current = lock(&self.current);
        (current.0, Arc::clone(&current.1))
    }

    pub(super) fn set(&self) -> Arc<Set<S>> {
        self.latest().1
    }

    /// The endpoint with this key.
    pub(super) fn host(&self, key: &str) -> Option<Arc<Host>> {
        let set = self.set();
        let host = set.hosts.iter().find(|host| &*host.key == key);
        host.cloned()
    }

    /// What a new handle begins with.
    pub(super) fn local(&self) -> Local<S> {
        let (generation, set) = self.latest();
        Local {
            generation,
            set,
            random: self.host_set.random.generator(),
        }
    }

    /// Takes the newest snapshot, if that is not the one that the handle has. Returns what it had, to be dropped
    /// without a lock.
    #[inline]
    pub(super) fn refresh(&self, local: &mut Local<S>) -> Option<Arc<Set<S>>> {
        if self.generation.load(Ordering::Acquire) == local.generation {
            return None;
        }
        let (generation, set) = self.latest();
        local.generation = generation;
        Some(std::mem::replace(&mut local.set, set))
    }

    /// Has `waker` woken when the endpoints have changed. Gives the call a place if it has none.
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

    /// Has this task run until it ends or the last handle is dropped, in the place of an earlier one of its kind.
    pub(super) fn run_in_background<F>(
        self: &Arc<Self>,
        task: Task,
        mut run: impl FnMut(Weak<Self>, Lease<S>, bool) -> F + Send + 'static,
    ) where
        S: Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let pool = Arc::downgrade(self);
        let start = move |number, has_moved| {
            let lease = Lease::new(Weak::clone(&pool), task, number);
            tokio::spawn(run(Weak::clone(&pool), lease, has_moved)).abort_handle()
        };
        self.background
            .install(&self.host_set.tasks, task, Box::new(start));
        self.task_has_changed();
    }

    /// Starts the tasks whose runtime has ended on that of the caller, and tells what discovery lets a call do.
    pub(super) fn attend(&self) -> Attended {
        if self.host_set.tasks.needs_attention() {
            self.background.attend(&self.host_set.tasks)
        } else {
            Attended::GoesOn
        }
    }

    pub(super) fn task_has_changed(&self) {
        self.wake();
        self.metrics.publish(Instant::now());
    }

    pub(super) fn is_running(&self, task: Task) -> bool {
        self.host_set.tasks.state(task).is_running()
    }

    /// What is notified when endpoints come or go, and when there is no pool any more.
    pub(super) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// Random numbers of the caller's own.
    pub(super) fn generator(&self) -> SmallRng {
        self.host_set.random.generator()
    }

    /// A call was refused because there is no endpoint.
    pub(super) fn refused(&self, now: Instant) {
        self.metrics
            .rejected(ErrorKind::NoEndpoints, Mode::Enforce, now);
    }

    #[inline]
    pub(super) fn keep_published(&self, now: Instant, nanos: u64) {
        self.published.keep(self.metrics, now, nanos);
    }
}

/// Puts endpoints in the order of their priorities. Those of one priority stay as they are.
fn sort<S>(
    hosts: &mut Vec<Arc<Host>>,
    services: &mut Vec<S>,
    indices: &mut HashMap<Arc<str>, usize>,
) {
    if hosts.is_sorted_by_key(|host| host.priority) {
        return;
    }
    let mut both: Vec<_> = hosts.drain(..).zip(services.drain(..)).collect();
    both.sort_by_key(|(host, _)| host.priority);
    for (place, (host, service)) in both.into_iter().enumerate() {
        indices.insert(Arc::clone(&host.key), place);
        hosts.push(host);
        services.push(service);
    }
}

/// The median of what is known of the latencies of this priority; zero if nothing is.
fn median_latency<S>(set: &Set<S>, priority: u8, now: u64) -> f64 {
    let known = set.group(priority).iter().map(|host| host.latency(now));
    let mut known: Vec<f64> = known.filter(|latency| *latency > 0.0).collect();
    let middle = known.len() / 2;
    if known.is_empty() {
        return 0.0;
    }
    *known.select_nth_unstable_by(middle, f64::total_cmp).1
}

impl<S: Clone + Send + Sync + 'static> Checked for Pool<S> {
    type Service = S;

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn ids(&self) -> Vec<u32> {
        let set = self.set();
        set.hosts.iter().map(|host| host.id).collect()
    }

    fn service(&self, id: u32) -> Option<S> {
        let set = self.set();
        let place = set.hosts.iter().position(|host| host.id == id)?;
        Some(set.services[place].clone())
    }

    fn found(&self, id: u32, is_healthy: bool) {
        let set = self.set();
        let Some(host) = set.hosts.iter().find(|host| host.id == id) else {
            return;
        };
        host.found(is_healthy, self.context.nanos(Instant::now()));
    }
}

impl<S> Drop for Pool<S> {
    fn drop(&mut self) {
        self.background.end();
        self.changed.notify_one();
        self.metrics.levels().remove(&self.host_set);
        for host in &self.set().hosts {
            host.leave();
        }
        self.host_set.set(&[], 0);
        self.metrics.publish(Instant::now());
    }
}

impl<S> fmt::Debug for Pool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.name())
            .field("endpoints", &self.set().hosts.len())
            .finish_non_exhaustive()
    }
}

impl<S> Local<S> {
    /// The same for another handle, with random numbers of its own.
    pub(super) fn fork(&mut self) -> Self {
        Self {
            generation: self.generation,
            set: Arc::clone(&self.set),
            random: self.random.fork(),
        }
    }
}
