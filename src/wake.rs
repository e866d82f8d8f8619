//! Wakes tasks without holding a lock.

use crate::algorithm::queue::Wakers;
use crate::sync::{Mutex, lock};

/// Changes a locked state. Wakes or drops the wakers of the change after the lock is released.
pub(crate) fn locked<T, R>(state: &Mutex<T>, change: impl FnOnce(&mut T, &mut Wakers) -> R) -> R {
    let mut wakers = Wakers::default();
    let result = change(&mut lock(state), &mut wakers);
    wakers.wake();
    result
}
