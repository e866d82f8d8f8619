//! The overlay of a standard stack.

use std::time::Duration;

use super::{Bulkhead, CircuitBreaker, Hedge, RateLimit, Retry};

/// Settings of a [standard stack](crate::stack) or a whole client that replace those of the code.
///
/// `build` and [`apply`](crate::stack::Handle::apply) return an error if a field names a part that the stack does not
/// have.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct Stack {
    /// See [`deadline`](crate::stack::Standard::deadline).
    #[cfg_attr(
        feature = "serde",
        serde(
            with = "crate::duration_text::optional",
            skip_serializing_if = "Option::is_none"
        )
    )]
    pub deadline: Option<Duration>,
    /// See [`response_timeout`](crate::stack::Standard::response_timeout).
    #[cfg_attr(
        feature = "serde",
        serde(
            with = "crate::duration_text::optional",
            skip_serializing_if = "Option::is_none"
        )
    )]
    pub response_timeout: Option<Duration>,
    /// See [`timeout`](crate::stack::Standard::timeout).
    #[cfg_attr(
        feature = "serde",
        serde(
            with = "crate::duration_text::optional",
            skip_serializing_if = "Option::is_none"
        )
    )]
    pub timeout: Option<Duration>,
    /// The settings of retry.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub retry: Option<Retry>,
    /// The settings of the hedge.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub hedge: Option<Hedge>,
    /// The settings of the circuit breaker.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// The settings of the rate limit.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub rate_limit: Option<RateLimit>,
    /// The settings of the bulkhead.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub bulkhead: Option<Bulkhead>,
}
