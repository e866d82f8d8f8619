//! The permit of an admitted call.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

use super::shared::Shared;
use crate::{Outcome, Permit};

/// A call that the bulkhead let in. Gives its place back when the call is over or the permit is dropped.
#[must_use = "a permit that is dropped is given back"]
pub struct BulkheadPermit {
    /// Where it goes back to. `None` when it has, or came from nowhere.
    shared: Option<Arc<Shared>>,
    started: Option<Started>,
}

/// How it was when a call began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Started {
    /// Nanoseconds since the origin of the bulkhead, and one: no reading of the clock is zero.
    pub(super) at: NonZeroU64,
    /// Itself included.
    pub(super) in_flight: u32,
    /// Microseconds until the head of the answer came, and one. `None` until then, and where the answer is all that is
    /// waited for.
    pub(super) head: Option<NonZeroU32>,
}

impl BulkheadPermit {
    #[inline]
    pub(super) fn new(shared: Arc<Shared>, started: Option<Started>) -> Self {
        let shared = Some(shared);
        Self { shared, started }
    }

    /// For a call that is not counted.
    #[inline]
    pub(super) fn none() -> Self {
        Self {
            shared: None,
            started: None,
        }
    }

    /// The name of the layer.
    pub(super) fn name(&self) -> &'static str {
        self.shared.as_ref().map_or("", |shared| shared.name())
    }

    #[inline]
    fn end(&mut self, outcome: Outcome, timed_out: bool) {
        let Some(shared) = self.shared.take() else {
            return;
        };
        match self.started {
            None => shared.leave(),
            Some(started) => shared.end(started, outcome, timed_out),
        }
    }
}

impl Permit for BulkheadPermit {
    #[inline]
    fn resolve(mut self, outcome: Outcome) {
        self.end(outcome, false);
    }

    fn head(&mut self, _outcome: Outcome) {
        if let (Some(shared), Some(started)) = (&self.shared, &mut self.started) {
            shared.answered(started);
        }
    }

    fn time_out(mut self, outcome: Outcome) {
        self.end(outcome, true);
    }
}

impl Drop for BulkheadPermit {
    #[inline]
    fn drop(&mut self) {
        self.end(Outcome::Cancelled, false);
    }
}

impl fmt::Debug for BulkheadPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkheadPermit")
            .field("is_held", &self.shared.is_some())
            .field("started", &self.started)
            .finish()
    }
}
