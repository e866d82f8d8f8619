//! The response futures of timeout and deadline.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

use super::metrics::TimeoutMetrics;

use crate::context::{self, ClockScope, DeadlineScope, GivenUp};
use crate::deadline::soonest;
use crate::ready::Call;
use crate::telemetry::Series;
use crate::timer::Timer;
use crate::{BoxError, Error, ErrorKind, Mode};

pin_project! {
    /// The response future of [`Timeout`](super::Timeout).
    #[must_use = "futures do nothing unless polled"]
    pub struct TimeoutFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        call: Call<S, Req>,
        #[pin]
        timer: Timer,
        timeout: Duration,
        metrics: &'static Series<TimeoutMetrics>,
    }
}

impl<S, Req> TimeoutFuture<S, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn new(
        call: Call<S, Req>,
        timeout: Duration,
        metrics: &'static Series<TimeoutMetrics>,
    ) -> Self {
        Self {
            call,
            timer: Timer::default(),
            timeout,
            metrics,
        }
    }
}

impl<S, Req> Future for TimeoutFuture<S, Req>
where
    S: Service<Req, Error: Into<BoxError> + 'static>,
{
    type Output = Result<S::Response, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let metrics = *this.metrics;
        if let Poll::Ready(result) = this.call.as_mut().poll(cx, || metrics.name()) {
            return Poll::Ready(result);
        }
        let timeout = *this.timeout;
        if timeout == Duration::MAX {
            return Poll::Pending;
        }
        if !timeout.is_zero() {
            let end = || crate::nanos::saturating_add(Instant::now(), timeout);
            ready!(this.timer.poll(end, cx));
        }
        context::give_up(GivenUp::TimedOut, || this.call.set(Call::Done));
        this.metrics.timed_out(Instant::now());
        let error = Error::timed_out(ErrorKind::Timeout, this.metrics.name(), timeout);
        Poll::Ready(Err(error))
    }
}

impl<S, Req> fmt::Debug for TimeoutFuture<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutFuture")
            .field("call", &self.call)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The response future of [`DeadlineService`](super::DeadlineService).
    #[must_use = "futures do nothing unless polled"]
    pub struct DeadlineFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        call: Call<S, Req>,
        #[pin]
        timer: Timer,
        // When it began, and when it must be over. `None` for a call without a deadline, unless one is set
        // while it is polled.
        span: Option<(Instant, Instant)>,
        metrics: &'static Series<TimeoutMetrics>,
    }
}

impl<S, Req> DeadlineFuture<S, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn new(
        call: Call<S, Req>,
        span: Option<(Instant, Instant)>,
        metrics: &'static Series<TimeoutMetrics>,
    ) -> Self {
        Self {
            call,
            timer: Timer::default(),
            span,
            metrics,
        }
    }

    /// The answer to a call that began after its deadline.
    #[cold]
    pub(super) fn refused(now: Instant, metrics: &'static Series<TimeoutMetrics>) -> Self {
        let kind = ErrorKind::DeadlineExceeded;
        metrics.rejected(kind, Mode::Enforce, now);
        let error = Error::rejected(kind, metrics.name(), None);
        Self::new(Call::failed(error), Some((now, now)), metrics)
    }
}

impl<S, Req> Future for DeadlineFuture<S, Req>
where
    S: Service<Req, Error: Into<BoxError> + 'static>,
{
    type Output = Result<S::Response, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let deadline = match (context::deadline(), *this.span) {
            (inherited, Some((_, own))) => soonest(inherited, own),
            (Some(inherited), None) => inherited,
            (None, None) => return this.call.poll(cx, || this.metrics.name()),
        };
        let _scopes = (ClockScope::poll(), DeadlineScope::enter(deadline));
        let metrics = *this.metrics;
        if let Poll::Ready(result) = this.call.as_mut().poll(cx, || metrics.name()) {
            return Poll::Ready(result);
        }
        ready!(this.timer.poll(|| deadline, cx));
        this.call.set(Call::Done);
        this.metrics.timed_out(Instant::now());
        let (kind, name) = (ErrorKind::DeadlineExceeded, this.metrics.name());
        let error = match *this.span {
            Some((began, _)) => {
                let allowed = deadline.saturating_duration_since(began);
                Error::timed_out(kind, name, allowed)
            }
            None => Error::late(name),
        };
        Poll::Ready(Err(error))
    }
}

impl<S, Req> fmt::Debug for DeadlineFuture<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineFuture")
            .field("call", &self.call)
            .field("deadline", &self.span.map(|(_, deadline)| deadline))
            .finish_non_exhaustive()
    }
}
