//! The interleavings of two or three threads in the lock-free parts.
//!
//! Those in which threads are preempted twice, or as often as `LOOM_MAX_PREEMPTIONS` says.
//!
//! Has a `main` of its own instead of the usual harness: the unit tests of the files that are included
//! here use atomics outside a model, which loom's are not for.

/// What `src/sync.rs` is to the rest of the crate.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}

#[allow(dead_code, unused_imports)]
#[path = "../src/balance/load.rs"]
mod load;
#[allow(dead_code, unused_imports)]
#[path = "../src/budget/state.rs"]
mod state;
#[allow(dead_code, unused_imports)]
#[path = "../src/window.rs"]
mod window;

use std::time::Duration;

use load::{End, Load};
use loom::sync::Arc;
use loom::thread;
use state::{Gain, Tokens};
use window::{BUCKETS, Sample, Tally, TimeWindow};

macro_rules! check {
    ($($model:ident)*) => {
        $(
            println!("model {}", stringify!($model));
            let mut builder = loom::model::Builder::new();
            builder.preemption_bound.get_or_insert(2);
            builder.check($model);
        )*
    };
}

fn main() {
    check! {
        threads_that_enter_a_new_slice_together_clear_it_once
        a_straggler_does_not_clear_the_slice_that_has_replaced_its_own
        a_call_of_an_old_epoch_does_not_clear_the_new_one
        the_last_token_is_taken_once
        what_is_paid_and_brought_at_the_same_time_adds_up
        three_threads_never_take_more_than_there_is
        a_rate_is_measured_once
        calls_that_begin_and_end_together_leave_none_in_flight
        the_slowest_of_calls_that_end_together_is_remembered
        two_answers_at_the_same_time_lower_an_estimate_once
        failures_that_come_together_all_count
    }
}

/// Runs `work` on each of the `inputs`, each on a thread of its own, and returns the
/// results in their order.
fn on_threads<T, I, R, const N: usize>(
    shared: &Arc<T>,
    inputs: [I; N],
    work: fn(&T, I) -> R,
) -> [R; N]
where
    T: Send + Sync + 'static,
    I: Send + 'static,
    R: Send + 'static,
{
    let threads = inputs.map(|input| {
        let shared = Arc::clone(shared);
        thread::spawn(move || work(&shared, input))
    });
    threads.map(|thread| thread.join().expect("a thread of the model"))
}

const OK: Sample = Sample {
    failed: false,
    slow: false,
};

const SECOND: u64 = 1_000_000_000;

/// The epoch and the second of a call.
type Call = (u64, u64);

fn record(window: &TimeWindow, (epoch, second): Call) {
    window.record(0, epoch, second * SECOND, OK);
}

/// Records some calls one after the other and some together, and counts them as they are seen at `last`.
fn calls<const N: usize>(first: &[Call], together: [Call; N], (epoch, second): Call) -> u64 {
    let window = Arc::new(TimeWindow::new(Duration::from_secs(10), 1));
    for call in first {
        record(&window, *call);
    }
    on_threads(&window, together, record);
    let Tally { calls, .. } = window.tally(epoch, second * SECOND, BUCKETS);
    calls
}

fn threads_that_enter_a_new_slice_together_clear_it_once() {
    assert_eq!(
        calls(&[(0, 1), (0, 1)], [(0, 11), (0, 11), (0, 11)], (0, 11)),
        3
    );
}

fn a_straggler_does_not_clear_the_slice_that_has_replaced_its_own() {
    assert_eq!(calls(&[(0, 1)], [(0, 11), (0, 1)], (0, 11)), 1);
}

fn a_call_of_an_old_epoch_does_not_clear_the_new_one() {
    assert_eq!(calls(&[(0, 1)], [(1, 1), (0, 1), (1, 1)], (1, 1)), 2);
}

fn the_last_token_is_taken_once() {
    let tokens = Arc::new(Tokens::new(10, 0.2, 1));
    let taken = on_threads(&tokens, [10, 10], Tokens::withdraw);
    assert_eq!(taken.into_iter().filter(|taken| *taken).count(), 1);
    assert_eq!(tokens.tokens(), 0);
}

fn what_is_paid_and_brought_at_the_same_time_adds_up() {
    let tokens = Arc::new(Tokens::new(10, 0.2, 5));
    let operation = |tokens: &Tokens, cost| {
        tokens.enter();
        let paid = cost > 0 && tokens.withdraw(cost);
        tokens.leave(if paid {
            Gain::Refund(cost)
        } else {
            Gain::FirstTry
        });
    };
    on_threads(&tokens, [10, 0], operation);
    assert_eq!((tokens.tokens(), tokens.in_flight()), (51, 0));
}

fn three_threads_never_take_more_than_there_is() {
    let tokens = Arc::new(Tokens::new(10, 0.2, 3));
    tokens.enter();
    let step = |tokens: &Tokens, cost| match cost {
        0 => {
            tokens.leave(Gain::Refund(5));
            false
        }
        cost => tokens.withdraw(cost),
    };
    let taken = on_threads(&tokens, [20, 15, 0], step);
    let cost = 20 * u32::from(taken[0]) + 15 * u32::from(taken[1]);
    assert_eq!((tokens.tokens(), tokens.in_flight()), (35 - cost, 0));
}

fn a_rate_is_measured_once() {
    let tokens = Arc::new(Tokens::new(1, 1.0, 0));
    for _ in 0..3 {
        tokens.enter();
        tokens.leave(Gain::Nothing);
    }
    on_threads(&tokens, [SECOND; 2], Tokens::sample);
    assert_eq!(tokens.capacity(), 30);
}

const SETTINGS: load::Settings = load::Settings {
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

fn calls_that_begin_and_end_together_leave_none_in_flight() {
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

fn the_slowest_of_calls_that_end_together_is_remembered() {
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

fn two_answers_at_the_same_time_lower_an_estimate_once() {
    let load = Arc::new(Load::new(20.0, 0));
    load.begin(0);
    load.begin(0);
    on_threads(&load, [(End::Succeeded, 10); 2], end);
    let kept = (-1.0f64).exp();
    assert!((latency(&load, 10) - (20.0 * kept + 10.0 * (1.0 - kept))).abs() < 1e-2);
}

fn failures_that_come_together_all_count() {
    let load = Arc::new(Load::new(0.0, 0));
    load.begin(0);
    load.begin(0);
    on_threads(&load, [(End::Failed, 1); 2], end);
    assert!((load.failure_share(&SETTINGS, SECOND) - 0.51).abs() < 1e-3);
}
