//! The guard of a call in flight.

use std::sync::Arc;

use tokio::time::Instant;

use super::endpoint::Host;
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
    pub(super) fn refused(mut self, error: &Error, now: Instant) -> Option<Arc<Host>> {
        let may_go_on = self.host.refused(error, now);
        self.stage = Stage::Over;
        self.host.give_back(self.began, now);
        may_go_on.then(|| Arc::clone(&self.host))
    }

    #[cold]
    #[inline(never)]
    fn cancel(&mut self) {
        self.end(Outcome::Cancelled);
    }

    #[inline]
    fn end(&mut self, outcome: Outcome) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        if stage == Stage::Over {
            return;
        }
        let now = Instant::now();
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
            self.host.head(outcome, self.began, Instant::now());
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
