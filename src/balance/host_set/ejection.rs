//! Outlier ejection, and endpoints that ask callers to stay away.

use tokio::time::Instant;

use super::HostSet;
use super::members::group_of;
use super::reassessment::Reassessment;
use crate::algorithm::failover::PRIORITIES;
use crate::algorithm::outlier::Interval;
use crate::balance::endpoint::Host;
use crate::balance::outlier::OutlierEjection;
use crate::sync::try_lock;

/// Outlier ejection, if it is on. Each priority group is evaluated by itself.
pub(super) struct Ejector {
    pub(super) settings: OutlierEjection,
    intervals: [Interval; PRIORITIES],
}

impl Ejector {
    pub(super) fn new(settings: OutlierEjection) -> Self {
        Self {
            intervals: std::array::from_fn(|_| Interval::new(&settings.rule, 0)),
            settings,
        }
    }

    pub(super) fn interval(&self, priority: u8) -> &Interval {
        &self.intervals[usize::from(priority)]
    }
}

impl HostSet {
    /// Notes that a call to one of the endpoints has succeeded or failed.
    #[inline]
    pub(in crate::balance) fn note(&self, host: &Host, began: u64, now: u64, failed: bool) {
        let Some(ejector) = &self.ejector else {
            return;
        };
        let is_streak = host.record.note(&ejector.settings.rule, began, failed);
        if is_streak || ejector.interval(host.priority()).is_over(now) {
            self.eject_outliers(ejector, host.priority(), now);
        }
    }

    /// Ejects endpoints that fail more than the rest of their group. One call evaluates the group; other calls do not
    /// wait for it.
    #[cold]
    fn eject_outliers(&self, ejector: &Ejector, priority: u8, now: u64) {
        let Some(members) = try_lock(&self.members) else {
            return;
        };
        let ejected = Reassessment::begin(self, members, now).eject_outliers(ejector, priority);
        // Without the lock, because a recorder is code of the user.
        let (now, mode) = (Instant::now(), ejector.settings.mode);
        for (endpoint, method) in &ejected {
            self.metrics.ejected(endpoint, *method, mode, now);
        }
        if !ejected.is_empty() {
            self.metrics.publish(now);
        }
        self.tell_groups();
    }

    /// Returns the number of ejections in a row that still count against an endpoint.
    pub(in crate::balance) fn ejections(&self, host: &Host, now: u64) -> u32 {
        self.ejector.as_ref().map_or(0, |ejector| {
            let rule = &ejector.settings.rule;
            host.record.ejections_in_a_row(rule, now)
        })
    }

    /// Avoids an overloaded endpoint, unless half of its group gets no calls already. The load of a whole service does
    /// not fall if the few remaining endpoints take it.
    #[cold]
    pub(in crate::balance) fn spare(&self, host: &Host, until: u64, now: u64) {
        let Some(members) = try_lock(&self.members) else {
            return;
        };
        let group = group_of(&members.hosts, host.priority());
        let others = group.iter().filter(|other| other.id != host.id);
        let closed = others.filter(|other| other.condition.is_closed(now));
        if 2 * (closed.count() + 1) <= group.len() {
            host.condition.refused(until);
        }
    }
}
