//! The endpoints of a balancer, and the snapshots of them that its handles choose from.

use std::collections::{BTreeMap, HashMap};
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
use super::endpoint::{Endpoint, Frame, Member, check_weight};
use super::health::Checked;
use super::metrics::BalanceMetrics;
use super::outlier::OutlierEjection;
use super::priority::{Failover, PRIORITIES};
use super::roster::Roster;
use crate::ConfigError;
use crate::discover::{Target, discard};
use crate::random::Random;
use crate::sync::{AtomicU64, Ordering, lock};
use crate::telemetry::{Published, Series};

/// The endpoints at one time, in the order of their priorities. The places of the two lists are the same.
pub(super) struct Set<S> {
    pub(super) members: Vec<Arc<Member>>,
    pub(super) services: Vec<S>,
    /// The greatest weight.
    pub(super) heaviest: f64,
    /// The groups, if there are several. Most balancers have one.
    pub(super) groups: Vec<Group>,
}

/// The endpoints of one priority in a set.
pub(super) struct Group {
    pub(super) priority: u8,
    /// Their places.
    pub(super) places: Range<usize>,
    /// The greatest weight.
    pub(super) heaviest: f64,
}

impl<S> Set<S> {
    fn new(members: Vec<Arc<Member>>, services: Vec<S>) -> Self {
        let mut begin = 0;
        let groups = members.chunk_by(|one, other| one.priority == other.priority);
        let groups = groups.map(|members| {
            let places = begin..begin + members.len();
            begin = places.end;
            Group {
                priority: members[0].priority,
                places,
                heaviest: heaviest(members),
            }
        });
        let groups: Vec<_> = groups.collect();
        Self {
            heaviest: heaviest(&members),
            groups: if groups.len() > 1 { groups } else { Vec::new() },
            members,
            services,
        }
    }

    /// The endpoints of this priority.
    fn group(&self, priority: u8) -> &[Arc<Member>] {
        let members = &self.members;
        let begin = members.partition_point(|member| member.priority < priority);
        let end = members.partition_point(|member| member.priority <= priority);
        &members[begin..end]
    }
}

impl<S> Drop for Set<S> {
    fn drop(&mut self) {
        discard(self.services.drain(..));
    }
}

fn heaviest(members: &[Arc<Member>]) -> f64 {
    let weights = members.iter().map(|member| member.weight());
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
    places: Mutex<HashMap<Arc<str>, usize>>,
    /// Since when there are endpoints. Written by the one who makes a new snapshot.
    opened: AtomicU64,
    waiters: Mutex<Waiters>,
    background: Background,
    /// Wakes the health check when endpoints come or go.
    changed: Arc<Notify>,
    pub(super) roster: Arc<Roster>,
    metrics: &'static Series<BalanceMetrics>,
    published: Published,
    pub(super) frame: Frame,
    pub(super) max_wait: Duration,
}

/// The calls that wait for an endpoint.
#[derive(Default)]
struct Waiters {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

/// What a handle has of the pool for itself.
pub(super) struct Local<S> {
    generation: u64,
    pub(super) set: Arc<Set<S>>,
    pub(super) random: SmallRng,
}

impl<S: Clone> Pool<S> {
    pub(super) fn new(
        frame: Frame,
        max_wait: Duration,
        ejection: Option<OutlierEjection>,
        failover: Failover,
        random: Random,
        metrics: &'static Series<BalanceMetrics>,
        endpoints: Vec<Endpoint<S>>,
    ) -> Self {
        let roster = Arc::new(Roster::new(frame, ejection, failover, random, metrics));
        metrics.levels().add(&roster);
        let pool = Self {
            generation: AtomicU64::new(0),
            current: Mutex::new((0, Arc::new(Set::new(Vec::new(), Vec::new())))),
            places: Mutex::default(),
            opened: AtomicU64::new(0),
            waiters: Mutex::default(),
            background: Background::default(),
            changed: Arc::default(),
            roster,
            metrics,
            published: Published::default(),
            frame,
            max_wait,
        };
        pool.change(&mut endpoints.into_iter().map(Change::Insert).collect());
        pool
    }

