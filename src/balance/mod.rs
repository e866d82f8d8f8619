//! Balances calls over endpoints.

#![allow(dead_code, reason = "for the balancer")]

mod health;
mod outlier;
mod priority;

pub use self::health::{Ask, HealthCheck, Probe};
pub use self::outlier::{EjectionMethod, OutlierEjection};
pub use self::priority::FailoverPolicy;
