//! The consequences of a status: for the request that got it, and for the other calls through the stack.
#![cfg(feature = "http")]
// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buttress::balance::Endpoint;
use buttress::bulkhead::Aimd;
use buttress::circuit_breaker::State;
use buttress::http::{Classifier, HttpStandard, HttpStandardLayer};
use buttress::{ErrorKind, Rate};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::Instant;
use tower::service_fn;

const SECOND: Duration = Duration::from_secs(1);

type Body = Full<Bytes>;

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::default()).unwrap()
}

fn answer(status: u16, retry_after: Option<u64>) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status.try_into().unwrap();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}

fn standard() -> HttpStandard {
    buttress::http::standard("shop")
        .seed(1)
        .no_measure()
        .rate_limit(Rate::per_second(1_000), |limit| limit.burst(1_000))
}

/// Calls a service that answers each path with that status and with this `Retry-After`. Returns the status.
async fn call(
    stack: &HttpStandardLayer,
    path: &str,
    retry_after: Option<u64>,
) -> Result<u16, ErrorKind> {
    let service = service_fn(move |request: Request<Body>| async move {
        Ok::<_, Infallible>(answer(
            request.uri().path()[1..].parse().unwrap(),
            retry_after,
        ))
    });
    let answer = stack.wrap(service).send(get(path)).await;
    match answer {
        Ok(response) => Ok(response.status().as_u16()),
        Err(error) => Err(error.kind()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_quota_stops_no_other_caller() {
    let stack = standard()
        .concurrency_limit(Aimd::between(5, 50).initial(20))
        .build()
        .unwrap();
    let handle = stack.handle();
    for _ in 0..200 {
        assert_eq!(call(&stack, "/429", Some(3_600)).await, Ok(429));
        assert_eq!(call(&stack, "/200", None).await, Ok(200));
    }
    assert_eq!(handle.circuit_breaker().unwrap().state(), State::Closed);
    assert_eq!(handle.bulkhead().unwrap().limit(), 20);
}

#[tokio::test(start_paused = true)]
async fn with_one_quota_all_calls_stay_away_for_as_long_as_the_service_asks() {
    let stack = standard()
        .one_quota()
        .no_retry()
        .concurrency_limit(Aimd::between(5, 50).initial(20))
        .build()
        .unwrap();
    let handle = stack.handle();
    assert_eq!(call(&stack, "/429", Some(5)).await, Ok(429));
    assert_eq!(
        call(&stack, "/200", None).await,
        Err(ErrorKind::RateLimited)
    );
    assert_eq!(handle.bulkhead().unwrap().limit(), 18);
    tokio::time::advance(5 * SECOND).await;
    assert_eq!(call(&stack, "/200", None).await, Ok(200));
    assert_eq!(handle.circuit_breaker().unwrap().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_overloaded_pauses_the_rate_limit_and_shrinks_the_limit() {
    let stack = standard()
        .no_retry()
        .concurrency_limit(Aimd::between(5, 50).initial(20))
        .build()
        .unwrap();
    let limit = || stack.handle().bulkhead().unwrap().limit();
    assert_eq!(call(&stack, "/503", None).await, Ok(503));
    assert_eq!(limit(), 18, "without a time as well");
    tokio::time::advance(SECOND).await;
    assert_eq!(call(&stack, "/503", Some(5)).await, Ok(503));
    assert_eq!(limit(), 16);
    assert_eq!(
        call(&stack, "/200", None).await,
        Err(ErrorKind::RateLimited)
    );
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_asks_for_a_day_is_left_alone_and_no_other() {
    for status in [429, 503] {
        let endpoint = |name: &'static str, status| {
            Endpoint::new(
                name,
                service_fn(move |_| async move {
                    Ok::<_, Infallible>(answer(status, (status != 200).then_some(86_400)))
                }),
            )
        };
        let replicas = [
            endpoint("a", status),
            endpoint("b", 200),
            endpoint("c", 200),
        ];
        let replicas = buttress::http::balance("shop").build(replicas).unwrap();
        let stack = standard().no_circuit_breaker().unlimited().build().unwrap();
        let client = stack.wrap::<Request<Body>, _>(replicas);
        let (mut declined, began) = (0, Instant::now());
        for _ in 0..300 {
            let response = client.send(get("/")).await.unwrap();
            declined += u32::from(response.status() != 200);
        }
        assert!(began.elapsed() < SECOND, "{status}: {:?}", began.elapsed());
        // The one that is overloaded rests after its first answer, and that call went to another one.
        assert!(
            if status == 503 {
                declined == 0
            } else {
                declined < 15
            },
            "{status}: {declined}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_came_too_slowly_is_sent_again_and_counts_for_nobody() {
    let stack = standard().unlimited().build().unwrap();
    for status in ["/408", "/425"] {
        for _ in 0..50 {
            call(&stack, status, None).await.unwrap();
        }
    }
    let handle = stack.handle();
    assert_eq!(handle.circuit_breaker().unwrap().state(), State::Closed);
    let served = Arc::new(AtomicUsize::new(0));
    let service = service_fn({
        let served = Arc::clone(&served);
        move |_: Request<Body>| {
            let before = served.fetch_add(1, Ordering::Relaxed);
            async move { Ok::<_, Infallible>(answer(if before == 0 { 408 } else { 200 }, None)) }
        }
    });
    let stack = standard().unlimited().build().unwrap();
    let response = stack.wrap(service).send(get("/")).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), served.load(Ordering::Relaxed)),
        (200, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_fresh_token_is_tried_once_and_at_once() {
    for (valid_from, expected, attempts) in [(1, 200, 2), (9, 401, 2)] {
        let served = Arc::new(AtomicUsize::new(0));
        let service = service_fn({
            let served = Arc::clone(&served);
            move |_: Request<Body>| {
                let before = served.fetch_add(1, Ordering::Relaxed);
                async move {
                    Ok::<_, Infallible>(answer(if before < valid_from { 401 } else { 200 }, None))
                }
            }
        });
        let stack = standard()
            .classify(Classifier::new().retry_unauthorized())
            .unlimited()
            .build()
            .unwrap();
        let began = Instant::now();
        // Also a request that is not idempotent: a service does not act before it knows who asks.
        let request = Request::post("/").body(Body::default()).unwrap();
        let response = stack.wrap(service).send(request).await.unwrap();
        let found = (response.status().as_u16(), served.load(Ordering::Relaxed));
        assert_eq!(found, (expected, attempts));
        assert!(
            began.elapsed() < Duration::from_millis(2),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(
            stack.handle().circuit_breaker().unwrap().state(),
            State::Closed
        );
    }
}

#[tokio::test(start_paused = true)]
async fn if_all_endpoints_ask_for_time_they_get_it() {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let began = Instant::now();
    let endpoint = |name| {
        let sent = Arc::clone(&sent);
        let service = service_fn(move |_: Request<Body>| {
            sent.lock().unwrap().push(began.elapsed().as_secs());
            async { Ok::<_, Infallible>(answer(503, Some(30))) }
        });
        Endpoint::new(name, service)
    };
    let replicas = buttress::http::balance("shop").seed(1);
    let replicas = replicas.build([endpoint("a"), endpoint("b")]).unwrap();
    let stack = buttress::http::standard("shop")
        .seed(1)
        .no_response_timeout();
    let stack = stack.no_circuit_breaker().unlimited().build().unwrap();
    let response = stack
        .wrap::<Request<Body>, _>(replicas)
        .send(get("/"))
        .await;
    assert_eq!(response.unwrap().status(), 503);
    let sent = sent.lock().unwrap().clone();
    assert_eq!(sent[..2], [0, 0], "the other one is asked at once");
    assert!(sent[2] >= 30, "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn the_balancer_of_another_dependency_does_not_take_the_overload_for_its_own() {
    let database = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(answer(200, None)) });
    let database = buttress::http::balance("database")
        .build([Endpoint::new("a", database), Endpoint::new("b", database)])
        .unwrap();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let began = Instant::now();
    let service = service_fn({
        let sent = Arc::clone(&sent);
        move |_: Request<Body>| {
            sent.lock().unwrap().push(began.elapsed().as_secs());
            let database = database.clone();
            async move {
                database.send(get("/")).await.unwrap();
                Ok::<_, Infallible>(answer(503, Some(10)))
            }
        }
    });
    let stack = buttress::http::standard("shop")
        .seed(1)
        .no_response_timeout();
    let stack = stack.no_circuit_breaker().unlimited().build().unwrap();
    stack.wrap(service).send(get("/")).await.unwrap();
    let sent = sent.lock().unwrap().clone();
    assert!(sent[0] == 0 && sent[1] >= 10, "{sent:?}");
}
