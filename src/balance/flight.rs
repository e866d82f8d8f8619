//! The guard of a call in flight.

use std::fmt;
use std::sync::Arc;

use super::endpoint::Member;
use crate::context;
use crate::telemetry::Ended;
use crate::{Error, Outcome, Token};

/// A call in flight on an endpoint.
///
/// Dropped without an outcome, it counts as cancelled: it may raise the endpoint's latency estimate, never lower
/// it.
#[must_use = "a token that is dropped counts as cancelled"]
pub struct Flight {
    member: Arc<Member>,
    began: u64,
    is_over: bool,
}

impl Flight {
    /// A call that begins at `began`.
    #[inline]
    pub(super) fn begin(member: &Arc<Member>, began: u64) -> Self {
        member.begin(began);
        Self {
            member: Arc::clone(member),
            began,
            is_over: false,
        }
    }

    /// Records that a layer further in refused the call. Returns the endpoint if another one may take it.
    #[cold]
    pub(super) fn refused(mut self, error: &Error) -> Option<Arc<Member>> {
        let member = Arc::clone(&self.member);
        let may_go_on = member.refused(error, context::now());
        self.end(Outcome::Ignored, Ended::Rejected);
        may_go_on.then_some(member)
    }

    #[inline]
    fn end(&mut self, outcome: Outcome, end: Ended) {
        if !std::mem::replace(&mut self.is_over, true) {
            let now = context::fresh_now();
            self.member.report(outcome, self.began, now);
            self.member.count(end, now);
        }
    }
}

impl Token for Flight {
    #[inline]
    fn resolve(mut self, outcome: Outcome) {
        self.end(outcome, outcome.into());
    }
}

impl Drop for Flight {
    #[inline]
    fn drop(&mut self) {
        self.end(Outcome::Cancelled, Ended::Cancelled);
    }
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight")
            .field("endpoint", &self.member.key)
            .finish_non_exhaustive()
    }
}
