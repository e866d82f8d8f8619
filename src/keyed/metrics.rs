//! What keyed reports.

use std::sync::atomic::{AtomicI64, Ordering};

use metrics::{Gauge, counter, describe_counter, describe_gauge, gauge};

use crate::telemetry::{Instruments, Labels};

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
    /// A call got the common layer, because there was no place for its key.
    Overflowed,
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
        }
    }
}

/// How many keys the layers of one name have.
#[derive(Debug, Default)]
pub(super) struct Levels(AtomicI64);

impl Levels {
    pub(super) fn changed(&self, by: i64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }
}

pub(super) struct KeyedMetrics {
    labels: Labels,
    keys: Gauge,
}

impl Instruments for KeyedMetrics {
    type Levels = Levels;

    fn bind(labels: Labels) -> Self {
        describe_gauge!("buttress_keys", "Keys that have a layer of their own");
        describe_counter!("buttress_key_events_total", "What happened to keys");
        Self {
            labels,
            keys: gauge!("buttress_keys", "name" => labels.name),
        }
    }

    fn publish(&self, levels: &Levels) {
        self.keys.set(levels.0.load(Ordering::Relaxed) as f64);
    }
}

impl KeyedMetrics {
    /// Rare enough to look the handle up.
    pub(super) fn happened(&self, event: Event) {
        counter!("buttress_key_events_total", "name" => self.labels.name, "event" => event.label())
            .increment(1);
    }
}
