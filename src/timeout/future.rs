//! The response future of timeout and deadline.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

use super::bound::BoundOfCall;
use crate::chassis::Span;
use crate::chassis::TimeoutMetrics;
use crate::context::{self, DeadlineScope, GivenUp};
use crate::debug::debug_fields;
use crate::ready::Call;
use crate::telemetry::Series;
use crate::timer::Timer;
use crate::{BoxError, Error};

pin_project! {
    /// The response future of [`Bounded`](super::Bounded).
    #[must_use = "futures do nothing unless polled"]
    pub struct BoundedFuture<S, Req, T>
    where
        S: Service<Req>,
    {
        #[pin]
        call: Call<S, Req>,
        #[pin]
        timer: Timer,
        bound: T,
        metrics: &'static Series<TimeoutMetrics>,
    }
}

/// The response future of [`Timeout`](super::Timeout).
pub type TimeoutFuture<S, Req> = BoundedFuture<S, Req, Duration>;

/// The response future of [`DeadlineService`](super::DeadlineService).
pub type DeadlineFuture<S, Req> = BoundedFuture<S, Req, Span>;

impl<S, Req, T> BoundedFuture<S, Req, T>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn new(
        call: Call<S, Req>,
        bound: T,
        metrics: &'static Series<TimeoutMetrics>,
    ) -> Self {
        Self {
            call,
            timer: Timer::default(),
            bound,
            metrics,
        }
    }
}

impl<S, Req, T> Future for BoundedFuture<S, Req, T>
where
    S: Service<Req, Error: Into<BoxError> + 'static>,
    T: BoundOfCall,
{
    type Output = Result<S::Response, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let metrics = *this.metrics;
        let _scope = this.bound.deadline().map(DeadlineScope::enter);
        if let Poll::Ready(result) = this.call.as_mut().poll(cx, || metrics.name()) {
            return Poll::Ready(result);
        }
        ready!(this.bound.poll_end(this.timer, cx));
        let reason = GivenUp::over(this.bound.timeout());
        context::give_up(reason, || this.call.set(Call::Done));
        metrics.timed_out(crate::Mode::Enforce, Instant::now());
        Poll::Ready(Err(this.bound.error(metrics.name())))
    }
}

debug_fields!([S: Service<Req>, Req, T: fmt::Debug] BoundedFuture<S, Req, T> { call, bound });
