//! Availability: whether a call would be admitted now.

/// Reports whether a call would be admitted now.
///
/// Services of this crate are always ready (`poll_ready` never waits), so readiness does not distinguish an open
/// circuit breaker from a closed one. A balancer or a health page asks the handle of the layer instead. Handles are
/// cheap to clone, and the question takes no probe and no permit.
///
/// # Examples
///
/// A balancer that avoids an endpoint while its circuit breaker is open:
///
/// ```
/// use buttress::balance::Endpoint;
/// use buttress::{Availability, CircuitBreakerLayer};
/// # use buttress::BoxError;
/// # use tower::service_fn;
///
/// # let client = service_fn(|_: u32| async { Ok::<u32, BoxError>(0) });
/// let breaker = CircuitBreakerLayer::new("search");
/// let handle = breaker.handle();
/// assert!(handle.is_available());
/// let endpoint = Endpoint::new("10.0.0.1:8080", breaker.wrap(client)).available(handle.clone());
///
/// handle.force_open();
/// assert!(!handle.is_available());
/// # drop(endpoint);
/// ```
pub trait Availability: Send + Sync {
    /// Returns `false` while the next call would be rejected.
    fn is_available(&self) -> bool;
}
