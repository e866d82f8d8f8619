//! Saying no: errors as responses of HTTP and gRPC.
mod answer;
mod body;
mod future;
mod layer;
mod refusal;
mod service;

pub use self::answer::{Answer, ForClients, ForServers, Side, Standard, With};
pub use self::body::AnswerBody;
pub use self::future::{Cause, ResponseFuture};
pub use self::layer::RespondLayer;
pub use self::refusal::{KeptHead, Refusal};
pub use self::service::Respond;
