//! The atomics and locks that the parts shared by threads are made of, so that `tests/loom` can put its
//! own in their place and try every interleaving; and the way to take a lock.

use std::sync::{MutexGuard, PoisonError};

pub(crate) use std::sync::Mutex;
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Takes a lock, also after a panic: what is locked here is whole at every step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
