//! A recorder of one gauge, which does what a test says.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use metrics::{
    Counter, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

#[derive(Clone)]
pub(crate) struct Steered(Arc<State>);

struct State {
    gauge: &'static str,
    level: AtomicU64,
    panics: AtomicBool,
    /// The update to hold up, counted from 1.
    holds: AtomicU32,
    barrier: Barrier,
}

impl Steered {
    pub(crate) fn new(gauge: &'static str) -> Self {
        Self(Arc::new(State {
            gauge,
            level: AtomicU64::new(0),
            panics: AtomicBool::new(false),
            holds: AtomicU32::new(0),
            barrier: Barrier::new(2),
        }))
    }

    pub(crate) fn level(&self) -> u64 {
        self.0.level.load(Ordering::SeqCst)
    }

    /// Says whether `run` panics, in which the next update of the gauge does.
    pub(crate) fn panics(&self, run: impl FnOnce()) -> bool {
        self.0.panics.store(true, Ordering::SeqCst);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        self.0.panics.store(false, Ordering::SeqCst);
        result.is_err()
    }

    /// Runs `slow` on a thread of its own, and holds it up just before it sets the gauge for the `nth` time. Runs
    /// `meanwhile` then.
    pub(crate) fn hold_up(&self, nth: u32, slow: impl FnOnce() + Send, meanwhile: impl FnOnce()) {
        self.0.holds.store(nth, Ordering::SeqCst);
        let runtime = tokio::runtime::Handle::current();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _entered = runtime.enter();
                metrics::with_local_recorder(self, slow);
            });
            self.0.barrier.wait();
            meanwhile();
            self.0.barrier.wait();
        });
    }
}

impl GaugeFn for State {
    fn increment(&self, _: f64) {}
    fn decrement(&self, _: f64) {}

    fn set(&self, level: f64) {
        let panics = self.panics.swap(false, Ordering::SeqCst);
        assert!(!panics, "the recorder panics");
        let one_less = |nth: u32| nth.checked_sub(1);
        let (set, get) = (Ordering::SeqCst, Ordering::SeqCst);
        if self.holds.fetch_update(set, get, one_less) == Ok(1) {
            self.barrier.wait();
            self.barrier.wait();
        }
        self.level.store(level as u64, Ordering::SeqCst);
    }
}

impl Recorder for Steered {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        if key.name() == self.0.gauge {
            Gauge::from_arc(Arc::clone(&self.0))
        } else {
            Gauge::noop()
        }
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
