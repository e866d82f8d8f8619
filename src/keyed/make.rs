//! Configurations that make the layers of keys.

use crate::bulkhead::{self, BulkheadLayer};
use crate::circuit_breaker::{self, CircuitBreakerLayer};
use crate::rate_limit::{self, RateLimitLayer};
use crate::{ConfigError, Evictable};

/// A configuration that makes a layer for each key.
///
/// Implemented by the configurations of the rate limit, the bulkhead and the circuit breaker, and by tuples of them,
/// the first one outermost.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not make layers for keys",
    note = "give a configuration, such as `RateLimitLayer::config(..)`, and not the layer that it builds, or a tuple of configurations"
)]
pub trait MakeLayer: Send + Sync + 'static {
    /// The layer of a key.
    type Layer: Evictable;

    /// Makes a layer with its own state.
    ///
    /// # Errors
    ///
    /// If the name is empty or a value is outside its range.
    fn make_layer(&self) -> Result<Self::Layer, ConfigError>;
}

impl<Q, K> MakeLayer for rate_limit::Config<Q, K>
where
    Q: Clone + Send + Sync + 'static,
    K: Clone + Send + Sync + 'static,
{
    type Layer = RateLimitLayer<Q, K>;

    fn make_layer(&self) -> Result<Self::Layer, ConfigError> {
        self.clone().build()
    }
}

impl<K, C> MakeLayer for bulkhead::Config<K, C>
where
    K: Clone + Send + Sync + 'static,
    C: Clone + Send + Sync + 'static,
{
    type Layer = BulkheadLayer<K, C>;

    fn make_layer(&self) -> Result<Self::Layer, ConfigError> {
        self.clone().build()
    }
}

impl<K, C> MakeLayer for circuit_breaker::Config<K, C>
where
    K: Clone + Send + Sync + 'static,
    C: Clone + Send + Sync + 'static,
{
    type Layer = CircuitBreakerLayer<K, C>;

    fn make_layer(&self) -> Result<Self::Layer, ConfigError> {
        self.clone().build()
    }
}

impl<A: MakeLayer, B: MakeLayer> MakeLayer for (A, B) {
    type Layer = (A::Layer, B::Layer);

    fn make_layer(&self) -> Result<Self::Layer, ConfigError> {
        Ok((self.0.make_layer()?, self.1.make_layer()?))
    }
}
