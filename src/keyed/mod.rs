//! Layers for each key.

mod config;
mod future;
mod keys;
mod layer;
mod lru;
mod metrics;
mod service;

pub use self::config::Config;
pub use self::future::ResponseFuture;
pub use self::layer::{Handle, KeyedLayer, by};
pub use self::service::Keyed;
