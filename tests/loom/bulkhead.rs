//! The permits of a bulkhead, and those who wait for one.

#[allow(dead_code)]
#[path = "../../src/bulkhead/gate.rs"]
mod gate;
#[allow(dead_code, unused_imports, unreachable_pub)]
#[path = "../../src/bulkhead/queue.rs"]
mod queue;
#[allow(dead_code, unused_imports)]
#[path = "../../src/bulkhead/word.rs"]
mod word;

use std::sync::atomic::AtomicBool;
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use loom::sync::Arc;
use tokio::time::Instant;

use self::gate::{Gate, Turn};
use self::queue::{Bounds, QueueOrder, Verdict};
use crate::algorithm::queue::Ticket;
use crate::on_threads;
use crate::sync::{AtomicU64, Ordering};

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

pub(crate) fn never_more_are_in_flight_than_the_limit() {
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

pub(crate) fn who_queues_while_another_leaves_gets_the_permit() {
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

pub(crate) fn who_waits_is_woken_once() {
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

pub(crate) fn a_permit_that_nobody_wants_any_longer_goes_to_the_next() {
    let (gate, tickets) = full(1, 2);
    let first = tickets[0];
    on_threads(&gate, [None, Some(first)], |gate, first| match first {
        None => leave(gate),
        Some(first) => give_up(gate, first),
    });
    assert!(is_granted(&gate, tickets[1]));
    assert_eq!(levels(&gate), (1, 0));
}

pub(crate) fn who_gives_up_while_another_leaves_loses_no_permit() {
    let (gate, tickets) = full(2, 1);
    let steps = [None, None, Some(tickets[0])];
    on_threads(&gate, steps, |gate, ticket| match ticket {
        None => leave(gate),
        Some(ticket) => give_up(gate, ticket),
    });
    assert_eq!(levels(&gate), (0, 0));
}

pub(crate) fn a_lower_limit_and_one_who_leaves() {
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

pub(crate) fn a_limit_that_shrinks_is_not_lost_to_one_that_grows() {
    let (gate, _) = full(10, 0);
    on_threads(&gate, [11, 8], |gate, limit| {
        gate.change_limit(10, limit, Instant::now());
    });
    let limit = gate.word().limit();
    assert!(limit == 8 || limit == 9, "{limit}");
}

pub(crate) fn a_higher_limit_and_one_who_leaves() {
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
