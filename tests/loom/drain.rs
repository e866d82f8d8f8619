//! Drain: the last call in flight, and a drain that begins meanwhile.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use crate::algorithm::drain::InFlight;

/// A server that is drained while calls come, each of which ends in another word than the one in which it began.
fn drained_while_calls_come(calls: usize) {
    let in_flight = Arc::new(InFlight::new(2));
    // Calls that were admitted and are not over, and how often the waiter was woken.
    let (running, woken) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let callers: Vec<_> = (0..calls)
        .map(|thread| {
            let in_flight = Arc::clone(&in_flight);
            let (running, woken) = (Arc::clone(&running), Arc::clone(&woken));
            thread::spawn(move || {
                let wakes = if in_flight.begin(thread) {
                    running.fetch_add(1, Ordering::AcqRel);
                    running.fetch_sub(1, Ordering::AcqRel);
                    in_flight.end(thread + 1)
                } else {
                    true
                };
                woken.fetch_add(u32::from(wakes), Ordering::AcqRel);
            })
        })
        .collect();
    assert!(in_flight.drain());
    let left = in_flight.count();
    let before = running.fetch_add(0, Ordering::AcqRel);
    if left == 0 {
        assert_eq!(before, 0, "every call is over");
        assert!(!in_flight.begin(0), "and none follows");
    }
    for caller in callers {
        caller.join().expect("a thread of the model");
    }
    assert_eq!(in_flight.count(), 0);
    let woken = woken.load(Ordering::Acquire);
    assert!(
        left == 0 || woken > 0,
        "a waiter that counted {left} is woken"
    );
}

pub(crate) fn a_drain_is_over_only_when_the_last_call_is() {
    drained_while_calls_come(2);
}

pub(crate) fn a_drain_that_waits_is_woken_by_the_last_call() {
    drained_while_calls_come(1);
}
