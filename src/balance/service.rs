//! The service that balances.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::{self, Poll};

use rand::Rng;
use rand::rngs::SmallRng;
use tokio::time::Instant;
use tower::Service;

use super::choose::{Choose, Eligibility, Endpoints, PowerOfChoices, best_eligibility};
use super::config::{Config, Settings};
use super::endpoint::{Endpoint, Host};
use super::flight::Flight;
use super::future::ResponseFuture;
use super::handle::Handle;
use super::health::{HealthCheck, Probe};
use super::host_set::HostSet;
use super::pool::{Group, Local, Pool};
use crate::algorithm::last_calls::MIN_KNOWN;
use crate::algorithm::outlier::Tally;
use crate::context;
use crate::send::send_method;
use crate::sync::lock;
use crate::{
    Classify, CloneService, CompleteOnResponse, ConfigError, Error, ErrorsAreFailures,
    TrackCompletion,
};

/// A service that spreads its calls over endpoints. See the [module documentation](crate::balance).
///
/// Clones belong to the same balancer: they share the endpoints and their statistics.
pub struct Balance<S, P = PowerOfChoices, K = ErrorsAreFailures, C = CompleteOnResponse> {
    /// A call has exclusive access to this handle and takes no lock. Cloning locks it, because a handle may be cloned
    /// by several threads.
    pub(super) local: Mutex<Local<S>>,
    pub(super) pool: Arc<Pool<S>>,
    pub(super) choose: P,
    pub(super) classify: K,
    pub(super) completion: C,
}

impl<S: Clone> Balance<S> {
    /// Makes a balancer over these endpoints, with the default settings.
    ///
    /// # Errors
    ///
    /// If the name is empty, there is no endpoint, two have the same key, or a weight is outside its range.
    pub fn new(
        name: impl Into<String>,
        endpoints: impl IntoIterator<Item = Endpoint<S>>,
    ) -> Result<Self, ConfigError> {
        Balance::config(name).build(endpoints)
    }
}

impl Balance<()> {
    /// Begins to configure a balancer.
    pub fn config(name: impl Into<String>) -> Config {
        Config::new(name, Settings::default(), PowerOfChoices)
    }
}

impl<S, P, K, C> Balance<S, P, K, C> {
    /// Returns a handle that reads and changes the balancer.
    #[must_use]
    pub fn handle(&self) -> Handle<S> {
        Handle::new(&self.pool)
    }

    /// Starts a health check of the endpoints. See [`Handle::check_health`].
    ///
    /// # Errors
    ///
    /// If a value is outside its range, or there is no Tokio runtime to run the task.
    pub fn check_health<H>(self, health: HealthCheck<H>) -> Result<Self, ConfigError>
    where
        S: Clone + Send + Sync + 'static,
        H: Probe<S> + Send + Sync + 'static,
    {
        self.handle().check_health(health)?;
        Ok(self)
    }
}

impl<S: Clone> Local<S> {
    /// Chooses an endpoint, if there is one, and begins a call to it.
    #[inline]
    pub(super) fn choose<Req, P>(
        &mut self,
        pool: &Pool<S>,
        choose: &P,
        request: &Req,
        now: Instant,
    ) -> Option<(S, Flight)>
    where
        P: Choose<Req>,
    {
        drop(pool.snapshots.refresh(&mut self.snapshot));
        let host_set = &*pool.host_set;
        let nanos = host_set.nanos(now);
        let set = &*self.snapshot.value;
        let (random, notes) = (&mut self.random, &mut self.notes);
        let (group, hosts) = match &set.groups[..] {
            [] => return None,
            [group] => (group, &set.hosts[..]),
            groups => {
                let group = select(groups, &set.hosts, host_set, nanos, random);
                (group, &set.hosts[group.indices.clone()])
            }
        };
        let mut tried = context::tried();
        if let [one, other] = hosts {
            if tried.contains(one.id) && tried.contains(other.id) {
                tried = tried.last();
            }
        }
        let turns = &host_set.turns[usize::from(group.priority)];
        let mut endpoints = Endpoints {
            hosts,
            group,
            now: nanos,
            tried,
            turns,
            random,
            notes,
        };
        let place = choose.choose(request, &mut endpoints).min(hosts.len() - 1);
        pool.published.keep(&host_set.metrics, now, nanos);
        let host = &hosts[place];
        context::note_tried(host.id);
        let flight = Flight::begin(host, set, nanos);
        let service = set.services[group.indices.start + place].clone();
        Some((service, flight))
    }
}

