//! tower-resilience, with its feature `metrics`: it reports through the same facade as we do.

use std::time::Duration;

use tower_resilience::bulkhead::{BulkheadLayer, BulkheadServiceError};
use tower_resilience::circuitbreaker::{CircuitBreakerError, CircuitBreakerLayer};
use tower_resilience::hedge::HedgeLayer;
use tower_resilience::ratelimiter::{RateLimiterLayer, RateLimiterServiceError};
use tower_resilience::retry::{RetryBudgetBuilder, RetryLayer};
use tower_resilience::timelimiter::{FixedTimeout, TimeLimiterError, TimeLimiterLayer};

use super::{CONCURRENT, DAY, HEDGE_DELAY, LIMIT, PER_SECOND, SECOND};
use crate::services::Failed;

pub(crate) fn timeout(limit: Duration) -> TimeLimiterLayer<FixedTimeout> {
    let config = TimeLimiterLayer::<FixedTimeout>::builder().name("bench");
    config.timeout_duration(limit).build()
}

/// Three attempts, exponential from 50 ms as ours, its default budget.
pub(crate) fn retry<Req: 'static, Res: 'static, E: 'static>() -> RetryLayer<Req, Res, E> {
    let budget = RetryBudgetBuilder::new().token_bucket().build();
    let config = RetryLayer::<Req, Res, E>::builder().name("bench");
    let config = config
        .max_attempts(3)
        .exponential_backoff(Duration::from_millis(50));
    config.budget(budget.expect("is valid")).build()
}

/// Its defaults: half of the last 100 calls. (A window of time would keep a record of each call in it.) All
/// services of the layer share the state.
pub(crate) fn breaker() -> CircuitBreakerLayer {
    let config = CircuitBreakerLayer::builder().name("bench");
    let (layer, _) = config
        .wait_duration_in_open(DAY)
        .build_with_handle()
        .expect("is valid");
    layer
}

pub(crate) fn concurrency(most: usize) -> BulkheadLayer {
    let config = BulkheadLayer::builder().name("bench").reject_when_full();
    let (layer, _) = config
        .max_concurrent_calls(most)
        .build_with_handle()
        .expect("is valid");
    layer
}

pub(crate) fn bulkhead() -> BulkheadLayer {
    concurrency(CONCURRENT)
}

pub(crate) fn rate_limit() -> RateLimiterLayer {
    limit_for(PER_SECOND as usize, SECOND)
}

pub(crate) fn one_a_day() -> RateLimiterLayer {
    limit_for(1, DAY)
}

/// Its default window, and no waiting.
fn limit_for(limit: usize, period: Duration) -> RateLimiterLayer {
    let config = RateLimiterLayer::builder().name("bench");
    let config = config.limit_for_period(limit).refresh_period(period);
    let (layer, _) = config
        .timeout_duration(Duration::ZERO)
        .build_with_handle()
        .expect("is valid");
    layer
}

/// One hedge after a fixed delay; it has no percentiles.
pub(crate) fn hedge() -> HedgeLayer {
    let config = HedgeLayer::builder().name("bench").delay(HEDGE_DELAY);
    config.max_hedged_attempts(2).build()
}

type Retried =
    CircuitBreakerError<RateLimiterServiceError<BulkheadServiceError<TimeLimiterError<Failed>>>>;

pub(crate) type Six<Req, Res> = (
    TimeLimiterLayer<FixedTimeout>,
    RetryLayer<Req, Res, Retried>,
    CircuitBreakerLayer,
    RateLimiterLayer,
    BulkheadLayer,
    TimeLimiterLayer<FixedTimeout>,
);

/// A limit for the whole operation, and below it the layers of ours in the same order.
pub(crate) fn six_layers<Req: 'static, Res: 'static>() -> Six<Req, Res> {
    (
        timeout(10 * LIMIT),
        retry(),
        breaker(),
        rate_limit(),
        bulkhead(),
        timeout(LIMIT),
    )
}