    /// Makes a new snapshot with these changes. Those that make no sense (an odd weight, an unknown key) are
    /// left out; returns how many were made. If a service panics that is cloned, nothing is changed and they stay.
    pub(super) fn change(&self, changes: &mut Vec<Change<S>>) -> usize {
        let now = self.frame.nanos(Instant::now());
        let mut places = lock(&self.places);
        let old = self.latest().1;
        let (mut members, mut services) = (old.members.clone(), old.services.clone());
        let is_late = self.is_open_for_a_while(members.is_empty(), now);
        let mut peers = [None; PRIORITIES];
        let mut member = |endpoint: &Endpoint<()>| {
            let priority = endpoint.priority;
            let latency = *peers[usize::from(priority)]
                .get_or_insert_with(|| median_latency(&old, priority, now));
            let member = Member::new(endpoint, self.frame, &self.roster, latency, now, is_late);
            Arc::new(member)
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
                    let member = member(&endpoint);
                    if let Some(place) = places.get(&endpoint.key) {
                        let former = std::mem::replace(&mut members[*place], member);
                        former.leave();
                        let service = std::mem::replace(&mut services[*place], service);
                        gone.push((former, service));
                    } else {
                        places.insert(endpoint.key, members.len());
                        members.push(member);
                        services.push(service);
                    }
                }
                Change::Update(key, properties) => {
                    let Some(place) = places.get(&key) else {
                        continue;
                    };
                    let former = &mut members[*place];
                    let endpoint = former.describe().with(properties);
                    if endpoint.check(self.name()).is_err() {
                        continue;
                    }
                    if former.is_where(&endpoint) {
                        former.reweigh(endpoint.weight);
                    } else {
                        std::mem::replace(former, member(&endpoint)).leave();
                    }
                }
                Change::Remove(key) => {
                    let Some(place) = places.remove(&key) else {
                        continue;
                    };
                    let former = members.swap_remove(place);
                    former.leave();
                    gone.push((former, services.swap_remove(place)));
                    if let Some(moved) = members.get(place) {
                        places.insert(Arc::clone(&moved.key), place);
                    }
                }
            }
            made += 1;
        }
        if made > 0 {
            sort(&mut members, &mut services, &mut places);
            self.roster.set(&members, now);
            let is_empty = members.is_empty();
            let set = Arc::new(Set::new(members, services));
            let replaced = {
                let mut current = lock(&self.current);
                current.0 += 1;
                self.generation.store(current.0, Ordering::Release);
                std::mem::replace(&mut current.1, set)
            };
            drop(places);
            if !is_empty {
                self.wake();
            }
            self.changed.notify_one();
            self.metrics.publish(Instant::now());
            drop(replaced);
        } else {
            drop(places);
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
        now.saturating_sub(opened) >= self.frame.slow_start()
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
    pub(super) fn member(&self, key: &str) -> Option<Arc<Member>> {
        let set = self.set();
        let member = set.members.iter().find(|member| &*member.key == key);
        member.cloned()
    }

    /// What a new handle begins with.
    pub(super) fn local(&self) -> Local<S> {
        let (generation, set) = self.latest();
        Local {
            generation,
            set,
            random: self.roster.random.generator(),
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

    /// Has `waker` woken when there is an endpoint. Returns the ticket to give it back with.
    pub(super) fn wait(&self, ticket: Option<u64>, waker: &Waker) -> u64 {
        let mut waiters = lock(&self.waiters);
        let ticket = ticket.unwrap_or_else(|| {
            waiters.next += 1;
            waiters.next
        });
        let former = waiters.wakers.insert(ticket, waker.clone());
        drop(waiters);
        drop(former);
        ticket
    }

    pub(super) fn stop_waiting(&self, ticket: u64) {
        let waker = lock(&self.waiters).wakers.remove(&ticket);
        drop(waker);
    }

    fn wake(&self) {
        let wakers = std::mem::take(&mut lock(&self.waiters).wakers);
        wakers.into_values().for_each(Waker::wake);
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
            .install(&self.roster.tasks, task, Box::new(start));
        self.task_has_changed();
    }

    /// Starts the tasks whose runtime has ended on that of the caller, and tells what discovery lets a call do.
    pub(super) fn attend(&self) -> Attended {
        if self.roster.tasks.needs_attention() {
            self.background.attend(&self.roster.tasks)
        } else {
            Attended::GoesOn
        }
    }

    pub(super) fn task_has_changed(&self) {
        self.wake();
        self.metrics.publish(Instant::now());
    }

    pub(super) fn is_running(&self, task: Task) -> bool {
        self.roster.tasks.state(task).is_running()
    }

    /// What is notified when endpoints come or go, and when there is no pool any more.
    pub(super) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// Random numbers of the caller's own.
    pub(super) fn generator(&self) -> SmallRng {
        self.roster.random.generator()
    }

    /// A call was refused because there is no endpoint.
    pub(super) fn refused(&self, now: Instant) {
        self.metrics.report(now, |metrics| metrics.refused(now));
    }

    #[inline]
    pub(super) fn keep_published(&self, now: Instant, nanos: u64) {
        self.published.keep(self.metrics, now, nanos);
    }
}

/// Puts endpoints in the order of their priorities. Those of one priority stay as they are.
fn sort<S>(
    members: &mut Vec<Arc<Member>>,
    services: &mut Vec<S>,
    places: &mut HashMap<Arc<str>, usize>,
) {
    if members.is_sorted_by_key(|member| member.priority) {
        return;
    }
    let mut both: Vec<_> = members.drain(..).zip(services.drain(..)).collect();
    both.sort_by_key(|(member, _)| member.priority);
    for (place, (member, service)) in both.into_iter().enumerate() {
        places.insert(Arc::clone(&member.key), place);
        members.push(member);
        services.push(service);
    }
}

/// The median of what is known of the latencies of this priority; zero if nothing is.
fn median_latency<S>(set: &Set<S>, priority: u8, now: u64) -> f64 {
    let known = set.group(priority).iter().map(|member| member.latency(now));
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
        set.members.iter().map(|member| member.id).collect()
    }

    fn service(&self, id: u32) -> Option<S> {
        let set = self.set();
        let place = set.members.iter().position(|member| member.id == id)?;
        Some(set.services[place].clone())
    }

    fn found(&self, id: u32, is_healthy: bool) {
        let set = self.set();
        let Some(member) = set.members.iter().find(|member| member.id == id) else {
            return;
        };
        member.found(is_healthy, self.frame.nanos(Instant::now()));
    }
}

impl<S> Drop for Pool<S> {
    fn drop(&mut self) {
        self.background.end();
        self.changed.notify_one();
        self.metrics.levels().remove(&self.roster);
        for member in &self.set().members {
            member.leave();
        }
        self.roster.set(&[], 0);
        self.metrics.publish(Instant::now());
    }
}

impl<S> fmt::Debug for Pool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.name())
            .field("endpoints", &self.set().members.len())
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
