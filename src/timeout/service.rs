//! The service of timeout and deadline.

use std::task::{self, Poll};

use tower::Service;

use super::bound::{Bound, BoundOfCall, PerAttempt, Total};
use super::config::Fixed;
use super::future::BoundedFuture;
use crate::chassis::TimeoutMetrics;
use crate::context::DeadlineScope;
use crate::ready::Ready;
use crate::send::send_method;
use crate::telemetry::Series;
use crate::{CloneService, Error, ErrorKind, Mode};

/// A service whose calls are bounded in time. Made by [`BoundLayer`](super::BoundLayer).
#[derive(Clone, Debug)]
pub struct Bounded<S, B> {
    pub(super) inner: Ready<S>,
    pub(super) bound: B,
    pub(super) metrics: &'static Series<TimeoutMetrics>,
}

/// A service whose attempts have a timeout. Made by [`TimeoutLayer`](super::TimeoutLayer).
pub type Timeout<S, D = Fixed> = Bounded<S, PerAttempt<D>>;

/// A service whose operations have a deadline. Made by [`DeadlineLayer`](super::DeadlineLayer).
pub type DeadlineService<S> = Bounded<S, Total>;

send_method!(Bounded<S, B>);

impl<S, B, Req> Service<Req> for Bounded<S, B>
where
    S: CloneService<Req>,
    B: Bound<Req>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = BoundedFuture<S, Req, B::Of>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll(cx);
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let metrics = self.metrics;
        match self.bound.begin(&request) {
            Ok(mut bound) => {
                let _scope = bound.deadline().map(DeadlineScope::enter);
                self.inner.call_as(request, &mut (), move |call, ()| {
                    BoundedFuture::new(call, bound, metrics)
                })
            }
            // There is no time left.
            Err(now) => {
                let kind = ErrorKind::DeadlineExceeded;
                metrics.rejected(kind, Mode::Enforce, now);
                let error = Error::rejected(kind, metrics.name(), None);
                let call = self.inner.call_later(request, Err(error));
                BoundedFuture::new(call, B::Of::default(), metrics)
            }
        }
    }
}
