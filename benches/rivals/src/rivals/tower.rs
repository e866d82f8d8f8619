//! tower's own layers.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use tower::balance::p2c;
use tower::discover::ServiceList;
use tower::hedge::{self, Hedge};
use tower::layer::util::Identity;
use tower::limit::{GlobalConcurrencyLimitLayer, RateLimitLayer};
use tower::load::{CompleteOnResponse, PeakEwma};
use tower::load_shed::LoadShedLayer;
use tower::retry::budget::{Budget, TpsBudget};
use tower::retry::{Policy, RetryLayer};
use tower::timeout::TimeoutLayer;
use tower::{BoxError, Layer, Service};

use super::{CONCURRENT, DAY, SECOND};

pub(crate) fn nothing() -> Identity {
    Identity::new()
}

pub(crate) fn timeout(limit: Duration) -> TimeoutLayer {
    TimeoutLayer::new(limit)
}

/// Two retries at once, without backoff, within tower's budget.
pub(crate) fn retry() -> RetryLayer<Retries> {
    RetryLayer::new(Retries {
        left: 2,
        budget: Arc::new(TpsBudget::default()),
    })
}

#[derive(Clone, Debug)]
pub(crate) struct Retries {
    left: u32,
    budget: Arc<TpsBudget>,
}

impl<Req: Clone, Res, E> Policy<Req, Res, E> for Retries {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Req, result: &mut Result<Res, E>) -> Option<Ready<()>> {
        if result.is_ok() {
            self.budget.deposit();
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        self.budget.withdraw().then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

/// All clones share the permits, as with ours. A call that finds none waits.
pub(crate) fn concurrency(most: usize) -> GlobalConcurrencyLimitLayer {
    GlobalConcurrencyLimitLayer::new(most)
}

pub(crate) fn bulkhead() -> GlobalConcurrencyLimitLayer {
    concurrency(CONCURRENT)
}

/// Turns waiting into rejection.
pub(crate) fn shedding<L>(layer: L) -> (LoadShedLayer, L) {
    (LoadShedLayer::new(), layer)
}

/// Its services cannot be cloned. A call beyond the rate waits.
pub(crate) fn rate_limit() -> RateLimitLayer {
    RateLimitLayer::new(u64::MAX, SECOND)
}

pub(crate) fn one_a_day() -> RateLimitLayer {
    RateLimitLayer::new(1, DAY)
}

/// Sends a copy after the 98th percentile of the last 30 s. It knows that only when these are over, so it is given
/// latencies of 1 ms to begin with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HedgeLayer;

#[derive(Clone, Copy, Debug)]
pub(crate) struct AlwaysHedge;

impl hedge::Policy<u64> for AlwaysHedge {
    fn clone_request(&self, request: &u64) -> Option<u64> {
        Some(*request)
    }

    fn can_retry(&self, _: &u64) -> bool {
        true
    }
}

impl<S> Layer<S> for HedgeLayer
where
    S: Service<u64, Error: Into<BoxError>> + Clone,
{
    type Service = Hedge<S, AlwaysHedge>;

    fn layer(&self, inner: S) -> Self::Service {
        let latencies = [1; 100];
        Hedge::new_with_mock_latencies(inner, AlwaysHedge, 100, 0.98, 30 * SECOND, &latencies)
    }
}

pub(crate) type Balance<S> = p2c::Balance<ServiceList<Vec<PeakEwma<S>>>, u64>;

/// Peak EWMA with the decay of ours. Cannot be cloned.
pub(crate) fn balance<S>(endpoints: impl IntoIterator<Item = S>) -> Balance<S>
where
    S: Service<u64, Error: Into<BoxError>>,
{
    const DECAY_NANOS: f64 = 10e9;
    let measured = |service| {
        let default = Duration::from_millis(1);
        PeakEwma::new(service, default, DECAY_NANOS, CompleteOnResponse::default())
    };
    let endpoints: Vec<_> = endpoints.into_iter().map(measured).collect();
    p2c::Balance::new(ServiceList::new::<u64>(endpoints))
}
