//! The guard of a call in flight.

use std::sync::Arc;

use super::endpoint::Host;
use crate::context;
use crate::{Error, Outcome, Permit};

/// A call in flight on an endpoint.
///
/// Dropped without an outcome, it counts as cancelled: it may raise the endpoint's latency estimate, never lower
/// it, unless its answer had begun.
#[derive(Debug)]
#[must_use = "a permit that is dropped counts as cancelled"]
pub struct Flight {
    host: Arc<Host>,
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
    pub(super) fn begin(host: &Arc<Host>, began: u64) -> Self {
        host.begin(began);
        Self {
            host: Arc::clone(host),
            began,
            stage: Stage::Waits,
        }
    }

    /// The name of the balancer.
    pub(super) fn name(&self) -> &'static str {
        self.host.peers.metrics.name()
    }

    /// Records that an inner layer refused the call. Returns the endpoint if another one may take it.
    #[cold]
    pub(super) fn refused(mut self, error: &Error) -> Option<Arc<Host>> {
        let may_go_on = self.host.refused(error, context::now());
        self.stage = Stage::Over;
        self.host.give_back(self.began, context::fresh_now());
        may_go_on.then(|| Arc::clone(&self.host))
    }

    #[cold]
    #[inline(never)]
    fn cancel(&mut self) {
        let is_waiting = self.stage == Stage::Waits;
        self.end(Outcome::Cancelled);
        if is_waiting {
            self.host.given_up(self.began, context::fresh_now());
        }
    }

    #[inline]
    fn end(&mut self, outcome: Outcome) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        if stage == Stage::Over {
            return;
        }
        let now = context::fresh_now();
        if stage == Stage::Waits {
            self.host.end(outcome, self.began, now);
        } else {
            self.host.end_stream(outcome, self.began, now);
        }
    }
}

impl Permit for Flight {
    #[inline]
    fn resolve(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn head(&mut self, outcome: Outcome) {
        if self.stage == Stage::Waits {
            self.stage = Stage::Streams;
            self.host.head(outcome, self.began, context::fresh_now());
        }
    }
}

impl Drop for Flight {
    #[inline]
    fn drop(&mut self) {
        if self.stage != Stage::Over {
            self.cancel();
        }
    }
}
