//! All metrics of this crate, with one entry for each: name, labels and help.
//!
//! A handle is looked up only through the entry of its metric. A metric therefore has the same labels wherever it is
//! reported, and each recorder with one of its series also gets its description.

use std::marker::PhantomData;

use metrics::{
    Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, SharedString, Unit,
};

use super::list::MetricKind;

/// A metric whose handles are of the type `H`.
pub(crate) struct Metric<H> {
    pub(crate) name: &'static str,
    /// The labels after `name`, which is the first label of each metric: the name of the layer.
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
    handle: PhantomData<fn() -> H>,
}

// Calls.

pub(crate) static CALLS: Metric<Counter> = metric("buttress_calls_total")
    .labels(&["stage", "outcome"])
    .help("Calls that have ended");
pub(crate) static CALL_DURATION: Metric<Histogram> = metric("buttress_call_duration_seconds")
    .labels(&["stage", "outcome"])
    .help("Time from the call to its answer");
pub(crate) static REJECTIONS: Metric<Counter> = metric("buttress_rejections_total")
    .labels(&["layer", "reason", "mode"])
    .help("Calls that a layer refused before the inner service was asked");
pub(crate) static TIMEOUTS: Metric<Counter> = metric("buttress_timeouts_total")
    .labels(&["layer", "mode"])
    .help("Calls that were given up because their time was over");

pub(crate) static TIMEOUT: Metric<Gauge> = metric("buttress_timeout_seconds")
    .labels(&["layer"])
    .help("Time after which a call is given up");

// Retry and its budget.

pub(crate) static RETRY_DECISIONS: Metric<Counter> = metric("buttress_retry_decisions_total")
    .labels(&["decision"])
    .help("Decisions about further attempts after one that failed");
pub(crate) static RETRY_DELAY: Metric<Histogram> = metric("buttress_retry_delay_seconds")
    .labels(&["source"])
    .help("Time waited before a further attempt");
pub(crate) static BUDGET_TOKENS: Metric<Gauge> =
    metric("buttress_budget_tokens").help("Tokens in the retry budget; a retry costs 10");
pub(crate) static BUDGET_CAPACITY: Metric<Gauge> =
    metric("buttress_budget_capacity").help("Tokens that the retry budget can hold at present");

// Hedge.

pub(crate) static HEDGES: Metric<Counter> = metric("buttress_hedges_total")
    .labels(&["result"])
    .help("Hedges that were due, by their result");
pub(crate) static HEDGE_DELAY: Metric<Gauge> = metric("buttress_hedge_delay_seconds")
    .help("Time after which a call is hedged; 0 if it is not known yet");

// Circuit breaker.

pub(crate) static BREAKER_STATE: Metric<Gauge> = metric("buttress_breaker_state")
    .labels(&["state"])
    .help("1 for the state that the circuit breaker is in, 0 for the others");
pub(crate) static BREAKER_TRANSITIONS: Metric<Counter> =
    metric("buttress_breaker_transitions_total")
        .labels(&["to", "cause"])
        .help("Changes of state of the circuit breaker");

pub(crate) static BREAKER_OPENINGS: Metric<Counter> = metric("buttress_breaker_openings_total")
    .help("Changes of the circuit breaker to the state open");

// Bulkhead and rate limit.

pub(crate) static LIMIT: Metric<Gauge> = metric("buttress_limit")
    .labels(&["layer"])
    .help("Calls that may be in flight at once");
pub(crate) static IN_FLIGHT: Metric<Gauge> = metric("buttress_in_flight")
    .labels(&["layer"])
    .help("Calls that hold a permit");
pub(crate) static RATE_LIMIT: Metric<Gauge> = metric("buttress_rate_limit_per_second")
    .help("Tokens that the rate limits of this name get each second");
pub(crate) static RATE_LIMIT_BURST: Metric<Gauge> = metric("buttress_rate_limit_burst")
    .help("Greatest number of tokens of the rate limits of this name");
pub(crate) static RATE_LIMIT_TOKENS: Metric<Gauge> =
    metric("buttress_rate_limit_tokens").help("Tokens that were left at the last calls");
pub(crate) static QUEUE_DEPTH: Metric<Gauge> = metric("buttress_queue_depth")
    .labels(&["layer"])
    .help("Calls that wait to be let through");
pub(crate) static QUEUE_WAIT: Metric<Histogram> = metric("buttress_queue_wait_seconds")
    .labels(&["layer", "result"])
    .help("Time that calls waited to be let through");

// Fallback and keyed.

pub(crate) static FALLBACKS: Metric<Counter> = metric("buttress_fallbacks_total")
    .labels(&["result"])
    .help("Failed calls that a fallback acted on");
pub(crate) static KEYS: Metric<Gauge> =
    metric("buttress_keys").help("Keys that have a layer of their own");
pub(crate) static KEY_EVENTS: Metric<Counter> = metric("buttress_key_events_total")
    .labels(&["event"])
    .help("Keys that came, went or found no place, by event");

