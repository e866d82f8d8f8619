//! The layer of retry.

use super::config::{Config, Settings};
use crate::chassis::{Operation, OperationLayer, Plan, PlanFor, Repeat};
use crate::error::or_panic;
use crate::{Budget, ByClone, ErrorsAreFailures};

/// Repeats failed calls. See the [module documentation](crate::retry).
///
/// All services made by one layer value, or by its clones, share one budget.
pub type RetryLayer<R = ByClone, K = ErrorsAreFailures> = OperationLayer<RetryPlan, R, K>;

/// A service whose failed calls are repeated. Made by [`RetryLayer`].
pub type Retry<S, R = ByClone, K = ErrorsAreFailures> = Operation<S, RetryPlan, R, K>;

/// The plan of a [`RetryLayer`]: attempts one after the other.
#[derive(Debug)]
pub struct RetryPlan(pub(super) Repeat);

impl Plan for RetryPlan {
    type Operation = ();
    type Attempt = ();
    type Times = ();
    type Hedging = ();
    type Timer = ();

    #[inline(always)]
    fn retry(&self) -> Option<&Repeat> {
        Some(&self.0)
    }
}

impl<Req> PlanFor<Req> for RetryPlan {}

impl RetryLayer {
    /// Makes a retry with the default settings and a budget of its own.
    ///
    /// # Panics
    ///
    /// If `name` is empty.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str) -> Self {
        or_panic(Self::config(name).build())
    }

    /// Begins to configure a retry.
    pub fn config(name: impl Into<String>) -> Config {
        Config::new(name, Settings::default(), ByClone)
    }
}

impl<R, K> RetryLayer<R, K> {
    /// Returns the budget that pays for retries, if there is one.
    #[must_use]
    pub fn budget(&self) -> Option<&Budget> {
        self.plan().0.budget.as_ref()
    }
}
