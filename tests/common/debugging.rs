//! A recorder of all that it is told, for tests.
//!
//! Like that of `metrics_util`, but a snapshot leaves gauges as they are. That one sets them to 0, so that a second snapshot
//! proves nothing.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

#[derive(Debug, PartialEq)]
pub(crate) enum DebugValue {
    Counter(u64),
    Gauge(f64),
    Histogram(Vec<f64>),
}

#[derive(Default)]
pub(crate) struct DebuggingRecorder(Arc<Told>);

#[derive(Clone)]
pub(crate) struct Snapshotter(Arc<Told>);

#[derive(Default)]
struct Told {
    /// In the order of their first use.
    series: Mutex<Vec<(Key, Metric)>>,
    /// Names of metrics.
    described: Mutex<BTreeSet<String>>,
}

enum Metric {
    Counter(Arc<AtomicU64>),
    /// Its bits.
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Values>),
}

#[derive(Default)]
struct Values(Mutex<Vec<f64>>);

impl HistogramFn for Values {
    fn record(&self, value: f64) {
        lock(&self.0).push(value);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("not poisoned")
}

impl DebuggingRecorder {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn snapshotter(&self) -> Snapshotter {
        Snapshotter(Arc::clone(&self.0))
    }

    fn describe(&self, name: &KeyName) {
        lock(&self.0.described).insert(name.as_str().to_owned());
    }

    /// The handle of a series, which is made if there is none yet.
    fn handle<H>(&self, key: &Key, new: Metric, handle: impl Fn(&Metric) -> Option<H>) -> H {
        let mut all = lock(&self.0.series);
        let found = all.iter().find_map(|(known, metric)| {
            let is_found = known == key;
            is_found.then(|| handle(metric)).flatten()
        });
        found.unwrap_or_else(|| {
            let made = handle(&new).expect("is of this kind");
            all.push((key.to_retained(), new));
            made
        })
    }
}

impl Snapshotter {
    /// Counters and histograms since the last snapshot, and gauges as they are. Without the counters that have counted
    /// nothing: many exist from the start.
    pub(crate) fn snapshot(&self) -> Vec<(Key, DebugValue)> {
        let all = lock(&self.0.series);
        let values = all.iter().map(|(key, metric)| {
            let value = match metric {
                Metric::Counter(count) => DebugValue::Counter(count.swap(0, Ordering::SeqCst)),
                Metric::Gauge(bits) => {
                    DebugValue::Gauge(f64::from_bits(bits.load(Ordering::SeqCst)))
                }
                Metric::Histogram(values) => {
                    DebugValue::Histogram(std::mem::take(&mut *lock(&values.0)))
                }
            };
            (key.clone(), value)
        });
        values
            .filter(|(_, value)| *value != DebugValue::Counter(0))
            .collect()
    }

    pub(crate) fn is_described(&self, key: &Key) -> bool {
        lock(&self.0.described).contains(key.name())
    }
}

impl Recorder for DebuggingRecorder {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&name);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&name);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&name);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.handle(
            key,
            Metric::Counter(Arc::default()),
            |metric| match metric {
                Metric::Counter(count) => Some(Arc::clone(count).into()),
                _ => None,
            },
        )
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.handle(key, Metric::Gauge(Arc::default()), |metric| match metric {
            Metric::Gauge(bits) => Some(Arc::clone(bits).into()),
            _ => None,
        })
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.handle(
            key,
            Metric::Histogram(Arc::default()),
            |metric| match metric {
                Metric::Histogram(values) => Some(Arc::clone(values).into()),
                _ => None,
            },
        )
    }
}
