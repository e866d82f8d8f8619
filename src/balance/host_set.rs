//! The endpoints of a balancer as they are evaluated and counted together.

use std::fmt;
use std::sync::{Arc, MutexGuard, TryLockError};

use tokio::time::Instant;

use super::background::Tasks;
use super::endpoint::{GroupStatus, Host, PoolContext};
use super::label::{Label, Shown};
use super::metrics::BalanceMetrics;
use super::outlier::{EjectionMethod, Interval, Notes, OutlierEjection, is_panic, sweep};
use super::priority::{Capacities, Failover, Groups, PRIORITIES, Shares, Split};
use super::shortage::Shortage;
use crate::Mode;
use crate::random::Random;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::telemetry::{Ended, Series};

/// How many of the ejections that have ended unseen are taken in one by one: they need a look at all endpoints each.
const RETURNS: usize = 32;

/// The endpoints of one balancer.
///
/// Their states change with time alone, so they are counted when that is reported.
pub(super) struct HostSet {
    context: PoolContext,
    /// Each priority group is evaluated by itself.
    ejection: Option<(OutlierEjection, [Interval; PRIORITIES])>,
    failover: Failover,
    kept: Mutex<PendingChange>,
    /// Until then, so few endpoints of a group are in that calls go to all of them; `u64::MAX` if time alone does not
    /// end that.
    panic_until: [AtomicU64; PRIORITIES],
    /// Which group a call goes to, if there are several.
    pub(super) split: Split,
    /// Of policies that take turns, for each priority. On their own: they are written to by each call.
    pub(super) cursor: Box<[AtomicU64; PRIORITIES]>,
    pub(super) random: Random,
    /// Discovery and the health check. Here, because metrics report it.
    pub(super) tasks: Tasks,
    metrics: &'static Series<BalanceMetrics>,
}

#[derive(Default)]
struct PendingChange {
    /// In the order of their priorities. Emptied with the balancer: each endpoint refers to the host set.
    hosts: Vec<Arc<Host>>,
    trusts: Capacities,
    notes: Notes,
}

impl PendingChange {
    /// The endpoints of each priority that has any.
    fn groups(&self) -> impl Iterator<Item = &[Arc<Host>]> {
        self.hosts
            .chunk_by(|one, other| one.priority == other.priority)
    }

    fn are_several(&self) -> bool {
        self.groups().nth(1).is_some()
    }

    /// The health of the groups.
    fn health(&self, now: u64) -> Groups {
        let mut groups = Groups::default();
        for host in &self.hosts {
            let group = &mut groups[usize::from(host.priority)];
            group.whole += host.weight();
            if !host.is_down(now) {
                group.healthy += host.weight();
            }
        }
        groups
    }

    /// When the next ejection is over after this time; `u64::MAX` if none is.
    fn next_return(&self, now: u64) -> u64 {
        let outs = self.hosts.iter();
        let outs = outs.map(|host| host.condition.is_out_until());
        outs.filter(|until| *until > now).min().unwrap_or(u64::MAX)
    }

    /// What the groups are trusted to take now, and the shares that they get. Ejections that are over since the last look
    /// are taken in at the times when they were.
    fn divide(&self, failover: &Failover, now: u64) -> (Capacities, Shares) {
        let mut trusts = self.trusts;
        for _ in 0..RETURNS {
            let back = self.next_return(trusts.at());
            if back >= now {
                break;
            }
            let _ = trusts.update(failover, &self.health(back), back);
        }
        let shares = trusts.update(failover, &self.health(now), now);
        (trusts, shares)
    }
}

impl HostSet {
    pub(super) fn new(
        context: PoolContext,
        ejection: Option<OutlierEjection>,
        failover: Failover,
        random: Random,
        metrics: &'static Series<BalanceMetrics>,
    ) -> Self {
        let now = context.nanos(Instant::now());
        let ejection = ejection.map(|settings| {
            let intervals = [(); PRIORITIES].map(|()| Interval::new(&settings, now));
            (settings, intervals)
        });
        Self {
            context,
            ejection,
            failover,
            kept: Mutex::default(),
            panic_until: [(); PRIORITIES].map(|()| AtomicU64::new(0)),
            split: Split::new(),
            cursor: Box::new([(); PRIORITIES].map(|()| AtomicU64::new(0))),
            random,
            tasks: Tasks::default(),
            metrics,
        }
    }

    /// `hosts` are in the order of their priorities.
    pub(super) fn set(&self, hosts: &[Arc<Host>], now: u64) {
        let mut kept = lock(&self.kept);
        self.assess(&mut kept, now);
        let replaced = std::mem::replace(&mut kept.hosts, hosts.to_vec());
        self.assess(&mut kept, now);
        drop(kept);
        drop(replaced);
    }

