//! The guard of a call in flight.

use std::fmt;
use std::sync::Arc;

use super::endpoint::Host;
use crate::context;
use crate::telemetry::Ended;
use crate::{Error, Outcome, Permit};

/// A call in flight on an endpoint.
///
/// Dropped without an outcome, it counts as cancelled: it may raise the endpoint's latency estimate, never lower
/// it, unless its answer had begun.
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
        self.host.peers.name()
    }

    /// Records that an inner layer refused the call. Returns the endpoint if another one may take it.
    #[cold]
    pub(super) fn refused(mut self, error: &Error) -> Option<Arc<Host>> {
        let host = Arc::clone(&self.host);
        let may_go_on = host.refused(error, context::now());
        self.stage = Stage::Over;
        let now = context::fresh_now();
        host.give_back(self.began, now);
        host.count(|| Ended::Rejected, now);
        may_go_on.then_some(host)
    }

    #[inline]
    fn end(&mut self, outcome: Outcome, end: impl FnOnce() -> Ended) {
        let (host, began) = (&self.host, self.began);
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        if stage == Stage::Over {
            return;
        }
        let now = context::fresh_now();
        if stage == Stage::Waits {
            host.report(outcome, began, now);
        } else {
            host.report_stream(outcome, began, now);
        }
        host.count(end, now);
    }
}

impl Permit for Flight {
    #[inline]
    fn resolve(mut self, outcome: Outcome) {
        self.end(outcome, || outcome.into());
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
        self.end(Outcome::Cancelled, || Ended::Cancelled);
    }
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight")
            .field("endpoint", &self.host.key)
            .finish_non_exhaustive()
    }
}
