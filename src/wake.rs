//! Waking tasks when no lock is held.

use crate::algorithm::queue::Wakers;
use crate::sync::{Mutex, lock};

/// Changes what is locked, and wakes or drops the wakers that come out of that when the lock is gone.
pub(crate) fn locked<T, R>(state: &Mutex<T>, change: impl FnOnce(&mut T, &mut Wakers) -> R) -> R {
    let mut wakers = Wakers::default();
    let result = change(&mut lock(state), &mut wakers);
    wakers.wake();
    result
}
