//! The layer of the standard stack, and its handle.

use std::sync::Arc;

use crate::chassis::{
    Hedger, Hedging, Kept, Limit, Operation, OperationLayer, Plan, Repeat, Times,
};
use crate::measure::Meter;
use crate::timer::Timer;
use crate::{
    Availability, Budget, ByClone, CompleteOnResponse, ErrorsAreFailures, bulkhead,
    circuit_breaker, hedge, rate_limit,
};

/// Protects the calls to one dependency. See the [module documentation](crate::stack).
///
/// All services made by one layer value, or by its clones, share the state of every part.
pub type StandardLayer<R = ByClone, K = ErrorsAreFailures, C = CompleteOnResponse> =
    OperationLayer<StandardPlan, R, K, C>;

/// A service behind the standard stack. Made by [`StandardLayer`].
///
/// `Clone`, and `Send` and `Sync` if the inner service is. The type can be written in a field:
///
#[cfg_attr(not(doctest), doc = include_str!("../snippets/standard_service.md"))]
pub type StandardService<S, R = ByClone, K = ErrorsAreFailures, C = CompleteOnResponse> =
    Operation<S, StandardPlan, R, K, C>;

/// The moves of a standard stack.
#[derive(Debug)]
pub struct StandardPlan {
    pub(super) deadline: Limit,
    pub(super) retry: Option<Repeat>,
    pub(super) hedge: Option<Arc<Hedger>>,
    pub(super) timeout: Option<Limit>,
    pub(super) budget: Budget,
}

/// The parts that each attempt passes, from the outside: circuit breaker, rate limit, bulkhead, measure.
pub type StandardParts = (
    Option<circuit_breaker::Handle>,
    (
        Option<rate_limit::Handle>,
        (Option<bulkhead::Handle>, Option<Meter>),
    ),
);

impl Plan for StandardPlan {
    type Operation = Option<Meter>;
    type Attempt = StandardParts;
    type Times = Kept<Times>;
    type Hedging = Kept<Hedging>;
    type Timer = Kept<Timer>;

    #[inline(always)]
    fn deadline(&self) -> Option<&Limit> {
        Some(&self.deadline)
    }

    #[inline(always)]
    fn timeout(&self) -> Option<&Limit> {
        self.timeout.as_ref()
    }

    #[inline(always)]
    fn retry(&self) -> Option<&Repeat> {
        self.retry.as_ref()
    }

    #[inline(always)]
    fn hedge(&self) -> Option<&Arc<Hedger>> {
        self.hedge.as_ref()
    }
}

impl<R, K, C> StandardLayer<R, K, C> {
    /// A handle that reads and steers the parts.
    #[must_use]
    pub fn handle(&self) -> Handle {
        let plan = self.plan();
        let hedge = plan.hedge.as_ref();
        Handle {
            name: self.name(),
            parts: self.parts().clone(),
            hedge: hedge.map(|hedge| hedge::Handle::of(hedge, self.origin())),
            budget: plan.budget.clone(),
        }
    }
}

/// Reads and steers the parts of a standard stack. Clones are handles of the same stack.
#[derive(Clone, Debug)]
pub struct Handle {
    name: &'static str,
    parts: StandardParts,
    hedge: Option<hedge::Handle>,
    budget: Budget,
}

impl Handle {
    /// The name of the stack.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The circuit breaker, if there is one.
    #[must_use]
    pub fn circuit_breaker(&self) -> Option<&circuit_breaker::Handle> {
        self.parts.0.as_ref()
    }

    /// The hedge, if there is one.
    #[must_use]
    pub fn hedge(&self) -> Option<&hedge::Handle> {
        self.hedge.as_ref()
    }

    /// The rate limit, if there is one.
    #[must_use]
    pub fn rate_limit(&self) -> Option<&rate_limit::Handle> {
        self.parts.1.0.as_ref()
    }

    /// The bulkhead, if there is one.
    #[must_use]
    pub fn bulkhead(&self) -> Option<&bulkhead::Handle> {
        self.parts.1.1.0.as_ref()
    }

    /// The budget that retries and hedges are paid from.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }
}

impl Availability for Handle {
    /// Returns `true` if no part would reject the next call.
    fn is_available(&self) -> bool {
        let breaker = self.circuit_breaker();
        breaker.is_none_or(Availability::is_available)
            && self.rate_limit().is_none_or(Availability::is_available)
            && self.bulkhead().is_none_or(Availability::is_available)
    }
}
