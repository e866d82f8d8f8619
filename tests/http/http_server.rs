//! Whole servers, in paused time.
#![cfg(feature = "http")]
// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::future::{pending, ready};
use std::pin::pin;
use std::time::Duration;

use buttress::bulkhead::Aimd;
use buttress::http::respond::AnsweredError;
use buttress::http::server::RequestBody;
use buttress::http::{HttpStreams, server};
use buttress::{
    BoxError, BulkheadLayer, CallOptions, ConfigError, ErrorKind, KeyedLayer, Rate, RateLimitLayer,
};
use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep, timeout};
use tokio_test::task::spawn;
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt, service_fn};

use crate::debugging::{DebugValue, DebuggingRecorder};
use crate::feed::{Feed, Source, feed};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

type Sent = UnsyncBoxBody<Bytes, BoxError>;
type Handled = Response<Sent>;
type Server = BoxCloneSyncService<Request<Feed>, Handled, Infallible>;

fn text(status: u16, text: &'static str) -> Handled {
    let body = Full::<Bytes>::from(text).map_err(|never| match never {});
    let response = Response::builder().status(status);
    response.body(body.boxed_unsync()).unwrap()
}

/// Does what the path says.
async fn handle(request: Request<RequestBody<Feed>>) -> Result<Handled, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body();
    Ok(match &*path {
        "/work" => {
            sleep(100 * MS).await;
            text(200, "done")
        }
        "/hangs" => pending().await,
        "/late" => {
            sleep(10 * SECOND).await;
            match body.collect().await {
                Ok(_) => text(200, "done"),
                Err(_) => text(500, "could not read"),
            }
        }
        "/echo" => Response::new(body.map_err(BoxError::from).boxed_unsync()),
        // As an extractor of axum does.
        "/upload" => match body.collect().await {
            Ok(_) => text(200, "done"),
            Err(_) => text(400, "failed to buffer the request body"),
        },
        "/grpc" => {
            let is_whole = body.collect().await.is_ok();
            let mut response = text(200, "");
            let status = if is_whole { "0" } else { "2" };
            let headers = response.headers_mut();
            headers.insert("grpc-status", status.parse().unwrap());
            response
        }
        "/tolerates" => match body.collect().await {
            Ok(_) => text(200, "whole"),
            Err(_) => text(200, "a part is enough"),
        },
        "/panics" => panic!("in the handler"),
        _ => text(200, "done"),
    })
}

/// Makes a server of [`handle`], without the type of its layers, and its handle.
macro_rules! serve {
    ($config:expr) => {{
        let layer = $config.build().unwrap();
        (serve!(layer: &layer), layer.handle())
    }};
    (layer: $layer:expr) => {
        Server::new($layer.layer(service_fn(handle)).map_response(|response| {
            response.map(|body| body.map_err(BoxError::from).boxed_unsync())
        }))
    };
}

fn request(path: &str) -> Request<Feed> {
    // Without a source it is over at once.
    Request::post(path).body(feed().1).unwrap()
}

fn grpc(path: &str) -> Request<Feed> {
    let mut request = request(path);
    let grpc = "application/grpc".parse().unwrap();
    request.headers_mut().insert("content-type", grpc);
    *request.version_mut() = Version::HTTP_2;
    request
}

async fn call(server: &Server, request: Request<Feed>) -> Handled {
    let Ok(response) = server.clone().oneshot(request).await;
    response
}

async fn ask(server: &Server, path: &str) -> Handled {
    call(server, request(path)).await
}

fn header<'a>(response: &'a Handled, name: &str) -> Option<&'a str> {
    let value = response.headers().get(name)?;
    Some(value.to_str().unwrap())
}

/// The status, `Retry-After` and `Connection` of an answer.
fn told(response: &Handled) -> (u16, Option<&str>, Option<&str>) {
    let status = response.status().as_u16();
    let retry_after = header(response, "retry-after");
    (status, retry_after, header(response, "connection"))
}

