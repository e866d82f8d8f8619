//! What keyed reports.

use std::sync::atomic::{AtomicI64, Ordering};

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

use tokio::time::Instant;

use crate::telemetry::{Instruments, Labels, LazyMetric};

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
    /// The values of the label `event`.
    const NAMES: [&str; 6] = [
        "added",
        "evicted",
        "expired",
        "removed",
        "overflowed",
        "oversized",
    ];
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
    /// Cached, because a flood of keys is no time for look-ups.
    events: [LazyMetric<Counter>; Event::NAMES.len()],
}

impl Instruments for KeyedMetrics {
    type Levels = Levels;

    fn bind(labels: Labels) -> Self {
        describe_gauge!("buttress_keys", "Keys that have a layer of their own");
        describe_counter!("buttress_key_events_total", "What happened to keys");
        Self {
            labels,
            keys: gauge!("buttress_keys", "name" => labels.name),
            events: Default::default(),
        }
    }

    fn publish(&self, levels: &Levels) {
        self.keys.set(levels.0.load(Ordering::Relaxed) as f64);
    }
}

impl KeyedMetrics {
    pub(super) fn happened(&self, event: Event, now: Instant) {
        let look_up = || {
            counter!("buttress_key_events_total",
                "name" => self.labels.name, "event" => Event::NAMES[event as usize])
        };
        self.events[event as usize].with(now, look_up, |events| events.increment(1));
    }
}
