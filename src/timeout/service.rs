//! The services of timeout and deadline.

use std::task::{self, Poll};
use std::time::Duration;

use tokio::time::Instant;
use tower::Service;

use super::config::{Fixed, TimeoutFor};
use super::future::{DeadlineFuture, TimeoutFuture};
use crate::chassis::TimeoutMetrics;
use crate::context::{self, DeadlineScope};
use crate::deadline::soonest;
use crate::ready::Ready;
use crate::send::send_method;
use crate::telemetry::Series;
use crate::{CloneService, Error};

/// A service whose attempts end in time. Made by [`TimeoutLayer`](super::TimeoutLayer).
#[derive(Clone, Debug)]
pub struct Timeout<S, D = Fixed> {
    pub(super) inner: Ready<S>,
    pub(super) limit: D,
    pub(super) metrics: &'static Series<TimeoutMetrics>,
}

send_method!(Timeout<S, D>);

impl<S, D, Req> Service<Req> for Timeout<S, D>
where
    S: CloneService<Req>,
    D: TimeoutFor<Req>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = TimeoutFuture<S, Req>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll(cx);
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let timeout = self.limit.timeout_for(&request);
        let metrics = self.metrics;
        self.inner.call_as(request, &mut (), move |call, ()| {
            TimeoutFuture::new(call, timeout, metrics)
        })
    }
}

/// A service whose operations have a deadline. Made by [`DeadlineLayer`](super::DeadlineLayer).
#[derive(Clone, Debug)]
pub struct DeadlineService<S> {
    pub(super) inner: Ready<S>,
    pub(super) total: Duration,
    pub(super) metrics: &'static Series<TimeoutMetrics>,
}

send_method!(DeadlineService<S>);

impl<S, Req> Service<Req> for DeadlineService<S>
where
    S: CloneService<Req>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = DeadlineFuture<S, Req>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll(cx);
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        self.call_within(self.total, request)
    }
}

impl<S> DeadlineService<S> {
    /// Makes a call that has this long from now, or until the deadline in force if that is sooner.
    #[inline]
    pub(crate) fn call_within<Req>(
        &mut self,
        total: Duration,
        request: Req,
    ) -> DeadlineFuture<S, Req>
    where
        S: CloneService<Req>,
    {
        let inherited = context::deadline();
        let metrics = self.metrics;
        let mut span = None;
        if total < Duration::MAX || inherited.is_some() {
            let now = Instant::now();
            let own = crate::nanos::saturating_add(now, total);
            let deadline = soonest(inherited, own);
            if deadline <= now {
                self.inner.release();
                return DeadlineFuture::refused(now, metrics);
            }
            span = Some((now, deadline));
        }
        let _scope = span.map(|(_, deadline)| DeadlineScope::enter(deadline));
        self.inner.call_as(request, &mut (), move |call, ()| {
            DeadlineFuture::new(call, span, metrics)
        })
    }
}
