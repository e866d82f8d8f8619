//! HTTP and gRPC: what a status means, when a call is over, what may be sent again, and how to say no.

mod body;
mod classify;
pub mod grpc;
mod retry_after;
mod rules;
mod standard;

pub use self::body::{AtEndOfBody, ClassifyEnd, TrackedBody};
pub use self::classify::Classifier;
pub use self::retry_after::retry_after;
pub use self::standard::{Standard, StandardLayer, StandardService, standard};
