//! The interleavings of two or three threads in the lock-free parts.
//!
//! Those in which threads are preempted twice, or as often as `LOOM_MAX_PREEMPTIONS` says.
//!
//! Has a `main` of its own instead of the usual harness: the unit tests of the files that are included
//! here use atomics outside a model, which loom's are not for.

/// What `src/sync.rs` is to the rest of the crate.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    pub(crate) use loom::sync::{Mutex, MutexGuard};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().expect("loom's are never poisoned")
    }
}

#[allow(dead_code, unused_imports)]
#[path = "../src/rate_limit/gcra.rs"]
mod gcra;
#[allow(dead_code, unused_imports)]
#[path = "../src/rate_limit/queue.rs"]
mod queue;
#[allow(dead_code, unused_imports, unreachable_pub)]
#[path = "../src/rate_limit/rate.rs"]
mod rate;
#[allow(dead_code, unused_imports)]
#[path = "../src/budget/state.rs"]
mod state;
#[allow(dead_code, unused_imports)]
#[path = "../src/window.rs"]
mod window;

use std::task::{Wake, Waker};
use std::time::Duration;

use gcra::{Gcra, Taken};
use loom::sync::{Arc, Mutex};
use loom::thread;
use queue::{Place, Queue, Step, Tokens as _};
use rate::Rate;
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
        a_limit_lets_no_more_through_than_its_burst
        a_call_takes_all_its_tokens_or_none
        a_change_of_rate_loses_no_token_that_is_taken_meanwhile
        a_call_is_judged_by_the_old_terms_or_the_new_ones_and_no_mixture
        a_later_origin_loses_no_token_that_is_taken_meanwhile
        nothing_passes_once_a_limit_is_quiet
        of_two_that_come_together_one_gets_the_token_and_one_a_place
        a_waiter_that_leaves_hands_its_turn_on
        a_waiter_that_goes_hands_its_turn_on
        a_waiter_is_woken_when_the_limit_has_changed
    }
}

/// Runs `work` on each of the `inputs`, each on a thread of its own, and returns the
/// results in their order.
fn on_threads<T, I, R, const N: usize>(
    shared: &Arc<T>,
    inputs: [I; N],
    work: impl Fn(&T, I) -> R + Copy + Send + 'static,
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

const RATE: Rate = Rate::per_second(1);

fn take(gcra: &Gcra, cost: u32) -> Taken {
    gcra.take(SECOND, cost)
}

fn taken(results: &[Taken]) -> usize {
    results.iter().filter(|taken| **taken == Taken::Yes).count()
}

fn a_limit_lets_no_more_through_than_its_burst() {
    let gcra = Arc::new(Gcra::new(RATE, 2));
    assert_eq!(taken(&on_threads(&gcra, [1, 1, 1], take)), 2);
    assert_eq!(gcra.available(SECOND), 0);
}

fn a_call_takes_all_its_tokens_or_none() {
    let gcra = Arc::new(Gcra::new(RATE, 3));
    assert_eq!(taken(&on_threads(&gcra, [2, 2], take)), 1);
    assert_eq!(gcra.available(SECOND), 1);
}

fn a_change_of_rate_loses_no_token_that_is_taken_meanwhile() {
    let gcra = Arc::new(Gcra::new(RATE, 4));
    let step = |gcra: &Gcra, cost| match cost {
        0 => {
            // Twice, so that the terms of a slow thread are written over.
            gcra.set(Rate::per_second(1_000), 5, SECOND);
            gcra.set(Rate::per_second(2), 6, SECOND);
            Taken::Early(0)
        }
        cost => take(gcra, cost),
    };
    assert_eq!(taken(&on_threads(&gcra, [1, 2, 0], step)), 2);
    assert_eq!((gcra.available(SECOND), gcra.burst()), (3, 6));
    assert_eq!(gcra.wait(SECOND, 6), 3 * SECOND / 2);
}

fn a_call_is_judged_by_the_old_terms_or_the_new_ones_and_no_mixture() {
    let gcra = Arc::new(Gcra::new(RATE, 4));
    assert_eq!(take(&gcra, 3), Taken::Yes);
    let step = |gcra: &Gcra, changes| {
        if changes {
            gcra.set(Rate::per_second(1_000), 10, SECOND);
            gcra.set(Rate::per_second(1_000_000), 1, SECOND);
        }
        take(gcra, 2)
    };
    let [taken, last] = on_threads(&gcra, [false, true], step);
    let possible = [Taken::Early(SECOND), Taken::Yes, Taken::TooCostly];
    assert!(possible.contains(&taken), "{taken:?}");
    assert_eq!(last, Taken::TooCostly);
}

fn a_later_origin_loses_no_token_that_is_taken_meanwhile() {
    const YEAR: u64 = 365 * 24 * 60 * 60 * SECOND;
    let limit = Arc::new((Gcra::new(RATE, 3), Mutex::new(())));
    let step = |(gcra, lock): &(Gcra, Mutex<()>), cost| loop {
        match gcra.take(YEAR, cost) {
            Taken::Stale => {
                let _one_at_a_time = sync::lock(lock);
                gcra.renew(YEAR);
            }
            taken => return taken,
        }
    };
    assert_eq!(taken(&on_threads(&limit, [1, 1], step)), 2);
    assert_eq!(limit.0.available(YEAR), 1);
}

fn nothing_passes_once_a_limit_is_quiet() {
    let gcra = Arc::new(Gcra::new(RATE, 3));
    let step = |gcra: &Gcra, quiets: bool| {
        if quiets {
            gcra.quiet(2 * SECOND);
        }
        take(gcra, 1)
    };
    let [_, last] = on_threads(&gcra, [false, true], step);
    assert_eq!(last, Taken::Early(SECOND));
    assert_eq!(take(&gcra, 1), Taken::Early(SECOND));
}

/// A queue for the tokens of a limit that has none left at first, and a flag for each of two waiters.
struct Waiting {
    queue: Queue,
    gcra: Gcra,
    flags: [std::sync::Arc<Flag>; 2],
}

/// Says whether a waiter has been woken.
struct Flag(sync::AtomicU32);

impl Wake for Flag {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, sync::Ordering::AcqRel);
    }
}

