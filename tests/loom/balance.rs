//! The load of an endpoint, and its label in metrics.

#[allow(dead_code, unused_imports)]
#[path = "../../src/balance/label.rs"]
mod label;
#[allow(dead_code, unused_imports)]
#[path = "../../src/algorithm/load.rs"]
mod load;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};

use self::label::Label;
use self::load::{End, Load, Settings};
use crate::{SECOND, on_threads};

const SETTINGS: Settings = Settings {
    latency_decay: 10.0,
    failure_decay: 4.0,
    failure_penalty: 5.0,
};

/// A call that begins at 0 and ends so, at the second.
fn end(load: &Load, (end, second): (End, u64)) {
    load.end(&SETTINGS, 0, second * SECOND, end);
}

/// The latency estimate at the second.
fn latency(load: &Load, second: u64) -> f64 {
    load.latency(&SETTINGS, second * SECOND)
}

pub(crate) fn calls_that_begin_and_end_together_leave_none_in_flight() {
    let load = Arc::new(Load::new(0.0, 0));
    let call = |load: &Load, second| {
        load.begin(second * SECOND);
        load.end(&SETTINGS, 0, second * SECOND, End::Cancelled);
    };
    on_threads(&load, [1, 2], call);
    assert_eq!(load.in_flight(), 0);
    load.begin(9 * SECOND);
    // Whatever was marked before, an idle endpoint becomes busy when a call begins.
    assert!(latency(&load, 9) <= 2.0);
}

pub(crate) fn the_slowest_of_calls_that_end_together_is_remembered() {
    let load = Arc::new(Load::new(0.1, 0));
    for _ in 0..3 {
        load.begin(0);
    }
    on_threads(
        &load,
        [(End::Cancelled, 5), (End::Failed, 5), (End::Succeeded, 1)],
        end,
    );
    assert_eq!(load.in_flight(), 0);
    assert!((latency(&load, 5) - 5.0).abs() < 1e-3);
}

pub(crate) fn two_answers_at_the_same_time_lower_an_estimate_once() {
    let load = Arc::new(Load::new(20.0, 0));
    load.begin(0);
    load.begin(0);
    on_threads(&load, [(End::Succeeded, 10); 2], end);
    let kept = (-1.0f64).exp();
    assert!((latency(&load, 10) - (20.0 * kept + 10.0 * (1.0 - kept))).abs() < 1e-2);
}

pub(crate) fn failures_that_come_together_all_count() {
    let load = Arc::new(Load::new(0.0, 0));
    load.begin(0);
    load.begin(0);
    on_threads(&load, [(End::Failed, 1); 2], end);
    assert!((load.failure_share(&SETTINGS, SECOND) - 0.51).abs() < 1e-3);
}

/// Two that show it, of whom one ends the last call.
pub(crate) fn a_gauge_shows_no_call_when_none_is_in_flight() {
    let label = Label::new("a".into(), 1, 1);
    label.begin();
    let shared = Arc::new((label, AtomicU64::new(9)));
    on_threads(&shared, [true, false], |(label, gauge), ends| {
        if !ends || label.end() {
            label.show(|calls| gauge.store(calls, Ordering::Relaxed));
        }
    });
    assert_eq!(shared.1.load(Ordering::SeqCst), 0);
}
