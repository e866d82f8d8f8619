//! The choice of the priority group of a call, and whether the health of the group is ignored.

use std::sync::Arc;

use tokio::time::Instant;

use super::HostSet;
use super::members::Members;
use crate::algorithm::failover::{Capacities, PRIORITIES, Rule, Shares, Split};
use crate::algorithm::outlier::is_panic;
use crate::balance::config::Settings;
use crate::balance::endpoint::{GroupStatus, Host};
use crate::sync::{AtomicU32, AtomicU64, Ordering, lock, try_lock};

/// The number of ended ejections that are assessed one by one, because each needs a look at all endpoints.
const RETURNS: usize = 32;

/// Destination of calls, by the last assessment of the groups.
pub(in crate::balance) struct Failover {
    rule: Rule,
    panic_threshold: u8,
    /// The shares by which a call goes to a group, if there are several.
    pub(in crate::balance) split: Split,
    /// The time until which so few endpoints of a group take calls that calls go to all of them; `u64::MAX` if time
    /// alone does not end the panic.
    panic_until: [AtomicU64; PRIORITIES],
    /// One bit for each priority that gets calls, and after them one bit for each that is in panic.
    groups: AtomicU32,
    /// The bits that were last reported to the listener.
    told: AtomicU32,
}

impl Failover {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            rule: settings.failover.rule,
            panic_threshold: settings.panic_threshold,
            split: Split::new(),
            panic_until: std::array::from_fn(|_| AtomicU64::new(0)),
            groups: AtomicU32::new(0),
            told: AtomicU32::new(0),
        }
    }

    /// Returns whether so few endpoints of this priority take calls that calls go to all of them.
    #[inline]
    pub(in crate::balance) fn is_panic(&self, priority: u8, now: u64) -> bool {
        self.panic_until[usize::from(priority)].load(Ordering::Relaxed) > now
    }

    /// Computes the share of the calls of each group, and the time until which it is in panic. It is called before and
    /// after each change of health, and includes the changes that time alone brings.
    pub(super) fn assess(&self, members: &mut Members, now: u64) {
        let (trusts, shares) = self.divide(members, now);
        members.trusts = trusts;
        let until = members.next_return(now);
        let until = shares.again.map_or(until, |again| until.min(again));
        self.split.set(&shares.parts, now, until);
        let are_enough = shares.suffice && members.are_several();
        let mut groups = 0;
        for hosts in members.groups() {
            // Not while the endpoints that take calls, here and in other groups, can take all calls.
            let end = if are_enough {
                0
            } else {
                panic_end(hosts, self.panic_threshold, now)
            };
            let place = usize::from(hosts[0].priority());
            self.panic_until[place].store(end, Ordering::Relaxed);
            groups |= u32::from(shares.parts[place] > 0.0) << place;
            groups |= u32::from(end > now) << (PRIORITIES + place);
        }
        self.groups.store(groups, Ordering::Relaxed);
    }

    /// Returns the load that the groups can take now, and their shares. An ejection that has ended since the last look
    /// counts from the time at which it ended.
    fn divide(&self, members: &Members, now: u64) -> (Capacities, Shares) {
        let mut trusts = members.trusts;
        for _ in 0..RETURNS {
            let back = members.next_return(trusts.at());
            if back >= now {
                break;
            }
            let _ = trusts.update(&self.rule, &members.health(back), back);
        }
        let shares = trusts.update(&self.rule, &members.health(now), now);
        (trusts, shares)
    }
}

impl HostSet {
    /// Divides the calls anew, because time has passed. One call does so; other calls do not wait for it. `hosts` are
    /// the endpoints that the call knows.
    #[cold]
    pub(in crate::balance) fn look(&self, hosts: &[Arc<Host>], now: u64) {
        for host in hosts {
            host.look(now);
        }
        match try_lock(&self.members) {
            Some(mut members) => self.failover.assess(&mut members, now),
            None => return self.failover.split.look_next(),
        }
        self.tell_groups();
    }

    /// Reports the priorities that begin or cease to get calls, or to be in panic. The caller does not hold the lock of
    /// the endpoints.
    #[cold]
    pub(in crate::balance) fn tell_groups(&self) {
        let Failover { groups, told, .. } = &self.failover;
        loop {
            let now = groups.load(Ordering::Relaxed);
            let before = told.swap(now, Ordering::Relaxed);
            self.metrics.groups_changed(before, now);
            // Another thread may have reported an older state in the meantime.
            if groups.load(Ordering::Relaxed) == told.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Calls `visit` with the status of each group, under the lock of the endpoints. It changes nothing, because the
    /// caller may have another clock than the calls. It allocates nothing, because calls publish gauges.
    pub(in crate::balance) fn for_each_group(&self, visit: impl FnMut(GroupStatus)) {
        let now = self.nanos(Instant::now());
        let members = lock(&self.members);
        let health = members.health(now);
        let (_, shares) = self.failover.divide(&members, now);
        let status = |hosts: &[Arc<Host>]| {
            let priority = hosts[0].priority();
            let place = usize::from(priority);
            GroupStatus {
                priority,
                endpoints: hosts.len(),
                healthy: health[place].healthy / health[place].whole,
                share: shares.parts[place],
            }
        };
        members.groups().map(status).for_each(visit);
    }
}

/// Returns the time until which less than `threshold` percent of these endpoints take calls, so that calls go to all of
/// them; 0 if enough take calls.
fn panic_end(hosts: &[Arc<Host>], threshold: u8, now: u64) -> u64 {
    let returns = hosts.iter().map(|host| host.condition.is_out_until());
    let healthy = returns.clone().filter(|until| *until <= now).count();
    if !is_panic(healthy, hosts.len(), threshold) {
        return 0;
    }
    let mut returns: Vec<_> = returns.collect();
    returns.sort_unstable();
    let panic = |at: u64| {
        let healthy = returns.partition_point(|until| *until <= at);
        is_panic(healthy, returns.len(), threshold)
    };
    let mut later = returns.iter().filter(|until| **until > now);
    *later.find(|until| !panic(**until)).unwrap_or(&u64::MAX)
}
