//! failsafe: a circuit breaker for futures, without a Tower layer.

use std::task::{Context, Poll};
use std::time::Duration;

use failsafe::backoff::{Constant, constant};
use failsafe::failure_policy::{
    ConsecutiveFailures, OrElse, SuccessRateOverTimeWindow, consecutive_failures,
    success_rate_over_time_window,
};
use failsafe::futures::{CircuitBreaker, ResponseFuture};
use failsafe::{Any, Config, FailurePolicy, StateMachine};
use tower::{BoxError, Layer, Service};

use super::DAY;
use super::guard::Guarded;

pub(crate) struct FailsafeLayer<P> {
    breaker: StateMachine<P, ()>,
}

pub(crate) type InARow = ConsecutiveFailures<Constant>;
pub(crate) type Either = OrElse<SuccessRateOverTimeWindow<Constant>, InARow>;

/// With the default policy: under 80 % success in 30 s, or 5 failures in a row. How long it is open then is
/// fixed, which no call notices that passes.
pub(crate) fn breaker() -> FailsafeLayer<Either> {
    let rate = success_rate_over_time_window(0.8, 5, Duration::from_secs(30), open());
    with(rate.or_else(consecutive_failures(5, open())))
}

/// The policy that costs least: 5 failures in a row.
pub(crate) fn in_a_row() -> FailsafeLayer<InARow> {
    with(consecutive_failures(5, open()))
}

fn with<P: FailurePolicy>(policy: P) -> FailsafeLayer<P> {
    FailsafeLayer {
        breaker: Config::new().failure_policy(policy).build(),
    }
}

fn open() -> Constant {
    constant(DAY)
}

impl<S, P> Layer<S> for FailsafeLayer<P> {
    type Service = Failsafe<S, P>;

    fn layer(&self, inner: S) -> Failsafe<S, P> {
        Failsafe {
            inner,
            breaker: self.breaker.clone(),
        }
    }
}

pub(crate) struct Failsafe<S, P> {
    inner: S,
    breaker: StateMachine<P, ()>,
}

impl<S: Clone, P> Clone for Failsafe<S, P> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            breaker: self.breaker.clone(),
        }
    }
}

impl<S, P, Req> Service<Req> for Failsafe<S, P>
where
    S: Service<Req, Error: Into<BoxError>>,
    P: FailurePolicy + Send + Sync,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Guarded<ResponseFuture<S::Future, P, (), Any>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    /// The breaker takes a future: that of the inner service is made, and not polled while the breaker is open.
    fn call(&mut self, request: Req) -> Self::Future {
        Guarded::new(self.breaker.call(self.inner.call(request)))
    }
}
