//! Which priority group a call goes to, and whether its health is ignored.

use std::sync::Arc;

use tokio::time::Instant;

use super::HostSet;
use super::members::Members;
use crate::algorithm::failover::{Capacities, PRIORITIES, Rule, Shares, Split};
use crate::algorithm::outlier::is_panic;
use crate::balance::config::Settings;
use crate::balance::endpoint::{GroupStatus, Host};
use crate::sync::{AtomicU64, Ordering, lock, try_lock};

/// The number of ejections that have ended unseen and are taken in one by one: they need a look at all endpoints each.
const RETURNS: usize = 32;

/// Destination of calls, by the last assessment of the groups.
pub(in crate::balance) struct Failover {
    rule: Rule,
    panic_threshold: u8,
    /// Which group a call goes to, if there are several.
    pub(in crate::balance) split: Split,
    /// Until then, so few endpoints of a group are in that calls go to all of them; `u64::MAX` if time alone does not
    /// end that.
    panic_until: [AtomicU64; PRIORITIES],
}

impl Failover {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            rule: settings.failover.rule,
            panic_threshold: settings.panic_threshold,
            split: Split::new(),
            panic_until: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Returns whether so few endpoints of this priority are in that calls go to all of them.
    #[inline]
    pub(in crate::balance) fn is_panic(&self, priority: u8, now: u64) -> bool {
        self.panic_until[usize::from(priority)].load(Ordering::Relaxed) > now
    }

    /// Finds out which share of the calls each group gets, and until when there is panic in it. Called before and after
    /// each change of health; what time brings is foreseen.
    pub(super) fn assess(&self, members: &mut Members, now: u64) {
        let (trusts, shares) = self.divide(members, now);
        members.trusts = trusts;
        let until = members.next_return(now);
        let until = shares.again.map_or(until, |again| until.min(again));
        self.split.set(&shares.parts, now, until);
        let are_enough = shares.suffice && members.are_several();
        for hosts in members.groups() {
            // Not while those that are in, here and in other groups, can take all calls.
            let end = if are_enough {
                0
            } else {
                panic_end(hosts, self.panic_threshold, now)
            };
            self.panic_until[usize::from(hosts[0].priority())].store(end, Ordering::Relaxed);
        }
    }

    /// Returns the load that the groups are trusted to take now, and the shares that they get. Ejections that are over since the last look
    /// are taken in at the times when they were.
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
    /// Divides the calls anew, because time has passed. One call does that; the others go on. `hosts` are those that
    /// it knows.
    #[cold]
    pub(in crate::balance) fn look(&self, hosts: &[Arc<Host>], now: u64) {
        for host in hosts {
            host.look(now);
        }
        match try_lock(&self.members) {
            Some(mut members) => self.failover.assess(&mut members, now),
            None => self.failover.split.look_next(),
        }
    }

    /// Gives the knowledge about each group to `visit`, under the lock of the endpoints. Changes nothing: the caller may
    /// have another clock than the calls. Allocates nothing: calls publish gauges.
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

/// Returns the time until which less than `threshold` percent of these are in, so that it is better to send calls to
/// all of them; 0 if they are not so few.
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
