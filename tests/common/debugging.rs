//! A recorder whose gauges keep their values when they are looked at. A snapshot of `metrics_util`'s own sets them to 0,
//! so that a second one shows 0 whatever the gauges were. The names are those of `metrics_util`.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
pub(crate) use metrics_util::debugging::DebugValue;
use metrics_util::{CompositeKey, debugging};

/// Gauges as bits.
type Gauges = HashMap<Key, Arc<AtomicU64>>;

#[derive(Default)]
pub(crate) struct DebuggingRecorder {
    inner: debugging::DebuggingRecorder,
    gauges: Arc<Mutex<Gauges>>,
}

/// Shows counters and histograms since the last snapshot, and gauges as they are.
#[derive(Clone)]
pub(crate) struct Snapshotter {
    inner: debugging::Snapshotter,
    gauges: Arc<Mutex<Gauges>>,
}

pub(crate) struct Snapshot(Vec<Series>);

type Series = (CompositeKey, Option<Unit>, Option<SharedString>, DebugValue);

fn lock(gauges: &Mutex<Gauges>) -> MutexGuard<'_, Gauges> {
    gauges.lock().expect("not poisoned")
}

impl DebuggingRecorder {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn snapshotter(&self) -> Snapshotter {
        Snapshotter {
            inner: self.inner.snapshotter(),
            gauges: Arc::clone(&self.gauges),
        }
    }
}

impl Snapshotter {
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut all = self.inner.snapshot().into_vec();
        let gauges = lock(&self.gauges);
        for (key, _, _, value) in &mut all {
            if let DebugValue::Gauge(level) = value {
                let bits = gauges[key.key()].load(Ordering::SeqCst);
                *level = f64::from_bits(bits).into();
            }
        }
        Snapshot(all)
    }
}

impl Snapshot {
    pub(crate) fn into_vec(self) -> Vec<Series> {
        self.0
    }
}

impl Recorder for DebuggingRecorder {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.inner.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.inner.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        let mut gauges = lock(&self.gauges);
        let gauge = gauges.entry(key.to_retained()).or_default();
        // Known to the snapshots.
        drop(self.inner.register_gauge(key, metadata));
        Gauge::from_arc(Arc::clone(gauge))
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.inner.register_histogram(key, metadata)
    }
}
