//! What an operation may do beside a single attempt.

use std::sync::Arc;
use std::time::Duration;

use crate::Budget;
use crate::chassis::Part;
use crate::hedge;
use crate::random::Random;
use crate::retry::{RetryMetrics, Settings};
use crate::telemetry::Series;
use crate::timeout::TimeoutMetrics;

/// The moves of an operation. What a plan does not have costs nothing.
pub trait Plan: Send + Sync + 'static {
    /// The parts of the whole operation.
    type Operation: Part;
    /// The parts of each attempt.
    type Attempt: Part;

    /// The time of the operation. With `Duration::MAX` it ends at an inherited deadline alone.
    #[doc(hidden)]
    #[inline(always)]
    fn deadline(&self) -> Option<&Limit> {
        None
    }

    /// The time of an attempt.
    #[doc(hidden)]
    #[inline(always)]
    fn timeout(&self) -> Option<&Limit> {
        None
    }

    #[doc(hidden)]
    #[inline(always)]
    fn retry(&self) -> Option<&Repeat> {
        None
    }

    #[doc(hidden)]
    #[inline(always)]
    fn hedge(&self) -> Option<&Arc<hedge::Shared>> {
        None
    }
}

/// A time, and where it is reported that it was over.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub(crate) time: Duration,
    pub(crate) metrics: &'static Series<TimeoutMetrics>,
}

/// Retries: when, how often, and paid from what.
#[derive(Debug)]
pub struct Repeat {
    pub(crate) settings: Settings,
    pub(crate) budget: Option<Budget>,
    pub(crate) random: Random,
    pub(crate) metrics: &'static Series<RetryMetrics>,
}

impl Repeat {
    /// The budget that attempts are paid from, for inner layers that could pay as well.
    #[inline]
    pub(super) fn budget_id(&self) -> usize {
        self.budget.as_ref().map_or(0, Budget::id)
    }

    /// Returns whether the attempts are made by an outer retry.
    #[inline]
    pub(super) fn is_nested(&self) -> bool {
        crate::context::attempt() > 0 && !self.settings.retry_nested
    }
}
