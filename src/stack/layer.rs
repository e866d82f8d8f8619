//! The layer of the standard stack, and its handle.

use std::sync::Arc;

use crate::bulkhead::{self, Compartment};
use crate::chassis::{Hedging, Limit, Operation, OperationLayer, Plan, Repeat, Times};
use crate::circuit_breaker::{self, Breaker};
use crate::measure::Meter;
use crate::rate_limit::{self, RateLimiter};
use crate::timer::Timer;
use crate::{Availability, Budget, ByClone, CompleteOnResponse, ErrorsAreFailures, hedge};

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
    pub(super) hedge: Option<Arc<hedge::Shared>>,
    pub(super) timeout: Option<Limit>,
    pub(super) budget: Budget,
}

/// The parts that each attempt passes, from the outside: circuit breaker, rate limit, bulkhead, measure.
pub type StandardParts = (
    Option<Breaker>,
    (Option<RateLimiter>, (Option<Compartment>, Option<Meter>)),
);

impl Plan for StandardPlan {
    type Operation = Option<Meter>;
    type Attempt = StandardParts;
    type Times = Times;
    type Hedging = Hedging;
    type Timer = Timer;

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
    fn hedge(&self) -> Option<&Arc<hedge::Shared>> {
        self.hedge.as_ref()
    }
}

impl<R, K, C> StandardLayer<R, K, C> {
    /// A handle that reads and steers the parts.
    #[must_use]
    pub fn handle(&self) -> Handle {
        let (breaker, (rate_limit, (bulkhead, _))) = self.parts();
        let plan = self.plan();
        Handle {
            name: self.name(),
            breaker: breaker.as_ref().map(Breaker::handle),
            hedge: (plan.hedge.as_ref()).map(|hedge| hedge::Handle::of(hedge, self.origin())),
            rate_limit: rate_limit.as_ref().map(RateLimiter::handle),
            bulkhead: bulkhead.as_ref().map(Compartment::handle),
            budget: plan.budget.clone(),
        }
    }
}

/// Reads and steers the parts of a standard stack. Clones are handles of the same stack.
#[derive(Clone, Debug)]
pub struct Handle {
    name: &'static str,
    breaker: Option<circuit_breaker::Handle>,
    hedge: Option<hedge::Handle>,
    rate_limit: Option<rate_limit::Handle>,
    bulkhead: Option<bulkhead::Handle>,
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
        self.breaker.as_ref()
    }

    /// The hedge, if there is one.
    #[must_use]
    pub fn hedge(&self) -> Option<&hedge::Handle> {
        self.hedge.as_ref()
    }

    /// The rate limit, if there is one.
    #[must_use]
    pub fn rate_limit(&self) -> Option<&rate_limit::Handle> {
        self.rate_limit.as_ref()
    }

    /// The bulkhead, if there is one.
    #[must_use]
    pub fn bulkhead(&self) -> Option<&bulkhead::Handle> {
        self.bulkhead.as_ref()
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
        fn is_available<H: Availability>(part: Option<&H>) -> bool {
            part.is_none_or(Availability::is_available)
        }
        is_available(self.breaker.as_ref())
            && is_available(self.rate_limit.as_ref())
            && is_available(self.bulkhead.as_ref())
    }
}
