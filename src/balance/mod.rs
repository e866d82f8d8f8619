//! Balances calls over endpoints.

#![allow(dead_code, reason = "for the balancer")]

mod outlier;
mod priority;

pub use self::outlier::{EjectionMethod, OutlierEjection};
pub use self::priority::FailoverPolicy;
