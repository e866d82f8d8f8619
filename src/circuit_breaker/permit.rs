//! The guard of an admitted call.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use crate::algorithm::breaker::{Mark, Probe, Word};
use crate::{Error, ErrorKind, Outcome, Permit};

/// A call that the circuit breaker let through.
///
/// Dropped without an outcome, it counts as cancelled: it says nothing about the service, and the place
/// of a probe is free again.
#[must_use = "a permit that is dropped counts as cancelled"]
pub struct BreakerPermit {
    shared: Option<Arc<Shared>>,
    kind: Kind,
}

/// A call was not let through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rejected {
    pub(super) retry_after: Option<Duration>,
}

impl Rejected {
    pub(super) fn error(self, name: &'static str) -> Error {
        Error::rejected(ErrorKind::CircuitOpen, name, self.retry_after)
    }
}

/// How long a call takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Timing {
    /// It does not matter.
    Off,
    /// It waits in a queue of this crate, and begins when it does no longer.
    Queued,
    /// It began then, and its answer has not.
    Since(u64),
    /// Its answer began in time.
    Fast,
    /// Its answer did not begin in time.
    Slow,
}

/// How a call was let through.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Let through while the breaker was closed and its word was this.
    Counted {
        word: Word,
        timing: Timing,
    },
    /// The same, and counted as a success, because the head of its answer was one.
    Answered {
        word: Word,
        mark: Mark,
    },
    Probe {
        probe: Probe,
        timing: Timing,
    },
    /// A probe that counts as a success, because the head of its answer was one.
    Proven {
        probe: Probe,
    },
    /// Let through although it would have been rejected, or over.
    Uncounted,
}

impl Permit for BreakerPermit {
    #[inline]
    fn resolve(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn head(&mut self, outcome: Outcome) {
        let Some(shared) = &self.shared else {
            return;
        };
        if outcome.is_failure() {
            // Whatever the rest of it is.
            self.end(outcome);
            return;
        }
        match &mut self.kind {
            Kind::Counted { word, timing } => {
                shared.stop(timing);
                if outcome == Outcome::Success {
                    let (word, timing) = (*word, *timing);
                    self.kind = Kind::Uncounted;
                    if let Some(mark) = shared.count_head(word, timing) {
                        self.kind = Kind::Answered { word, mark };
                    }
                }
            }
            Kind::Probe { probe, timing } => {
                shared.stop(timing);
                if outcome == Outcome::Success {
                    let (probe, timing) = (*probe, *timing);
                    self.kind = match timing {
                        Timing::Slow => Kind::Uncounted,
                        _ => Kind::Proven { probe },
                    };
                    shared.end_probe(probe, outcome, timing);
                }
            }
            Kind::Answered { .. } | Kind::Proven { .. } | Kind::Uncounted => {}
        }
    }
}

impl BreakerPermit {
    /// The name of the layer.
    pub(super) fn name(&self) -> &'static str {
        self.shared.as_ref().map_or("", |shared| shared.name())
    }

    #[inline]
    pub(super) fn new(shared: Arc<Shared>, kind: Kind) -> Self {
        Self {
            shared: Some(shared),
            kind,
        }
    }

    /// The permit of a call that no breaker has let through.
    #[inline]
    pub(super) fn none() -> Self {
        Self {
            shared: None,
            kind: Kind::Uncounted,
        }
    }

    /// Says whether it matters how long the call takes.
    #[inline]
    pub(super) fn is_timed(&self) -> bool {
        match self.kind {
            Kind::Counted { timing, .. } | Kind::Probe { timing, .. } => {
                !matches!(timing, Timing::Off)
            }
            Kind::Answered { .. } | Kind::Proven { .. } | Kind::Uncounted => false,
        }
    }

    /// Notes whether the call waits in a queue of this crate. It begins when it does no longer.
    pub(super) fn note_queued(&mut self, is_queued: bool) {
        let (Some(shared), Kind::Counted { timing, .. } | Kind::Probe { timing, .. }) =
            (&self.shared, &mut self.kind)
        else {
            return;
        };
        if is_queued {
            *timing = Timing::Queued;
        } else if matches!(timing, Timing::Queued) {
            *timing = Timing::Since(shared.fresh_nanos());
        }
    }

    #[inline]
    fn end(&mut self, outcome: Outcome) {
        let Some(shared) = self.shared.take() else {
            return;
        };
        match self.kind {
            Kind::Uncounted => {}
            Kind::Counted { word, timing } => shared.count(word, outcome, timing),
            Kind::Answered { word, mark } => shared.count_rest(word, mark, outcome),
            Kind::Probe { probe, timing } => shared.end_probe(probe, outcome, timing),
            Kind::Proven { probe } => shared.disprove(probe, outcome),
        }
    }
}

impl Drop for BreakerPermit {
    #[inline]
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

impl fmt::Debug for BreakerPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BreakerPermit").field(&self.kind).finish()
    }
}
