//! The endpoints of the host set.

use std::sync::Arc;

use crate::algorithm::failover::{Capacities, Groups};
use crate::algorithm::outlier::Notes;
use crate::balance::endpoint::Host;

/// The endpoints, and the state that is kept from one look at them to the next.
#[derive(Default)]
pub(super) struct Members {
    /// In the order of their priorities. Emptied with the balancer: each endpoint refers to the host set.
    pub(super) hosts: Vec<Arc<Host>>,
    pub(super) trusts: Capacities,
    pub(super) notes: Notes,
}

impl Members {
    /// Returns the endpoints of each priority that has endpoints.
    pub(super) fn groups(&self) -> impl Iterator<Item = &[Arc<Host>]> {
        self.hosts
            .chunk_by(|one, other| one.priority() == other.priority())
    }

    pub(super) fn are_several(&self) -> bool {
        self.groups().nth(1).is_some()
    }

    /// Returns the health of the groups.
    pub(super) fn health(&self, now: u64) -> Groups {
        let mut groups = Groups::default();
        for hosts in self.groups() {
            let group = &mut groups[usize::from(hosts[0].priority())];
            let mut hanging = 0.0;
            for host in hosts {
                let weight = host.condition.weight();
                group.whole += weight;
                if !host.is_down(now) {
                    group.healthy += weight;
                    hanging += if host.hangs(now) { weight } else { 0.0 };
                }
            }
            // A few endpoints may be silent because only slow calls went there, and the choice of endpoints avoids
            // them.
            if hanging > group.healthy / 2.0 {
                group.healthy = (group.healthy - hanging).max(0.0);
            }
        }
        groups
    }

    /// Returns the next time after `now` at which an ejection is over, or the failures of an endpoint are too old;
    /// `u64::MAX` if there is none.
    pub(super) fn next_return(&self, now: u64) -> u64 {
        let outs = self.hosts.iter().flat_map(|host| {
            let fails_until = host.last_calls.fails_until(now);
            [host.condition.is_out_until(), fails_until]
        });
        outs.filter(|until| *until > now).min().unwrap_or(u64::MAX)
    }
}

/// Returns the endpoints of this priority among `hosts`, which are in the order of their priorities.
pub(in crate::balance) fn group_of(hosts: &[Arc<Host>], priority: u8) -> &[Arc<Host>] {
    let begin = hosts.partition_point(|host| host.priority() < priority);
    let end = hosts.partition_point(|host| host.priority() <= priority);
    &hosts[begin..end]
}