    /// Says whether so few endpoints of this priority are in that calls go to all of them.
    #[inline]
    pub(super) fn is_panic(&self, priority: u8, now: u64) -> bool {
        self.panic_until[usize::from(priority)].load(Ordering::Relaxed) > now
    }

    /// Changes what is known of the health of an endpoint.
    pub(super) fn change(&self, now: u64, change: impl FnOnce()) {
        let mut kept = lock(&self.kept);
        self.assess(&mut kept, now);
        change();
        self.assess(&mut kept, now);
        drop(kept);
        self.metrics.publish(Instant::now());
    }

    /// Divides the calls anew, because time has passed. One call does that; the others go on. `hosts` are those that
    /// it knows.
    #[cold]
    pub(super) fn look(&self, hosts: &[Arc<Host>], now: u64) {
        for host in hosts {
            host.look(now);
        }
        match self.try_lock() {
            Some(mut kept) => self.assess(&mut kept, now),
            None => self.split.look_later(),
        }
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, PendingChange>> {
        match self.kept.try_lock() {
            Ok(kept) => Some(kept),
            Err(TryLockError::Poisoned(kept)) => Some(kept.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Finds out which share of the calls each group gets, and until when there is panic in it. Called before and after
    /// each change of health; what time brings is foreseen.
    fn assess(&self, kept: &mut PendingChange, now: u64) {
        let (trusts, shares) = kept.divide(&self.failover, now);
        kept.trusts = trusts;
        let until = kept.next_return(now);
        let until = shares.again.map_or(until, |again| until.min(again));
        self.split.set(&shares.parts, now, until);
        let are_enough = shares.suffice && kept.are_several();
        for hosts in kept.groups() {
            // Not while those that are in, here and in other groups, can take all calls.
            let end = if are_enough { 0 } else { panic_end(hosts, now) };
            self.panic_until[usize::from(hosts[0].priority)].store(end, Ordering::Relaxed);
        }
    }

    /// A call to one of the endpoints has succeeded or failed.
    #[inline]
    pub(super) fn note(&self, host: &Host, began: u64, now: u64, failed: bool) {
        let Some((settings, intervals)) = &self.ejection else {
            return;
        };
        let interval = &intervals[usize::from(host.priority)];
        if host.record.note(settings, began, failed) || interval.is_over(now) {
            self.eject_outliers(settings, interval, host.priority, now);
        }
    }

    /// How many ejections in a row still count against an endpoint.
    pub(super) fn ejections(&self, host: &Host, now: u64) -> u32 {
        let ejection = self.ejection.as_ref();
        ejection.map_or(0, |(settings, _)| {
            host.record.ejections_in_a_row(settings, now)
        })
    }

    /// Ejects those of a group that fail more than the rest of it. One call does that; the others go on.
    #[cold]
    fn eject_outliers(
        &self,
        settings: &OutlierEjection,
        interval: &Interval,
        priority: u8,
        now: u64,
    ) {
        let Some(mut kept) = self.try_lock() else {
            return;
        };
        self.assess(&mut kept, now);
        let mut notes = std::mem::take(&mut kept.notes);
        let hosts = kept.groups().find(|group| group[0].priority == priority);
        let hosts = hosts.unwrap_or_default();
        let jitter = || self.random.symmetric();
        let ejected = sweep(
            settings,
            interval,
            hosts,
            |host| host.record_of(now),
            &mut notes,
            now,
            jitter,
        );
        if settings.acts() {
            for ejection in &ejected {
                let host = &hosts[ejection.place];
                host.condition.ejected(ejection.until);
                host.load.forgive();
            }
        }
        kept.notes = notes;
        self.assess(&mut kept, now);
        drop(kept);
        // Without the lock: a recorder is code of the user.
        let mode = if settings.acts() {
            Mode::Enforce
        } else {
            Mode::Observe
        };
        let now = Instant::now();
        for ejection in &ejected {
            self.ejected(now, ejection.method, mode);
        }
        if !ejected.is_empty() {
            self.metrics.publish(now);
        }
    }

    /// Leaves an endpoint alone that is overloaded, unless half of its group gets no calls already: the load of a whole
    /// service does not fall by giving it to the few that have not complained yet.
    pub(super) fn spare(&self, host: &Host, until: u64, now: u64) {
        let Some(kept) = self.try_lock() else {
            return;
        };
        let mut groups = kept.groups();
        let Some(group) = groups.find(|group| group[0].priority == host.priority) else {
            return;
        };
        let others = group.iter().filter(|other| other.id != host.id);
        let closed = others
            .filter(|other| other.condition.is_closed(now))
            .count();
        if 2 * (closed + 1) <= group.len() {
            host.condition.refused(until);
        }
    }

    /// The name of the balancer.
    pub(super) fn name(&self) -> &'static str {
        self.metrics.name()
    }

    /// What there is, if no endpoint would take a call. Looks at all of them until one would.
    #[cold]
    pub(super) fn shortage(&self, now: Instant) -> Option<Shortage> {
        let nanos = self.context.nanos(now);
        let mut shortage = Shortage {
            balancer: self.metrics.name(),
            ..Shortage::default()
        };
        loop {
            // Asked without the lock: availability is code of the user.
            let host = lock(&self.kept).hosts.get(shortage.known).cloned();
            let Some(host) = host else {
                return Some(shortage);
            };
            if host.is_selectable(nanos) {
                return None;
            }
            shortage.add(host.state(nanos));
        }
    }

    fn ejected(&self, now: Instant, method: EjectionMethod, mode: Mode) {
        self.metrics.ejected(method, mode, now);
    }

    /// The label of an endpoint with this key, if endpoints are reported.
    pub(super) fn label(&self, key: &Arc<str>) -> Option<Arc<Label>> {
        let most = self.context.settings.labels?;
        Some(self.metrics.levels().labels.enter(key, most))
    }

    /// An endpoint that has this label has gone.
    pub(super) fn leave(&self, label: &Label) {
        self.metrics.levels().labels.leave(label);
    }

    /// A call to an endpoint that has this label has ended.
    #[inline(never)]
    pub(super) fn ended(&self, label: &Label, end: Ended, now: Instant) {
        let is_idle = label.end();
        self.metrics.ended(label, end, is_idle, now);
    }

    /// What is to be shown of the endpoints of each label, each at its place.
    pub(super) fn show(&self, shown: &mut Vec<Option<Shown>>) {
        if self.context.settings.labels.is_none() {
            return;
        }
        let now = self.context.nanos(Instant::now());
        for host in &lock(&self.kept).hosts {
            let Some(label) = &host.label else { continue };
            if shown.len() <= label.place {
                shown.resize_with(label.place + 1, || None);
            }
            let is_ready = host.condition.is_out_until() <= now;
            shown[label.place]
                .get_or_insert_with(|| Shown::none(label))
                .add(is_ready, host.latency(now));
        }
    }

    /// Counts the endpoints by their states.
    pub(super) fn count<const N: usize>(&self, counts: &mut [u64; N]) {
        let now = self.context.nanos(Instant::now());
        for host in &lock(&self.kept).hosts {
            counts[host.state(now) as usize] += 1;
        }
    }

    /// The share of the calls that each group gets, and the priorities as bits if there are several.
    pub(super) fn shares(&self) -> ([f64; PRIORITIES], u32) {
        let now = self.context.nanos(Instant::now());
        let kept = lock(&self.kept);
        if kept.are_several() {
            let priorities = kept.groups().map(|group| 1 << group[0].priority);
            let (_, shares) = kept.divide(&self.failover, now);
            return (shares.parts, priorities.sum());
        }
        let mut parts = [0.0; PRIORITIES];
        if let Some(host) = kept.hosts.first() {
            parts[usize::from(host.priority)] = 1.0;
        }
        (parts, 0)
    }

    /// What is known of the groups. Changes nothing: who looks may have another clock than the calls.
    pub(super) fn groups(&self) -> Vec<GroupStatus> {
        let now = self.context.nanos(Instant::now());
        let kept = lock(&self.kept);
        let health = kept.health(now);
        let (_, shares) = kept.divide(&self.failover, now);
        let status = |hosts: &[Arc<Host>]| {
            let priority = hosts[0].priority;
            let place = usize::from(priority);
            GroupStatus {
                priority,
                endpoints: hosts.len(),
                healthy: health[place].healthy / health[place].whole,
                share: shares.parts[place],
            }
        };
        kept.groups().map(status).collect()
    }
}

/// Until when so few of these are in that it is better to send calls to all of them; 0 if they are not so few.
fn panic_end(hosts: &[Arc<Host>], now: u64) -> u64 {
    let returns = hosts.iter();
    let returns = returns.map(|host| host.condition.is_out_until());
    let healthy = returns.clone().filter(|until| *until <= now).count();
    if !is_panic(healthy, hosts.len()) {
        return 0;
    }
    let mut returns: Vec<_> = returns.collect();
    returns.sort_unstable();
    let panic = |at: u64| is_panic(returns.partition_point(|until| *until <= at), returns.len());
    let mut later = returns.iter().filter(|until| **until > now);
    *later.find(|until| !panic(**until)).unwrap_or(&u64::MAX)
}

impl fmt::Debug for HostSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostSet")
            .field("endpoints", &lock(&self.kept).hosts.len())
            .finish_non_exhaustive()
    }
}