/// The status and the pushback of an answer of gRPC.
fn told_in_grpc(response: &Handled) -> (Option<&str>, Option<&str>) {
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(response, "content-type"), Some("application/grpc"));
    let pushback = header(response, "grpc-retry-pushback-ms");
    (header(response, "grpc-status"), pushback)
}

fn kind(response: &Handled) -> Option<ErrorKind> {
    let answered = response.extensions().get::<AnsweredError>();
    answered.map(|answered| answered.error().kind())
}

async fn read(response: Handled) -> Result<Bytes, BoxError> {
    Ok(response.into_body().collect().await?.to_bytes())
}

/// A request whose body is sent by hand.
fn upload(path: &str) -> (Source, Request<Feed>) {
    let (source, body) = feed();
    (source, Request::post(path).body(body).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_call_passes_and_is_over_at_the_end_of_its_body() {
    let (server, handle) = serve!(server("shop").concurrency_limit(1));
    let response = ask(&server, "/work").await;
    assert_eq!(told(&response), (200, None, None));
    let bulkhead = handle.bulkhead().unwrap();
    assert_eq!((handle.in_flight(), bulkhead.in_flight()), (1, 1));
    assert_eq!(read(response).await.unwrap(), "done");
    assert_eq!((handle.in_flight(), bulkhead.in_flight()), (0, 0));
    assert_eq!(handle.name(), "shop");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_reads_late_is_not_taken_for_a_slow_sender() {
    let config = server("shop").request_body(|body| body.idle(SECOND).total(5 * SECOND));
    let (server, _) = serve!(config.unlimited());
    let (source, request) = upload("/late");
    assert!(source.send("bolts") && source.send("nuts"));
    drop(source);
    let answer = call(&server, request).await;
    assert_eq!(told(&answer), (500, None, None));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_after_a_silence_shrinks_no_limit() {
    let limit = Aimd::between(2, 50).initial(20);
    let config = server("shop").concurrency_limit(limit);
    let (server, handle) = serve!(config.response_body(|body| body.stream_idle(SECOND)));
    for _ in 0..5 {
        let (_source, mut request) = upload("/echo");
        let stream = CallOptions::new().stream(true);
        request.extensions_mut().insert(stream);
        let mut body = call(&server, request).await.into_body();
        body.frame().await.unwrap().unwrap_err();
    }
    assert_eq!(handle.bulkhead().unwrap().limit(), 20);
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_limit_are_refused_at_once_and_told_when_to_come_back() {
    let (server, _) = serve!(server("shop").concurrency_limit(1));
    let mut held = spawn(ask(&server, "/hangs"));
    assert!(held.poll().is_pending());
    let began = Instant::now();
    let refused = ask(&server, "/work").await;
    assert_eq!(told(&refused), (503, Some("1"), None));
    assert_eq!(kind(&refused), Some(ErrorKind::BulkheadFull));
    let refused = call(&server, grpc("/work")).await;
    assert_eq!(told_in_grpc(&refused), (Some("14"), Some("1000")));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_queue_lets_a_burst_wait_for_its_turn() {
    let config = server("shop").bulkhead(1, |bulkhead| bulkhead.queue(1).queue_wait(SECOND));
    let (server, handle) = serve!(config);
    let answers = [(); 3].map(|()| {
        let server = server.clone();
        tokio::spawn(async move {
            let answer = ask(&server, "/work").await;
            let status = answer.status().as_u16();
            read(answer).await.unwrap();
            status
        })
    });
    let mut statuses = Vec::new();
    for answer in answers {
        statuses.push(answer.await.unwrap());
    }
    assert_eq!(statuses, [200, 200, 503]);
    assert_eq!(handle.in_flight(), 0);
    // Whoever waits for too long is told the same.
    let mut held = spawn(ask(&server, "/hangs"));
    assert!(held.poll().is_pending());
    let late = ask(&server, "/work").await;
    assert_eq!(told(&late), (503, Some("1"), None));
    assert_eq!(kind(&late), Some(ErrorKind::QueueTimeout));
}

#[tokio::test(start_paused = true)]
async fn no_caller_has_more_time_than_the_maximum() {
    let (server, _) = serve!(server("shop").deadline(SECOND).unlimited());
    for (header, expected) in [
        (Some("300"), 300),
        (Some("3600000"), 1_000),
        (Some("none"), 1_000),
        (None, 1_000),
    ] {
        let mut request = request("/hangs");
        if let Some(header) = header {
            let header = header.parse().unwrap();
            request.headers_mut().insert("x-request-timeout-ms", header);
        }
        let began = Instant::now();
        let late = call(&server, request).await;
        assert_eq!(told(&late), (504, None, None));
        assert_eq!(began.elapsed().as_millis(), expected, "{header:?}");
    }
    let mut request = grpc("/hangs");
    let header = "300m".parse().unwrap();
    request.headers_mut().insert("grpc-timeout", header);
    let late = call(&server, request).await;
    assert_eq!(told_in_grpc(&late), (Some("4"), None));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_over_at_the_deadline_gives_its_permit_back() {
    let (server, handle) = serve!(server("shop").deadline(SECOND).concurrency_limit(1));
    let (source, request) = upload("/echo");
    let answer = call(&server, request).await;
    assert!(source.send("part"));
    let mut body = answer.into_body();
    assert!(body.frame().await.unwrap().is_ok());
    let began = Instant::now();
    assert!(body.frame().await.unwrap().is_err());
    assert_eq!(began.elapsed(), SECOND);
    let bulkhead = handle.bulkhead().unwrap();
    assert_eq!((handle.in_flight(), bulkhead.in_flight()), (0, 0));
    source.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_declared_stream_outlasts_the_maximum_and_may_be_silent() {
    let streams = HttpStreams::new().paths(|path| path == "/echo");
    let config = server("shop").deadline(SECOND).streaming(streams);
    let (server, _) = serve!(config.unlimited());
    let (source, request) = upload("/echo");
    let mut body = call(&server, request).await.into_body();
    sleep(3_600 * SECOND).await;
    assert!(source.send("part"));
    assert!(body.frame().await.unwrap().is_ok());
    assert!(timeout(3_600 * SECOND, body.frame()).await.is_err());

    // The deadline of its caller holds.
    let (_source, mut request) = upload("/echo");
    let header = "300".parse().unwrap();
    request.headers_mut().insert("x-request-timeout-ms", header);
    let mut body = call(&server, request).await.into_body();
    let began = Instant::now();
    assert!(body.frame().await.unwrap().is_err());
    assert_eq!(began.elapsed(), 300 * MS);

    // A single request, which an outer layer has marked.
    let (server, _) = serve!(buttress::http::server("shop").deadline(SECOND).unlimited());
    for (is_stream, is_good) in [(true, true), (false, false)] {
        let (source, mut request) = upload("/echo");
        let options = CallOptions::new().stream(is_stream);
        request.extensions_mut().insert(options);
        let mut body = call(&server, request).await.into_body();
        sleep(3_600 * SECOND).await;
        assert!(source.send("part"));
        assert_eq!(body.frame().await.unwrap().is_ok(), is_good);
    }
}

fn tenant(request: &Request<Feed>) -> String {
    let tenant = request.headers().get("x-tenant");
    tenant
        .map_or("anybody", |tenant| tenant.to_str().unwrap())
        .to_owned()
}

fn of_tenant(path: &str, tenant: &str) -> Request<Feed> {
    let mut request = request(path);
    let tenant = tenant.parse().unwrap();
    request.headers_mut().insert("x-tenant", tenant);
    request
}

#[tokio::test(start_paused = true)]
async fn the_flood_of_one_tenant_refuses_no_other_one() {
    let limit = RateLimitLayer::config("tenants", Rate::per_second(1)).burst(5);
    let config = server("shop").concurrency_limit(10).keyed(tenant, limit);
    let (server, handle) = serve!(config);
    let mut answered = 0;
    for _ in 0..100 {
        let answer = call(&server, of_tenant("/", "ant")).await;
        if answer.status() == StatusCode::OK {
            answered += 1;
        } else {
            assert_eq!(told(&answer), (429, Some("1"), None));
        }
    }
    assert_eq!(answered, 5);
    for _ in 0..5 {
        let answer = call(&server, of_tenant("/", "bee")).await;
        assert_eq!(answer.status(), StatusCode::OK);
    }
    let mut request = grpc("/");
    request
        .headers_mut()
        .insert("x-tenant", "ant".parse().unwrap());
    let refused = call(&server, request).await;
    assert_eq!(told_in_grpc(&refused), (Some("8"), Some("1000")));
    assert_eq!(handle.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_holds_all_its_permits_takes_none_of_the_others() {
    let config = server("shop").concurrency_limit(4);
    let limit = BulkheadLayer::config("tenants", 2);
    let (server, handle) = serve!(config.keyed(tenant, limit));
    let mut held = [(); 3].map(|()| spawn(call(&server, of_tenant("/hangs", "ant"))));
    assert!(held[0].poll().is_pending() && held[1].poll().is_pending());
    let refused = call(&server, of_tenant("/hangs", "ant")).await;
    assert_eq!(told(&refused), (503, Some("1"), None));
    assert_eq!(handle.bulkhead().unwrap().in_flight(), 2);
    let answer = call(&server, of_tenant("/", "bee")).await;
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_keyed_layer_of_ones_own_may_have_other_bounds() {
    let limit = RateLimitLayer::config("tenants", Rate::per_second(1));
    let keyed = KeyedLayer::of_config("tenants", tenant, limit).unwrap();
    let keyed = keyed.max_keys(1).build().unwrap();
    let layer = server("shop").unlimited().keyed_layer(keyed);
    let layer = layer.build().unwrap();
    let server = serve!(layer: layer);
    for tenant in ["ant", "bee", "cow"] {
        let answer = call(&server, of_tenant("/", tenant)).await;
        assert_eq!(answer.status(), StatusCode::OK);
    }
    assert_eq!(layer.keyed().handle().keys(), 1);
    let refused = call(&server, of_tenant("/", "cow")).await;
    assert_eq!(told(&refused), (429, Some("1"), None));
}

/// Sends a part of a body in each of `pauses`, and then nothing more. The answer, and when it came.
async fn drip(
    server: &Server,
    path: &str,
    pauses: impl IntoIterator<Item = Duration>,
) -> (Handled, Duration) {
    let (source, request) = upload(path);
    let began = Instant::now();
    let mut answer = pin!(call(server, request));
    for pause in pauses {
        if let Ok(answer) = timeout(pause, answer.as_mut()).await {
            return (answer, began.elapsed());
        }
        assert!(source.send("bolt"));
    }
    let answer = answer.await;
    drop(source);
    (answer, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_ends_the_call_and_its_sender_is_told() {
    let (server, handle) = serve!(server("shop").concurrency_limit(1));
    let (answer, after) = drip(&server, "/upload", [SECOND, SECOND]).await;
    assert_eq!(told(&answer), (408, None, Some("close")));
    assert_eq!(kind(&answer), Some(ErrorKind::Timeout));
    assert_eq!(after, 32 * SECOND);
    let error = answer.extensions().get::<AnsweredError>().unwrap();
    let text = "the request to \"shop\" did not come within 30.0s";
    assert_eq!(error.error().to_string(), text);
    assert_eq!(handle.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn slow_senders_do_not_shrink_the_limit_of_all() {
    let limit = Aimd::between(2, 50).initial(20);
    let (server, handle) = serve!(server("shop").concurrency_limit(limit));
    for _ in 0..5 {
        let (answer, _) = drip(&server, "/upload", [SECOND]).await;
        assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
    }
    assert_eq!(handle.bulkhead().unwrap().limit(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_ends_at_its_total_or_at_the_deadline() {
    let drips = || std::iter::repeat_n(SECOND, 1_000);
    let config = server("shop").request_body(|body| body.idle(5 * SECOND).total(20 * SECOND));
    let (server, _) = serve!(config.unlimited());
    let (answer, after) = drip(&server, "/upload", drips()).await;
    assert_eq!(
        (told(&answer), after),
        ((408, None, Some("close")), 20 * SECOND)
    );
    assert_eq!(kind(&answer), Some(ErrorKind::Timeout));

    let (server, _) = serve!(buttress::http::server("shop").unlimited());
    let (answer, after) = drip(&server, "/upload", drips()).await;
    assert_eq!(
        (told(&answer), after),
        ((408, None, Some("close")), 60 * SECOND)
    );
    assert_eq!(kind(&answer), Some(ErrorKind::DeadlineExceeded));
}

#[tokio::test(start_paused = true)]
async fn the_sender_of_a_slow_grpc_request_is_told_in_grpc() {
    let (server, _) = serve!(server("ledger").unlimited());
    let (_source, body) = feed();
    let late = call(&server, grpc("/grpc").map(|_| body)).await;
    assert_eq!(told_in_grpc(&late), (Some("1"), None));
    assert_eq!(header(&late, "connection"), None);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_answers_well_without_the_whole_body_is_heard() {
    let (server, _) = serve!(server("shop").unlimited());
    let (answer, _) = drip(&server, "/tolerates", [SECOND]).await;
    assert_eq!(told(&answer), (200, None, None));
    assert_eq!(read(answer).await.unwrap(), "a part is enough");
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_handler_that_does_not_read_is_not_that_of_the_sender() {
    let config = server("shop").request_body(|body| body.idle(50 * MS));
    let (server, _) = serve!(config.unlimited());
    let (_source, request) = upload("/work");
    assert_eq!(call(&server, request).await.status(), StatusCode::OK);
    let (source, request) = upload("/upload");
    assert!(source.send("bolts"));
    drop(source);
    assert_eq!(call(&server, request).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_drain_refuses_new_calls_in_their_protocol() {
    let (server, handle) = serve!(server("shop").concurrency_limit(10));
    assert!(handle.is_ready());
    assert_eq!(handle.drain(SECOND).await, 0);
    assert!(!handle.is_ready());
    let refused = ask(&server, "/work").await;
    assert_eq!(told(&refused), (503, None, Some("close")));
    assert_eq!(kind(&refused), Some(ErrorKind::Draining));
    let error = refused.extensions().get::<AnsweredError>().unwrap();
    let text = "\"shop\" is draining and takes no new calls";
    assert_eq!(error.error().to_string(), text);
    let mut over_http2 = request("/work");
    *over_http2.version_mut() = Version::HTTP_2;
    let refused = call(&server, over_http2).await;
    assert_eq!(told(&refused), (503, None, None), "it has no such header");
    let refused = call(&server, grpc("/work")).await;
    assert_eq!(told_in_grpc(&refused), (Some("14"), None));
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_the_bodies_in_flight_and_no_longer() {
    let (server, handle) = serve!(server("shop").unlimited());
    let (source, request) = upload("/echo");
    let answer = call(&server, request).await;
    let mut drain = spawn(handle.drain(20 * SECOND));
    assert!(drain.poll().is_pending());
    assert_eq!(
        ask(&server, "/").await.status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    // The refusal has woken it, as it may have been counted.
    assert!(drain.poll().is_pending());
    sleep(SECOND).await;
    assert!(source.send("12 bolts") && drain.poll().is_pending());
    drop(source);
    assert_eq!(read(answer).await.unwrap(), "12 bolts");
    assert!(drain.is_woken());
    assert_eq!(drain.await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_time_with_calls_left() {
    let (server, handle) = serve!(server("shop").unlimited());
    let mut held = spawn(ask(&server, "/hangs"));
    assert!(held.poll().is_pending());
    let began = Instant::now();
    assert_eq!(handle.drain(20 * SECOND).await, 1);
    assert_eq!(began.elapsed(), 20 * SECOND);
    assert!(!handle.is_ready(), "for good");
    assert_eq!(
        ask(&server, "/").await.status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_in_the_queue_when_a_drain_begins_is_served() {
    let config = server("shop").bulkhead(1, |bulkhead| bulkhead.queue(1).queue_wait(SECOND));
    let (server, handle) = serve!(config);
    let calls = [(); 2].map(|()| {
        let server = server.clone();
        tokio::spawn(async move { read(ask(&server, "/work").await).await })
    });
    sleep(10 * MS).await;
    assert_eq!(handle.in_flight(), 2);
    assert_eq!(handle.drain(SECOND).await, 0);
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), "done");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_or_is_dropped_keeps_no_drain_waiting() {
    let (server, handle) = serve!(server("shop").concurrency_limit(4));
    let panics = server.clone();
    let panicked = tokio::spawn(async move { ask(&panics, "/panics").await });
    assert!(panicked.await.unwrap_err().is_panic());
    for path in ["/work", "/hangs", "/upload", "/echo"] {
        for polls in 0..4 {
            let (source, request) = upload(path);
            let mut call = spawn(call(&server, request));
            let mut answer = None;
            for _ in 0..polls {
                if let std::task::Poll::Ready(response) = call.poll() {
                    answer = Some(response);
                    break;
                }
                tokio::time::advance(60 * MS).await;
            }
            drop(call);
            drop(answer);
            let bulkhead = handle.bulkhead().unwrap();
            assert_eq!(
                (handle.in_flight(), bulkhead.in_flight()),
                (0, 0),
                "{path} {polls}"
            );
            drop(source);
        }
    }
    let began = Instant::now();
    assert_eq!(handle.drain(SECOND).await, 0);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_server_runs_until_it_is_told_to_stop_and_its_calls_are_over() {
    for (path, within) in [("/work", SECOND), ("/hangs", SECOND)] {
        let (server, handle) = serve!(server("shop").unlimited());
        let calls = server.clone();
        let task = tokio::spawn(async move { read(ask(&calls, path).await).await });
        let signal = handle.drained();
        let began = Instant::now();
        let serve = async move {
            signal.await;
            "has closed its connections"
        };
        let ended = handle.run_until(sleep(10 * MS), within, serve).await;
        if path == "/work" {
            assert_eq!(ended, Some("has closed its connections"));
            assert_eq!(task.await.unwrap().unwrap(), "done");
        } else {
            assert_eq!(ended, None);
            assert_eq!(began.elapsed(), within + 10 * MS);
        }
    }
    let (_, handle) = serve!(server("shop").unlimited());
    let ended = handle.run_until(pending(), SECOND, ready("failed")).await;
    assert_eq!(ended, Some("failed"), "by itself");
    assert!(handle.is_ready());
}

#[tokio::test(start_paused = true)]
async fn all_services_of_a_layer_share_its_limit_and_its_drain() {
    let layer = server("shop").concurrency_limit(1).build().unwrap();
    let (one, other) = (serve!(layer: layer), serve!(layer: layer.clone()));
    let mut held = spawn(ask(&one, "/hangs"));
    assert!(held.poll().is_pending());
    assert_eq!(told(&ask(&other, "/").await).0, 503);
    drop(held);
    assert_eq!(layer.handle().drain(SECOND).await, 0);
    assert_eq!(told(&ask(&other, "/").await), (503, None, Some("close")));
}

#[tokio::test(start_paused = true)]
async fn answers_can_be_written_by_a_function() {
    let config = server("shop").unlimited().respond(|refusal| {
        let response = refusal.response();
        response.map(|_| refusal.message().into())
    });
    let (server, handle) = serve!(config);
    drop(handle.drain(SECOND));
    let refused = ask(&server, "/").await;
    assert_eq!(told(&refused), (503, None, Some("close")));
    assert_eq!(read(refused).await.unwrap(), "shutting down");
}

#[tokio::test(start_paused = true)]
async fn every_call_is_measured_once() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let limit = RateLimitLayer::config("tenants", Rate::per_second(1)).burst(4);
    let config = server("measured")
        .deadline(10 * SECOND)
        .concurrency_limit(1);
    let config = config.request_body(|body| body.idle(SECOND));
    let (server, handle) = serve!(config.keyed(tenant, limit));
    drop(read(ask(&server, "/").await).await);
    drop(drip(&server, "/upload", []).await);
    drop(ask(&server, "/hangs").await);
    for _ in 0..5 {
        drop(read(call(&server, of_tenant("/", "flood")).await).await);
    }
    assert_eq!(handle.drain(SECOND).await, 0);
    drop(ask(&server, "/").await);
    let snapshot = snapshotter.snapshot();
    let counted = |metric: &str, label: &str| {
        let of_metric = snapshot.iter().filter(|(key, _)| key.name() == metric);
        let counts = of_metric.map(|(key, value)| {
            let label = key.labels().find(|of| of.key() == label).unwrap();
            let DebugValue::Counter(count) = value else {
                panic!("it counts");
            };
            (label.value().to_owned(), *count)
        });
        let mut counts: Vec<_> = counts.collect();
        counts.sort();
        counts
    };
    let of = |label: &str, count| (label.to_owned(), count);
    assert_eq!(
        counted("buttress_calls_total", "outcome"),
        [
            of("ignored", 1),
            of("rejected", 2),
            of("success", 5),
            of("timeout", 1)
        ]
    );
    assert_eq!(
        counted("buttress_rejections_total", "reason"),
        [of("draining", 1), of("rate_limited", 1)]
    );
    assert_eq!(
        counted("buttress_timeouts_total", "layer"),
        [of("inherit_deadline", 1), of("request_body", 1)]
    );
}

#[test]
fn settings_are_checked_when_the_server_is_built() {
    let refusal = |built: Result<(), ConfigError>| built.unwrap_err().to_string();
    let limited = || server("shop").concurrency_limit(1);
    let none = refusal(server("shop").build().map(drop));
    assert!(none.contains("concurrency_limit is not set"), "{none}");
    let long = limited().bulkhead(1, |bulkhead| bulkhead.queue(1).queue_wait(2 * SECOND));
    let long = refusal(long.deadline(SECOND).build().map(drop));
    assert!(long.contains("less than the deadline of 1s"), "{long}");
    let rate = RateLimitLayer::config("tenants", Rate::per_second(1)).burst(0);
    let burst = refusal(limited().keyed(tenant, rate).build().map(drop));
    assert!(burst.contains("burst"), "{burst}");
    assert!(limited().deadline(Duration::ZERO).build().is_err());
    assert!(
        limited()
            .request_body(|body| body.idle(Duration::ZERO))
            .build()
            .is_err()
    );
    assert!(server("").unlimited().build().is_err());
}

#[test]
fn the_layer_may_be_cloned_and_sent_to_other_threads() {
    fn check<T: Clone + Send + Sync + 'static>(_: &T) {}
    let limit = RateLimitLayer::config("tenants", Rate::per_second(1));
    let layer = server("shop")
        .unlimited()
        .keyed(tenant, limit)
        .build()
        .unwrap();
    check(&layer);
    check(&layer.layer(service_fn(handle)));
    check(&layer.handle());
    assert!(
        format!("{layer:?}").starts_with("ServerLayer { handle: "),
        "{layer:?}"
    );
}
