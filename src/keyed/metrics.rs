//! What keyed reports.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::time::Instant;

use crate::telemetry::table::{KEY_EVENTS, KEYS};
use crate::telemetry::{Handles, Instruments, Series};

/// What happened to a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// It got a layer of its own.
    Added,
    /// It gave its place to another one.
    Evicted,
    /// It was idle for too long.
    Expired,
    /// The handle was told to.
    Removed,
    /// A call used an overflow part, because there was no slot for its key.
    Overflowed,
    /// A call used an overflow part, because its key is too long.
    Oversized,
}

impl Event {
    /// The value of the label `event`.
    fn label(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Evicted => "evicted",
            Self::Expired => "expired",
            Self::Removed => "removed",
            Self::Overflowed => "overflowed",
            Self::Oversized => "oversized",
        }
    }
}

/// How many keys the layers of one name have.
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
    pub(super) fn happened(&self, event: Event, now: Instant) {
        self.report(now, |handles| {
            handles.count(&KEY_EVENTS, &[event.label()]);
            self.levels().publish(handles);
        });
    }
}