// Balancer.

pub(crate) static ENDPOINTS: Metric<Gauge> = metric("buttress_endpoints")
    .labels(&["state"])
    .help("Endpoints of a balancer that are in this state");
pub(crate) static EJECTIONS: Metric<Counter> = metric("buttress_ejections_total")
    .labels(&["method", "mode"])
    .help("Endpoints that were left out because they failed more than the others");
pub(crate) static PRIORITY_SHARE: Metric<Gauge> = metric("buttress_priority_share")
    .labels(&["priority"])
    .help("Share of the calls of a balancer that goes to the endpoints of this priority");
pub(crate) static DISCOVERY_RUNNING: Metric<Gauge> = metric("buttress_discovery_running")
    .help("1 while the endpoints of the balancers of this name are being discovered, 0 if not");
pub(crate) static HEALTH_CHECK_RUNNING: Metric<Gauge> = metric("buttress_health_check_running")
    .help("1 while the endpoints of the balancers of this name are being checked, 0 if not");
pub(crate) static ENDPOINT_CALLS: Metric<Counter> = metric("buttress_endpoint_calls_total")
    .labels(&["endpoint", "outcome"])
    .help("Calls to an endpoint of a balancer that have ended");
pub(crate) static ENDPOINT_IN_FLIGHT: Metric<Gauge> = metric("buttress_endpoint_in_flight")
    .labels(&["endpoint"])
    .help("Calls that are in flight on an endpoint of a balancer");
pub(crate) static ENDPOINT_LATENCY: Metric<Gauge> = metric("buttress_endpoint_latency_seconds")
    .labels(&["endpoint"])
    .help("Latency of an endpoint as the balancer estimates it");
pub(crate) static ENDPOINT_READY: Metric<Gauge> = metric("buttress_endpoint_ready")
    .labels(&["endpoint"])
    .help("Endpoints of this label that are neither ejected nor unhealthy");

const fn metric<H>(name: &'static str) -> Metric<H> {
    Metric {
        name,
        labels: &[],
        help: "",
        handle: PhantomData,
    }
}

impl<H> Metric<H> {
    const fn labels(mut self, labels: &'static [&'static str]) -> Self {
        self.labels = labels;
        self
    }

    const fn help(mut self, help: &'static str) -> Self {
        self.help = help;
        self
    }

    /// Returns the unit, which is a part of the name.
    pub(crate) fn unit(&self) -> Option<Unit> {
        let is_time = self.name.ends_with("_seconds");
        is_time.then_some(Unit::Seconds)
    }
}

impl<H: Handle> Metric<H> {
    /// Describes the metric to the recorder in force, and looks up the handle of one of its series.
    ///
    /// `part` is the value of the label after the name: `stage`, `layer` or `endpoint`. `values` are the values of the
    /// labels after it.
    ///
    /// # Panics
    ///
    /// If there is not one value for each label.
    pub(crate) fn look_up(
        &self,
        name: &'static str,
        part: &SharedString,
        values: &[&'static str],
    ) -> H {
        let mut values = values.iter().copied();
        let mut labels = vec![Label::new("name", name)];
        labels.extend(self.labels.iter().map(|label| match *label {
            "stage" | "layer" | "endpoint" => Label::new(*label, part.clone()),
            label => Label::new(label, values.next().expect("a value for each label")),
        }));
        assert!(values.next().is_none(), "a label for each value");
        let key = Key::from_parts(self.name, labels);
        metrics::with_recorder(|recorder| H::register(recorder, self, &key))
    }
}

const METADATA: Metadata<'static> = Metadata::new("buttress", Level::INFO, Some("buttress"));

/// A handle to a series of a metric.
pub(crate) trait Handle: Sized {
    const KIND: MetricKind;

    /// Describes the metric, and makes its series known.
    fn register(recorder: &dyn Recorder, metric: &Metric<Self>, key: &Key) -> Self;
}

impl Handle for Counter {
    const KIND: MetricKind = MetricKind::Counter;

    fn register(recorder: &dyn Recorder, metric: &Metric<Self>, key: &Key) -> Self {
        recorder.describe_counter(metric.name.into(), metric.unit(), metric.help.into());
        recorder.register_counter(key, &METADATA)
    }
}

impl Handle for Gauge {
    const KIND: MetricKind = MetricKind::Gauge;

    fn register(recorder: &dyn Recorder, metric: &Metric<Self>, key: &Key) -> Self {
        recorder.describe_gauge(metric.name.into(), metric.unit(), metric.help.into());
        recorder.register_gauge(key, &METADATA)
    }
}

impl Handle for Histogram {
    const KIND: MetricKind = MetricKind::Histogram;

    fn register(recorder: &dyn Recorder, metric: &Metric<Self>, key: &Key) -> Self {
        recorder.describe_histogram(metric.name.into(), metric.unit(), metric.help.into());
        recorder.register_histogram(key, &METADATA)
    }
}
