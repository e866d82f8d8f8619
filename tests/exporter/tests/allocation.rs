//! What a successful call costs: allocations, with a Prometheus recorder installed, and the size of its future.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

#[path = "../../stack/mod.rs"]
mod stack;

use std::alloc::System;
use std::fmt::Debug;
use std::future::{Ready, pending, ready};
use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use buttress::balance::{Endpoint, OutlierEjection};
use buttress::bulkhead::Aimd;
use buttress::{
    Availability, Balance, BoxError, BulkheadLayer, ByClone, CallOptions, CircuitBreakerLayer,
    DeadlineLayer, Error, ErrorsAreFailures, FallbackLayer, HedgeLayer, KeyedLayer, MeasureLayer,
    Outcome, Rate, RateLimitLayer, RetryLayer, TimeoutLayer, classify_fn, client, fallback,
    standard,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use stack::stack;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::sync::Mutex;
use tokio::time::advance;
use tower::util::ServiceFn;
use tower::{Layer, Service, ServiceExt, service_fn};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

static RECORDER: LazyLock<PrometheusHandle> =
    LazyLock::new(|| PrometheusBuilder::new().install_recorder().unwrap());

/// Held by each test that counts, because the allocator counts for the whole process.
static TURN: Mutex<()> = Mutex::const_new(());

const CALLS: usize = 16;

/// So many that nothing else in the process, such as the report of a test, lasts for all of them.
const ROUNDS: usize = 200;

/// Counts the allocations of 16 calls on clones of `service`, after one that may allocate.
///
/// A histogram of the recorder takes a new block after 64 values, and a test that is over is reported, so this is
/// the least of several rounds: what the calls themselves allocate is in all of them.
fn allocations<S>(service: &S) -> usize
where
    S: Service<u64, Response = u64> + Clone,
{
    LazyLock::force(&RECORDER);
    let call = || {
        let mut service = service.clone();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready());
        let response = pin!(service.call(7)).poll(&mut cx);
        assert!(matches!(response, Poll::Ready(Ok(7))));
    };
    call();
    let round = |_| {
        std::thread::yield_now();
        let region = Region::new(ALLOCATOR);
        (0..CALLS).for_each(|_| call());
        let change = region.change();
        change.allocations + change.reallocations
    };
    (0..ROUNDS).map(round).min().unwrap_or_default()
}

type Echo = ServiceFn<fn(u64) -> Ready<Result<u64, BoxError>>>;

