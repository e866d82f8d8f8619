//! HTTP and gRPC: what a status means, when a call is over, what may be sent again, and how to say no.

pub mod body_timeout;

pub use self::body_timeout::{BodyTimeout, BodyTimeoutLayer, TimeoutBody};
