//! The guard of an admitted call.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use super::state::Probe;
use crate::{Error, ErrorKind, Outcome, Token};

/// A call that the circuit breaker let through.
///
/// Dropped without an outcome, it counts as cancelled: it says nothing about the service, and the place
/// of a probe is free again.
#[must_use = "a token that is dropped counts as cancelled"]
pub struct Permit {
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

/// How a call was let through.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Let through while the breaker was closed and its word was this; when, if that matters.
    Counted {
        word: u64,
        started: Option<u64>,
    },
    Probe {
        probe: Probe,
        started: Option<u64>,
    },
    /// Let through although it would have been rejected, or over.
    Uncounted,
}

impl Token for Permit {
    #[inline]
    fn resolve(mut self, outcome: Outcome) {
        self.end(outcome);
    }
}

impl Permit {
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

    #[inline]
    fn end(&mut self, outcome: Outcome) {
        let Some(shared) = &self.shared else {
            return;
        };
        match std::mem::replace(&mut self.kind, Kind::Uncounted) {
            Kind::Uncounted => {}
            Kind::Counted { word, started } => shared.count(word, outcome, started),
            Kind::Probe { probe, started } => shared.end_probe(probe, outcome, started),
        }
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Permit").field(&self.kind).finish()
    }
}