fn echo() -> Echo {
    service_fn(|request| ready(Ok(request)))
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_successful_call_through_a_single_layer_allocates_nothing() {
    fn costs_nothing<L>(layer: &L)
    where
        L: Layer<Echo, Service: Service<u64, Response = u64> + Clone> + Debug,
    {
        assert_eq!(allocations(&layer.layer(echo())), 0, "{layer:?}");
    }

    let _turn = TURN.lock().await;
    costs_nothing(&TimeoutLayer::new("timeout", SECOND));
    costs_nothing(&TimeoutLayer::per_request("timeout", |_: &u64| SECOND));
    costs_nothing(&DeadlineLayer::new("deadline", SECOND));
    costs_nothing(&RetryLayer::new("retry"));
    costs_nothing(&CircuitBreakerLayer::new("breaker"));
    let counting = CircuitBreakerLayer::config("counting breaker")
        .count_window(100)
        .consecutive_failures(12)
        .slow_calls(SECOND, 0.5);
    costs_nothing(&counting.build().unwrap());
    costs_nothing(&BulkheadLayer::new("bulkhead", 100));
    let adaptive = BulkheadLayer::config("adaptive bulkhead", Aimd::between(5, 100));
    costs_nothing(&adaptive.queue(100).build().unwrap());
    let rate = Rate::per_second(1_000_000_000);
    costs_nothing(&RateLimitLayer::new("rate limit", rate));
    let heeding = RateLimitLayer::config("heeding rate limit", rate)
        .max_wait(SECOND)
        .cost(|_: &u64| 2)
        .classify(ErrorsAreFailures);
    costs_nothing(&heeding.build().unwrap());
    costs_nothing(&MeasureLayer::operation("measure"));
    costs_nothing(&MeasureLayer::attempt("measure"));
    costs_nothing(&FallbackLayer::new("fallback", fallback::value(0_u64)));
    costs_nothing(&FallbackLayer::new("fallback", fallback::service(echo())));
    let per_key = |_: &u64| {
        (
            CircuitBreakerLayer::new("keyed"),
            TimeoutLayer::new("keyed", SECOND),
        )
    };
    costs_nothing(&KeyedLayer::new("keyed", |request: &u64| *request, per_key));
}

#[tokio::test(start_paused = true)]
async fn a_call_of_a_function_allocates_twice() {
    let _turn = TURN.lock().await;
    let db = client("functions").concurrency_limit(100).build().unwrap();
    let run = move |item: u64| db.run(move || ready(Ok::<_, BoxError>(item)));
    assert_eq!(allocations(&service_fn(run)), 2 * CALLS);
}

#[tokio::test(start_paused = true)]
async fn a_call_with_options_allocates_once() {
    let _turn = TURN.lock().await;
    let stack = standard("options").concurrency_limit(100).build().unwrap();
    let client = stack.wrap(echo()).with(CallOptions::new().no_retry());
    assert_eq!(allocations(&client), CALLS);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_takes_no_more_memory_for_more_calls_in_its_window() {
    let _turn = TURN.lock().await;
    let every_other_fails = |result: Result<&u64, &Error>| match result {
        Ok(answer) if answer % 2 == 0 => Outcome::Success,
        _ => Outcome::Failure,
    };
    let more_bytes = |_| {
        let config = CircuitBreakerLayer::config("many calls").failure_share(0.99);
        let config = config.consecutive_failures(100).slow_calls(SECOND, 0.99);
        let layer = config
            .classify(classify_fn(every_other_fails))
            .build()
            .unwrap();
        let mut service = layer.layer(echo());
        let mut call = |request| {
            let response =
                pin!(service.call(request)).poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(response, Poll::Ready(Ok(_))));
        };
        (0..1_000).for_each(&mut call);
        let region = Region::new(ALLOCATOR);
        (0..20_000).for_each(&mut call);
        let change = region.change();
        change
            .bytes_allocated
            .saturating_sub(change.bytes_deallocated)
    };
    let mut rounds: Vec<usize> = (0..9).map(more_bytes).collect();
    // The median: a test that is over is reported at the same time.
    rounds.sort_unstable();
    assert!(rounds[4] < 5_000, "{rounds:?} bytes");
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_the_inner_service_costs_the_layers_of_http_nothing() {
    use buttress::http::{InheritDeadlineLayer, PropagateDeadlineLayer, RespondLayer};
    use http::{Request, Response};
    use http_body_util::Full;
    use tower::ServiceBuilder;

    let _turn = TURN.lock().await;
    let server = ServiceBuilder::new()
        .map_request(Request::new)
        .map_response(|response: Response<_>| *response.body())
        .layer(InheritDeadlineLayer::new("http"))
        .service(service_fn(|request: Request<u64>| {
            ready(Ok::<_, BoxError>(Response::new(*request.body())))
        }));
    assert_eq!(allocations(&server), 0, "the maximum");
    let client = ServiceBuilder::new()
        .map_request(Request::new)
        .map_response(|response: Response<_>| *response.body())
        .layer(PropagateDeadlineLayer::new("http"))
        .service(service_fn(|request: Request<u64>| {
            ready(Ok::<_, BoxError>(Response::new(*request.body())))
        }));
    assert_eq!(allocations(&client), 0, "no deadline");

    macro_rules! responds {
        ($layer:expr) => {
            ServiceBuilder::new()
                .map_request(Request::new)
                .map_response(|response: Response<_>| {
                    let body: buttress::http::respond::AnswerBody<Full<bytes::Bytes>> =
                        response.into_body();
                    u64::from(body.into_inner().is_some()) * 7
                })
                .layer($layer)
                .service(service_fn(|_: Request<u64>| {
                    ready(Ok::<_, BoxError>(Response::new(Full::default())))
                }))
        };
    }
    assert_eq!(allocations(&responds!(RespondLayer::for_servers())), 0);
    assert_eq!(allocations(&responds!(RespondLayer::for_clients())), 0);
    let function = RespondLayer::for_servers().respond(|refusal| refusal.response());
    assert_eq!(allocations(&responds!(function)), 0);
}

#[tokio::test(start_paused = true)]
async fn a_successful_call_through_a_balancer_allocates_nothing() {
    let _turn = TURN.lock().await;
    for count in [1, 2, 10, 1_000] {
        let endpoints = (0..count).map(|key| Endpoint::new(key, echo()));
        let balance = Balance::new("balance", endpoints).unwrap();
        // A change that each handle has to notice.
        balance.handle().add(Endpoint::new("new", echo())).unwrap();
        assert_eq!(allocations(&balance), 0, "{count} endpoints");
        let retry = RetryLayer::new("balance").layer(balance);
        assert_eq!(allocations(&retry), 0, "{count} endpoints");
    }
    let endpoints = (0..10).map(|key| Endpoint::new(key, echo()));
    let config = Balance::config("labelled").endpoint_metrics(5);
    assert_eq!(
        allocations(&config.build(endpoints).unwrap()),
        0,
        "with labels"
    );
}

#[tokio::test(start_paused = true)]
async fn a_successful_call_through_a_balancer_of_several_groups_allocates_nothing() {
    let _turn = TURN.lock().await;
    for count in [2, 10, 1_000] {
        let endpoint = |key: u32| Endpoint::new(key, echo()).priority((key % 2) as u8);
        let balance = Balance::new("groups", (0..count).map(endpoint)).unwrap();
        balance.handle().add(endpoint(count)).unwrap();
        assert_eq!(allocations(&balance), 0, "{count} endpoints");
        balance.handle().eject("0", SECOND);
        // The shares are set anew by the next call.
        tokio::time::advance(2 * SECOND).await;
        assert_eq!(allocations(&balance), 0, "{count} endpoints");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_judges_the_endpoints_of_a_balancer_allocates_nothing() {
    let _turn = TURN.lock().await;
    LazyLock::force(&RECORDER);
    for priorities in [1, 2] {
        let ejection = OutlierEjection::new().interval(SECOND);
        let endpoint = |key: u32| Endpoint::new(key, echo()).priority((key % priorities) as u8);
        let config = Balance::config("classified").outlier_ejection(ejection);
        let mut balance = config.build((0..20).map(endpoint)).unwrap();
        let mut least = usize::MAX;
        for _ in 0..ROUNDS {
            // Each call is the first after the end of an interval.
            advance(SECOND).await;
            let region = Region::new(ALLOCATOR);
            let response = pin!(balance.call(7)).poll(&mut Context::from_waker(Waker::noop()));
            let change = region.change();
            assert!(matches!(response, Poll::Ready(Ok(7))));
            least = least.min(change.allocations + change.reallocations);
        }
        assert_eq!(least, 0, "{priorities} groups");
    }
}

#[tokio::test(start_paused = true)]
async fn a_successful_call_through_the_full_stack_allocates_nothing() {
    let _turn = TURN.lock().await;
    let layers = stack("full stack", ByClone, ErrorsAreFailures).unwrap();
    assert_eq!(allocations(&layers.layer(echo())), 0);
    let calls = format!(
        r#"buttress_calls_total{{name="full stack",stage="operation",outcome="success"}} {}"#,
        1 + ROUNDS * CALLS,
    );
    assert!(RECORDER.render().contains(&calls), "recorded as well");
}

/// Makes as many calls as a percentile needs, and lets the time pass after which it is known.
async fn warm_up<S>(service: &S)
where
    S: Service<u64, Response = u64> + Clone,
{
    for _ in 0..200 {
        let called = service.clone().oneshot(7).await;
        assert!(called.is_ok_and(|response| response == 7));
    }
    advance(2 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_hedged_allocates_nothing() {
    let _turn = TURN.lock().await;
    let layer = HedgeLayer::new("hedge");
    let service = layer.layer(echo());
    warm_up(&service).await;
    assert!(layer.handle().delay().is_some());
    assert_eq!(allocations(&service), 0);
    let fixed = HedgeLayer::config("fixed hedge").delay(SECOND);
    assert_eq!(allocations(&fixed.build().unwrap().layer(echo())), 0);
}

#[tokio::test(start_paused = true)]
async fn a_successful_call_through_the_standard_stack_allocates_nothing() {
    let _turn = TURN.lock().await;
    let defaults = standard("defaults").unlimited().build().unwrap();
    assert_eq!(allocations(&defaults.layer(echo())), 0);

    let limited = standard("limited").concurrency_limit(100).build().unwrap();
    assert_eq!(allocations(&limited.layer(echo())), 0);

    let all = standard("all parts")
        .hedge(|hedge| hedge)
        .rate_limit(Rate::per_second(1_000_000_000), |limit| {
            limit.max_wait(SECOND)
        })
        .bulkhead(100, |bulkhead| bulkhead.queue(100))
        .classify(ErrorsAreFailures)
        .build()
        .unwrap();
    let service = all.layer(echo());
    warm_up(&service).await;
    let handle = all.handle();
    assert!(handle.hedge().unwrap().delay().is_some());
    assert_eq!(allocations(&service), 0);
    assert!(handle.is_available());
    for (name, calls) in [("defaults", 1), ("limited", 1), ("all parts", 201)] {
        let calls = format!(
            r#"buttress_calls_total{{name="{name}",stage="attempt",outcome="success"}} {}"#,
            calls + ROUNDS * CALLS,
        );
        assert!(
            RECORDER.render().contains(&calls),
            "{name}: recorded as well"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_successful_call_that_is_over_at_the_end_of_its_body_allocates_nothing() {
    use bytes::Bytes;
    use http::{Request, Response};
    use http_body::Body;
    use http_body_util::{BodyExt, Full};

    async fn read<B>(response: Response<B>) -> Result<u64, BoxError>
    where
        B: Body<Data = Bytes, Error = Error>,
    {
        let mut body = pin!(response.into_body());
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame?.into_data().map_or(0, |data| data.len());
        }
        Ok(length as u64 - 1)
    }

    let _turn = TURN.lock().await;
    let client = service_fn(|_: Request<()>| {
        let body = Full::<Bytes>::from("12 bolts");
        ready(Ok::<_, BoxError>(Response::new(body)))
    });
    // What a call is classified by is shared, and not copied.
    let classify =
        buttress::http::Classifier::new().statuses(404..=404, buttress::Outcome::Ignored);
    let stack = buttress::http::standard("http").classify(classify);
    let layer = stack.concurrency_limit(100).build().unwrap();
    let service = layer
        .layer(client)
        .map_request(|_: u64| Request::new(()))
        .and_then(read);
    assert_eq!(allocations(&service), 0);
    let calls = format!(
        r#"buttress_calls_total{{name="http",stage="operation",outcome="success"}} {}"#,
        1 + ROUNDS * CALLS,
    );
    assert!(RECORDER.render().contains(&calls), "recorded as well");
}

#[tokio::test(start_paused = true)]
async fn an_inner_service_that_is_not_ready_costs_one_box_however_many_layers_there_are() {
    /// Is ready when it is asked for the second time.
    #[derive(Clone)]
    struct Late {
        asked: bool,
    }

    impl Service<u64> for Late {
        type Response = u64;
        type Error = BoxError;
        type Future = Ready<Result<u64, BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            if std::mem::replace(&mut self.asked, true) {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            }
        }

        fn call(&mut self, request: u64) -> Self::Future {
            self.asked = false;
            ready(Ok(request))
        }
    }

    let _turn = TURN.lock().await;
    let layers = stack("not ready", ByClone, ErrorsAreFailures).unwrap();
    let service = layers.layer(Late { asked: false });
    assert_eq!(allocations(&service), CALLS);
}

#[test]
fn the_future_of_the_full_stack_adds_at_most_520_bytes_and_one_copy_of_the_request() {
    fn added<const REQUEST: usize, const STATE: usize>() -> usize {
        let mut inner = service_fn(|request: [u8; REQUEST]| async move {
            let state = [1; STATE];
            pending::<()>().await;
            Ok::<_, BoxError>((request, state))
        });
        let layers = stack("size", ByClone, ErrorsAreFailures).unwrap();
        let whole = size_of_val(&layers.layer(inner).call([0; REQUEST]));
        whole - size_of_val(&inner.call([0; REQUEST])) - REQUEST
    }

    for added in [added::<0, 0>(), added::<1_000, 0>(), added::<300, 5_000>()] {
        assert!(added <= 520, "adds {added} bytes");
    }
}

/// The bytes that the future of a stack has beyond that of the inner service, the request and so many copies of it.
macro_rules! beyond {
    ($layers:expr, $copies:expr, $($request:literal $state:literal),*) => {
        [$({
            let mut inner = service_fn(|request: [u8; $request]| async move {
                let state = [1; $state];
                pending::<()>().await;
                Ok::<_, BoxError>((request, state))
            });
            let whole = size_of_val(&$layers.layer(inner).call([0; $request]));
            whole - size_of_val(&inner.call([0; $request])) - $copies * $request
        }),*]
    };
}

#[tokio::test(start_paused = true)]
async fn the_futures_of_larger_stacks_have_their_size() {
    let layers = (
        DeadlineLayer::new("size", 10 * SECOND),
        RetryLayer::new("size"),
        CircuitBreakerLayer::new("size"),
        RateLimitLayer::new("size", Rate::per_second(1_000)),
        BulkheadLayer::new("size", 100),
        TimeoutLayer::new("size", SECOND),
    );
    let six = beyond!(layers, 1, 0 0, 8 0, 1_000 0, 300 500);
    let layer = standard("size").unlimited().build().unwrap();
    let all = beyond!(layer, 1, 0 0, 8 0, 1_000 0, 300 500);
    println!("six layers: {six:?} bytes, the standard stack: {all:?} bytes");
    assert!(six.into_iter().all(|bytes| bytes <= 536), "{six:?}");
    assert!(all.into_iter().all(|bytes| bytes <= 388), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_of_http_allocates_for_its_body_only() {
    use std::pin::Pin;

    use buttress::http::{BodyTimeoutLayer, HttpReplay, ReplayBody, ReplayBodyLayer, TimeoutBody};
    use bytes::Bytes;
    use http::{Request, Response};
    use http_body::Body;
    use http_body_util::Full;
    use tower::ServiceBuilder;

    /// Reads a body whose frames are there.
    fn read<B: Body + Unpin>(mut body: B) -> u64 {
        let mut cx = Context::from_waker(Waker::noop());
        let mut frames = 0;
        while let Poll::Ready(Some(Ok(_))) = Pin::new(&mut body).poll_frame(&mut cx) {
            frames += 1;
        }
        frames
    }

    let _turn = TURN.lock().await;
    for (body, most) in [("", 0), ("12 bolts", 5)] {
        let replay = HttpReplay::new();
        let timeout = BodyTimeoutLayer::config("http").idle(SECOND);
        let service = ServiceBuilder::new()
            .map_request(move |_: u64| Request::new(Full::<Bytes>::from(body)))
            .map_response(|response: Response<TimeoutBody<Full<Bytes>>>| {
                6 + read(response.into_body())
            })
            .layer(ReplayBodyLayer::new())
            .layer(RetryLayer::config("http").replay(replay).build().unwrap())
            .layer(timeout.total(2 * SECOND).build().unwrap())
            .service(service_fn(|request: Request<ReplayBody<Full<Bytes>>>| {
                read(request.into_body());
                ready(Ok::<_, BoxError>(Response::new(Full::from("12 nuts"))))
            }));
        let allocated = allocations(&service);
        assert_eq!(allocated, most * CALLS, "{body:?}");
    }
}
