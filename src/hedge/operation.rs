//! The token of one operation.

use std::sync::Arc;

use tokio::time::Instant;

use super::service::{Pattern, Policy};
use super::shared::Shared;
use crate::Outcome;
use crate::budget::Gain;
use crate::context;
use crate::latency::Took;

/// Stands for the time that the first attempt takes, and for the operation's place in the budget.
pub(super) struct Operation<S, R, K> {
    pattern: Arc<Pattern<S, R, K>>,
    began: Instant,
    /// The first attempt is not over.
    is_first_open: bool,
    /// The first attempt waits in a queue of this crate.
    is_queued: bool,
    /// This is not an attempt of a retry further out, which keeps the budget for it.
    is_alone: bool,
    gain: Gain,
}

impl<S, R, K> Operation<S, R, K> {
    #[inline]
    pub(super) fn begin(pattern: &Arc<Pattern<S, R, K>>, now: Instant) -> Self {
        let operation = Self {
            pattern: Arc::clone(pattern),
            began: now,
            is_first_open: true,
            is_queued: false,
            is_alone: context::attempt() == 0,
            gain: Gain::Nothing,
        };
        if operation.is_alone {
            operation.shared().enter();
        }
        operation
    }

    #[inline]
    pub(super) fn pattern(&self) -> &Pattern<S, R, K> {
        &self.pattern
    }

    #[inline]
    pub(super) fn policy(&self) -> &Policy<R, K> {
        self.pattern.policy()
    }

    #[inline]
    pub(super) fn shared(&self) -> &Shared {
        &self.policy().shared
    }

    /// The first attempt waits in a queue of this crate.
    pub(super) fn queued(&mut self) {
        self.is_queued = true;
    }

    /// The first attempt does not wait in a queue of this crate. If it did, it begins now.
    #[inline]
    pub(super) fn sent(&mut self) {
        if self.is_queued {
            self.is_queued = false;
            self.began = context::fresh_now();
        }
    }

    /// When the first attempt began.
    #[inline]
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    #[inline]
    pub(super) fn is_first_open(&self) -> bool {
        self.is_first_open
    }

    /// Says whether this is not an attempt of a retry further out.
    #[inline]
    pub(super) fn is_alone(&self) -> bool {
        self.is_alone && context::attempt() == 0
    }

    /// Says whether an attempt that ended so is made again at once.
    ///
    /// Where there is a retry further out, failures are its business; and a service that is overloaded wants
    /// fewer calls, not more.
    #[inline]
    pub(super) fn repeats(&self, outcome: Outcome) -> bool {
        outcome == Outcome::Failure && self.is_alone()
    }

    /// The first attempt has ended. Only a success says how long a call takes.
    #[inline]
    pub(super) fn first_ended(&mut self, outcome: Outcome) {
        self.is_first_open = false;
        let now = context::fresh_now();
        let elapsed = now.saturating_duration_since(self.began);
        let took = if outcome == Outcome::Success {
            self.gain = Gain::FirstTry;
            Took::Exactly(elapsed)
        } else {
            Took::LongerThan(elapsed)
        };
        self.shared().record(now, took);
    }
}

impl<S, R, K> Drop for Operation<S, R, K> {
    #[inline]
    fn drop(&mut self) {
        if self.is_first_open {
            self.first_ended(Outcome::Cancelled);
        }
        if self.is_alone {
            self.shared().leave(self.gain);
        }
    }
}
