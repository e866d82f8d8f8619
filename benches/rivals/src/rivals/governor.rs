//! governor: a rate limit by GCRA, without a Tower layer of its own. Its default clock, `quanta`.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use governor::{DefaultDirectRateLimiter, Quota};
use pin_project_lite::pin_project;
use tower::{BoxError, Layer, Service};

use super::guard::Rejected;
use super::{DAY, PER_SECOND};

#[derive(Clone, Debug)]
pub(crate) struct GovernorLayer {
    limiter: Arc<DefaultDirectRateLimiter>,
}

pub(crate) fn rate_limit() -> GovernorLayer {
    with(Quota::per_second(
        NonZeroU32::new(PER_SECOND).expect("is not zero"),
    ))
}

pub(crate) fn one_a_day() -> GovernorLayer {
    with(Quota::with_period(DAY).expect("is not zero"))
}

fn with(quota: Quota) -> GovernorLayer {
    GovernorLayer {
        limiter: Arc::new(DefaultDirectRateLimiter::direct(quota)),
    }
}

impl<S> Layer<S> for GovernorLayer {
    type Service = Governed<S>;

    fn layer(&self, inner: S) -> Governed<S> {
        Governed {
            inner,
            limiter: Arc::clone(&self.limiter),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Governed<S> {
    inner: S,
    limiter: Arc<DefaultDirectRateLimiter>,
}

pin_project! {
    #[project = Projected]
    pub(crate) enum GovernedFuture<F> {
        Passed { #[pin] future: F },
        Rejected,
    }
}

impl<F, T, E> Future for GovernedFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projected::Passed { future } => future.poll(context).map_err(Into::into),
            Projected::Rejected => Poll::Ready(Err(Rejected.into())),
        }
    }
}

impl<S, Req> Service<Req> for Governed<S>
where
    S: Service<Req, Error: Into<BoxError>>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = GovernedFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        if self.limiter.check().is_err() {
            return GovernedFuture::Rejected;
        }
        let future = self.inner.call(request);
        GovernedFuture::Passed { future }
    }
}
