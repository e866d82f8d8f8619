//! The layer of the standard stack, and its handle.

use std::fmt;

use tokio::time::Instant;
use tower::Layer;

use super::service::{Inner, StandardService};
use crate::bulkhead::{self, Bulkhead, BulkheadLayer};
use crate::rate_limit::{self, One, RateLimit, RateLimitLayer};
use crate::{
    Availability, Budget, ByClone, CircuitBreaker, CircuitBreakerLayer, Classify, CloneService,
    CompleteOnResponse, DeadlineLayer, ErrorsAreFailures, Evictable, Hedge, HedgeLayer,
    MeasureLayer, Replay, Retry, RetryLayer, TimeoutLayer, circuit_breaker, hedge,
};

/// Protects the calls to one dependency. See the [module documentation](crate::stack).
///
/// All services made by one layer value, or by its clones, share the state of every part.
#[derive(Clone)]
pub struct StandardLayer<R = ByClone, K = ErrorsAreFailures, C = CompleteOnResponse> {
    pub(super) operation: MeasureLayer<K, C>,
    pub(super) deadline: DeadlineLayer,
    pub(super) retry: Option<RetryLayer<R, K>>,
    pub(super) hedge: Option<HedgeLayer<R, K>>,
    pub(super) breaker: Option<CircuitBreakerLayer<K, C>>,
    pub(super) rate_limit: Option<RateLimitLayer<One, K>>,
    pub(super) bulkhead: Option<BulkheadLayer<K, C>>,
    pub(super) timeout: TimeoutLayer,
    pub(super) attempt: MeasureLayer<K, C>,
    pub(super) budget: Budget,
    pub(super) classify: K,
    pub(super) completion: C,
}

impl<R, K, C> StandardLayer<R, K, C> {
    /// A handle that reads and steers the parts.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            breaker: self.breaker.as_ref().map(CircuitBreakerLayer::handle),
            hedge: self.hedge.as_ref().map(HedgeLayer::handle),
            rate_limit: self.rate_limit.as_ref().map(RateLimitLayer::handle),
            bulkhead: self.bulkhead.as_ref().map(BulkheadLayer::handle),
            budget: self.budget.clone(),
        }
    }

    /// Wraps `service`, checking that it can serve requests of type `Req` and that they can be copied.
    pub fn wrap<Req, S>(&self, service: S) -> StandardService<S, R, K, C>
    where
        S: CloneService<Req>,
        R: Replay<Req>,
        K: Classify<S::Response> + Clone,
        C: Clone,
    {
        self.layer(service)
    }
}

impl<S: Clone, R, K: Clone, C: Clone> Layer<S> for StandardLayer<R, K, C> {
    type Service = StandardService<S, R, K, C>;

    fn layer(&self, inner: S) -> StandardService<S, R, K, C> {
        let inner = self.timeout.layer(self.attempt.layer(inner));
        let (classify, completion) = (&self.classify, &self.completion);
        let inner = match &self.bulkhead {
            Some(bulkhead) => bulkhead.layer(inner),
            None => Bulkhead::off(inner, classify.clone(), completion.clone()),
        };
        let inner = match &self.rate_limit {
            Some(rate_limit) => rate_limit.layer(inner),
            None => RateLimit::off(inner, classify.clone()),
        };
        let inner = match &self.breaker {
            Some(breaker) => breaker.layer(inner),
            None => CircuitBreaker::off(inner, classify.clone(), completion.clone()),
        };
        let inner = match &self.hedge {
            Some(hedge) => hedge.layer(inner),
            None => Hedge::off(inner),
        };
        let inner = match &self.retry {
            Some(retry) => retry.layer(inner),
            None => Retry::off(inner),
        };
        let inner: Inner<S, R, K, C> = self.operation.layer(self.deadline.layer(inner));
        StandardService { inner }
    }
}

impl<R, K, C> Evictable for StandardLayer<R, K, C> {
    fn is_evictable(&self, now: Instant) -> bool {
        fn is_evictable<L: Evictable>(part: Option<&L>, now: Instant) -> bool {
            part.is_none_or(|part| part.is_evictable(now))
        }
        is_evictable(self.breaker.as_ref(), now)
            && is_evictable(self.rate_limit.as_ref(), now)
            && is_evictable(self.bulkhead.as_ref(), now)
    }
}

impl<R, K, C> fmt::Debug for StandardLayer<R, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandardLayer")
            .field("handle", &self.handle())
            .finish_non_exhaustive()
    }
}

/// Reads and steers the parts of a standard stack. Clones are handles of the same stack.
#[derive(Clone, Debug)]
pub struct Handle {
    breaker: Option<circuit_breaker::Handle>,
    hedge: Option<hedge::Handle>,
    rate_limit: Option<rate_limit::Handle>,
    bulkhead: Option<bulkhead::Handle>,
    budget: Budget,
}

impl Handle {
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
