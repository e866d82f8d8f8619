//! A whole server in one expression.

mod bodies;
mod config;
mod drain;
mod handle;
mod keyed;
mod layer;

pub use self::bodies::{BodiesLayer, BodiesOfCall, RequestBody};
pub(in crate::http) use self::config::of;
pub use self::config::{Config, Settings, server};
pub use self::drain::{Counted, Drain};
pub use self::handle::Handle;
pub use self::keyed::{Given, KeyLimits, NotKeyed, PerKey};
pub use self::layer::{Limited, Server, ServerLayer};
