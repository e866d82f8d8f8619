//! What is measured.

use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use buttress::bulkhead::Aimd;
use buttress::stack::{Standard, StandardLayer};
use buttress::{
    BoxError, BulkheadLayer, CircuitBreakerLayer, DeadlineLayer, Error, FallbackLayer, HedgeLayer,
    KeyedLayer, MeasureLayer, Outcome, Rate, RateLimitLayer, RetryLayer, TimeoutLayer, classify_fn,
    fallback,
};
use tokio::time::Instant;
use tower::retry::Policy;
use tower::retry::budget::{Budget, TpsBudget};
use tower::{Layer, Service, ServiceBuilder};

use crate::timed;

/// Long enough for the rows to differ, short enough for a round to see one state of the machine.
pub(crate) const CALLS: u32 = 5_000;
/// Starting threads must not show.
pub(crate) const CALLS_ON_THREADS: u32 = 50_000;

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) struct Section {
    pub(crate) title: &'static str,
    /// The first one is the unit.
    pub(crate) rows: Vec<Row>,
}

pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// What the design allows, in units.
    pub(crate) target: &'static str,
    pub(crate) calls: u32,
    pub(crate) run: Box<dyn Fn(u32) -> Duration>,
}

impl Row {
    pub(crate) fn new(
        name: &'static str,
        target: &'static str,
        run: impl Fn(u32) -> Duration + 'static,
    ) -> Self {
        Self {
            name,
            target,
            calls: CALLS,
            run: Box::new(run),
        }
    }
}

pub(crate) fn sections() -> Vec<Section> {
    vec![
        layers(),
        stacks(),
        pending_once(),
        rejections(),
        two_threads(),
    ]
}

fn layers() -> Section {
    Section {
        title: "One layer, inner service ready at once",
        rows: vec![
            row("tower Timeout (the unit)", "1", tower_timeout(), AtOnce),
            row("no layer", "", tower::layer::util::Identity::new(), AtOnce),
            clock(),
            row("Timeout", "0.25", timeout(), AtOnce),
            row("Deadline", "", deadline(), AtOnce),
            row("tower Retry, budget", "", tower_retry(), AtOnce),
            row("Retry, budget", "0.6", RetryLayer::new("bench"), AtOnce),
            row("CircuitBreaker, 10 s", "0.8", breaker(), AtOnce),
            row(
                "CircuitBreaker, every other call fails",
                "",
                failing_breaker(),
                AtOnce,
            ),
            row("Hedge, percentile, not fired", "1.5", hedge(), AtOnce),
            tower_rate_limit(),
            row("RateLimit", "0.55", rate_limit(), AtOnce),
            row(
                "RateLimit, calls may wait",
                "",
                waiting_rate_limit(),
                AtOnce,
            ),
            row("tower ConcurrencyLimit", "", tower_limit(), AtOnce),
            row("Bulkhead", "0.6", bulkhead(), AtOnce),
            row("Bulkhead, adaptive", "", adaptive(), AtOnce),
            row("Measure", "", MeasureLayer::attempt("bench"), AtOnce),
            row("Fallback, value", "", fallback(), AtOnce),
            row("Keyed CircuitBreaker, 1 key", "", keyed_breaker(1), AtOnce),
            row(
                "Keyed CircuitBreaker, 1000 keys",
                "",
                keyed_breaker(1_000),
                AtOnce,
            ),
        ],
    }
}

