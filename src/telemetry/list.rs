//! The public list of all metrics.

use super::table::{
    BREAKER_OPENINGS, BREAKER_STATE, BREAKER_TRANSITIONS, BUDGET_CAPACITY, BUDGET_TOKENS,
    CALL_DURATION, CALLS, DISCOVERY_RUNNING, EJECTIONS, ENDPOINT_CALLS, ENDPOINT_IN_FLIGHT,
    ENDPOINT_LATENCY, ENDPOINT_READY, ENDPOINTS, FALLBACKS, HEALTH_CHECK_RUNNING, HEDGE_DELAY,
    HEDGES, IN_FLIGHT, KEY_EVENTS, KEYS, LIMIT, PRIORITY_SHARE, QUEUE_DEPTH, QUEUE_WAIT,
    RATE_LIMIT, RATE_LIMIT_BURST, RATE_LIMIT_TOKENS, REJECTIONS, RETRY_DECISIONS, RETRY_DELAY,
    TIMEOUT, TIMEOUTS,
};
use super::table::{Handle, Metric};

/// A metric of this crate. Returned by [`metrics_list`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricInfo {
    /// The name. It ends in `_seconds` if the unit is seconds, and in `_total` for a counter.
    pub name: &'static str,
    /// The type.
    pub kind: MetricKind,
    /// The labels besides `name`. Each metric has the label `name`.
    pub labels: &'static [&'static str],
    /// The description, as in the exporter.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetricKind {
    /// A number of events, which only grows.
    Counter,
    /// A level, which rises and falls.
    Gauge,
    /// A distribution of times.
    Histogram,
}

/// Returns all metrics of this crate, each once. The [guide](crate::guide::metrics) shows them as a table.
///
/// Use the list to check your own alerts and dashboards, or to configure an exporter.
///
/// # Examples
///
/// ```
/// use buttress::MetricKind;
///
/// let histograms = buttress::metrics_list().iter().filter(|metric| metric.kind == MetricKind::Histogram);
/// assert!(histograms.clone().any(|metric| metric.name == "buttress_call_duration_seconds"));
/// for metric in histograms {
///     println!("{}: {}", metric.name, metric.help);
/// }
/// ```
#[must_use]
pub fn metrics_list() -> &'static [MetricInfo] {
    &LIST
}

static LIST: [MetricInfo; 33] = [
    CALLS.info(),
    CALL_DURATION.info(),
    REJECTIONS.info(),
    TIMEOUTS.info(),
    TIMEOUT.info(),
    RETRY_DECISIONS.info(),
    RETRY_DELAY.info(),
    BUDGET_TOKENS.info(),
    BUDGET_CAPACITY.info(),
    HEDGES.info(),
    HEDGE_DELAY.info(),
    BREAKER_STATE.info(),
    BREAKER_TRANSITIONS.info(),
    BREAKER_OPENINGS.info(),
    LIMIT.info(),
    IN_FLIGHT.info(),
    RATE_LIMIT.info(),
    RATE_LIMIT_BURST.info(),
    RATE_LIMIT_TOKENS.info(),
    QUEUE_DEPTH.info(),
    QUEUE_WAIT.info(),
    FALLBACKS.info(),
    KEYS.info(),
    KEY_EVENTS.info(),
    ENDPOINTS.info(),
    EJECTIONS.info(),
    PRIORITY_SHARE.info(),
    DISCOVERY_RUNNING.info(),
    HEALTH_CHECK_RUNNING.info(),
    ENDPOINT_CALLS.info(),
    ENDPOINT_IN_FLIGHT.info(),
    ENDPOINT_LATENCY.info(),
    ENDPOINT_READY.info(),
];

impl<H: Handle> Metric<H> {
    const fn info(&self) -> MetricInfo {
        MetricInfo {
            name: self.name,
            kind: H::KIND,
            labels: self.labels,
            help: self.help,
        }
    }
}
