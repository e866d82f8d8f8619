//! Threads that change a level and publish the gauge that shows it.

#[path = "../../src/telemetry/changes.rs"]
mod changes;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};

use crate::on_threads;
use changes::Changes;

#[derive(Default)]
struct Series {
    level: AtomicU64,
    gauge: AtomicU64,
    changes: Changes,
}

impl Series {
    fn change(&self) {
        self.level.fetch_add(1, Ordering::Relaxed);
        self.changes.note();
        self.show();
    }

    /// As `Instruments::publish` reads a level, and a recorder sets a gauge.
    fn show(&self) {
        self.changes.show(|| {
            let level = self.level.load(Ordering::Relaxed);
            self.gauge.swap(level, Ordering::AcqRel);
        });
    }
}

pub(crate) fn a_gauge_ends_at_the_newest_level_whoever_is_late() {
    let series = Arc::new(Series::default());
    let acts = [Series::change, Series::change, Series::show];
    on_threads(&series, acts, |series, act| act(series));
    assert_eq!(series.gauge.load(Ordering::Acquire), 2);
}
