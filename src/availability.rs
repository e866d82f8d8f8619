//! Whether something would take a call now.

/// Says whether a call sent now would be let through.
///
/// Services of this crate are always ready (`poll_ready` never waits), so readiness does not tell an
/// open circuit breaker from a closed one. The handle of the layer does, for a balancer or a health
/// page.
pub trait Availability: Send + Sync {
    /// Returns `false` while the next call would be rejected.
    fn is_available(&self) -> bool;
}