/// Waits for no turn that comes later.
const UNTIL: u64 = 100 * SECOND;

struct At<'a>(&'a Gcra, u64);

impl queue::Tokens for At<'_> {
    fn take(&self, cost: u32) -> Taken {
        self.0.take(self.1, cost)
    }

    fn wait(&self, tokens: u64) -> u64 {
        self.0.wait(self.1, tokens)
    }

    fn burst(&self) -> u32 {
        self.0.burst()
    }
}

impl Waiting {
    fn new() -> Self {
        let (queue, gcra) = (Queue::new(), Gcra::new(RATE, 1));
        assert_eq!(At(&gcra, 0).take(1), Taken::Yes);
        let flag = || std::sync::Arc::new(Flag(sync::AtomicU32::new(0)));
        let flags = [flag(), flag()];
        Self { queue, gcra, flags }
    }

    fn step(&self, waiter: usize, place: &mut Place, now: u64) -> Step {
        let waker = Waker::from(std::sync::Arc::clone(&self.flags[waiter]));
        self.queue.step(place, now, &waker, &At(&self.gcra, now))
    }

    fn was_woken(&self, waiter: usize) -> bool {
        self.flags[waiter].0.load(sync::Ordering::Acquire) > 0
    }
}

fn place() -> Place {
    Place::new(1, UNTIL)
}

fn of_two_that_come_together_one_gets_the_token_and_one_a_place() {
    let waiting = Arc::new(Waiting::new());
    let come = |waiting: &Waiting, waiter| {
        let mut place = place();
        (waiting.step(waiter, &mut place, SECOND), place)
    };
    let [first, second] = on_threads(&waiting, [0, 1], come).map(|(step, _)| step);
    assert!(
        [(first, second), (second, first)].contains(&(Step::Go, Step::Wait(2 * SECOND))),
        "{first:?} {second:?}"
    );
    assert_eq!(waiting.queue.len(), 1);
}

/// The first of two waiters does something while the second one is polled. Then the second one either knew that it was
/// its turn, or is woken to see it.
fn second_has_its_turn(first: fn(&Waiting, &mut Place)) {
    let waiting = Arc::new(Waiting::new());
    let mut places = [place(), place()];
    assert_eq!(waiting.step(0, &mut places[0], 0), Step::Wait(SECOND));
    assert_eq!(waiting.step(1, &mut places[1], 0), Step::Wait(UNTIL));
    let [one, two] = places;
    let act = move |waiting: &Waiting, (waiter, mut place): (usize, Place)| {
        if waiter == 0 {
            first(waiting, &mut place);
            return (None, place);
        }
        (Some(waiting.step(1, &mut place, SECOND)), place)
    };
    let [_, (step, mut place)] = on_threads(&waiting, [(0, one), (1, two)], act);
    let knew = step != Some(Step::Wait(UNTIL));
    assert!(knew || waiting.was_woken(1), "{step:?}");
    if step != Some(Step::Go) {
        assert_eq!(waiting.step(1, &mut place, 2 * SECOND), Step::Go);
    }
    assert_eq!(waiting.queue.len(), 0);
}

fn a_waiter_that_leaves_hands_its_turn_on() {
    second_has_its_turn(|waiting, place| waiting.queue.leave(place));
}

fn a_waiter_that_goes_hands_its_turn_on() {
    second_has_its_turn(|waiting, place| {
        assert_eq!(waiting.step(0, place, SECOND), Step::Go);
    });
}

fn a_waiter_is_woken_when_the_limit_has_changed() {
    let waiting = Arc::new(Waiting::new());
    let act = |waiting: &Waiting, changes: bool| {
        if changes {
            waiting.gcra.set(Rate::per_second(2), 1, 0);
            waiting.queue.reconsider(0, &At(&waiting.gcra, 0));
            return None;
        }
        let mut place = place();
        Some((waiting.step(0, &mut place, 0), place))
    };
    let [_, waited] = on_threads(&waiting, [true, false], act);
    let (step, _) = waited.expect("one has waited");
    assert!(
        step == Step::Wait(SECOND / 2) || waiting.was_woken(0),
        "{step:?}"
    );
}
