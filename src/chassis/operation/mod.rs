//! The operation: the work of a stack around its attempts.

mod future;
mod hedge_metrics;
mod hedger;
mod hedging;
mod plan;
mod race;
mod repeat;
mod retry_metrics;
mod running;
mod service;

pub use self::future::OperationFuture;
pub use self::hedge_metrics::Hedged;
pub(crate) use self::hedger::Hedger;
pub use self::hedger::Settings as HedgeSettings;
pub(crate) use self::plan::{Hedging, Kept, Numbers, Times};
pub use self::plan::{Plan, PlanFor};
pub(crate) use self::repeat::Repeat;
pub(crate) use self::service::Recipe;
pub use self::service::{Operation, OperationLayer};
