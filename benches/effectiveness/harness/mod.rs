//! What every experiment is made of: a simulated world, arrivals, servers with faults, and a report
//! that knows its goals.

pub(crate) mod plot;
mod report;
mod server;
mod tower_retry;
mod world;

use std::thread;

use tower::{BoxError, Service, ServiceExt, util::BoxCloneService};

pub(crate) use plot::{Axis, Line, Plot};
pub(crate) use report::{Goal, Report, Results, Sample, Table, Variant, millis_at};
pub(crate) use server::{Backend, Fault, Model};
pub(crate) use tower_retry::TowerRetry;
pub(crate) use world::{Event, Run, World, lock, poisson, simulate};

/// What the simulated callers call: a backend, with or without protection around it.
pub(crate) type Client = BoxCloneService<(), (), BoxError>;

/// Puts a service into a box, whatever its error is.
pub(crate) fn boxed<Req, S>(service: S) -> BoxCloneService<Req, S::Response, BoxError>
where
    S: Service<Req, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
    Req: 'static,
{
    BoxCloneService::new(service.map_err(Into::into))
}

/// The name of the balancer of an experiment. Each thread has one of its own: balancers of one name share their gauges, and a
/// thread that publishes them would hold the lock of a balancer for which a simulation on another thread asks.
pub(crate) fn pool() -> String {
    format!("search {:?}", thread::current().id())
}

/// How thorough a run is.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "the bench runs one form, the tests the other")]
pub(crate) enum Form {
    /// Few seeds and short runs, for `cargo test`.
    Short,
    /// For `cargo bench`.
    Full,
}

impl Form {
    pub(crate) fn pick<T>(self, short: T, full: T) -> T {
        match self {
            Self::Short => short,
            Self::Full => full,
        }
    }
}
