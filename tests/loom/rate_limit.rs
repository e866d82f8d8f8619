//! The tokens of a rate limit, and those who wait for one.

#[allow(dead_code)]
#[path = "../../src/rate_limit/bucket.rs"]
mod bucket;
#[allow(dead_code)]
#[path = "../../src/rate_limit/queue.rs"]
mod queue;

use std::task::{Wake, Waker};

use loom::sync::Arc;

use self::bucket::{Bucket, Limits};
use self::queue::{Place, Queue, Step};
use crate::algorithm::gcra::{Gcra, Taken};
use crate::algorithm::rate::Rate;
use crate::{SECOND, on_threads, sync};

const RATE: Rate = Rate::per_second(1);

fn take(gcra: &Gcra, cost: u32) -> Taken {
    gcra.take(SECOND, cost)
}

fn taken(results: &[Taken]) -> usize {
    results.iter().filter(|taken| **taken == Taken::Yes).count()
}

pub(crate) fn a_limit_lets_no_more_through_than_its_burst() {
    let gcra = Arc::new(Gcra::new(RATE, 2));
    assert_eq!(taken(&on_threads(&gcra, [1, 1, 1], take)), 2);
    assert_eq!(gcra.available(SECOND), 0);
}

pub(crate) fn a_call_takes_all_its_tokens_or_none() {
    let gcra = Arc::new(Gcra::new(RATE, 3));
    assert_eq!(taken(&on_threads(&gcra, [2, 2], take)), 1);
    assert_eq!(gcra.available(SECOND), 1);
}

pub(crate) fn a_change_of_rate_loses_no_token_that_is_taken_meanwhile() {
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

pub(crate) fn a_call_is_judged_by_the_old_terms_or_the_new_ones_and_no_mixture() {
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

pub(crate) fn a_later_origin_loses_no_token_that_is_taken_meanwhile() {
    const YEAR: u64 = 365 * 24 * 60 * 60 * SECOND;
    let (rate, burst) = (RATE, 3);
    let limit = Arc::new(Bucket::new(Limits { rate, burst }));
    let step = |bucket: &Bucket, cost| bucket.take(YEAR, cost);
    assert_eq!(taken(&on_threads(&limit, [1, 1], step)), 2);
    assert_eq!(limit.gcra.available(YEAR), 1);
}

pub(crate) fn nothing_passes_once_a_limit_is_quiet() {
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
    bucket: Bucket,
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

impl Waiting {
    fn new() -> Self {
        let (rate, burst) = (RATE, 1);
        let (queue, bucket) = (Queue::new(), Bucket::new(Limits { rate, burst }));
        assert_eq!(bucket.take(0, 1), Taken::Yes);
        let flag = || std::sync::Arc::new(Flag(sync::AtomicU32::new(0)));
        let flags = [flag(), flag()];
        Self {
            queue,
            bucket,
            flags,
        }
    }

    fn step(&self, waiter: usize, place: &mut Place, now: u64) -> Step {
        let waker = Waker::from(std::sync::Arc::clone(&self.flags[waiter]));
        self.queue.step(place, now, &waker, &self.bucket)
    }

    fn was_woken(&self, waiter: usize) -> bool {
        self.flags[waiter].0.load(sync::Ordering::Acquire) > 0
    }
}

fn place() -> Place {
    Place::new(1, UNTIL)
}

pub(crate) fn of_two_that_come_together_one_gets_the_token_and_one_a_place() {
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

pub(crate) fn a_waiter_that_leaves_hands_its_turn_on() {
    second_has_its_turn(|waiting, place| waiting.queue.leave(place));
}

pub(crate) fn a_waiter_that_goes_hands_its_turn_on() {
    second_has_its_turn(|waiting, place| {
        assert_eq!(waiting.step(0, place, SECOND), Step::Go);
    });
}

pub(crate) fn a_waiter_is_woken_when_the_limit_has_changed() {
    let waiting = Arc::new(Waiting::new());
    let act = |waiting: &Waiting, changes: bool| {
        if changes {
            waiting.bucket.gcra.set(Rate::per_second(2), 1, 0);
            waiting.queue.reconsider(0, u64::MAX, &waiting.bucket);
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
