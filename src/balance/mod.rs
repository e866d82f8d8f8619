//! Balances calls over endpoints.

mod choose;
mod condition;
mod config;
mod driver;
mod endpoint;
mod flight;
mod future;
mod handle;
mod load;
mod metrics;
mod pool;
mod service;

pub use self::choose::{
    Choose, ConsistentHash, Endpoints, LeastLoaded, PowerOfChoices, RoundRobin, Standing,
    WeightedRandom,
};
pub use self::condition::EndpointState;
pub use self::config::Config;
pub use self::endpoint::{Endpoint, EndpointStatus, Measure};
pub use self::flight::Flight;
pub use self::future::ResponseFuture;
pub use self::handle::Handle;
pub use self::service::Balance;