fn stacks() -> Section {
    Section {
        title: "Stacks, inner service ready at once",
        rows: vec![
            row("tower Timeout (the unit)", "1", tower_timeout(), AtOnce),
            row(
                "tower Retry, Timeout",
                "",
                ServiceBuilder::new()
                    .layer(tower_retry())
                    .layer(tower_timeout()),
                AtOnce,
            ),
            row(
                "Deadline, Retry, CircuitBreaker, Timeout",
                "",
                stack(),
                AtOnce,
            ),
            row(
                "Deadline, Retry, CircuitBreaker, RateLimit, Bulkhead, Timeout",
                "3.2",
                six_layers(),
                AtOnce,
            ),
            row(
                "six parts in one stack",
                "2.35",
                standard(six_parts),
                AtOnce,
            ),
            row("standard stack", "6.0", standard(|config| config), AtOnce),
            row(
                "… without Measure",
                "",
                standard(Standard::no_measure),
                AtOnce,
            ),
            row("… with all parts", "", standard(all_parts), AtOnce),
        ],
    }
}

fn pending_once() -> Section {
    Section {
        title: "Inner service pending once",
        rows: vec![
            row(
                "tower Timeout (the unit)",
                "1",
                tower_timeout(),
                PendingOnce,
            ),
            row("Timeout", "1.05", timeout(), PendingOnce),
            row("Retry, budget", "", RetryLayer::new("bench"), PendingOnce),
            row("CircuitBreaker, 10 s", "", breaker(), PendingOnce),
            row("Hedge, percentile, not fired", "", hedge(), PendingOnce),
            row(
                "Deadline, Retry, CircuitBreaker, Timeout",
                "",
                stack(),
                PendingOnce,
            ),
            row(
                "six parts in one stack",
                "",
                standard(six_parts),
                PendingOnce,
            ),
            row("standard stack", "", standard(|config| config), PendingOnce),
        ],
    }
}

fn rejections() -> Section {
    let open = CircuitBreakerLayer::new("open");
    open.handle().force_open();
    Section {
        title: "Rejections (the unit is a call that passes)",
        rows: vec![
            row("tower Timeout (the unit)", "1", tower_timeout(), AtOnce),
            row("CircuitBreaker, open", "0.8", open, AtOnce),
            row("RateLimit, used up", "", used_up(), AtOnce),
            row("Bulkhead, full", "", full(), AtOnce),
        ],
    }
}

fn two_threads() -> Section {
    Section {
        title: "Two threads, each with a clone; ns per call on each thread",
        rows: vec![
            threads("tower Timeout (the unit)", "1", &tower_timeout()),
            threads("Timeout", "", &timeout()),
            threads("tower Retry, budget", "", &tower_retry()),
            threads("Retry, budget", "", &RetryLayer::new("bench")),
            threads("CircuitBreaker, 10 s", "130 ns", &breaker()),
            threads("Hedge, percentile, not fired", "", &hedge()),
            threads("RateLimit", "", &rate_limit()),
            threads("tower ConcurrencyLimit", "", &tower_limit()),
            threads("Bulkhead", "", &bulkhead()),
            threads("Bulkhead, adaptive", "", &adaptive()),
            threads("Deadline, Retry, CircuitBreaker, Timeout", "", &stack()),
            threads("six parts in one stack", "", &standard(six_parts)),
            threads("standard stack", "", &standard(|config| config)),
        ],
    }
}

pub(crate) fn tower_timeout() -> tower::timeout::TimeoutLayer {
    tower::timeout::TimeoutLayer::new(SECOND)
}

fn tower_retry() -> tower::retry::RetryLayer<TowerPolicy> {
    tower::retry::RetryLayer::new(TowerPolicy {
        budget: Arc::new(TpsBudget::default()),
    })
}

fn timeout() -> TimeoutLayer {
    TimeoutLayer::new("bench", SECOND)
}

fn deadline() -> DeadlineLayer {
    DeadlineLayer::new("bench", SECOND)
}

fn breaker() -> CircuitBreakerLayer {
    CircuitBreakerLayer::new("bench")
}

/// A breaker that counts every other answer as a failure, looks whether these are too many, and stays closed.
fn failing_breaker<S: Bench>() -> impl Layer<S, Service: Bench> {
    let every_other = classify_fn(|result: Result<&u64, &Error>| match result {
        Ok(answer) if answer % 2 == 0 => Outcome::Success,
        _ => Outcome::Failure,
    });
    let config = CircuitBreakerLayer::config("bench").failure_share(0.99);
    config.classify(every_other).build().expect("is valid")
}

