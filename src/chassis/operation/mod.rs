//! The operation: all that a stack does around its attempts.

mod future;
mod plan;
mod race;
mod running;
mod service;

pub use self::future::OperationFuture;
pub use self::plan::Plan;
pub(crate) use self::plan::{Hedging, Limit, Repeat, Times};
pub(crate) use self::service::Recipe;
pub use self::service::{Operation, OperationLayer};
