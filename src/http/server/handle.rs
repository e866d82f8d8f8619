//! The handle of a server.

use std::future::IntoFuture;
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use tokio::time::timeout;

use super::drain::Drain;
use crate::bulkhead;

/// Drains a server, and reads and steers its limits. Clones are handles of the same server.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) drain: Drain,
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

    /// Returns the number of calls whose answers are not over, those included that wait for a permit.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.drain.count()
    }

    /// Returns whether the server takes calls: `true` until a drain begins. Answer the readiness check of your platform with it,
    /// on a route outside the layer.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.drain.is_draining()
    }

    /// Begins a drain at once, and waits until no call is in flight, or until `within` is over. Returns the number of calls that
    /// are then left.
    ///
    /// New calls are refused from now on, for good. The calls in flight go on, and so do those that are left at the end.
    pub fn drain(&self, within: Duration) -> impl Future<Output = u64> + Send + use<> {
        let drain = self.drain.clone();
        drain.begin();
        async move {
            // The time may be over.
            let _ = timeout(within, drain.drained()).await;
            drain.count()
        }
    }

    /// Waits until a drain has begun and no call is in flight. The shutdown signal of axum and tonic.
    pub fn drained(&self) -> impl Future<Output = ()> + Send + use<> {
        let drain = self.drain.clone();
        async move { drain.drained().await }
    }

    /// Runs `server` until it ends. When `stop` completes, begins a drain; `server` has to end within `within` then, and is dropped
    /// otherwise.
    ///
    /// `server` takes [`drained`](Self::drained) for its shutdown signal. Returns its output, or `None` if it was dropped.
    ///
    /// # Cancellation
    ///
    /// Dropping the future drops `server`. A drain that has begun goes on.
    pub async fn run_until<F>(
        &self,
        stop: impl Future<Output = ()>,
        within: Duration,
        server: F,
    ) -> Option<F::Output>
    where
        F: IntoFuture,
    {
        let server = pin!(server.into_future());
        let server = match select(server, pin!(stop)).await {
            Either::Left((output, _)) => return Some(output),
            Either::Right(((), server)) => server,
        };
        self.drain.begin();
        timeout(within, server).await.ok()
    }
}
