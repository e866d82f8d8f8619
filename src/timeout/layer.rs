//! The layers of timeout and deadline.

use std::time::Duration;

use tokio::time::Instant;
use tower::Layer;

use super::bound::{Bound, PerAttempt, Total};
use super::config::{DeadlineConfig, Fixed, PerRequest, TimeoutConfig};
use super::service::Bounded;
use crate::chassis::TimeoutMetrics;
use crate::error::{Check, or_panic};
use crate::ready::Ready;
use crate::telemetry::Series;
use crate::{CloneService, Evictable};

/// The layer of a [bound](Bound), such as a [`TimeoutLayer`] or a [`DeadlineLayer`].
#[derive(Clone, Debug)]
pub struct BoundLayer<B> {
    bound: B,
    metrics: &'static Series<TimeoutMetrics>,
}

/// Ends one attempt that takes too long. See the [module documentation](crate::timeout).
pub type TimeoutLayer<D = Fixed> = BoundLayer<PerAttempt<D>>;

/// Ends a whole operation that takes too long. See the [module documentation](crate::timeout).
pub type DeadlineLayer = BoundLayer<Total>;

impl TimeoutLayer {
    /// Makes a timeout for the attempts to reach `name`.
    ///
    /// # Panics
    ///
    /// If `name` is empty, or `timeout` is zero or longer than 365 days.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str, timeout: Duration) -> Self {
        or_panic(Self::config(name, timeout).build())
    }

    /// Begins to configure a timeout.
    pub fn config(name: impl Into<String>, timeout: Duration) -> TimeoutConfig {
        TimeoutConfig {
            name: name.into(),
            timeout,
        }
    }
}

impl<F> TimeoutLayer<PerRequest<F>> {
    /// Makes a layer whose timeout the closure `timeout` computes from each request.
    ///
    /// # Panics
    ///
    /// If `name` is empty.
    #[must_use]
    #[track_caller]
    pub fn per_request<Req>(name: &str, timeout: F) -> Self
    where
        F: Fn(&Req) -> Duration,
    {
        or_panic(Check::new("timeout", name));
        let metrics = Series::of_time(name, "timeout", Duration::MAX);
        Self::of(metrics, PerAttempt(PerRequest(timeout)))
    }
}

impl DeadlineLayer {
    /// Makes a deadline for operations on `name`, the time `total` after they begin.
    ///
    /// # Panics
    ///
    /// If `name` is empty, or `total` is zero or longer than 365 days.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str, total: Duration) -> Self {
        or_panic(Self::config(name, total).build())
    }

    /// Begins to configure a deadline.
    pub fn config(name: impl Into<String>, total: Duration) -> DeadlineConfig {
        DeadlineConfig {
            name: name.into(),
            total,
        }
    }
}

impl<B: Clone> BoundLayer<B> {
    /// Wraps `service`. The compiler checks that it can serve requests of type `Req`.
    pub fn wrap<Req, S>(&self, service: S) -> Bounded<S, B>
    where
        S: CloneService<Req>,
        B: Bound<Req>,
    {
        self.layer(service)
    }
}

impl<B> BoundLayer<B> {
    /// Makes a layer that reports to these metrics.
    pub(crate) fn of(metrics: &'static Series<TimeoutMetrics>, bound: B) -> Self {
        Self { bound, metrics }
    }
}

impl<S, B: Clone> Layer<S> for BoundLayer<B> {
    type Service = Bounded<S, B>;

    fn layer(&self, inner: S) -> Bounded<S, B> {
        Bounded {
            inner: Ready::new(inner),
            bound: self.bound.clone(),
            metrics: self.metrics,
        }
    }
}

impl<B> Evictable for BoundLayer<B> {
    fn is_evictable(&self, _now: Instant) -> bool {
        true
    }
}
