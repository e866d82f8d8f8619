//! Which of several copies of a counter the current thread uses.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many copies a counter needs so that threads rarely meet: one per core, within reason.
pub(crate) fn lanes() -> usize {
    static LANES: OnceLock<usize> = OnceLock::new();
    *LANES.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        cores.next_power_of_two().min(16)
    })
}

/// The number of this thread: 0 for the first that asks, 1 for the second, and so on.
#[inline]
pub(crate) fn lane() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! { static LANE: Cell<Option<usize>> = const { Cell::new(None) } }
    LANE.get().unwrap_or_else(|| {
        let lane = THREADS.fetch_add(1, Ordering::Relaxed);
        LANE.set(Some(lane));
        lane
    })
}
