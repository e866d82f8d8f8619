//! HTTP and gRPC: what a status means, when a call is over, what may be sent again, and how to say no.

pub mod deadline;
mod protocol;
pub mod respond;

pub use self::deadline::{InheritDeadlineLayer, PropagateDeadlineLayer};
pub use self::protocol::Protocol;
pub use self::respond::RespondLayer;
