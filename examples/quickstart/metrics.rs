//! What the layers count, as lines of text. A service installs an exporter instead: `examples/prometheus` shows one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ::metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SetRecorderError, SharedString,
    Unit,
};
use metrics_util::registry::{AtomicStorage, Registry};

#[derive(Clone)]
pub(crate) struct Metrics(Arc<Registry<Key, AtomicStorage>>);

impl Metrics {
    /// Installs a recorder for the whole process.
    pub(crate) fn install() -> Result<Self, SetRecorderError<Self>> {
        let metrics = Self(Arc::new(Registry::atomic()));
        ::metrics::set_global_recorder(metrics.clone())?;
        Ok(metrics)
    }

    /// The lines that Prometheus would scrape for counters and gauges; a histogram shows how many values it has.
    pub(crate) fn render(&self) -> String {
        let mut lines = Vec::new();
        self.0.visit_counters(|key, count| {
            lines.push(line(key, "", &count.load(Ordering::Relaxed)));
        });
        self.0.visit_gauges(|key, level| {
            let level = f64::from_bits(level.load(Ordering::Relaxed));
            lines.push(line(key, "", &level));
        });
        self.0.visit_histograms(|key, values| {
            lines.push(line(key, "_count", &values.data().len()));
        });
        lines.join("\n")
    }
}

fn line(key: &Key, suffix: &str, value: &dyn std::fmt::Display) -> String {
    let labels = key
        .labels()
        .map(|label| format!("{}=\"{}\"", label.key(), label.value()));
    let labels: Vec<_> = labels.collect();
    format!("{}{suffix}{{{}}} {value}", key.name(), labels.join(","))
}

impl Recorder for Metrics {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.0
            .get_or_create_counter(key, |counter| Arc::clone(counter).into())
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.0
            .get_or_create_gauge(key, |gauge| Arc::clone(gauge).into())
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.0
            .get_or_create_histogram(key, |histogram| Arc::clone(histogram).into())
    }
}