fn fallback() -> FallbackLayer<fallback::Value<u64>> {
    FallbackLayer::new("bench", fallback::value(0))
}

/// A breaker for each of so many keys, which come in turn.
fn keyed_breaker<S: Bench>(keys: u64) -> impl Layer<S, Service: Bench> + Clone {
    KeyedLayer::new(
        "bench",
        move |request: &u64| request % keys,
        |_: &u64| breaker(),
    )
}

/// All clones of a service share its permits, as with ours.
fn tower_limit() -> tower::limit::GlobalConcurrencyLimitLayer {
    tower::limit::GlobalConcurrencyLimitLayer::new(100)
}

fn bulkhead() -> BulkheadLayer {
    BulkheadLayer::new("bench", 100)
}

/// A bulkhead whose only permit is never given back.
fn full() -> BulkheadLayer {
    let layer = BulkheadLayer::new("full", 1);
    let mut hangs = layer.layer(tower::service_fn(|_: u64| {
        std::future::pending::<Result<u64, BoxError>>()
    }));
    std::mem::forget(hangs.call(1));
    layer
}

fn adaptive() -> BulkheadLayer {
    BulkheadLayer::new("bench", Aimd::between(10, 1_000))
}

/// Never exceeded here.
const RATE: Rate = Rate::per_second(1_000_000_000);

fn rate_limit() -> RateLimitLayer {
    RateLimitLayer::new("bench", RATE)
}

/// A limit that has let its call for the day through.
fn used_up() -> RateLimitLayer {
    let layer = RateLimitLayer::new("used up", Rate::per(1, 24 * 3_600 * SECOND));
    let mut last = layer.layer(AtOnce);
    call(&mut last, 1);
    layer
}

/// A hedge that knows its percentile.
fn hedge() -> HedgeLayer {
    let config = HedgeLayer::config("bench").min_samples(1);
    config.build().expect("is valid")
}

fn waiting_rate_limit() -> RateLimitLayer {
    let config = RateLimitLayer::config("bench", RATE);
    config.max_wait(SECOND).build().expect("is valid")
}

/// Cannot be cloned, so it is made anew in each round.
fn tower_rate_limit() -> Row {
    let layer = tower::limit::RateLimitLayer::new(u64::MAX, SECOND);
    let run = move |calls| {
        let mut service = layer.layer(AtOnce);
        timed(calls, |request| call(&mut service, request))
    };
    Row::new("tower RateLimit", "", run)
}

/// The layers of one dependency, in the order that the documentation advises.
fn stack<S: Bench>() -> impl Layer<S, Service: Bench> + Clone {
    ServiceBuilder::new()
        .layer(deadline())
        .layer(RetryLayer::new("bench"))
        .layer(breaker())
        .layer(timeout())
}

/// The row of the design.
fn six_layers<S: Bench>() -> impl Layer<S, Service: Bench> + Clone {
    ServiceBuilder::new()
        .layer(deadline())
        .layer(RetryLayer::new("bench"))
        .layer(breaker())
        .layer(rate_limit())
        .layer(bulkhead())
        .layer(timeout())
}

fn standard(change: impl FnOnce(Standard) -> Standard) -> StandardLayer {
    let config = buttress::standard("bench").concurrency_limit(100);
    change(config).build().expect("is valid")
}

/// The parts of [`six_layers`] in one service.
pub(crate) fn six_parts<R, K, C>(config: Standard<R, K, C>) -> Standard<R, K, C> {
    config
        .no_measure()
        .deadline(SECOND)
        .rate_limit(RATE, |limit| limit)
}

fn all_parts(config: Standard) -> Standard {
    config
        .hedge(|hedge| hedge.min_samples(1))
        .rate_limit(RATE, |limit| limit)
}

