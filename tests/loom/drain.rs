//! Drain: the last call in flight, and a drain that begins meanwhile.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use crate::algorithm::drain::InFlight;

/// A server that is drained while calls come, each of which ends on another thread than the one on which it began, in effect.
fn drained_while_calls_come(calls: usize) {
    let in_flight = Arc::new(InFlight::new(2));
    // Whether a drain has seen that no call is in flight, and how often its waiter was woken.
    let (is_over, woken) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let callers: Vec<_> = (0..calls)
        .map(|thread| {
            let (in_flight, is_over) = (Arc::clone(&in_flight), Arc::clone(&is_over));
            let woken = Arc::clone(&woken);
            thread::spawn(move || {
                let is_admitted = in_flight.begin(thread);
                let wakes = if is_admitted {
                    let is_over = is_over.load(Ordering::SeqCst);
                    assert_eq!(is_over, 0, "this call is in flight");
                    in_flight.end(thread + 1)
                } else {
                    true
                };
                woken.fetch_add(u32::from(wakes), Ordering::SeqCst);
            })
        })
        .collect();
    in_flight.drain();
    let left = in_flight.count();
    if left == 0 {
        is_over.store(1, Ordering::SeqCst);
    }
    for caller in callers {
        caller.join().expect("a thread of the model");
    }
    assert_eq!(in_flight.count(), 0);
    let woken = woken.load(Ordering::SeqCst);
    assert!(left == 0 || woken > 0, "a waiter that counted {left} is woken");
}

pub(crate) fn a_drain_is_over_only_when_the_last_call_is() {
    drained_while_calls_come(2);
}

pub(crate) fn a_drain_that_waits_is_woken_by_the_last_call() {
    drained_while_calls_come(1);
}
