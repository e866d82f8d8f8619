//! Deadlines across hops: the time that is left travels with the request.
mod config;
mod future;
mod headers;
mod layer;
mod metrics;
mod service;
mod stamp;
mod value;

pub use self::config::{InheritDeadlineConfig, PropagateDeadlineConfig};
pub use self::future::ResponseFuture;
pub use self::headers::{Headers, HttpHeaders};
pub use self::layer::{InheritDeadlineLayer, PropagateDeadlineLayer};
pub use self::service::{InheritDeadline, PropagateDeadline};
