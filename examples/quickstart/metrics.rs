//! A recorder that shows the metrics as text. A service installs an exporter instead, as the recipe `prometheus` does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SetRecorderError,
    SharedString, Unit,
};

/// Counters, gauges as bits, and histograms by how many values they have.
#[derive(Clone, Default)]
pub(crate) struct Metrics(Arc<[Mutex<Series>; 3]>);

/// By name and labels.
type Series = BTreeMap<String, Arc<Number>>;

#[derive(Default)]
struct Number(Arc<AtomicU64>);

impl HistogramFn for Number {
    fn record(&self, _value: f64) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Installs a recorder for the whole process.
    pub(crate) fn install() -> Result<Self, SetRecorderError<Self>> {
        let metrics = Self::default();
        ::metrics::set_global_recorder(metrics.clone())?;
        Ok(metrics)
    }

    /// A line for each series, as Prometheus would scrape it.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        for (kind, series) in self.0.iter().enumerate() {
            for (name, number) in &*lock(series) {
                let bits = number.0.load(Ordering::Relaxed);
                let value = if kind == 1 {
                    f64::from_bits(bits)
                } else {
                    bits as f64
                };
                // Writing into a string does not fail.
                let _ = writeln!(text, "{name} {value}");
            }
        }
        text
    }

    fn number(&self, kind: usize, key: &Key, suffix: &str) -> Arc<Number> {
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
        Arc::clone(&self.number(0, key, "").0).into()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Arc::clone(&self.number(1, key, "").0).into()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.number(2, key, "_count").into()
    }
}
