//! The choice of the copy of a counter for the current thread.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Returns the number of copies of a counter for which threads rarely meet: one per core, within reason.
pub(crate) fn stripes() -> usize {
    static STRIPES: OnceLock<usize> = OnceLock::new();
    *STRIPES.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        cores.next_power_of_two().min(16)
    })
}

/// Returns the number of this thread: 0 for the first that asks, 1 for the second, and so on.
#[inline]
pub(crate) fn stripe() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! { static STRIPE: Cell<Option<usize>> = const { Cell::new(None) } }
    STRIPE.get().unwrap_or_else(|| {
        let stripe = THREADS.fetch_add(1, Ordering::Relaxed);
        STRIPE.set(Some(stripe));
        stripe
    })
}
