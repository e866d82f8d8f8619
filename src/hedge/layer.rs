//! The layer of hedging, and its handle.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tower::Layer;

use super::config::Config;
use super::service::{Hedge, Policy};
use super::shared::Shared;
use crate::error::or_panic;
use crate::{ByClone, Classify, CloneService, ErrorsAreFailures, Evictable, Replay};

/// Sends a copy of what takes too long. See the [module documentation](crate::hedge).
///
/// All services made by one layer value, or by its clones, share one sketch of latencies and one allowance.
pub struct HedgeLayer<R = ByClone, K = ErrorsAreFailures> {
    pub(super) policy: Arc<Policy<R, K>>,
}

impl HedgeLayer {
    /// A hedge with the default settings.
    ///
    /// # Panics
    ///
    /// If `name` is empty.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str) -> Self {
        or_panic(Self::config(name).build())
    }

    /// Begins to configure a hedge.
    pub fn config(name: impl Into<String>) -> Config {
        Config::new(name.into())
    }
}

impl<R, K> HedgeLayer<R, K> {
    /// A handle that reads the state of the hedge.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            shared: Arc::clone(&self.policy.shared),
        }
    }

    /// Wraps `service`, checking that it can serve requests of type `Req` and that they can be copied.
    pub fn wrap<Req, S>(&self, service: S) -> Hedge<S, R, K>
    where
        S: CloneService<Req>,
        R: Replay<Req>,
        K: Classify<S::Response>,
    {
        self.layer(service)
    }
}

impl<S: Clone, R, K> Layer<S> for HedgeLayer<R, K> {
    type Service = Hedge<S, R, K>;

    fn layer(&self, inner: S) -> Hedge<S, R, K> {
        Hedge::new(inner, Arc::clone(&self.policy))
    }
}

impl<R, K> Evictable for HedgeLayer<R, K> {
    /// Returns `true`: one begun anew does not hedge before it knows the latencies, and then no more than a burst.
    fn is_evictable(&self, _now: Instant) -> bool {
        true
    }
}

impl<R, K> Clone for HedgeLayer<R, K> {
    fn clone(&self) -> Self {
        Self {
            policy: Arc::clone(&self.policy),
        }
    }
}

impl<R, K> fmt::Debug for HedgeLayer<R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeLayer")
            .field("policy", &self.policy)
            .finish()
    }
}

/// Reads the state of a hedge. Clones are handles of the same hedge.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    /// The name of the hedge.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.shared.name()
    }

    /// The time after which a call is hedged; `None` while the percentile is not known.
    #[must_use]
    pub fn delay(&self) -> Option<Duration> {
        self.shared.delay(Instant::now())
    }

    /// Says whether calls are not hedged because most of them are slow.
    #[must_use]
    pub fn is_slowed_down(&self) -> bool {
        self.shared.is_slowed_down(Instant::now())
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("name", &self.name())
            .field("delay", &self.delay())
            .finish_non_exhaustive()
    }
}
