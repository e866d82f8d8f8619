//! The layer of the standard stack, and its handle.

use std::sync::Arc;

use super::adjust::Adjustable;
use super::streams::{NoStreams, Streams};
use crate::chassis::{
    Hedger, Hedging, Kept, Limit, Numbers, Operation, OperationLayer, Plan, PlanFor, Recipe,
    Repeat, Times,
};
use crate::debug::debug_fields;
use crate::measure::Meter;
use crate::timer::Timer;
use crate::{
    Availability, Budget, ByClone, CompleteOnResponse, ConfigError, ErrorsAreFailures, bulkhead,
    circuit_breaker, drain, hedge, rate_limit, settings,
};

/// Protects the calls to one dependency. See the [module documentation](crate::stack).
///
/// All services made by one layer value, or by its clones, share the state of every part.
pub type StandardLayer<R = ByClone, K = ErrorsAreFailures, C = CompleteOnResponse, D = NoStreams> =
    OperationLayer<StandardPlan<D>, R, K, C>;

/// A service behind the standard stack. Made by [`StandardLayer`].
///
/// It is `Clone`, and `Send` and `Sync` if the inner service is. You can name the type in a field:
///
#[cfg_attr(not(doctest), doc = include_str!("../snippets/standard_service.md"))]
pub type StandardService<
    S,
    R = ByClone,
    K = ErrorsAreFailures,
    C = CompleteOnResponse,
    D = NoStreams,
> = Operation<S, StandardPlan<D>, R, K, C>;

/// The plan of a standard stack. `D` declares streams.
pub struct StandardPlan<D = NoStreams> {
    pub(super) deadline: Limit,
    pub(super) response_timeout: Option<Limit>,
    pub(super) retry: Option<Repeat>,
    pub(super) hedge: Option<Arc<Hedger>>,
    pub(super) timeout: Option<Limit>,
    pub(super) budget: Budget,
    pub(super) streams: D,
    pub(super) adjustable: Arc<Adjustable>,
}

debug_fields!(
    [D] StandardPlan<D>
    { deadline, response_timeout, retry, hedge, timeout, budget }
);

/// The parts that each attempt passes, from the outside: circuit breaker, rate limit, bulkhead, measure.
pub type StandardParts = (
    Option<circuit_breaker::Handle>,
    (
        Option<rate_limit::Handle>,
        (Option<bulkhead::Handle>, Option<Meter>),
    ),
);

/// The parts that each operation passes: measure and drain.
pub type StandardOperation = (Option<Meter>, Option<drain::Handle>);

impl<D: Send + Sync + 'static> Plan for StandardPlan<D> {
    type Operation = StandardOperation;
    type Attempt = StandardParts;
    type Times = Kept<Times>;
    type Hedging = Kept<Hedging>;
    type Timer = Kept<Timer>;

    #[inline(always)]
    fn numbers(&self) -> Numbers {
        self.adjustable.numbers()
    }

    #[inline(always)]
    fn deadline(&self) -> Option<&Limit> {
        Some(&self.deadline)
    }

    #[inline(always)]
    fn response_timeout(&self) -> Option<&Limit> {
        self.response_timeout.as_ref()
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

impl<Req, D> PlanFor<Req> for StandardPlan<D>
where
    D: Streams<Req> + Send + Sync + 'static,
{
    #[inline(always)]
    fn is_stream(&self, request: &Req) -> bool {
        self.streams.is_stream(request)
    }
}

impl<R, K, C, D: Send + Sync + 'static> StandardLayer<R, K, C, D> {
    /// Returns a handle that reads and steers the parts.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::of(self.recipe())
    }
}

impl<S, R, K, C, D: Send + Sync + 'static> StandardService<S, R, K, C, D> {
    /// Returns a handle that reads and steers the parts.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::of(self.recipe())
    }
}

/// Reads and changes the parts of a standard stack. Clones are handles of the same stack.
#[derive(Clone, Debug)]
pub struct Handle {
    name: &'static str,
    parts: StandardParts,
    drain: Option<drain::Handle>,
    hedge: Option<hedge::Handle>,
    budget: Budget,
    adjustable: Arc<Adjustable>,
}

impl Handle {
    fn of<R, K, C, D>(recipe: &Recipe<StandardPlan<D>, R, K, C>) -> Self
    where
        D: Send + Sync + 'static,
    {
        let (core, hedge) = (&recipe.core, recipe.plan.hedge.as_ref());
        Self {
            name: core.name,
            parts: core.attempt.clone(),
            drain: core.operation.1.clone(),
            hedge: hedge.map(|hedge| hedge::Handle::of(hedge, core.origin)),
            budget: recipe.plan.budget.clone(),
            adjustable: Arc::clone(&recipe.plan.adjustable),
        }
    }

    /// Changes the settings of the running stack: the values that `settings` names replace those of the code, and all
    /// other values are those of the code again. Either all values change or none.
    ///
    /// These settings can change:
    ///
    /// - deadline, and response timeout and timeout unless they are switched off;
    /// - retry;
    /// - circuit breaker, except for its window;
    /// - rate limit;
    /// - bulkhead, except for an adaptive limit.
    ///
    /// All state and counts stay. An operation in flight keeps its times and its number of attempts, but its next
    /// retries wait by the new settings.
    ///
    /// # Errors
    ///
    /// Returns an error if `build` would refuse the settings, or if they change a value that cannot change at run time.
    /// The error names the value, and nothing changes.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use buttress::settings;
    ///
    /// # fn main() -> Result<(), buttress::ConfigError> {
    /// let stack = buttress::standard("inventory").unlimited().build()?;
    /// let mut settings = settings::Stack::default();
    /// settings.timeout = Some(Duration::from_millis(300));
    /// stack.handle().apply(&settings)?;
    ///
    /// settings.timeout = Some(Duration::from_secs(20));
    /// let error = stack.handle().apply(&settings).unwrap_err();
    /// assert_eq!(error.permitted(), "less than the response timeout of 10s");
    /// # Ok(())
    /// # }
    /// ```
    pub fn apply(&self, settings: &settings::Stack) -> Result<(), ConfigError> {
        self.adjustable.apply(self.name, settings, &self.parts)
    }

    /// Returns the name of the stack.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the circuit breaker, if there is one.
    #[must_use]
    pub fn circuit_breaker(&self) -> Option<&circuit_breaker::Handle> {
        self.parts.0.as_ref()
    }

    /// Returns the hedge, if there is one.
    #[must_use]
    pub fn hedge(&self) -> Option<&hedge::Handle> {
        self.hedge.as_ref()
    }

    /// Returns the rate limit, if there is one.
    #[must_use]
    pub fn rate_limit(&self) -> Option<&rate_limit::Handle> {
        self.parts.1.0.as_ref()
    }

    /// Returns the bulkhead, if there is one.
    #[must_use]
    pub fn bulkhead(&self) -> Option<&bulkhead::Handle> {
        self.parts.1.1.0.as_ref()
    }

    /// Returns the handle that drains the stack, if it was built with [`drain`](super::Standard::drain).
    #[must_use]
    pub fn drain(&self) -> Option<&drain::Handle> {
        self.drain.as_ref()
    }

    /// Returns the budget that pays for retries and hedges.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }
}

impl Availability for Handle {
    /// Returns `true` if no part would reject the next call.
    fn is_available(&self) -> bool {
        let (drain, breaker) = (self.drain(), self.circuit_breaker());
        drain.is_none_or(Availability::is_available)
            && breaker.is_none_or(Availability::is_available)
            && self.rate_limit().is_none_or(Availability::is_available)
            && self.bulkhead().is_none_or(Availability::is_available)
    }
}
