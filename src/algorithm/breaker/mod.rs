//! The circuit breaker.

pub(crate) mod machine;
