//! A recorder that keeps the metrics in memory. A service installs an exporter instead, as the recipe `prometheus` does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SetRecorderError, SharedString, Unit,
};

/// Counters, and gauges as bits.
#[derive(Clone, Default)]
pub(crate) struct Metrics(Arc<[Mutex<Series>; 2]>);

/// By name and labels.
type Series = BTreeMap<String, Arc<AtomicU64>>;

/// The values at one time, by name and labels.
pub(crate) type Snapshot = BTreeMap<String, f64>;

const COUNTERS: usize = 0;
const GAUGES: usize = 1;

/// A histogram without buckets.
struct Distribution {
    count: Arc<AtomicU64>,
    /// A gauge, because it is not an integer.
    sum: Arc<AtomicU64>,
}

impl HistogramFn for Distribution {
    fn record(&self, value: f64) {
        CounterFn::increment(&*self.count, 1);
        GaugeFn::increment(&*self.sum, value);
    }
}

impl Metrics {
    /// Installs a recorder for the whole process.
    pub(crate) fn install() -> Result<Self, SetRecorderError<Self>> {
        let metrics = Self::default();
        ::metrics::set_global_recorder(metrics.clone())?;
        Ok(metrics)
    }

    /// Returns the values of all series, as Prometheus would scrape them.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::new();
        for (name, count) in &*lock(&self.0[COUNTERS]) {
            snapshot.insert(name.clone(), count.load(Ordering::Relaxed) as f64);
        }
        for (name, bits) in &*lock(&self.0[GAUGES]) {
            snapshot.insert(name.clone(), f64::from_bits(bits.load(Ordering::Relaxed)));
        }
        snapshot
    }

    fn number(&self, kind: usize, key: &Key, suffix: &str) -> Arc<AtomicU64> {
        let labels = key
            .labels()
            .map(|label| format!("{}=\"{}\"", label.key(), label.value()));
        let labels = labels.collect::<Vec<_>>().join(",");
        let name = format!("{}{suffix}{{{labels}}}", key.name());
        Arc::clone(lock(&self.0[kind]).entry(name).or_default())
    }
}

fn lock(series: &Mutex<Series>) -> MutexGuard<'_, Series> {
    series.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder for Metrics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.number(COUNTERS, key, "").into()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.number(GAUGES, key, "").into()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let distribution = Distribution {
            count: self.number(COUNTERS, key, "_count"),
            sum: self.number(GAUGES, key, "_sum"),
        };
        Arc::new(distribution).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_keep_their_sum() {
        let metrics = Metrics::default();
        ::metrics::with_local_recorder(&metrics, || {
            let wait = ::metrics::histogram!("wait", "layer" => "rate_limit");
            wait.record(0.25);
            wait.record(0.5);
        });
        let snapshot = metrics.snapshot().into_iter();
        let lines = snapshot.map(|(series, value)| format!("{series} {value}"));
        assert_eq!(
            lines.collect::<Vec<_>>(),
            [
                "wait_count{layer=\"rate_limit\"} 2",
                "wait_sum{layer=\"rate_limit\"} 0.75"
            ]
        );
    }
}
