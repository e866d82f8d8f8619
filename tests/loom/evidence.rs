//! Evidence: good calls that several threads note, and the slowest of them.

use std::time::Duration;

use loom::sync::Arc;

use crate::algorithm::evidence::{Evidence, Terms};
use crate::{SECOND, on_threads};

/// For attempts that may take a minute.
fn evidence() -> Arc<Evidence> {
    let terms = Terms::new(Some(Duration::from_secs(60)));
    Arc::new(Evidence::new(terms))
}

pub(crate) fn of_calls_that_end_together_the_slowest_is_kept() {
    let evidence = evidence();
    on_threads(&evidence, [7, 9], |evidence, seconds| {
        evidence.note_good(seconds * SECOND, 9 * SECOND);
    });
    assert_eq!(evidence.needed(9 * SECOND) / SECOND, 18);
}

pub(crate) fn a_straggler_leaves_a_newer_second_in_its_slot_alone() {
    // One round of the ring later.
    let later = SECOND + (16 << 30);
    let evidence = evidence();
    on_threads(
        &evidence,
        [(9, SECOND), (7, later)],
        |evidence, (seconds, end)| {
            evidence.note_good(seconds * SECOND, end);
        },
    );
    assert_eq!(evidence.needed(later) / SECOND, 14);
}
