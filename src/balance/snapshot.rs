//! The newest version of a value that changes rarely, and the copies that handles keep.
//!
//! **Two sides.** A thread that changes the value holds the lock, and stores the number of the new value before it
//! releases the lock. A handle compares this number with the number of its copy, and takes the lock only if they
//! differ. The number is `Relaxed`: it only shows that the lock is worth taking, and the lock orders everything else. A
//! handle that does not see the number yet acts as if it had come before the change. The number is stored under the
//! lock, so that the number of an older value is never stored last: handles would then never see the newer value.

use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use std::sync::Arc;

/// A value that is replaced as a whole.
pub(super) struct Snapshots<T> {
    number: AtomicU64,
    newest: Mutex<Snapshot<T>>,
}

/// A copy of the value, and its number.
pub(super) struct Snapshot<T> {
    number: u64,
    pub(super) value: Arc<T>,
}

impl<T> Snapshots<T> {
    pub(super) fn new(value: T) -> Self {
        Self {
            number: AtomicU64::new(0),
            newest: Mutex::new(Snapshot {
                number: 0,
                value: Arc::new(value),
            }),
        }
    }

    /// Returns the number of the newest value: higher by one with each change.
    #[inline]
    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// Returns the newest value.
    pub(super) fn latest(&self) -> Snapshot<T> {
        lock(&self.newest).clone()
    }

    /// Replaces the newest value. Returns the former one, to be dropped without a lock.
    #[must_use]
    pub(super) fn replace(&self, value: T) -> Arc<T> {
        let value = Arc::new(value);
        let mut newest = lock(&self.newest);
        newest.number += 1;
        self.number.store(newest.number, Ordering::Relaxed);
        std::mem::replace(&mut newest.value, value)
    }

    /// Updates a copy. Returns its former value if the copy was out of date, to be dropped without a lock.
    #[inline]
    pub(super) fn refresh(&self, copy: &mut Snapshot<T>) -> Option<Arc<T>> {
        if self.number() == copy.number {
            return None;
        }
        Some(std::mem::replace(copy, self.latest()).value)
    }
}

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self {
            number: self.number,
            value: Arc::clone(&self.value),
        }
    }
}
