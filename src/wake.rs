//! Whom to wake, and waking several tasks.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Waker;
use std::thread;

/// Those who are to be woken when all is as it should be for them, and no lock is held. Wakers are code of others:
/// they may call back, and they may panic.
#[derive(Debug, Default)]
#[must_use = "they wait"]
pub(crate) struct Wakers {
    /// Mostly there is only one.
    first: Option<Waker>,
    rest: Vec<Waker>,
}

impl Wakers {
    pub(crate) fn push(&mut self, waker: Waker) {
        match &self.first {
            None => self.first = Some(waker),
            Some(_) => self.rest.push(waker),
        }
    }

    /// Wakes all of them, also if one panics. Panics then, when that is done.
    pub(crate) fn wake(self) {
        let mut panic = None;
        for waker in self.first.into_iter().chain(self.rest) {
            if let Err(caught) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
                panic.get_or_insert(caught);
            }
        }
        if let Some(panic) = panic.filter(|_| !thread::panicking()) {
            resume_unwind(panic);
        }
    }
}

/// Remembers whom to wake. Returns the former one, to be dropped when no lock is held: with its last waker, a task may
/// be dropped.
#[must_use]
pub(crate) fn remember(kept: &mut Option<Waker>, waker: &Waker) -> Option<Waker> {
    match kept {
        Some(kept) if kept.will_wake(waker) => None,
        _ => kept.replace(waker.clone()),
    }
}

impl Extend<Waker> for Wakers {
    fn extend<T: IntoIterator<Item = Waker>>(&mut self, wakers: T) {
        wakers.into_iter().for_each(|waker| self.push(waker));
    }
}
