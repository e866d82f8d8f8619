//! The full stack, built by hand as a user would.

use std::time::Duration;

use buttress::{
    Backoff, CircuitBreakerLayer, ConfigError, DeadlineLayer, Jitter, MeasureLayer, RetryLayer,
    TimeoutLayer,
};

/// The layers, outermost first. A tuple of layers is a layer.
pub(crate) type Stack<R, K> = (
    MeasureLayer<K>,
    DeadlineLayer,
    RetryLayer<R, K>,
    CircuitBreakerLayer<K>,
    TimeoutLayer,
    MeasureLayer<K>,
);

/// Three attempts, 20 ms apart.
pub(crate) fn stack<R, K: Clone>(
    name: &str,
    replay: R,
    classify: K,
) -> Result<Stack<R, K>, ConfigError> {
    let retry = RetryLayer::config(name)
        .backoff(Backoff::constant(Duration::from_millis(20)).jitter(Jitter::None))
        .replay(replay)
        .classify(classify.clone())
        .build()?;
    let breaker = CircuitBreakerLayer::config(name)
        .classify(classify.clone())
        .build()?;
    Ok((
        MeasureLayer::operation(name).classify(classify.clone()),
        DeadlineLayer::new(name, Duration::from_secs(10)),
        retry,
        breaker,
        TimeoutLayer::new(name, Duration::from_secs(2)),
        MeasureLayer::attempt(name).classify(classify),
    ))
}
