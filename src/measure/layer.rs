//! The layer that measures.

use std::mem;
use std::time::Duration;

use super::metrics::{ATTEMPT, MeasureMetrics, OPERATION};
use crate::chassis::{
    Admit, At, EndedBy, OperationPart, Part, PartFor, PartLayer, PartService, Record,
};
use crate::error::{Check, or_panic};
use crate::telemetry::{Ended, Series};
use crate::{CompleteOnResponse, ErrorsAreFailures};

/// Records rate, errors and duration of calls. See the [module documentation](crate::measure).
pub type MeasureLayer<K = ErrorsAreFailures, C = CompleteOnResponse> = PartLayer<Meter, K, C>;

/// A service whose calls are measured. Made by [`MeasureLayer`].
pub type Measure<S, K = ErrorsAreFailures, C = CompleteOnResponse> = PartService<S, Meter, K, C>;

impl MeasureLayer {
    /// Counts operations on `name`: the outermost layer of a stack.
    ///
    /// # Panics
    ///
    /// If `name` is empty.
    #[must_use]
    #[track_caller]
    pub fn operation(name: &str) -> Self {
        Self::of_meter(name, Meter::operation)
    }

    /// Counts attempts to reach `name`: the innermost layer of a stack.
    ///
    /// # Panics
    ///
    /// If `name` is empty.
    #[must_use]
    #[track_caller]
    pub fn attempt(name: &str) -> Self {
        Self::of_meter(name, Meter::attempt)
    }

    #[track_caller]
    fn of_meter(name: &str, meter: fn(&str) -> Meter) -> Self {
        or_panic(Check::new("measure", name));
        let meter = meter(name);
        Self::of(meter.metrics.name(), meter)
    }
}

/// A measurement, as a part of what it measures.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    metrics: &'static Series<MeasureMetrics>,
}

/// A call that is measured: the nanoseconds at which it began, and one. 0 for a call that is not, or is counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured(u64);

impl Meter {
    pub(crate) fn operation(name: &str) -> Self {
        Self {
            metrics: Series::of(name, OPERATION),
        }
    }

    pub(crate) fn attempt(name: &str) -> Self {
        Self {
            metrics: Series::of(name, ATTEMPT),
        }
    }
}

impl Part for Meter {
    type Ask = ();
    type Permit = Measured;

    #[inline(always)]
    fn admit(&self, (): (), permit: &mut Measured, at: &At) -> Admit {
        self.begin(permit, at);
        Admit::Go
    }

    #[inline(always)]
    fn settle(&self, permit: &mut Measured, record: &Record<'_>) {
        let began = mem::take(&mut permit.0);
        if began == 0 {
            return;
        }
        let end = match record.ended_by {
            EndedBy::Refusal => Ended::Rejected,
            _ => Ended::from(record.outcome),
        };
        let ended = record.at.nanos().saturating_add(1);
        let duration = Duration::from_nanos(ended.saturating_sub(began));
        let now = record.at.instant();
        self.metrics.ended(end, duration, now);
    }
}

impl OperationPart for Meter {
    #[inline(always)]
    fn begin(&self, permit: &mut Measured, at: &At) {
        permit.0 = at.nanos().saturating_add(1);
    }
}

impl<Req> PartFor<Req> for Meter {
    #[inline(always)]
    fn ask(&self, _: &Req) {}
}
