//! Balances calls over endpoints.

#![allow(dead_code, reason = "for the balancer")]

mod outlier;

pub use self::outlier::{EjectionMethod, OutlierEjection};
