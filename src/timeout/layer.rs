//! The layers of timeout and deadline.

use std::time::Duration;

use tokio::time::Instant;
use tower::Layer;

use super::TimeoutMetrics;
use super::config::{DeadlineConfig, Fixed, PerRequest, TimeoutConfig, TimeoutFor};
use super::service::{DeadlineService, Timeout};
use crate::error::{Check, or_panic};
use crate::ready::Ready;
use crate::telemetry::Series;
use crate::{CloneService, Evictable};

/// Ends one attempt that takes too long. See the [module documentation](crate::timeout).
#[derive(Clone, Debug)]
pub struct TimeoutLayer<D = Fixed> {
    pub(super) limit: D,
    pub(super) metrics: &'static Series<TimeoutMetrics>,
}

impl TimeoutLayer {
    /// A timeout for the attempts to reach `name`.
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
    /// A timeout that `timeout` takes from each request.
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
        Self {
            limit: PerRequest(timeout),
            metrics: Series::of(name, "timeout"),
        }
    }
}

impl<D: Clone> TimeoutLayer<D> {
    /// Wraps `service`, checking that it can serve requests of type `Req`.
    pub fn wrap<Req, S>(&self, service: S) -> Timeout<S, D>
    where
        S: CloneService<Req>,
        D: TimeoutFor<Req>,
    {
        self.layer(service)
    }
}

impl<S, D: Clone> Layer<S> for TimeoutLayer<D> {
    type Service = Timeout<S, D>;

    fn layer(&self, inner: S) -> Timeout<S, D> {
        Timeout {
            inner: Ready::new(inner),
            limit: self.limit.clone(),
            metrics: self.metrics,
        }
    }
}

impl<D> Evictable for TimeoutLayer<D> {
    fn is_evictable(&self, _now: Instant) -> bool {
        true
    }
}

/// Ends a whole operation that takes too long. See the [module documentation](crate::timeout).
#[derive(Clone, Debug)]
pub struct DeadlineLayer {
    pub(super) total: Duration,
    pub(super) metrics: &'static Series<TimeoutMetrics>,
}

impl DeadlineLayer {
    /// A deadline for operations on `name`, this long after they begin.
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

    /// A deadline of a layer that is called `part` in its metrics.
    pub(crate) fn part(name: &str, part: &'static str, total: Duration) -> Self {
        Self {
            total,
            metrics: Series::of(name, part),
        }
    }

    /// Wraps `service`, checking that it can serve requests of type `Req`.
    pub fn wrap<Req, S>(&self, service: S) -> DeadlineService<S>
    where
        S: CloneService<Req>,
    {
        self.layer(service)
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> DeadlineService<S> {
        DeadlineService {
            inner: Ready::new(inner),
            total: self.total,
            metrics: self.metrics,
        }
    }
}

impl Evictable for DeadlineLayer {
    fn is_evictable(&self, _now: Instant) -> bool {
        true
    }
}
