//! A time that bounds a call, and the report of its end.

use std::time::Duration;

use tokio::time::Instant;

use crate::deadline::soonest;
use crate::nanos::saturating_add;
use crate::telemetry::Series;
use crate::telemetry::table::TIMEOUTS;
use crate::{Error, ErrorKind, context};

/// A time, and the metrics that report its end.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub(crate) time: Duration,
    pub(crate) metrics: &'static Series,
}

/// The span of an operation: the times at which it began and must be over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// `None` if the operation got its deadline after it began, and has no other time.
    pub(crate) began: Option<Instant>,
    pub(crate) deadline: Option<Instant>,
}

impl Span {
    /// Begins an operation with this time, or with the time up to the deadline in force if this is shorter. With
    /// `Duration::MAX` it has no deadline of its own.
    ///
    /// # Errors
    ///
    /// The present time, if the deadline has passed.
    #[inline(always)]
    pub(crate) fn begin(
        &mut self,
        time: Duration,
        now: impl FnOnce() -> Instant,
    ) -> Result<(), Instant> {
        let inherited = context::deadline();
        if time == Duration::MAX && inherited.is_none() {
            return Ok(());
        }
        let now = now();
        let deadline = soonest(inherited, saturating_add(now, time));
        (self.began, self.deadline) = (Some(now), Some(deadline));
        if deadline <= now { Err(now) } else { Ok(()) }
    }

    /// Adopts a deadline that is in force when the operation is polled. Returns whether it is sooner than the known
    /// one.
    #[inline(always)]
    pub(crate) fn renew(&mut self) -> bool {
        let Some(inherited) = context::deadline() else {
            return false;
        };
        let is_sooner = self.deadline.is_none_or(|deadline| inherited < deadline);
        self.deadline = Some(soonest(self.deadline, inherited));
        is_sooner
    }

    /// Returns the error of an operation whose deadline has passed.
    #[cold]
    pub(crate) fn error(&self, name: &'static str) -> Error {
        match (self.began, self.deadline) {
            (Some(began), Some(deadline)) => {
                let allowed = deadline.saturating_duration_since(began);
                Error::timed_out(ErrorKind::DeadlineExceeded, name, allowed)
            }
            _ => Error::late(name),
        }
    }
}

impl Series {
    /// Notes that a call was given up.
    pub(crate) fn timed_out(&self, now: Instant) {
        self.report(now, |handles| handles.count(&TIMEOUTS, &[]));
    }
}
