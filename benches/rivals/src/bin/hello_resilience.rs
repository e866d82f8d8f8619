//! Hello through six layers of tower-resilience.

#[path = "../hello.rs"]
mod hello;

use std::time::Duration;

use tower_resilience::bulkhead::BulkheadLayer;
use tower_resilience::circuitbreaker::CircuitBreakerLayer;
use tower_resilience::ratelimiter::RateLimiterLayer;
use tower_resilience::retry::{RetryBudgetBuilder, RetryLayer};
use tower_resilience::timelimiter::{FixedTimeout, TimeLimiterLayer};

fn timeout(limit: Duration) -> TimeLimiterLayer<FixedTimeout> {
    let config = TimeLimiterLayer::<FixedTimeout>::builder();
    config.timeout_duration(limit).build()
}

fn main() {
    let budget = RetryBudgetBuilder::new().token_bucket().build();
    let layers = (
        timeout(Duration::from_secs(10)),
        RetryLayer::builder()
            .max_attempts(3)
            .exponential_backoff(Duration::from_millis(50))
            .budget(budget.expect("is valid"))
            .build(),
        CircuitBreakerLayer::builder().build().expect("is valid"),
        RateLimiterLayer::builder()
            .limit_for_period(100)
            .build()
            .expect("is valid"),
        BulkheadLayer::builder()
            .max_concurrent_calls(100)
            .build()
            .expect("is valid"),
        timeout(Duration::from_secs(1)),
    );
    hello::say(&layers, 1_u64, 2_u64);
}
