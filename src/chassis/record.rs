//! The record of an attempt, and the clock reading that its parts share.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use crate::algorithm::evidence::{Early, Evidence};
use crate::context::{self, GivenUp};
use crate::nanos::nanos_between;
use crate::{Error, ErrorKind, Outcome};

/// A moment in the life of a call.
///
/// The clock is read when a part first asks for the time, and at most once. All parts share the reading. Without a
/// question there is no reading.
#[derive(Clone, Debug)]
pub struct At {
    origin: Instant,
    now: Cell<Option<Instant>>,
    /// A conversion costs as much as a reading, so it is shared as well.
    nanos: Cell<Option<u64>>,
}

impl At {
    #[inline]
    pub(crate) fn unread(origin: Instant) -> Self {
        Self {
            origin,
            now: Cell::new(None),
            nanos: Cell::new(None),
        }
    }

    #[inline]
    pub(super) fn read_as(origin: Instant, now: Instant) -> Self {
        Self {
            origin,
            now: Cell::new(Some(now)),
            nanos: Cell::new(None),
        }
    }

    /// Returns the time.
    #[inline(always)]
    #[must_use]
    pub fn instant(&self) -> Instant {
        self.now.get().unwrap_or_else(|| {
            let now = Instant::now();
            self.now.set(Some(now));
            now
        })
    }

    /// Returns the nanoseconds since the layer was built.
    #[inline(always)]
    #[must_use]
    pub fn nanos(&self) -> u64 {
        self.nanos.get().unwrap_or_else(|| {
            let nanos = nanos_between(self.origin, self.instant());
            self.nanos.set(Some(nanos));
            nanos
        })
    }

    /// Returns the [nanoseconds](Self::nanos), if a part has asked for them.
    #[inline(always)]
    #[must_use]
    pub fn known_nanos(&self) -> Option<u64> {
        self.nanos.get()
    }
}

/// The cause that ended an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndedBy {
    /// The service answered, or failed.
    Service,
    /// The service answered that the deadline of the call had passed; see
    /// [`Classify::is_deadline_exceeded`](crate::Classify::is_deadline_exceeded).
    DeadlineAnswer,
    /// The timeout of the attempt was over.
    Timeout,
    /// The deadline of the operation passed, or its response timeout was over, or a deadline of an inner layer passed, or
    /// a [timeout](crate::CallOptions::timeout) of the call that is shorter than that of the stack.
    Deadline,
    /// The caller dropped the call, or user code inside it panicked.
    Caller,
    /// Another attempt of the operation was faster.
    Hedge,
    /// A part or an inner layer refused the attempt.
    Refusal,
}

impl From<EndedBy> for GivenUp {
    fn from(ended_by: EndedBy) -> Self {
        match ended_by {
            EndedBy::Hedge => Self::Lost,
            _ => Self::Early,
        }
    }
}

/// Evidence of whether the service has seen a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sent {
    /// The service answered it.
    Answered,
    /// There is a proof that the service has not seen it.
    No,
    /// The service may have acted on it.
    Unknown,
}

/// The record of an attempt that has ended. It is filled once, and all parts read the same.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Record<'a> {
    /// The outcome, as a statement about the service.
    pub outcome: Outcome,
    /// The cause of its end.
    pub ended_by: EndedBy,
    /// The knowledge about whether the service has seen the request.
    pub sent: Sent,
    /// The moment at which it ended.
    pub at: &'a At,
    /// Time at which the request was sent to the service, in nanoseconds since the layer was built; or [`UNTIMED`].
    sent_at: u64,
}

/// Stands for a time that no part needs.
pub(super) const UNTIMED: u64 = u64::MAX;

impl<'a> Record<'a> {
    #[inline(always)]
    pub(super) fn new(outcome: Outcome, ended_by: EndedBy, at: &'a At, sent_at: u64) -> Self {
        let sent = match ended_by {
            EndedBy::Service | EndedBy::DeadlineAnswer => Sent::Answered,
            EndedBy::Refusal => Sent::No,
            _ => Sent::Unknown,
        };
        Self {
            outcome,
            ended_by,
            sent,
            at,
            sent_at,
        }
    }

    /// Returns the time for which the service had the request, in nanoseconds, without the waits for parts. 0 if no
    /// part [is timed](super::Part::is_timed).
    #[inline]
    #[must_use]
    pub fn nanos(&self) -> u64 {
        if self.sent_at == UNTIMED {
            0
        } else {
            self.at.nanos().saturating_sub(self.sent_at)
        }
    }

    /// Returns whether an inner balancer has other endpoints than the one that had the request. Only an operation knows
    /// it (retry, hedge, the standard stack), until its answer has arrived.
    #[must_use]
    pub fn has_other_endpoints(&self) -> bool {
        context::tried().has_others()
    }

    /// Returns the time for which the service had the request.
    #[inline]
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.nanos())
    }

    /// Returns the outcome of an attempt that has ended without a good answer, by the evidence about the service.
    ///
    /// An attempt that ended before its timeout, by a deadline or because its caller dropped it, is a failure only if
    /// the service had enough time for it. Otherwise it is cancelled. The same holds if the service itself says that
    /// the deadline has passed.
    #[cold]
    #[inline(never)]
    pub(crate) fn outcome_by(&self, evidence: &Evidence) -> Outcome {
        let (ended, had) = (self.at.nanos(), self.nanos());
        let began = ended.saturating_sub(had);
        let early = match self.ended_by {
            EndedBy::Deadline | EndedBy::Caller => Some(Early {
                began,
                ended,
                is_answer: false,
            }),
            EndedBy::DeadlineAnswer => context::deadline().and_then(|deadline| {
                let deadline = nanos_between(self.at.origin, deadline);
                evidence.end_at_deadline(began, ended, deadline)
            }),
            _ => None,
        };
        let says_nothing = matches!(self.outcome, Outcome::Success | Outcome::Ignored);
        let Some(early) = early.filter(|_| !says_nothing) else {
            return self.outcome;
        };
        match (evidence.is_failure(early), self.outcome) {
            (true, Outcome::Cancelled) => Outcome::Failure,
            (true, outcome) => outcome,
            (false, _) => Outcome::Cancelled,
        }
    }
}

/// Returns the cause that ended a call with `error`, and whether the service has seen the request.
#[cold]
#[inline(never)]
pub(super) fn of_error(error: &Error) -> (EndedBy, Sent) {
    let sent = if error.was_sent() {
        Sent::Unknown
    } else {
        Sent::No
    };
    let ended_by = if error.is_rejection() {
        EndedBy::Refusal
    } else if error.kind() == ErrorKind::DeadlineExceeded {
        EndedBy::Deadline
    } else if error.is_timeout() {
        EndedBy::Timeout
    } else {
        EndedBy::Service
    };
    (ended_by, sent)
}
