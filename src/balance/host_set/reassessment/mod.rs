//! The only way to change the endpoints and their health.

mod condition;

use std::sync::{Arc, MutexGuard};

use super::HostSet;
use super::ejection::Ejector;
use super::members::{Members, group_of};
use crate::Mode;

use crate::algorithm::outlier::{EjectionMethod, sweep};
use crate::balance::endpoint::Host;

pub(in crate::balance) use self::condition::Condition;
pub use self::condition::EndpointState;

/// A change of the endpoints or of their health, between two assessments of the groups.
///
/// The groups are assessed when the change begins, because the effects of time since the last look belong to the state
/// before the change, and again when it is dropped. No other code can write to a [`Condition`] or replace the
/// endpoints. The shares of the groups therefore include every change, from the time at which it was made.
#[must_use = "the change is over when this is dropped"]
pub(in crate::balance) struct Reassessment<'a> {
    set: &'a HostSet,
    members: MutexGuard<'a, Members>,
    now: u64,
}

impl<'a> Reassessment<'a> {
    pub(super) fn begin(set: &'a HostSet, mut members: MutexGuard<'a, Members>, now: u64) -> Self {
        set.failover.assess(&mut members, now);
        Self { set, members, now }
    }

    /// Replaces the endpoints with these, which are in the order of their priorities. Returns the former ones, to be
    /// dropped after the change, because their drop runs code of the user.
    #[must_use]
    pub(in crate::balance) fn replace(&mut self, hosts: &[Arc<Host>]) -> Vec<Arc<Host>> {
        std::mem::replace(&mut self.members.hosts, hosts.to_vec())
    }

    #[allow(clippy::unused_self, reason = "proves that the groups are assessed")]
    pub(in crate::balance) fn reweigh(&mut self, host: &Host, weight: f64) {
        host.condition.reweigh(weight);
    }

    /// Ejects an endpoint until `until`.
    #[allow(clippy::unused_self, reason = "proves that the groups are assessed")]
    pub(in crate::balance) fn eject(&mut self, host: &Host, until: u64) {
        host.condition.ejected(until);
    }

    /// Ends an ejection, and forgets earlier ones.
    pub(in crate::balance) fn restore(&mut self, host: &Host) {
        host.record.restore(self.now);
        host.condition.restore(self.now);
    }

    /// Notes that a health check has found that an endpoint works, or does not.
    pub(in crate::balance) fn found(&mut self, host: &Host, is_healthy: bool) {
        if host.condition.found(is_healthy, self.now) {
            // Its earlier failures would keep calls away for longer than its slow start.
            host.load.forgive();
        }
    }

    /// Ejects endpoints that fail more than the rest of their group.
    pub(super) fn eject_outliers(
        &mut self,
        ejector: &Ejector,
        priority: u8,
    ) -> Vec<(Arc<str>, EjectionMethod)> {
        let (set, now) = (self.set, self.now);
        let Members { hosts, notes, .. } = &mut *self.members;
        let hosts = group_of(hosts, priority);
        let ejected = sweep(
            &ejector.settings.rule,
            ejector.interval(priority),
            hosts,
            |host| host.record_of(now),
            notes,
            now,
            || set.random.symmetric(),
        );
        if ejector.settings.mode == Mode::Enforce {
            for ejection in &ejected {
                let host = &hosts[ejection.place];
                host.condition.ejected(ejection.until);
                host.load.forgive();
            }
        }
        let named = ejected.iter().map(|ejection| {
            let host = &hosts[ejection.place];
            (Arc::clone(&host.about.key), ejection.method)
        });
        named.collect()
    }
}

impl Drop for Reassessment<'_> {
    fn drop(&mut self) {
        self.set.failover.assess(&mut self.members, self.now);
    }
}
