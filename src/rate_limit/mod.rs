//! Rate limit.

mod config;
mod future;
mod gcra;
mod layer;
mod metrics;
mod queue;
mod rate;
mod service;
mod shared;
mod turn;

pub use self::config::{Config, Cost, One};
pub use self::future::ResponseFuture;
pub use self::layer::{Handle, RateLimitLayer};
pub use self::rate::Rate;
pub use self::service::RateLimit;
