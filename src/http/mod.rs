//! HTTP and gRPC: what a status means, when a call is over, what may be sent again, and how to say no.

pub mod body_timeout;
pub mod deadline;
mod protocol;
pub mod replay;
pub mod replay_body;
pub mod respond;

pub use self::body_timeout::{BodyTimeout, BodyTimeoutLayer, TimeoutBody};
pub use self::deadline::{InheritDeadlineLayer, PropagateDeadlineLayer};
pub use self::protocol::Protocol;
pub use self::replay::{
    AttemptNumber, CopyBody, HttpReplay, Idempotent, TryCopy, TryCopyBody, is_idempotent,
};
pub use self::replay_body::{ReplayBody, ReplayBodyError, ReplayBodyLayer};
pub use self::respond::RespondLayer;