/// A service that can be measured.
pub(crate) trait Bench:
    Service<u64, Response = u64, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static
{
}

impl<S> Bench for S where
    S: Service<u64, Response = u64, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static
{
}

pub(crate) fn row<L, S>(name: &'static str, target: &'static str, layer: L, inner: S) -> Row
where
    L: Layer<S, Service: Bench>,
{
    row_of(name, target, layer.layer(inner))
}

/// Calls of a service, which is cloned once in a round.
pub(crate) fn row_of(name: &'static str, target: &'static str, service: impl Bench) -> Row {
    let run = move |calls| {
        let mut service = service.clone();
        timed(calls, |request| call(&mut service, request))
    };
    Row::new(name, target, run)
}

/// What no layer that knows the time can do without.
fn clock() -> Row {
    let read = |calls| {
        timed(calls, |_| {
            black_box(Instant::now());
        })
    };
    Row::new("one reading of the clock", "", read)
}

pub(crate) fn threads<L>(name: &'static str, target: &'static str, layer: &L) -> Row
where
    L: Layer<AtOnce, Service: Bench>,
{
    on_threads(name, target, layer.layer(AtOnce))
}

/// Two threads, each with a clone of the service.
pub(crate) fn on_threads(name: &'static str, target: &'static str, service: impl Bench) -> Row {
    let run = move |calls| {
        let barrier = Arc::new(Barrier::new(2));
        let runtime = tokio::runtime::Handle::current();
        let thread = || {
            let (mut service, barrier) = (service.clone(), Arc::clone(&barrier));
            let runtime = runtime.clone();
            std::thread::spawn(move || {
                let _context = runtime.enter();
                barrier.wait();
                timed(calls, |request| call(&mut service, request))
            })
        };
        let threads = [thread(), thread()].map(|thread| thread.join().expect("does not panic"));
        threads[0].max(threads[1])
    };
    Row {
        calls: CALLS_ON_THREADS,
        ..Row::new(name, target, run)
    }
}

/// One call, polled to its end without a runtime round it.
pub(crate) fn call<S>(service: &mut S, request: u64)
where
    S: Service<u64, Response = u64, Error: Into<BoxError>>,
{
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    let mut future = pin!(service.call(request));
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            // The answer shows that the inner service was asked; an error, that it was not.
            assert!(result.is_err() || result.is_ok_and(|answer| answer == request + 1));
            return;
        }
    }
}

/// Answers at once.
#[derive(Clone)]
pub(crate) struct AtOnce;

impl Service<u64> for AtOnce {
    type Response = u64;
    type Error = BoxError;
    type Future = Ready<Result<u64, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request + 1))
    }
}

/// Answers when it is polled a second time.
#[derive(Clone)]
pub(crate) struct PendingOnce;

pub(crate) struct Second {
    is_second: bool,
    request: u64,
}

impl Future for Second {
    type Output = Result<u64, BoxError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if self.is_second {
            return Poll::Ready(Ok(self.request + 1));
        }
        self.is_second = true;
        Poll::Pending
    }
}

impl Service<u64> for PendingOnce {
    type Response = u64;
    type Error = BoxError;
    type Future = Second;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Second {
        Second {
            is_second: false,
            request,
        }
    }
}

/// Retries errors twice, as ours does by default, within tower's budget.
#[derive(Clone)]
struct TowerPolicy {
    budget: Arc<TpsBudget>,
}

impl<E> Policy<u64, u64, E> for TowerPolicy {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut u64, result: &mut Result<u64, E>) -> Option<Ready<()>> {
        match result {
            Ok(_) => {
                self.budget.deposit();
                None
            }
            Err(_) => self.budget.withdraw().then(|| ready(())),
        }
    }

    fn clone_request(&mut self, request: &u64) -> Option<u64> {
        Some(*request)
    }
}
