//! Metrics of keyed layers.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::time::Instant;

use crate::telemetry::table::{KEY_EVENTS, KEYS};
use crate::telemetry::{Handles, Instruments, Series};

/// Number of keys that the layers of one name have.
#[derive(Debug, Default)]
pub(super) struct KeyedMetrics(AtomicI64);

impl KeyedMetrics {
    pub(super) fn changed(&self, by: i64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }
}

impl Instruments for KeyedMetrics {
    fn publish(&self, handles: &mut Handles) {
        handles.set(&KEYS, &[], self.0.load(Ordering::Relaxed) as f64);
    }
}

impl Series<KeyedMetrics> {
    /// Counts an event of this label.
    pub(super) fn happened(&self, event: &'static str, now: Instant) {
        self.report(now, |handles| {
            handles.count(&KEY_EVENTS, &[event]);
            self.levels().publish(handles);
        });
    }
}
