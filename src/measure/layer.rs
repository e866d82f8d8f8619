//! The layer that measures.

use std::fmt;

use tokio::time::Instant;
use tower::Layer;

use super::metrics::{ATTEMPT, MeasureMetrics, OPERATION};
use super::service::Measure;
use crate::error::{Check, or_panic};
use crate::ready::Ready;
use crate::telemetry::Series;
use crate::{
    Classify, CloneService, CompleteOnResponse, ErrorsAreFailures, Evictable, TrackCompletion,
};

/// Records rate, errors and duration of calls. See the [module documentation](crate::measure).
#[derive(Clone)]
pub struct MeasureLayer<K = ErrorsAreFailures, C = CompleteOnResponse> {
    /// `None` for a layer that measures nothing.
    metrics: Option<&'static Series<MeasureMetrics>>,
    classify: K,
    completion: C,
}

impl MeasureLayer {
    /// Counts operations on `name`: the outermost layer of a stack.
    ///
    /// # Panics
    ///
    /// If `name` is empty.
    #[must_use]
    #[track_caller]
    pub fn operation(name: &str) -> Self {
        Self::new(name, OPERATION)
    }

    /// Counts attempts to reach `name`: the innermost layer of a stack.
    ///
    /// # Panics
    ///
    /// If `name` is empty.
    #[must_use]
    #[track_caller]
    pub fn attempt(name: &str) -> Self {
        Self::new(name, ATTEMPT)
    }

    /// A layer that measures nothing.
    pub(crate) fn off() -> Self {
        Self {
            metrics: None,
            classify: ErrorsAreFailures,
            completion: CompleteOnResponse,
        }
    }

    #[track_caller]
    fn new(name: &str, stage: &'static str) -> Self {
        or_panic(Check::new("measure", name));
        Self {
            metrics: Some(Series::of(name, stage)),
            classify: ErrorsAreFailures,
            completion: CompleteOnResponse,
        }
    }
}

impl<K, C> MeasureLayer<K, C> {
    /// Classifies calls with `classify`. By default errors are failures.
    #[must_use]
    pub fn classify<K2>(self, classify: K2) -> MeasureLayer<K2, C> {
        MeasureLayer {
            metrics: self.metrics,
            classify,
            completion: self.completion,
        }
    }

    /// Sets when a call is over. By default when the inner service has returned its response.
    #[must_use]
    pub fn completion<C2>(self, completion: C2) -> MeasureLayer<K, C2> {
        MeasureLayer {
            metrics: self.metrics,
            classify: self.classify,
            completion,
        }
    }

    /// Wraps `service`, checking that it can serve requests of type `Req`.
    pub fn wrap<Req, S>(&self, service: S) -> Measure<S, K, C>
    where
        S: CloneService<Req>,
        K: Classify<S::Response> + Clone,
        C: TrackCompletion<S::Response, K>,
    {
        self.layer(service)
    }
}

impl<S, K: Clone, C: Clone> Layer<S> for MeasureLayer<K, C> {
    type Service = Measure<S, K, C>;

    fn layer(&self, inner: S) -> Measure<S, K, C> {
        Measure {
            inner: Ready::new(inner),
            metrics: self.metrics,
            classify: self.classify.clone(),
            completion: self.completion.clone(),
        }
    }
}

impl<K, C> Evictable for MeasureLayer<K, C> {
    fn is_evictable(&self, _now: Instant) -> bool {
        true
    }
}

impl<K, C> fmt::Debug for MeasureLayer<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeasureLayer")
            .field("metrics", &self.metrics)
            .finish_non_exhaustive()
    }
}
