//! Settings of the balancer.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime;

use super::background::Task;
use super::choose::PowerOfChoices;
use super::driver::Discovery;
use super::endpoint::{Endpoint, LoadMetric};
use super::failover::Failover;
use super::outlier::OutlierEjection;
use super::pool::Pool;
use super::service::Balance;
use crate::chassis::LayerConfig;
use crate::discover::Source;
use crate::error::Check;
use crate::{CompleteOnResponse, ConfigError, ErrorsAreFailures};

/// Long enough to remember a slow answer, short enough to try the endpoint again soon.
const LATENCY_DECAY: Duration = Duration::from_secs(5);
/// An endpoint that has recovered gets calls again within seconds.
const FAILURE_DECAY: Duration = Duration::from_secs(4);
/// Longer than most calls.
const FAILURE_PENALTY: Duration = Duration::from_secs(5);
/// Enough time to fill caches and compile code.
const SLOW_START: Duration = Duration::from_secs(10);
/// Long enough to replace the last endpoint, and shorter than the patience of most callers.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// With half of the endpoints, the others have twice their load, which most services can take for a while.
const PANIC_THRESHOLD: u8 = 50;

/// The settings of a [`Balance`]. Made by [`Balance::config`].
pub type Config<P = PowerOfChoices, K = ErrorsAreFailures, C = CompleteOnResponse> =
    LayerConfig<Settings, P, K, C>;

/// The settings of a balancer in a [`Config`].
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub(super) measure: LoadMetric,
    pub(super) latency_decay: Duration,
    pub(super) failure_decay: Duration,
    pub(super) failure_penalty: Duration,
    pub(super) slow_start: Duration,
    pub(super) max_wait: Duration,
    pub(super) ejection: Option<OutlierEjection>,
    pub(super) failover: Failover,
    /// In percent.
    pub(super) panic_threshold: u8,
    /// The number of endpoints with a label of their own in metrics, if endpoints are reported.
    pub(super) endpoint_metrics: Option<u32>,
    pub(super) seed: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            measure: LoadMetric::PeakEwma,
            latency_decay: LATENCY_DECAY,
            failure_decay: FAILURE_DECAY,
            failure_penalty: FAILURE_PENALTY,
            slow_start: SLOW_START,
            max_wait: MAX_WAIT,
            ejection: Some(OutlierEjection::new()),
            failover: Failover::new(),
            panic_threshold: PANIC_THRESHOLD,
            endpoint_metrics: None,
            seed: None,
        }
    }
}

impl<P, K, C> Config<P, K, C> {
    /// Sets the comparison of loads. [`LoadMetric::PeakEwma`] by default.
    pub fn measure(mut self, measure: LoadMetric) -> Self {
        self.settings.measure = measure;
        self
    }

    /// Sets the time constant with which latency estimates decay. 5 s by default.
    pub fn latency_decay(mut self, decay: Duration) -> Self {
        self.settings.latency_decay = decay;
        self
    }

    /// Sets the time constant with which the share of failures decays. 4 s by default.
    pub fn failure_decay(mut self, decay: Duration) -> Self {
        self.settings.failure_decay = decay;
        self
    }

    /// Sets the time that is added to the latency estimate of an endpoint that fails every call. 5 s by default; with
    /// zero, failures do not affect the load.
    pub fn failure_penalty(mut self, penalty: Duration) -> Self {
        self.settings.failure_penalty = penalty;
        self
    }

    /// Sets the time in which the share of a new endpoint grows from a tenth to all of its weight. 10 s by default;
    /// zero switches this off.
    ///
    /// The first endpoint, and endpoints that join within this time after it, get their share at once.
    pub fn slow_start(mut self, slow_start: Duration) -> Self {
        self.settings.slow_start = slow_start;
        self
    }

