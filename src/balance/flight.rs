//! The guard of a call in flight.

use std::sync::Arc;

use tokio::time::Instant;

use super::endpoint::Host;
use super::pool::Set;
use crate::context;
use crate::{Classify, Error, ErrorKind, Outcome, Permit};

/// A call in flight on an endpoint.
///
/// A call that is dropped without an outcome counts as cancelled. Unless its answer had begun, it may raise the
/// endpoint's latency estimate, and never lowers it.
#[derive(Debug)]
#[must_use = "a permit that is dropped counts as cancelled"]
pub struct Flight {
    host: Arc<Host>,
    began: u64,
    counts: Counts,
    stage: Stage,
    is_one_of_many: bool,
}

/// The health in which a call counts. Only first attempts and their hedges count, because further attempts are made for
/// requests that may fail at every endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counts {
    Nowhere,
    ForEndpoint,
    /// Counts for the endpoint and for its group: there are several groups.
    ForEndpointAndGroup,
}

/// Progress of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waits,
    /// Its answer has begun, so its latency is known.
    Streams,
    Over,
}

impl Flight {
    /// Begins a call to one of the endpoints in `set` at `now`.
    #[inline]
    pub(super) fn begin<S>(host: &Arc<Host>, set: &Set<S>, now: u64) -> Self {
        host.begin(now);
        let counts = if context::attempt() > 1 {
            Counts::Nowhere
        } else if set.groups.len() > 1 {
            Counts::ForEndpointAndGroup
        } else {
            Counts::ForEndpoint
        };
        Self {
            host: Arc::clone(host),
            began: now,
            counts,
            stage: Stage::Waits,
            is_one_of_many: set.hosts.len() > 1,
        }
    }

    /// Returns the name of the balancer.
    pub(super) fn name(&self) -> &'static str {
        self.host.peers.metrics.name()
    }

    /// Ends the call with an error of the endpoint, or of a layer in front of it.
    #[cold]
    #[inline(never)]
    pub(super) fn failed<Res>(mut self, mut error: Error, classify: &impl Classify<Res>) -> Error {
        if error.kind() == ErrorKind::DeadlineExceeded && !error.is_rejection() {
            // The call ended early, and counts as if its caller had dropped it.
            self.cancel();
            return error;
        }
        if !error.is_rejection() {
            self.resolve(classify.classify(Err(&error)));
            return error;
        }
        self.stage = Stage::Over;
        let now = Instant::now();
        if self.host.refused(&error, self.began, now) && !error.is_adopted() {
            if self.is_one_of_many {
                // Another endpoint may take it, if there is a copy of the request: an outer retry has one.
                error.set_may_go_elsewhere();
            }
            if let Some(shortage) = self.host.peers.shortage(now) {
                error.set_shortage(shortage);
            }
        }
        error
    }

    /// Notes that the endpoint has answered with a failure. If the failure only says that the deadline of the call had
    /// passed, the call may end here without counting against the endpoint.
    #[cold]
    #[inline(never)]
    pub(super) fn answered_with_failure<Res>(
        &mut self,
        response: &Res,
        classify: &impl Classify<Res>,
    ) {
        if classify.is_deadline_exceeded(response)
            && !self.host.is_failure_at_deadline(self.began, Instant::now())
        {
            self.end(Outcome::Ignored);
        }
    }

    #[cold]
    #[inline(never)]
    fn cancel(&mut self) {
        let is_waiting = self.stage == Stage::Waits;
        self.end(Outcome::Cancelled);
        if is_waiting {
            self.host.given_up(self.began, self.counts, Instant::now());
        }
    }

    #[inline]
    fn end(&mut self, outcome: Outcome) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        if stage == Stage::Over {
            return;
        }
        let is_stream = stage == Stage::Streams;
        self.host
            .end(outcome, self.began, self.counts, is_stream, Instant::now());
    }
}

impl Permit for Flight {
    #[inline]
    fn resolve(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn exceed_deadline(mut self, outcome: Outcome) {
        let is_failure = self.host.is_failure_at_deadline(self.began, Instant::now());
        self.end(if is_failure {
            outcome
        } else {
            Outcome::Ignored
        });
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
