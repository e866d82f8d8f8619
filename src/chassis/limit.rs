//! A time that bounds a call, and the report of its end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::deadline::soonest;
use crate::event::EventKind;
use crate::nanos::{saturating_add, whole_nanos};
use crate::telemetry::table::{TIMEOUT, TIMEOUTS};
use crate::telemetry::{Handles, Initial, Instruments, Report, Series};
use crate::{Error, ErrorKind, Mode, context};

/// Reports the calls whose time is over.
#[derive(Clone, Debug)]
pub struct Limit {
    pub(crate) mode: Mode,
    pub(crate) metrics: Report<TimeoutMetrics>,
}

impl Limit {
    /// Reports a call that was ended after the time `limit`, or would have been with [`Mode::Enforce`].
    pub(crate) fn end(&self, limit: Option<Duration>, now: Instant) {
        let Self { mode, metrics } = self;
        metrics.timed_out(*mode, now);
        metrics.tell(|| EventKind::TimedOut { limit, mode: *mode });
    }
}

/// The time that the gauge shows, in nanoseconds; 0 if there is none. If several layers have one name, the gauge shows
/// the time of the last one.
#[derive(Debug, Default)]
pub(crate) struct TimeoutMetrics(AtomicU64);

impl Instruments for TimeoutMetrics {
    fn publish(&self, handles: &mut Handles) {
        let nanos = self.0.load(Ordering::Relaxed);
        if nanos > 0 {
            handles.set(&TIMEOUT, &[], Duration::from_nanos(nanos).as_secs_f64());
        }
    }
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

impl Series<TimeoutMetrics> {
    /// Returns the series of the layers of this name that end calls after `time`, or at an inherited deadline with
    /// `Duration::MAX`.
    pub(crate) fn of_time(name: &str, part: &'static str, time: Duration) -> &'static Self {
        let series = Self::of(name, part);
        if time != Duration::MAX {
            let shown = &series.levels().0;
            shown.store(whole_nanos(time), Ordering::Relaxed);
        }
        series.counting(Mode::Enforce)
    }

    /// Makes the counter of timeouts with this mode known, and returns the series.
    pub(crate) fn counting(&'static self, mode: Mode) -> &'static Self {
        self.begin([Initial::of(&TIMEOUTS, &[mode.label()])])
    }

    /// Does the same as [`of_time`](Self::of_time) for layers that also refuse calls whose deadline has passed.
    pub(crate) fn of_deadline(name: &str, part: &'static str, time: Duration) -> &'static Self {
        let refusals = Initial::rejections(ErrorKind::DeadlineExceeded, Mode::Enforce);
        Self::of_time(name, part, time).begin([refusals])
    }

    /// Notes that a call was given up.
    pub(crate) fn timed_out(&self, mode: Mode, now: Instant) {
        let mode = &[mode.label()];
        self.report(now, |handles| handles.count(&TIMEOUTS, mode));
    }
}