    /// Sets the longest time for which a call waits for an endpoint if there is none, within its deadline. 1 s by
    /// default; with zero, the call is refused at once.
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        self.settings.max_wait = max_wait;
        self
    }

    /// Sets the rule by which endpoints that fail more than the others are ejected. [`OutlierEjection::new`] by
    /// default.
    pub fn outlier_ejection(mut self, ejection: OutlierEjection) -> Self {
        self.settings.ejection = Some(ejection);
        self
    }

    /// Switches outlier ejection off. Failures then affect only the load of an endpoint.
    pub fn no_outlier_ejection(mut self) -> Self {
        self.settings.ejection = None;
        self
    }

    /// Sets the percentage of endpoints that must take calls; 0 to 100. While fewer do, calls go to all endpoints of a
    /// group, whatever their health is. 50 by default; zero switches this off.
    ///
    /// With [priority groups](crate::balance#priority-groups), this holds only while all groups together cannot take
    /// all calls.
    pub fn panic_threshold(mut self, percent: u8) -> Self {
        self.settings.panic_threshold = percent;
        self
    }

    /// Sets the rule by which calls move between [priority groups](crate::balance#priority-groups). [`Failover::new`]
    /// by default. It has no effect if all endpoints have the same priority.
    pub fn failover(mut self, failover: Failover) -> Self {
        self.settings.failover = failover;
        self
    }

    /// Switches on metrics of calls, calls in flight, latency and readiness for each endpoint, and sets the greatest
    /// number of endpoints with their key as a label; 1 to 1000. All other endpoints share the label `other`. Off by
    /// default.
    ///
    /// A label belongs to its endpoint until the endpoint has gone. Its gauges are zero then, and the exporter decides
    /// when to forget the series: if keys are addresses that change, set an idle timeout in the exporter.
    pub fn endpoint_metrics(mut self, max: u32) -> Self {
        self.settings.endpoint_metrics = Some(max);
        self
    }

    /// Returns the rule of ejection, if there is one.
    pub(crate) fn ejection(&self) -> Option<OutlierEjection> {
        self.settings.ejection.clone()
    }

    pub(crate) fn failover_rule(&self) -> Failover {
        self.settings.failover.clone()
    }

    /// Sets the seed of the choices, so that they repeat exactly. By default the operating system gives the seed.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }

    /// Sets the policy that chooses endpoints. [`PowerOfChoices`] by default.
    pub fn choose<P2>(self, choose: P2) -> Config<P2, K, C> {
        self.with_request(choose)
    }

    /// Sets the end of a call. By default a call ends when the endpoint has returned its response.
    pub fn completion<C2>(self, completion: C2) -> Config<P, K, C2> {
        self.with_completion(completion)
    }

    /// Makes a balancer over these endpoints. Its [`Handle`](super::Handle) can change them later.
    ///
    /// # Errors
    ///
    /// If the name is empty, a value is outside its range, there is no endpoint, or two have the same key.
    pub fn build<S: Clone>(
        self,
        endpoints: impl IntoIterator<Item = Endpoint<S>>,
    ) -> Result<Balance<S, P, K, C>, ConfigError> {
        let check = self.check()?;
        let endpoints: Vec<_> = endpoints.into_iter().collect();
        let are_any = !endpoints.is_empty();
        check.that(are_any, "endpoints", &endpoints, "at least one")?;
        let mut keys = HashSet::new();
        for endpoint in &endpoints {
            endpoint.about.check(&self.name)?;
            let key = &endpoint.about.key;
            check.that(keys.insert(key), "endpoints", key, "of different keys")?;
        }
        Ok(self.service(endpoints))
    }

    /// Makes a balancer over the endpoints of the source `discover`. A background task polls the source and ends with
    /// the last handle.
    ///
    /// A new endpoint replaces an endpoint whose key has the same text. A source that fails or panics is polled again
    /// after a while. When the source ends, the last endpoints stay. The task restarts when its runtime has ended: see
    /// [background tasks](crate::balance#background-tasks).
    ///
    /// # Errors
    ///
    /// If the name is empty, a value is outside its range, or there is no Tokio runtime to run the task.
    pub fn discover<S, D>(self, discover: D) -> Result<Balance<S, P, K, C>, ConfigError>
    where
        S: Clone + Send + Sync + 'static,
        D: Source<Service = S, Key: ToString> + Send + 'static,
    {
        self.drive(discover, |key, service| Endpoint::new(key, service))
    }

    /// Makes a balancer like [`discover`](Self::discover), for a source of endpoints with a weight, a priority or an
    /// availability.
    ///
    /// The key of an endpoint is the key in the [`Change`](crate::discover::Change), and the properties of its
    /// [`Target`](crate::discover::Target) override its own. An endpoint whose weight or priority is outside its range
    /// is ignored; an older endpoint with its key stays.
    ///
    /// # Errors
    ///
    /// The same errors as of [`discover`](Self::discover).
    pub fn discover_endpoints<S, D>(self, discover: D) -> Result<Balance<S, P, K, C>, ConfigError>
    where
        S: Clone + Send + Sync + 'static,
        D: Source<Service = Endpoint<S>, Key: ToString> + Send + 'static,
    {
        self.drive(discover, |key, mut endpoint: Endpoint<S>| {
            endpoint.about.key = Arc::clone(key);
            endpoint
        })
    }

    /// Makes a balancer like [`discover`](Self::discover), with the endpoints that `found` makes of the discovered
    /// items.
    pub(crate) fn drive<S, D>(
        self,
        discover: D,
        found: impl Fn(&Arc<str>, D::Service) -> Endpoint<S> + Send + 'static,
    ) -> Result<Balance<S, P, K, C>, ConfigError>
    where
        S: Clone + Send + Sync + 'static,
        D: Source<Key: ToString> + Send + 'static,
    {
        check_runtime(self.check()?, "discover")?;
        let balance = self.service(Vec::new());
        let discovery = Arc::new(Discovery::new(discover, Box::new(found)));
        let panicked = Arc::clone(&discovery);
        balance.pool.run_in_background(
            Task::Discovery,
            move |lease, has_moved| Arc::clone(&discovery).drive(Arc::clone(lease), has_moved),
            move |lease| panicked.state_after_panic(&lease.pool),
        );
        Ok(balance)
    }

    fn service<S: Clone>(self, endpoints: Vec<Endpoint<S>>) -> Balance<S, P, K, C> {
        let pool = Pool::new(&self.name, self.settings, self.listener, endpoints);
        Balance {
            local: Mutex::new(pool.local()),
            pool: Arc::new(pool),
            choose: self.request,
            classify: self.classify,
            completion: self.completion,
        }
    }

    /// Checks the settings, and returns the [`Check`] for further checks.
    fn check(&self) -> Result<Check<'_>, ConfigError> {
        let check = Check::new("balance", &self.name)?;
        let settings = &self.settings;
        check.duration("latency_decay", settings.latency_decay)?;
        check.duration("failure_decay", settings.failure_decay)?;
        check.duration_or_zero("failure_penalty", settings.failure_penalty)?;
        check.duration_or_zero("slow_start", settings.slow_start)?;
        check.duration_or_zero("max_wait", settings.max_wait)?;
        if let Some(ejection) = &settings.ejection {
            ejection.check(check)?;
        }
        let labels = settings.endpoint_metrics.unwrap_or(1);
        check.count("endpoint_metrics", labels, 1_000, "1 to 1000")?;
        settings.failover.check(check)?;
        let percent = &settings.panic_threshold;
        check.within("panic_threshold", percent, ..=100, "0 to 100")?;
        Ok(check)
    }
}

/// Checks that there is a runtime for a task.
pub(super) fn check_runtime(check: Check<'_>, field: &'static str) -> Result<(), ConfigError> {
    let is_there = runtime::Handle::try_current().is_ok();
    check.that(is_there, field, &"outside of a Tokio runtime", "inside one")
}
