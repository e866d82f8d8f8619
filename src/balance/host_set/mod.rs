//! The endpoints of a balancer, which are evaluated and counted together.

mod ejection;
mod failover;
mod members;
mod reassessment;

use tokio::time::Instant;

use super::endpoint::Host;

use self::ejection::Ejector;
use self::failover::Failover;
use self::members::Members;
use super::background::Tasks;
use super::choose::Turns;
use super::config::Settings;
use super::label::Shown;
use super::metrics::BalanceMetrics;
use super::shortage::Shortage;
use crate::algorithm::evidence::{Evidence, Terms};
use crate::algorithm::failover::PRIORITIES;
use crate::algorithm::load;
use crate::nanos::{nanos_between, whole_nanos};
use crate::random::Random;
use crate::sync::{Mutex, lock};
use crate::telemetry::{Listener, Report, Series};

pub(super) use self::members::group_of;
pub use self::reassessment::EndpointState;
pub(super) use self::reassessment::{Condition, Reassessment};

/// The endpoints of one balancer.
///
/// The states change with time alone, so endpoints are counted at the time of a report.
pub(super) struct HostSet {
    pub(super) settings: Settings,
    /// The settings of the load estimate.
    pub(super) load: load::Settings,
    /// In nanoseconds.
    pub(super) slow_start: u64,
    origin: Instant,
    members: Mutex<Members>,
    ejector: Option<Ejector>,
    /// Decides about calls that end early.
    pub(super) evidence: Evidence,
    pub(super) failover: Failover,
    /// The turns of policies, for each priority. In a box of their own, because each call writes to them.
    pub(super) turns: Box<[Turns; PRIORITIES]>,
    pub(super) random: Random,
    /// Discovery and the health check. Stored here, because metrics report them.
    pub(super) tasks: Tasks,
    pub(super) metrics: Report<BalanceMetrics>,
}

impl HostSet {
    pub(super) fn new(name: &str, settings: Settings, listener: Listener) -> Self {
        let ejects = settings.ejection.as_ref().map(|ejection| ejection.mode);
        Self {
            load: load::Settings {
                latency_decay: settings.latency_decay.as_secs_f64(),
                failure_decay: settings.failure_decay.as_secs_f64(),
                failure_penalty: settings.failure_penalty.as_secs_f64(),
            },
            slow_start: whole_nanos(settings.slow_start),
            origin: Instant::now(),
            members: Mutex::default(),
            evidence: Evidence::new(Terms::new(None)),
            ejector: settings.ejection.clone().map(Ejector::new),
            failover: Failover::new(&settings),
            turns: Box::default(),
            random: Random::new(settings.seed),
            tasks: Tasks::default(),
            metrics: Report::new(Series::of_balance(name, ejects), listener),
            settings,
        }
    }

    /// Returns a time in nanoseconds from the origin of the balancer.
    #[inline]
    pub(super) fn nanos(&self, now: Instant) -> u64 {
        nanos_between(self.origin, now)
    }

    /// Begins a change of the endpoints or of their health.
    pub(super) fn reassess(&self, now: u64) -> Reassessment<'_> {
        Reassessment::begin(self, lock(&self.members), now)
    }

    /// Changes the health of endpoints, publishes the gauges, and tells which groups get calls now.
    pub(super) fn update(&self, now: u64, change: impl FnOnce(&mut Reassessment<'_>)) {
        change(&mut self.reassess(now));
        self.metrics.publish(Instant::now());
        self.tell_groups();
    }

    /// Returns the numbers of endpoints by state, if none would take a call. It stops at the first endpoint that would.
    #[cold]
    pub(super) fn shortage(&self, now: Instant) -> Option<Shortage> {
        let nanos = self.nanos(now);
        let mut shortage = Shortage {
            balancer: self.metrics.name(),
            ..Shortage::default()
        };
        loop {
            // Asked without the lock: availability is code of the user.
            let host = lock(&self.members).hosts.get(shortage.known).cloned();
            let Some(host) = host else {
                return Some(shortage);
            };
            if host.is_selectable(nanos) {
                return None;
            }
            shortage.add(host.state(nanos));
        }
    }

    /// Returns whether there is another endpoint than `host` that takes calls.
    #[cold]
    pub(super) fn has_others(&self, host: &Host, nanos: u64) -> bool {
        let mut place = 0;
        loop {
            // Asked without the lock: availability is code of the user.
            let other = lock(&self.members).hosts.get(place).cloned();
            match other {
                None => return false,
                Some(other) if other.id != host.id && other.is_selectable(nanos) => return true,
                Some(_) => place += 1,
            }
        }
    }

    /// Collects the values to show for the endpoints of each label, each at its place.
    pub(super) fn show(&self, shown: &mut Vec<Option<Shown>>) {
        if self.settings.endpoint_metrics.is_none() {
            return;
        }
        let now = self.nanos(Instant::now());
        for host in &lock(&self.members).hosts {
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
        let now = self.nanos(Instant::now());
        for host in &lock(&self.members).hosts {
            counts[host.state(now) as usize] += 1;
        }
    }
}