/// Selects the group of a call if there are several groups: by their shares, or the first one that has an endpoint to
/// offer.
#[inline]
fn select<'a>(
    groups: &'a [Group],
    hosts: &[Arc<Host>],
    host_set: &HostSet,
    now: u64,
    random: &mut SmallRng,
) -> &'a Group {
    let split = &host_set.failover.split;
    if split.is_due(now) {
        host_set.look(hosts, now);
    }
    let first = split.choose(random.next_u32());
    let mut drawn = groups.iter();
    let drawn = drawn.find(|group| usize::from(group.priority) == first);
    // The group may be gone although the shares still include it.
    let mut drawn = drawn.unwrap_or(&groups[0]);
    let tried = context::tried();
    if tried.is_last_attempt() {
        drawn = last_resort(groups, hosts, drawn, now);
    }
    let offer = |group: &Group| best_eligibility(&hosts[group.indices.clone()], tried, now);
    let candidates = || std::iter::once(drawn).chain(groups);
    let open = candidates().find(|group| offer(group) == Eligibility::Open);
    let best = || candidates().min_by_key(|group| offer(group));
    open.or_else(best).unwrap_or(drawn)
}

/// Selects the group of the last attempt of an operation: another group than `drawn` if `drawn` has failed many first
/// attempts.
#[cold]
fn last_resort<'a>(
    groups: &'a [Group],
    hosts: &[Arc<Host>],
    drawn: &'a Group,
    now: u64,
) -> &'a Group {
    let tried = context::tried();
    let is_failing = |group: &Group| {
        let tallies = hosts[group.indices.clone()].iter();
        let tallies = tallies.map(|host| host.last_calls.tally(now));
        let all = tallies.fold(Tally::default(), |all, one| all + one);
        all.calls >= MIN_KNOWN && 5 * all.failures > all.calls
    };
    let is_better = |group: &&Group| {
        let hosts = &hosts[group.indices.clone()];
        !group.is_standby
            && !is_failing(group)
            && best_eligibility(hosts, tried, now) == Eligibility::Open
    };
    if !is_failing(drawn) {
        return drawn;
    }
    groups.iter().find(is_better).unwrap_or(drawn)
}

send_method!(Balance<S, P, K, C>);

impl<S, P, K, C, Req> Service<Req> for Balance<S, P, K, C>
where
    S: CloneService<Req>,
    P: Choose<Req> + Clone,
    K: Classify<S::Response> + Clone,
    C: TrackCompletion<S::Response, K>,
{
    type Response = C::Response<Flight>;
    type Error = Error;
    type Future = ResponseFuture<S, Req, P, K, C>;

    #[inline]
    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let local = match self.local.get_mut() {
            Ok(local) => local,
            Err(poisoned) => poisoned.into_inner(),
        };
        let chosen = if self.pool.host_set.tasks.needs_attention() {
            // The poll of the call must first start discovery or the health check on its runtime.
            None
        } else {
            local.choose(&self.pool, &self.choose, &request, Instant::now())
        };
        let (classify, completion) = (self.classify.clone(), self.completion.clone());
        if let Some((service, flight)) = chosen {
            return ResponseFuture::new(service, flight, request, classify, completion);
        }
        let (pool, choose) = (Arc::clone(&self.pool), self.choose.clone());
        ResponseFuture::waiting(pool, choose, request, classify, completion)
    }
}

impl<S, P: Clone, K: Clone, C: Clone> Clone for Balance<S, P, K, C> {
    /// Takes a short lock of this handle, and updates the endpoints of both.
    fn clone(&self) -> Self {
        let mut local = lock(&self.local);
        let replaced = self.pool.snapshots.refresh(&mut local.snapshot);
        let fork = local.fork();
        drop(local);
        drop(replaced);
        Self {
            local: Mutex::new(fork),
            pool: Arc::clone(&self.pool),
            choose: self.choose.clone(),
            classify: self.classify.clone(),
            completion: self.completion.clone(),
        }
    }
}

impl<S, P, K, C> fmt::Debug for Balance<S, P, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance")
            .field("name", &self.pool.name())
            .field("endpoints", &self.pool.set().hosts.len())
            .finish_non_exhaustive()
    }
}
