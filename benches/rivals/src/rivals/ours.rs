//! `buttress`, with its defaults.

use std::time::Duration;

use buttress::balance::Endpoint;
use buttress::http::{HttpStandard, HttpStandardLayer};
use buttress::stack::{Standard, StandardLayer};
use buttress::{
    Balance, BulkheadLayer, CircuitBreakerLayer, DeadlineLayer, HedgeLayer, Rate, RateLimitLayer,
    RetryLayer, TimeoutLayer,
};

use super::{CONCURRENT, DAY, HEDGE_DELAY, LIMIT, PER_SECOND};

pub(crate) fn timeout(limit: Duration) -> TimeoutLayer {
    TimeoutLayer::new("bench", limit)
}

pub(crate) fn deadline() -> DeadlineLayer {
    DeadlineLayer::new("bench", 10 * LIMIT)
}

pub(crate) fn retry() -> RetryLayer {
    RetryLayer::new("bench")
}

/// A window of 10 s.
pub(crate) fn breaker() -> CircuitBreakerLayer {
    CircuitBreakerLayer::new("bench")
}

pub(crate) fn concurrency(most: usize) -> BulkheadLayer {
    BulkheadLayer::new("bench", most)
}

pub(crate) fn bulkhead() -> BulkheadLayer {
    concurrency(CONCURRENT)
}

pub(crate) fn rate_limit() -> RateLimitLayer {
    RateLimitLayer::new("bench", Rate::per_second(PER_SECOND))
}

pub(crate) fn one_a_day() -> RateLimitLayer {
    RateLimitLayer::new("bench", Rate::per(1, DAY))
}

/// It knows its percentile after a second.
pub(crate) fn hedge() -> HedgeLayer {
    HedgeLayer::new("bench")
}

pub(crate) fn fixed_hedge() -> HedgeLayer {
    let config = HedgeLayer::config("bench").delay(HEDGE_DELAY);
    config.build().expect("is valid")
}

pub(crate) type Four = (DeadlineLayer, RetryLayer, CircuitBreakerLayer, TimeoutLayer);

pub(crate) fn four_layers() -> Four {
    (deadline(), retry(), breaker(), timeout(LIMIT))
}

pub(crate) type Six = (
    DeadlineLayer,
    RetryLayer,
    CircuitBreakerLayer,
    RateLimitLayer,
    BulkheadLayer,
    TimeoutLayer,
);

pub(crate) fn six_layers() -> Six {
    (
        deadline(),
        retry(),
        breaker(),
        rate_limit(),
        bulkhead(),
        timeout(LIMIT),
    )
}

pub(crate) fn standard(change: impl FnOnce(Standard) -> Standard) -> StandardLayer {
    let config = buttress::standard("bench").deadline(10 * LIMIT);
    change(config.concurrency_limit(CONCURRENT))
        .build()
        .expect("is valid")
}

/// The parts of [`six_layers`] in one service.
pub(crate) fn six_parts<R, K, C>(config: Standard<R, K, C>) -> Standard<R, K, C> {
    let config = config.no_measure().timeout(LIMIT);
    config.rate_limit(Rate::per_second(PER_SECOND), |limit| limit)
}

/// The standard stack for HTTP.
pub(crate) fn http(change: impl FnOnce(HttpStandard) -> HttpStandard) -> HttpStandardLayer {
    let config = buttress::http::standard("http").deadline(10 * LIMIT);
    change(config.concurrency_limit(CONCURRENT))
        .build()
        .expect("is valid")
}

pub(crate) fn all_parts(config: Standard) -> Standard {
    config
        .hedge(|hedge| hedge)
        .rate_limit(Rate::per_second(PER_SECOND), |limit| limit)
}

pub(crate) fn balance<S>(endpoints: impl IntoIterator<Item = S>) -> Balance<S>
where
    S: Clone + Send + Sync + 'static,
{
    let endpoints = endpoints.into_iter().enumerate();
    let built = Balance::config("bench").build(endpoints.map(|(key, it)| Endpoint::new(key, it)));
    built.expect("is valid")
}
