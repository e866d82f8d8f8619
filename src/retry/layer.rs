//! The layer of retry.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;
use tower::Layer;

use super::config::Config;
use super::service::{Policy, Retry};
use crate::error::or_panic;
use crate::{Budget, ByClone, Classify, CloneService, ErrorsAreFailures, Evictable, Replay};

/// Tries again what failed. See the [module documentation](crate::retry).
///
/// All services made by one layer value, or by its clones, share one budget.
pub struct RetryLayer<R = ByClone, K = ErrorsAreFailures> {
    pub(super) policy: Arc<Policy<R, K>>,
}

impl RetryLayer {
    /// A retry with the default settings and a budget of its own.
    ///
    /// # Panics
    ///
    /// If `name` is empty.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str) -> Self {
        or_panic(Self::config(name).build())
    }

    /// Begins to configure a retry.
    pub fn config(name: impl Into<String>) -> Config {
        Config::new(name.into())
    }
}

impl<R, K> RetryLayer<R, K> {
    /// The budget that retries are paid from, if there is one.
    #[must_use]
    pub fn budget(&self) -> Option<&Budget> {
        self.policy.budget.as_ref()
    }

    /// Wraps `service`, checking that it can serve requests of type `Req` and that they can be copied.
    pub fn wrap<Req, S>(&self, service: S) -> Retry<S, R, K>
    where
        S: CloneService<Req>,
        R: Replay<Req>,
        K: Classify<S::Response>,
    {
        self.layer(service)
    }
}

impl<S: Clone, R, K> Layer<S> for RetryLayer<R, K> {
    type Service = Retry<S, R, K>;

    fn layer(&self, inner: S) -> Retry<S, R, K> {
        Retry::new(inner, Arc::clone(&self.policy))
    }
}

impl<R, K> Evictable for RetryLayer<R, K> {
    /// Returns `true`: a budget begun anew holds no more than what one operation may need.
    fn is_evictable(&self, _now: Instant) -> bool {
        true
    }
}

impl<R, K> Clone for RetryLayer<R, K> {
    fn clone(&self) -> Self {
        Self {
            policy: Arc::clone(&self.policy),
        }
    }
}

impl<R, K> fmt::Debug for RetryLayer<R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer")
            .field("policy", &self.policy)
            .finish()
    }
}
