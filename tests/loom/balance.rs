//! The load of an endpoint, its record and condition, its label in metrics, and snapshots of all endpoints.

#[allow(dead_code, unused_imports, unreachable_pub)]
#[path = "../../src/balance/host_set/reassessment/condition.rs"]
mod condition;
#[allow(dead_code, unused_imports)]
#[path = "../../src/balance/label.rs"]
mod label;
#[allow(dead_code, unused_imports)]
#[path = "../../src/balance/snapshot.rs"]
mod snapshot;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};

use self::condition::Condition;
use self::label::Label;
use self::snapshot::Snapshots;
use crate::algorithm::load::{End, Load, Settings};
use crate::algorithm::outlier::{Record, Rule};
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
    assert!(latency(&load, 9) <= 4.0);
}

pub(crate) fn the_slowest_of_calls_that_end_together_is_remembered() {
    let load = Arc::new(Load::new(0.1, 0));
    for _ in 0..3 {
        load.begin(0);
    }
    on_threads(
        &load,
        [(End::Failed, 5), (End::Failed, 4), (End::Succeeded, 1)],
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

/// Two calls, of which one fails, and a sweep meanwhile.
pub(crate) fn a_call_counts_in_one_interval_whenever_the_sweep_comes() {
    let record = Arc::new(Record::new());
    let tallies = on_threads(&record, [Some(true), Some(false), None], |record, call| {
        let Some(failed) = call else {
            return Some(record.take());
        };
        record.note(&Rule::default(), 0, failed);
        None
    });
    let all = tallies.into_iter().flatten().chain([record.take()]);
    let all = all.fold((0, 0), |(calls, failures), tally| {
        (calls + tally.calls, failures + tally.failures)
    });
    assert_eq!(all, (2, 1));
}

pub(crate) fn one_of_the_failures_that_fill_a_row_asks_for_a_sweep() {
    let rule = Rule {
        consecutive_failures: Some(2),
        ..Rule::default()
    };
    let record = Arc::new(Record::new());
    let asked = on_threads(&record, [rule; 2], |record, rule| {
        record.note(&rule, 0, true)
    });
    assert_eq!(asked.into_iter().filter(|asks| *asks).count(), 1);
}

pub(crate) fn a_slow_start_that_begins_as_another_ends_is_kept() {
    let condition = Arc::new(Condition::new(1.0, Some(0)));
    on_threads(&condition, [true, false], |condition, returns| {
        if returns {
            condition.found(false, 20 * SECOND);
            condition.found(true, 20 * SECOND);
        } else {
            condition.ramp(10 * SECOND, 20 * SECOND);
        }
    });
    assert!(condition.ramp(10 * SECOND, 21 * SECOND) < 1.0);
}

pub(crate) fn of_refusals_that_come_together_the_longest_counts() {
    let condition = Arc::new(Condition::new(1.0, None));
    on_threads(&condition, [3, 7], |condition, second| {
        condition.refused(second * SECOND);
    });
    assert!(condition.is_refusing(6 * SECOND));
}

/// Two changes, and a handle that takes a copy meanwhile.
pub(crate) fn a_handle_sees_the_last_change_whatever_its_copy_was() {
    let snapshots = Arc::new(Snapshots::new(0));
    let copies = on_threads(&snapshots, [1, 2, 0], |snapshots, value| {
        if value > 0 {
            drop(snapshots.replace(value));
        }
        snapshots.latest()
    });
    for mut copy in copies {
        drop(snapshots.refresh(&mut copy));
        assert_eq!(copy.value, snapshots.latest().value);
    }
}
