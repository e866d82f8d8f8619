//! Threads that change a level and publish the gauge that shows it.

#[path = "../../src/telemetry/changes.rs"]
mod changes;
#[allow(dead_code)]
#[path = "../../src/telemetry/shown.rs"]
mod shown;

/// What `shown.rs` needs of `src/telemetry/series.rs`: levels, and a gauge that a recorder keeps.
mod series {
    use tokio::time::Instant;

    use super::changes::Changes;
    use crate::sync::AtomicU64;

    pub(super) trait Instruments: Default + 'static {
        fn publish(&self, gauge: &AtomicU64);
    }

    #[derive(Default)]
    pub(super) struct Series<I> {
        levels: I,
        pub(super) gauge: AtomicU64,
        changes: Changes,
    }

    impl<I: Instruments> Series<I> {
        pub(super) fn levels(&self) -> &I {
            &self.levels
        }

        pub(super) fn publish(&self, now: Instant) {
            self.changes.note();
            self.publish_again(now);
        }

        pub(super) fn publish_again(&self, _now: Instant) {
            self.changes.show(|| self.levels.publish(&self.gauge));
        }
    }

    pub(super) fn recorder_id() -> usize {
        0
    }
}

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use tokio::time::Instant;

use crate::on_threads;
use changes::Changes;
use series::Instruments;
use shown::{Gauges, Shown};

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

/// The sum of the levels of all layers.
#[derive(Default)]
struct Sum([AtomicU64; 1]);

impl Instruments for Sum {
    fn publish(&self, gauge: &AtomicU64) {
        gauge.swap(self.0[0].load(Ordering::SeqCst), Ordering::AcqRel);
    }
}

impl Gauges<1> for Sum {
    fn sums(&self) -> &[AtomicU64; 1] {
        &self.0
    }

    fn parts(word: u64) -> [u64; 1] {
        [word]
    }
}

/// A layer with one level.
struct Layer {
    level: AtomicU64,
    shown: Shown<Sum, 1>,
}

impl Layer {
    fn new(level: u64) -> Self {
        let series = Box::leak(Box::default());
        Self {
            level: AtomicU64::new(level),
            shown: Shown::new(series, level),
        }
    }

    fn level(&self) -> u64 {
        self.level.load(Ordering::SeqCst)
    }

    /// A call ends.
    fn leave(&self) {
        self.level.fetch_sub(1, Ordering::SeqCst);
        self.shown.catch_up(|| self.level(), Instant::now);
    }

    /// A call publishes the gauges because that was last done a while ago.
    fn publish(&self) {
        self.shown.publish(|| self.level(), Instant::now());
    }

    fn gauge(&self) -> u64 {
        self.shown.series.gauge.load(Ordering::Acquire)
    }
}

pub(crate) fn a_level_that_returns_to_zero_is_shown_whoever_is_late() {
    let layer = Arc::new(Layer::new(2));
    let acts = [Layer::leave, Layer::leave, Layer::publish];
    on_threads(&layer, acts, |layer, act| act(layer));
    assert_eq!(layer.gauge(), 0);
}
