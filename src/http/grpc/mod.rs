//! gRPC: what a status means.

mod classify;
mod code;
mod standard;

pub use self::classify::Classifier;
pub use self::code::Code;
pub use self::standard::{Standard, StandardLayer, StandardService, standard};
