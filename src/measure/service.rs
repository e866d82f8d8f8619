//! The service that measures, and the permit of a measured call.

use std::fmt;
use std::task::{self, Poll};

use tokio::time::Instant;
use tower::Service;

use super::future::ResponseFuture;
use super::metrics::MeasureMetrics;
use crate::context::{self, ClockScope};
use crate::ready::Ready;
use crate::send::send_method;
use crate::telemetry::{Ended, Series};
use crate::{
    Classify, CloneService, CompleteOnResponse, Error, ErrorsAreFailures, Outcome, Permit,
    TrackCompletion,
};

/// A service whose calls are measured. Made by [`MeasureLayer`](super::MeasureLayer).
#[derive(Clone)]
pub struct Measure<S, K = ErrorsAreFailures, C = CompleteOnResponse> {
    pub(super) inner: Ready<S>,
    pub(super) metrics: Option<&'static Series<MeasureMetrics>>,
    pub(super) classify: K,
    pub(super) completion: C,
}

send_method!(Measure<S, K, C>);

impl<S, K, C, Req> Service<Req> for Measure<S, K, C>
where
    S: CloneService<Req>,
    K: Classify<S::Response> + Clone,
    C: TrackCompletion<S::Response, K>,
{
    type Response = C::Response<Measured>;
    type Error = Error;
    type Future = ResponseFuture<S, Req, K, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll(cx);
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let _clock = ClockScope::call();
        // Before the call, so that one which panics is counted.
        let mut permit = Some(Measured::begin(self.metrics));
        let (classify, completion) = (self.classify.clone(), self.completion.clone());
        self.inner
            .call_as(request, &mut permit, move |call, permit| {
                ResponseFuture::new(call, permit.take(), classify, completion)
            })
    }
}

impl<S: fmt::Debug, K, C> fmt::Debug for Measure<S, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Measure")
            .field("inner", &self.inner)
            .field("metrics", &self.metrics)
            .finish_non_exhaustive()
    }
}

/// A call that is being measured.
#[derive(Debug)]
#[must_use = "a permit that is dropped counts as cancelled"]
pub struct Measured {
    /// `None` for a call that nobody measures.
    measured: Option<(&'static Series<MeasureMetrics>, Instant)>,
    end: Ended,
}

impl Measured {
    #[inline]
    fn begin(metrics: Option<&'static Series<MeasureMetrics>>) -> Self {
        Self {
            measured: metrics.map(|metrics| (metrics, context::now())),
            end: Ended::Cancelled,
        }
    }

    /// The name of the layer.
    pub(super) fn name(&self) -> &'static str {
        self.measured.map_or("", |(metrics, _)| metrics.name())
    }
}

impl Permit for Measured {
    fn refuse(mut self) {
        self.end = Ended::Rejected;
    }

    #[inline]
    fn resolve(mut self, outcome: Outcome) {
        self.end = Ended::from(outcome);
    }
}

impl Drop for Measured {
    #[inline]
    fn drop(&mut self) {
        let Some((metrics, started)) = self.measured else {
            return;
        };
        let now = context::fresh_now();
        let duration = now.saturating_duration_since(started);
        metrics.ended(self.end, duration, now);
    }
}
