//! The permit of one operation.

use std::sync::Arc;

use tokio::time::Instant;

use super::service::Policy;
use super::shared::Shared;
use crate::Outcome;
use crate::algorithm::sketch::Took;
use crate::budget::Gain;
use crate::context;
use crate::template::InnerTemplate;

/// Says whether this is not an attempt of an outer retry.
#[inline]
pub(super) fn is_alone() -> bool {
    context::attempt() == 0
}

/// Says whether an attempt that ended so is made again at once.
///
/// Where there is an outer retry, failures are its business; and a service that is overloaded wants
/// fewer calls, not more.
#[inline]
pub(super) fn repeats(outcome: Outcome) -> bool {
    outcome == Outcome::Failure && is_alone()
}

/// Stands for the time that the first attempt takes, and for the operation's place in the budget.
pub(super) struct Operation<S, R, K> {
    template: Arc<InnerTemplate<S, Policy<R, K>>>,
    /// When the first attempt began.
    began: Instant,
    /// When the last attempt so far began.
    sent_last: Instant,
    /// The first attempt is not over.
    is_first_open: bool,
    /// The first attempt waits in a queue of this crate.
    is_queued: bool,
    /// Its success brings tokens: the budget is not that of an outer retry, which sees to it.
    is_funding: bool,
    gain: Gain,
}

impl<S, R, K> Operation<S, R, K> {
    #[inline]
    pub(super) fn begin(template: &Arc<InnerTemplate<S, Policy<R, K>>>, now: Instant) -> Self {
        let operation = Self {
            template: Arc::clone(template),
            began: now,
            sent_last: now,
            is_first_open: true,
            is_queued: false,
            is_funding: !template.policy().shared.is_funded(),
            gain: Gain::Nothing,
        };
        if operation.is_funding {
            operation.shared().enter();
        }
        operation
    }

    #[inline]
    pub(super) fn template(&self) -> &InnerTemplate<S, Policy<R, K>> {
        &self.template
    }

    #[inline]
    pub(super) fn policy(&self) -> &Policy<R, K> {
        self.template.policy()
    }

    #[inline]
    pub(super) fn shared(&self) -> &Shared {
        &self.policy().shared
    }

    /// Leaves the budget to an outer retry, which a call over a buffer sees only now.
    #[inline]
    pub(super) fn note_funding(&mut self) {
        if self.is_funding && self.shared().is_funded() {
            self.shared().leave(Gain::Nothing);
            self.is_funding = false;
        }
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
            self.sent_last = self.began;
        }
    }

    /// When the last attempt so far began.
    #[inline]
    pub(super) fn sent_last(&self) -> Instant {
        self.sent_last
    }

    /// A hedge has been sent.
    pub(super) fn hedged(&mut self, now: Instant) {
        self.sent_last = now;
    }

    #[inline]
    pub(super) fn is_first_open(&self) -> bool {
        self.is_first_open
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
        if self.is_funding {
            self.shared().leave(self.gain);
        }
    }
}
