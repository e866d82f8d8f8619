//! The guard of a call in flight.

use std::fmt;
use std::sync::Arc;

use super::endpoint::Member;
use crate::context;
use crate::{Error, Outcome, Token};

/// A call in flight on an endpoint.
///
/// Dropped without an outcome, it counts as cancelled: it may raise the endpoint's latency estimate, never lower
/// it, unless its answer had begun.
#[must_use = "a token that is dropped counts as cancelled"]
pub struct Flight {
    member: Arc<Member>,
    began: u64,
    stage: Stage,
}

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waits,
    /// Its answer has begun: what it took is known.
    Streams,
    Over,
}

impl Flight {
    /// A call that begins at `began`.
    #[inline]
    pub(super) fn begin(member: &Arc<Member>, began: u64) -> Self {
        member.load.begin(began);
        Self {
            member: Arc::clone(member),
            began,
            stage: Stage::Waits,
        }
    }

    /// Records that a layer further in refused the call. Returns `true` if another endpoint may take it.
    #[cold]
    pub(super) fn refused(self, error: &Error) -> bool {
        let may_go_on = self.member.refused(error, context::now());
        self.resolve(Outcome::Ignored);
        may_go_on
    }

    #[inline]
    fn end(&mut self, outcome: Outcome) {
        let (member, began) = (&self.member, self.began);
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Waits => member.report(outcome, began, context::fresh_now()),
            Stage::Streams => member.report_stream(outcome, began, context::fresh_now()),
            Stage::Over => {}
        }
    }
}

impl Token for Flight {
    #[inline]
    fn resolve(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn head(&mut self, outcome: Outcome) {
        if self.stage == Stage::Waits {
            self.stage = Stage::Streams;
            self.member.head(outcome, self.began, context::fresh_now());
        }
    }
}

impl Drop for Flight {
    #[inline]
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight")
            .field("endpoint", &self.member.key)
            .finish_non_exhaustive()
    }
}
