//! The window of the circuit breaker.

use std::time::Duration;

use loom::sync::Arc;

use crate::algorithm::window::{BUCKETS, Sample, Tally, TimeWindow};
use crate::{SECOND, on_threads};

/// The epoch and the second of a call.
type Call = (u64, u64);

fn record(window: &TimeWindow, (epoch, second): Call) {
    window.record(0, epoch, second * SECOND, Sample::OK);
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

pub(crate) fn threads_that_enter_a_new_slice_together_clear_it_once() {
    assert_eq!(
        calls(&[(0, 1), (0, 1)], [(0, 11), (0, 11), (0, 11)], (0, 11)),
        3
    );
}

pub(crate) fn a_straggler_does_not_clear_the_slice_that_has_replaced_its_own() {
    assert_eq!(calls(&[(0, 1)], [(0, 11), (0, 1)], (0, 11)), 1);
}

pub(crate) fn a_call_of_an_old_epoch_does_not_clear_the_new_one() {
    assert_eq!(calls(&[(0, 1)], [(1, 1), (0, 1), (1, 1)], (1, 1)), 2);
}

pub(crate) fn a_success_that_is_taken_back_takes_no_other_one_with_it() {
    // Of two that were counted, one is taken back, while others come in the same slice and in the one that replaces it.
    for (seen_at, expected) in [(1, 2), (11, 1)] {
        let window = Arc::new(TimeWindow::new(Duration::from_secs(10), 1));
        record(&window, (0, 1));
        let tag = window.record(0, 0, SECOND, Sample::OK);
        let at_last = (0, seen_at);
        let together = [None, Some(at_last)];
        on_threads(&window, together, move |window, call| match call {
            Some(call) => record(window, call),
            None => window.retract(0, tag),
        });
        let Tally { calls, .. } = window.tally(0, seen_at * SECOND, BUCKETS);
        assert_eq!(calls, expected);
    }
}
