//! Layer that measures.

use std::mem;
use std::time::Duration;

use crate::Error;
use crate::chassis::{
    Admit, At, EndedBy, OperationPart, Part, PartFor, PartLayer, PartService, Record,
};
use crate::error::{Check, or_panic};
use crate::telemetry::table::{CALL_DURATION, CALLS};
use crate::telemetry::{Initial, REJECTED, Series, TIMED_OUT};
use crate::{CompleteOnResponse, ErrorsAreFailures, Outcome};

/// The stages that are measured.
pub(crate) const OPERATION: &str = "operation";
pub(crate) const ATTEMPT: &str = "attempt";

/// Records rate, errors and duration of calls. See the [module documentation](crate::measure).
pub type MeasureLayer<K = ErrorsAreFailures, C = CompleteOnResponse> = PartLayer<Meter, K, C>;

/// A service whose calls are measured. Made by [`MeasureLayer`].
pub type Measure<S, K = ErrorsAreFailures, C = CompleteOnResponse> = PartService<S, Meter, K, C>;

impl MeasureLayer {
    /// Makes a layer that counts operations on `name`: the outermost layer of a stack.
    ///
    /// # Panics
    ///
    /// If `name` is empty.
    #[must_use]
    #[track_caller]
    pub fn operation(name: &str) -> Self {
        Self::of_stage(name, OPERATION)
    }

    /// Makes a layer that counts attempts to reach `name`: the innermost layer of a stack.
    ///
    /// # Panics
    ///
    /// If `name` is empty.
    #[must_use]
    #[track_caller]
    pub fn attempt(name: &str) -> Self {
        Self::of_stage(name, ATTEMPT)
    }

    #[track_caller]
    fn of_stage(name: &str, stage: &'static str) -> Self {
        or_panic(Check::new("measure", name));
        let meter = Meter::new(name, stage);
        Self::of(meter.metrics.name(), meter)
    }
}

/// The measure as a part of an attempt.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    metrics: &'static Series,
}

/// A measured call: the nanoseconds at which it began, plus one. 0 for a call that is not measured, or is counted
/// already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured(u64);

impl Meter {
    pub(crate) fn new(name: &str, stage: &'static str) -> Self {
        let outcomes = [
            Outcome::Success.label(),
            Outcome::Failure.label(),
            Outcome::Overload { retry_after: None }.label(),
            TIMED_OUT,
            REJECTED,
        ];
        let counters = outcomes.map(|outcome| Initial::of(&CALLS, &[outcome]));
        let metrics = Series::of(name, stage).begin(counters);
        Self { metrics }
    }
}

impl Part for Meter {
    type Ask = ();
    type Permit = Measured;

    #[inline(always)]
    fn admit(&self, (): (), permit: &mut Measured, at: &At) -> Admit {
        permit.0 = at.nanos().saturating_add(1);
        Admit::Go
    }

    #[inline(always)]
    fn settle(&self, permit: &mut Measured, record: &Record<'_>) {
        let began = mem::take(&mut permit.0);
        if began == 0 {
            return;
        }
        let outcome = match (record.ended_by, record.outcome) {
            (EndedBy::Refusal, _) => REJECTED,
            // The classifier may find that the caller is to blame.
            (EndedBy::Timeout | EndedBy::Deadline, Outcome::Failure | Outcome::Cancelled) => {
                TIMED_OUT
            }
            (_, outcome) => outcome.label(),
        };
        let ended = record.at.nanos().saturating_add(1);
        let duration = Duration::from_nanos(ended.saturating_sub(began));
        let outcome = &[outcome];
        self.metrics.report(record.at.instant(), |handles| {
            handles.count(&CALLS, outcome);
            handles.record(&CALL_DURATION, outcome, duration);
        });
    }
}

impl OperationPart for Meter {
    #[inline(always)]
    fn begin(&self, permit: &mut Measured, at: &At) -> Result<(), Error> {
        permit.0 = at.nanos().saturating_add(1);
        Ok(())
    }
}

impl<Req> PartFor<Req> for Meter {
    #[inline(always)]
    fn ask(&self, _: &Req) {}
}
