//! The chassis: the code that all layers share.

mod config;
mod held;
mod limit;
mod operation;
mod part;
mod record;
mod single;

pub(crate) use self::config::Choice;
pub use self::config::LayerConfig;
pub(crate) use self::held::Core;
pub use self::held::InFlight;
pub(crate) use self::limit::{Limit, Span, TimeoutMetrics};
pub use self::operation::HedgeSettings;
pub use self::operation::Hedged;
pub(crate) use self::operation::{Hedger, Hedging, Kept, Numbers, Recipe, Repeat, Times};
pub use self::operation::{Operation, OperationFuture, OperationLayer, Plan, PlanFor};
pub use self::part::{Admit, OperationPart, Part, PartFor, Turn};
pub use self::record::{At, EndedBy, Record, Sent};
pub use self::single::{PartLayer, PartService, ResponseFuture};
