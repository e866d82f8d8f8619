//! A time that bounds a call, and the report that it was over.

use std::time::Duration;

use tokio::time::Instant;

use crate::deadline::soonest;
use crate::nanos::saturating_add;
use crate::telemetry::Series;
use crate::telemetry::table::TIMEOUTS;
use crate::{Error, ErrorKind, context};

/// A time, and where it is reported that it was over.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub(crate) time: Duration,
    pub(crate) metrics: &'static Series,
}

/// The span of an operation: when it began, and when it must be over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// `None` if the operation got its deadline later, and has no other time.
    pub(crate) began: Option<Instant>,
    pub(crate) deadline: Option<Instant>,
}

impl Span {
    /// Begins an operation that has this long, or until the deadline in force if that is sooner. With `Duration::MAX` it has
    /// no deadline of its own.
    ///
    /// # Errors
    ///
    /// The time, if the deadline has passed.
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

    /// Takes up a deadline that is in force when the operation is polled. Returns whether it is sooner than was known.
    #[inline(always)]
    pub(crate) fn renew(&mut self) -> bool {
        let Some(inherited) = context::deadline() else {
            return false;
        };
        let is_sooner = self.deadline.is_none_or(|deadline| inherited < deadline);
        self.deadline = Some(soonest(self.deadline, inherited));
        is_sooner
    }

    /// Returns the error of an operation whose deadline has come.
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
