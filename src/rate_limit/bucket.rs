//! The tokens of a limit, whose rate and burst can change.

use crate::algorithm::gcra::{Gcra, Taken};
use crate::algorithm::rate::Rate;
use crate::sync::{Mutex, lock};

/// The settings that can be changed while the limit is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) rate: Rate,
    pub(super) burst: u32,
}

/// The tokens of a limit. Times are nanoseconds of its clock.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) gcra: Gcra,
    /// Locked to change the limits, and to count from a later origin.
    limits: Mutex<Limits>,
}

impl Bucket {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            gcra: Gcra::new(limits.rate, limits.burst),
            limits: Mutex::new(limits),
        }
    }

    /// Takes `cost` tokens, all or none.
    #[inline]
    pub(super) fn take(&self, now: u64, cost: u32) -> Taken {
        loop {
            match self.gcra.take(now, cost) {
                Taken::Stale => self.renew(now),
                taken => return taken,
            }
        }
    }

    /// Counts from a later origin. This happens once in minutes at rates of a billion a second, and once in months at
    /// rates below a million.
    #[cold]
    fn renew(&self, now: u64) {
        let _one_at_a_time = lock(&self.limits);
        self.gcra.renew(now);
    }

    pub(super) fn limits(&self) -> Limits {
        *lock(&self.limits)
    }

    /// Changes the limits, unless `change` finds that impossible.
    pub(super) fn change<E>(
        &self,
        now: u64,
        change: impl FnOnce(&mut Limits) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut limits = lock(&self.limits);
        let mut new = *limits;
        change(&mut new)?;
        self.gcra.set(new.rate, new.burst, now);
        *limits = new;
        Ok(())
    }

    /// Fills the bucket with all tokens.
    pub(super) fn reset(&self, now: u64) {
        let _one_at_a_time = lock(&self.limits);
        self.gcra.reset(now);
    }
}
