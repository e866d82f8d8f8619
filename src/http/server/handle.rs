//! The handle of a server.

use std::future::IntoFuture;
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use tokio::time::timeout;

use crate::{bulkhead, drain};

/// Handle that drains a server, and reads and changes its limits. Clones are handles of the same server.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) drain: drain::Handle,
    pub(super) bulkhead: Option<bulkhead::Handle>,
}

impl Handle {
    /// Returns the name of the server.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.drain.name()
    }

    /// Returns the handle of the concurrency limit, if there is one.
    #[must_use]
    pub fn bulkhead(&self) -> Option<&bulkhead::Handle> {
        self.bulkhead.as_ref()
    }

    /// Returns the number of calls whose answers have not ended. It includes calls that wait for a permit.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.drain.in_flight()
    }

    /// Returns whether the server takes calls: `true` until a drain begins. Use it to answer the readiness check of
    /// your platform, on a route outside the layer.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.drain.is_ready()
    }

    /// Begins a drain at once, and waits until no call is in flight, or until `within` has passed. Returns the number
    /// of calls that are then in flight.
    ///
    /// The drain cannot be undone: the server refuses all further calls. Calls in flight go on, also after `within`.
    pub fn drain(&self, within: Duration) -> impl Future<Output = u64> + Send + use<> {
        self.drain.drain(within)
    }

    /// Waits until a drain has begun and no call is in flight. Use it as the shutdown signal of axum or tonic.
    pub fn drained(&self) -> impl Future<Output = ()> + Send + use<> {
        self.drain.drained()
    }

    /// Runs `server`, and begins a drain when `stop` completes. If `server` has not ended `within` this time after it,
    /// it is dropped.
    ///
    /// Give `server` the future of [`drained`](Self::drained) as its shutdown signal. Returns the output of `server`,
    /// or `None` if it was dropped.
    ///
    /// # Cancellation
    ///
    /// Dropping the future drops `server`. A drain that has begun goes on.
    pub fn run_until<F, S>(
        &self,
        stop: S,
        within: Duration,
        server: F,
    ) -> impl Future<Output = Option<F::Output>> + use<F, S>
    where
        F: IntoFuture,
        S: Future<Output = ()>,
    {
        let drain = self.drain.clone();
        async move {
            let server = pin!(server.into_future());
            let server = match select(server, pin!(stop)).await {
                Either::Left((output, _)) => return Some(output),
                Either::Right(((), server)) => server,
            };
            drain.begin();
            let output = timeout(within, server).await.ok();
            drain.end(drain.in_flight());
            output
        }
    }
}
