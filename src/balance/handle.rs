//! The handle that reads and changes a balancer.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rand::SeedableRng;
use tokio::time::Instant;

use super::background::{Lease, Task, TaskState};
use super::config::check_runtime;
use super::endpoint::{Endpoint, EndpointStatus, GroupStatus, Host};
use super::health::{self, HealthCheck, Probe};
use super::host_set::Reassessment;
use super::pool::{Change, Pool, insert};
use crate::debug::debug_fields;
use crate::discover::Target;
use crate::error::Check;
use crate::event::EventKind;
use crate::nanos::after;
use crate::{ConfigError, Mode};

/// Reads and changes a balancer. Clones are handles of the same balancer.
///
/// Discovery continues as long as a handle exists.
pub struct Handle<S> {
    pool: Arc<Pool<S>>,
}

impl<S> Handle<S> {
    pub(super) fn new(pool: &Arc<Pool<S>>) -> Self {
        Self {
            pool: Arc::clone(pool),
        }
    }

    /// Returns the name of the balancer.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.pool.name()
    }

    /// Returns all endpoints, in no particular order.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        let now = Instant::now();
        let set = self.pool.set();
        set.hosts.iter().map(|host| host.status(now)).collect()
    }

    /// Returns the endpoint with this key.
    #[must_use]
    pub fn endpoint(&self, key: &str) -> Option<EndpointStatus> {
        let host = self.pool.host(key)?;
        Some(host.status(Instant::now()))
    }

    /// Returns the priority groups that have an endpoint, the first priority first, each with its share of the calls.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupStatus> {
        let mut groups = Vec::new();
        self.pool
            .host_set
            .for_each_group(|group| groups.push(group));
        groups
    }

    /// Starts a health check of the endpoints, in a background task that ends with the last handle.
    ///
    /// The task restarts when its runtime has ended: see [background tasks](crate::balance#background-tasks).
    ///
    /// It replaces an earlier health check, whose results remain until the new one has other results.
    ///
    /// # Errors
    ///
    /// If a value is outside its range, or there is no Tokio runtime to run the task.
    pub fn check_health<H>(&self, health: HealthCheck<H>) -> Result<(), ConfigError>
    where
        S: Clone + Send + Sync + 'static,
        H: Probe<S> + Send + Sync + 'static,
    {
        let check = Check::new("balance", self.pool.name())?;
        health.check(check)?;
        check_runtime(check, "check_health")?;
        let (health, changed) = (Arc::new(health), Arc::clone(&self.pool.changed));
        let mut random = self.pool.host_set.random.generator();
        let run = move |lease: &Arc<Lease<S>>, _| {
            lease.set(TaskState::Running);
            let (pool, changed) = (Weak::clone(&lease.pool), Arc::clone(&changed));
            health::drive(pool, changed, Arc::clone(&health), random.fork())
        };
        let panicked = |_: &Lease<S>| TaskState::Recovering;
        self.pool
            .run_in_background(Task::HealthCheck, run, panicked);
        Ok(())
    }

    /// Ejects an endpoint for this time, unless it is already ejected for longer. Returns `false` if there is no such
    /// endpoint.
    ///
    /// The endpoint returns by slow start. While fewer than half of the endpoints take calls, it gets calls
    /// nevertheless; to prevent this, remove it.
    #[allow(clippy::must_use_candidate, reason = "it is out either way")]
    pub fn eject(&self, key: &str, duration: Duration) -> bool {
        let is_there = self.update(key, |change, host, now| {
            change.eject(host, after(now, duration));
        });
        self.tell_if(is_there, || EventKind::Ejected {
            endpoint: key,
            method: "by_hand",
            mode: Mode::Enforce,
        })
    }

    /// Ends the ejection of an endpoint, and forgets earlier ejections. The endpoint returns by slow start. Returns
    /// `false` if there is no such endpoint.
    ///
    /// An endpoint that a health check has found unhealthy stays unhealthy.
    #[allow(clippy::must_use_candidate, reason = "it is back either way")]
    pub fn restore(&self, key: &str) -> bool {
        let is_there = self.update(key, |change, host, _| change.restore(host));
        self.tell_if(is_there, || EventKind::Restored { endpoint: key })
    }

    /// Tells of a change, and returns whether there was one.
    fn tell_if<'a>(&self, is_changed: bool, kind: impl FnOnce() -> EventKind<'a>) -> bool {
        if is_changed {
            self.pool.host_set.metrics.tell_change(kind());
        }
        is_changed
    }

    fn update(&self, key: &str, update: impl FnOnce(&mut Reassessment<'_>, &Host, u64)) -> bool {
        let Some(host) = self.pool.host(key) else {
            return false;
        };
        let now = host.peers.nanos(Instant::now());
        host.peers.update(now, |change| update(change, &host, now));
        true
    }

    /// Returns whether endpoints are being discovered.
    ///
    /// Returns `false` if there is no source or it has ended; after a panic of the source until the next poll without a
    /// panic; and after the end of its runtime until the next call on another one. The gauge
    /// `buttress_discovery_running` shows the same.
    #[must_use]
    pub fn is_discovering(&self) -> bool {
        self.pool.host_set.tasks.state(Task::Discovery).is_running()
    }

    /// Returns whether endpoints are being checked by a [health check](super::Balance::check_health).
    ///
    /// Returns `false` if there is no health check, and after the end of its runtime until the next call on another
    /// one. The gauge `buttress_health_check_running` shows the same.
    #[must_use]
    pub fn is_checking_health(&self) -> bool {
        self.pool
            .host_set
            .tasks
            .state(Task::HealthCheck)
            .is_running()
    }
}

impl<S: Clone> Handle<S> {
    /// Adds an endpoint, or replaces the endpoint with the same key. Calls in flight on the former
    /// endpoint finish, and do not count for the new one.
    ///
    /// # Errors
    ///
    /// If its weight or priority is outside the range.
    pub fn add(&self, endpoint: Endpoint<S>) -> Result<(), ConfigError> {
        endpoint.about.check(self.name())?;
        self.pool.change(&mut vec![insert(endpoint)]);
        Ok(())
    }

    /// Removes an endpoint. Calls in flight on it finish. Returns `false` if there is no such endpoint.
    ///
    /// A clone of the balancer that is neither called nor cloned afterwards keeps the endpoint's service until it is
    /// dropped.
    #[allow(clippy::must_use_candidate, reason = "it is gone either way")]
    pub fn remove(&self, key: &str) -> bool {
        self.pool.change(&mut vec![Change::Remove(key.into())]) > 0
    }

    /// Changes the weight of an endpoint. Returns `false` if there is no such endpoint.
    ///
    /// # Errors
    ///
    /// If the weight is outside the range 0.001 to 1000.
    pub fn reweigh(&self, key: &str, weight: f64) -> Result<bool, ConfigError> {
        Endpoint::new(key, ())
            .weight(weight)
            .about
            .check(self.name())?;
        let properties = Target::new(()).weight(weight);
        Ok(self
            .pool
            .change(&mut vec![Change::Update(key.into(), properties)])
            > 0)
    }
}

impl<S> Clone for Handle<S> {
    fn clone(&self) -> Self {
        Self::new(&self.pool)
    }
}

debug_fields!([S] Handle<S> { name(), endpoints() });
