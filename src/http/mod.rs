//! HTTP and gRPC: what a status means, when a call is over, what may be sent again, and how to say no.

pub mod body_timeout;
pub mod replay;
pub mod replay_body;

pub use self::body_timeout::{BodyTimeout, BodyTimeoutLayer, TimeoutBody};
pub use self::replay::{
    AttemptNumber, CopyBody, HttpReplay, Idempotent, TryCopy, TryCopyBody, is_idempotent,
};
pub use self::replay_body::{ReplayBody, ReplayBodyError, ReplayBodyLayer};
