//! The interleavings of two or three threads in the lock-free parts.
//!
//! Those in which threads are preempted twice, or as often as `LOOM_MAX_PREEMPTIONS` says.
//!
//! Has a `main` of its own instead of the usual harness: the unit tests of the files that are included
//! here use atomics outside a model, which loom's are not for.

/// What `src/sync.rs` is to the rest of the crate.
mod sync {
    use std::sync::PoisonError;

    use loom::sync::MutexGuard;

    pub(crate) use loom::sync::Mutex;
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[allow(dead_code, unused_imports)]
#[path = "../src/bulkhead/gate.rs"]
mod gate;
#[allow(dead_code, unused_imports, unreachable_pub)]
#[path = "../src/bulkhead/queue.rs"]
mod queue;
#[allow(dead_code, unused_imports)]
#[path = "../src/budget/state.rs"]
mod state;
#[allow(dead_code, unused_imports)]
#[path = "../src/window.rs"]
mod window;
#[allow(dead_code, unused_imports)]
#[path = "../src/bulkhead/word.rs"]
mod word;

use std::sync::atomic::AtomicBool;
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use gate::{Gate, Turn};
use loom::sync::Arc;
use loom::thread;
use queue::{Bounds, QueueOrder, Ticket, Verdict};
use state::{Gain, Tokens};
use sync::{AtomicU64, Ordering};
use tokio::time::Instant;
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
        never_more_are_in_flight_than_the_limit
        who_queues_while_another_leaves_gets_the_permit
        who_waits_is_woken_once
        a_permit_that_nobody_wants_any_longer_goes_to_the_next
        who_gives_up_while_another_leaves_loses_no_permit
        a_lower_limit_and_one_who_leaves
        a_higher_limit_and_one_who_leaves
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

/// A bulkhead with this limit, as many in flight, and these who wait.
fn full(limit: usize, waiting: usize) -> (Arc<Gate>, Vec<Ticket>) {
    let day = Duration::from_secs(24 * 60 * 60);
    let bounds = Bounds {
        wait: day,
        overloaded_wait: day,
        overloaded_after: day,
    };
    let gate = Gate::new(limit, 9, bounds, QueueOrder::Fifo);
    for _ in 0..limit {
        assert!(gate.try_enter().is_some());
    }
    let wait = |_| match gate.queue(Instant::now(), None) {
        Turn::Queued(ticket, _) => ticket,
        turn => panic!("{turn:?}"),
    };
    let tickets = (0..waiting).map(wait).collect();
    (Arc::new(gate), tickets)
}

fn leave(gate: &Gate) {
    gate.leave(Instant::now);
}

fn levels(gate: &Gate) -> (usize, usize) {
    let word = gate.word();
    (word.in_flight(), word.waiting())
}

fn is_granted(gate: &Gate, ticket: Ticket) -> bool {
    gate.poll(ticket, Waker::noop()) == Poll::Ready(Verdict::Granted)
}

fn never_more_are_in_flight_than_the_limit() {
    let (gate, _) = full(2, 0);
    leave(&gate);
    let shared = Arc::new((gate, AtomicU64::new(1)));
    let entered = on_threads(&shared, [(); 3], |(gate, inside), ()| {
        let entered = gate.try_enter().is_some();
        if entered {
            assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
            inside.fetch_sub(1, Ordering::SeqCst);
            leave(gate);
        }
        entered
    });
    assert!(entered.contains(&true));
    assert_eq!(levels(&shared.0), (1, 0));
}

fn who_queues_while_another_leaves_gets_the_permit() {
    let (gate, _) = full(1, 0);
    let step = |gate: &Gate, leaves| {
        if leaves {
            leave(gate);
            return None;
        }
        Some(gate.queue(Instant::now(), None))
    };
    let [_, turn] = on_threads(&gate, [true, false], step);
    if let Some(Turn::Queued(ticket, _)) = turn {
        assert!(is_granted(&gate, ticket));
    }
    assert_eq!(levels(&gate), (1, 0));
}

/// Remembers whether it was woken. Not one of loom's, which would make the model larger than it is.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        assert!(!self.0.swap(true, Ordering::Relaxed), "woken twice");
    }
}

fn who_waits_is_woken_once() {
    let (gate, tickets) = full(1, 2);
    let woken = std::sync::Arc::new(Woken::default());
    let shared = Arc::new((gate, tickets[0], Waker::from(woken.clone())));
    let [_, polled] = on_threads(&shared, [true, false], |(gate, ticket, waker), leaves| {
        if leaves {
            leave(gate);
            return Poll::Pending;
        }
        gate.poll(*ticket, waker)
    });
    let is_woken = woken.0.load(Ordering::Relaxed);
    assert_eq!(is_woken, polled.is_pending());
    if is_woken {
        assert!(is_granted(&shared.0, tickets[0]));
    }
    assert_eq!(levels(&shared.0), (1, 1));
}

fn give_up(gate: &Gate, ticket: Ticket) {
    if gate.give_up(ticket) == Some(Verdict::Granted) {
        leave(gate);
    }
}

fn a_permit_that_nobody_wants_any_longer_goes_to_the_next() {
    let (gate, tickets) = full(1, 2);
    let first = tickets[0];
    on_threads(&gate, [None, Some(first)], |gate, first| match first {
        None => leave(gate),
        Some(first) => give_up(gate, first),
    });
    assert!(is_granted(&gate, tickets[1]));
    assert_eq!(levels(&gate), (1, 0));
}

fn who_gives_up_while_another_leaves_loses_no_permit() {
    let (gate, tickets) = full(2, 1);
    let steps = [None, None, Some(tickets[0])];
    on_threads(&gate, steps, |gate, ticket| match ticket {
        None => leave(gate),
        Some(ticket) => give_up(gate, ticket),
    });
    assert_eq!(levels(&gate), (0, 0));
}

fn a_lower_limit_and_one_who_leaves() {
    let (gate, tickets) = full(2, 1);
    on_threads(&gate, [true, false], |gate, leaves| {
        if leaves {
            leave(gate);
        } else {
            gate.set_limit(1, Instant::now());
        }
    });
    // Let in before the limit was lower, or not at all.
    let is_granted = is_granted(&gate, tickets[0]);
    let expected = if is_granted { (2, 0) } else { (1, 1) };
    assert_eq!(levels(&gate), expected);
    assert!(gate.try_enter().is_none());
}

fn a_higher_limit_and_one_who_leaves() {
    let (gate, tickets) = full(1, 3);
    on_threads(&gate, [true, false], |gate, leaves| {
        if leaves {
            leave(gate);
        } else {
            gate.set_limit(2, Instant::now());
        }
    });
    let granted: Vec<_> = tickets
        .iter()
        .map(|ticket| is_granted(&gate, *ticket))
        .collect();
    assert_eq!(granted, [true, true, false]);
    assert_eq!(levels(&gate), (2, 1));
}
