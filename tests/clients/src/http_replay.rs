//! HTTP requests that are sent again: which ones, what is written on them, and over real sockets.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use crate::clients::closed_port;
use crate::feed;

use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::Context;
use std::time::Duration;

use buttress::circuit_breaker::State;
use buttress::http::{
    AttemptNumber, Classifier, HttpReplay, ReplayBody, ReplayBodyLayer, TryCopyBody, grpc,
    is_idempotent,
};
use buttress::{
    Backoff, BoxError, CallOptions, CircuitBreakerLayer, Classify, CloneService, Deadline, Error,
    HedgeLayer, Jitter, Outcome, Replay, RetryLayer, classify_fn,
};
use bytes::Bytes;
use feed::{Feed, feed};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

const X_ATTEMPT: &str = "x-attempt";
const GRPC_PREVIOUS: &str = "grpc-previous-rpc-attempts";

fn request(method: Method) -> Request<()> {
    let request = Request::builder().method(method).uri("/orders");
    request.body(()).unwrap()
}

fn may_repeat(replay: &HttpReplay, request: &Request<()>) -> bool {
    replay.is_idempotent(request)
}

#[test]
fn the_method_says_whether_a_request_may_be_sent_again() {
    let replay = HttpReplay::new();
    let safe = [
        Method::GET,
        Method::HEAD,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
    ];
    for method in safe {
        assert!(may_repeat(&replay, &request(method.clone())), "{method}");
    }
    let purge = Method::from_bytes(b"PURGE").unwrap();
    for method in [Method::POST, Method::PATCH, Method::CONNECT, purge] {
        assert!(!may_repeat(&replay, &request(method.clone())), "{method}");
    }
}

#[test]
fn a_key_or_a_mark_goes_before_the_method() {
    let replay = HttpReplay::new();
    let mut keyed = request(Method::POST);
    let key = HeaderName::from_static("idempotency-key");
    keyed
        .headers_mut()
        .insert(&key, HeaderValue::from_static(""));
    assert!(!may_repeat(&replay, &keyed), "an empty key is none");
    keyed
        .headers_mut()
        .insert(&key, HeaderValue::from_static("8e03978e"));
    assert!(may_repeat(&replay, &keyed));
    assert!(is_idempotent(keyed.method(), keyed.headers()));
    keyed
        .extensions_mut()
        .insert(CallOptions::new().idempotent(false));
    assert!(!may_repeat(&replay, &keyed));

    let mut get = request(Method::GET);
    get.extensions_mut()
        .insert(CallOptions::new().idempotent(false));
    assert!(!may_repeat(&replay, &get));
    assert!(!may_repeat(&HttpReplay::new().all_idempotent(), &get));
    let mut post = request(Method::POST);
    assert!(may_repeat(&HttpReplay::new().all_idempotent(), &post));
    post.extensions_mut()
        .insert(CallOptions::new().idempotent(true));
    assert!(may_repeat(&replay, &post));
}

#[test]
fn methods_of_grpc_are_known_by_their_paths() {
    let replay = HttpReplay::new().idempotent_paths(|path| path == "/shop.Inventory/Get");
    let post = |uri: &str| Request::post(uri).body(()).unwrap();
    assert!(may_repeat(
        &replay,
        &post("http://shop/shop.Inventory/Get?a=b")
    ));
    assert!(!may_repeat(
        &replay,
        &post("http://shop/shop.Inventory/Take")
    ));
    assert!(may_repeat(&replay, &request(Method::GET)), "as before");
}

#[test]
fn a_copy_is_the_whole_request() {
    #[derive(Clone, Debug, PartialEq)]
    struct Tenant(u32);
    let request = Request::put("/orders/7")
        .version(Version::HTTP_2)
        .header("accept", "a")
        .header("accept", "b")
        .extension(Tenant(3))
        .body(Some("12 bolts".to_owned()))
        .unwrap();
    let copy = HttpReplay::new().copy(&request).unwrap();
    assert_eq!(copy.method(), Method::PUT);
    assert_eq!(
        (copy.uri(), copy.version()),
        (request.uri(), Version::HTTP_2)
    );
    assert_eq!(copy.headers(), request.headers());
    assert_eq!(copy.extensions().get(), Some(&Tenant(3)));
    assert_eq!(copy.body(), request.body());
}

/// A body that can be copied while it is short.
#[derive(PartialEq)]
struct Note(&'static str);

impl TryCopyBody for Note {
    fn try_copy(&self) -> Option<Self> {
        (self.0.len() < 5).then_some(Self(self.0))
    }
}

#[test]
fn bodies_are_copied_in_the_way_that_is_theirs() {
    fn copies<B: PartialEq, R: Replay<Request<B>>>(replay: &R, body: B) -> bool {
        let copy = replay.copy(&Request::new(body));
        copy.is_some_and(|copy| replay.is_replayable(&copy))
    }
    let replay = HttpReplay::new();
    assert!(copies(&replay, "text"));
    assert!(copies(&replay, String::from("text")));
    assert!(copies(&replay, vec![1]));
    assert!(copies(&replay, Bytes::from_static(b"12")));
    assert!(copies(&replay, None::<Box<Bytes>>));
    let full = Request::new(Full::new(Bytes::from_static(b"12")));
    assert!(replay.copy(&full).is_some());
    assert!(replay.copy(&Request::new(Empty::<Bytes>::new())).is_some());
    assert!(copies(&replay, Note("bolt")));
    assert!(!copies(&replay, Note("bolts")));
}

/// The headers of an attempt, and its number.
type Marks = (HeaderMap, Option<u32>);

/// What the attempts that reached a server carried.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Marks>>>);

impl Seen {
    fn note<B>(&self, request: &Request<B>) {
        let number = request
            .extensions()
            .get()
            .map(|AttemptNumber(number)| *number);
        self.0
            .lock()
            .unwrap()
            .push((request.headers().clone(), number));
    }

    fn attempts(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// The values of a header, `-` where there is none.
    fn header(&self, name: &str) -> Vec<String> {
        let seen = self.0.lock().unwrap();
        let value = |headers: &HeaderMap| match headers.get(name) {
            Some(value) => value.to_str().unwrap().to_owned(),
            None => "-".to_owned(),
        };
        seen.iter().map(|(headers, _)| value(headers)).collect()
    }

    fn numbers(&self) -> Vec<Option<u32>> {
        let seen = self.0.lock().unwrap();
        seen.iter().map(|(_, number)| *number).collect()
    }

    /// A service that always fails.
    fn failing(
        &self,
    ) -> impl Service<Request<()>, Response = (), Error = BoxError, Future: Send> + Clone + Send + use<>
    {
        let seen = self.clone();
        service_fn(move |request: Request<()>| {
            seen.note(&request);
            ready(Err("reset".into()))
        })
    }
}

fn retry<R>(replay: R) -> RetryLayer<R> {
    let config = RetryLayer::config("orders").no_budget();
    let backoff = Backoff::constant(Duration::from_millis(1)).jitter(Jitter::None);
    config.backoff(backoff).replay(replay).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_marked() {
    let seen = Seen::default();
    let replay = HttpReplay::new()
        .attempt_header(HeaderName::from_static(X_ATTEMPT))
        .grpc_previous_attempts();
    let client = retry(replay).wrap(seen.failing());
    client.oneshot(request(Method::GET)).await.unwrap_err();
    assert_eq!(seen.header(X_ATTEMPT), ["1", "2", "3"]);
    assert_eq!(seen.header(GRPC_PREVIOUS), ["-", "1", "2"]);
    assert_eq!(seen.numbers(), [None, Some(2), Some(3)]);
}

#[tokio::test(start_paused = true)]
async fn a_mark_of_somebody_else_is_overwritten_unless_he_is_trusted() {
    let seen = Seen::default();
    let replay = HttpReplay::new()
        .attempt_header(HeaderName::from_static(X_ATTEMPT))
        .grpc_previous_attempts();
    let client = retry(replay).wrap(seen.failing());
    let mut request = request(Method::GET);
    request.headers_mut().insert(X_ATTEMPT, 7.into());
    request.headers_mut().insert(GRPC_PREVIOUS, 6.into());
    client.oneshot(request).await.unwrap_err();
    assert_eq!(seen.header(X_ATTEMPT), ["1", "2", "3"]);
    assert_eq!(seen.header(GRPC_PREVIOUS), ["-", "1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_retried_upstream_is_sent_once_and_its_marks_stay() {
    let replay = HttpReplay::new()
        .attempt_header(HeaderName::from_static(X_ATTEMPT))
        .grpc_previous_attempts();
    let replay = replay.trust_upstream_attempts();
    let attempts = async |mark: &dyn Fn(&mut Request<()>)| {
        let seen = Seen::default();
        let client = retry(replay.clone()).wrap(seen.failing());
        let mut request = request(Method::GET);
        mark(&mut request);
        client.oneshot(request).await.unwrap_err();
        seen
    };
    let header = |name: &'static str, value: &'static str| {
        move |request: &mut Request<()>| {
            request
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
    };
    let second = attempts(&header(X_ATTEMPT, "2")).await;
    assert_eq!(second.header(X_ATTEMPT), ["2"]);
    let second = attempts(&header(GRPC_PREVIOUS, "1")).await;
    assert_eq!(second.header(GRPC_PREVIOUS), ["1"]);
    let second = attempts(&|request| {
        request.extensions_mut().insert(AttemptNumber(2));
    });
    assert_eq!(second.await.numbers(), [Some(2)]);
    let first = [
        header(X_ATTEMPT, "1"),
        header(GRPC_PREVIOUS, "0"),
        header(X_ATTEMPT, "many"),
        header(GRPC_PREVIOUS, "-1"),
    ];
    for first in first {
        assert_eq!(attempts(&first).await.attempts(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn two_hops_that_trust_do_not_multiply_their_attempts() {
    let seen = Seen::default();
    let replay = HttpReplay::new()
        .attempt_header(HeaderName::from_static(X_ATTEMPT))
        .trust_upstream_attempts();
    let inner = retry(replay.clone()).wrap(seen.failing());
    // Another process: the task's attempt is not known there.
    let hop = service_fn(move |request: Request<()>| {
        let mut received = self::request(Method::GET);
        *received.headers_mut() = request.headers().clone();
        let call = tokio::spawn(inner.clone().oneshot(received));
        async move { call.await.unwrap() }
    });
    let client = retry(replay).wrap(hop);
    client.oneshot(request(Method::GET)).await.unwrap_err();
    assert_eq!(seen.attempts(), 3 + 1 + 1);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_under_a_retry_that_trusts_upstream_hedges_every_attempt() {
    let seen = Seen::default();
    let replay = HttpReplay::new()
        .attempt_header(HeaderName::from_static(X_ATTEMPT))
        .trust_upstream_attempts();
    let hedge = HedgeLayer::config("orders")
        .delay(Duration::from_secs(1))
        .replay(replay.clone())
        .build()
        .unwrap();
    let slow = {
        let seen = seen.clone();
        service_fn(move |request: Request<()>| {
            seen.note(&request);
            async {
                tokio::time::sleep(Duration::from_secs(2)).await;
                Err::<(), BoxError>("reset".into())
            }
        })
    };
    let service = ServiceBuilder::new()
        .layer(retry(replay))
        .layer(hedge)
        .service(slow);
    service.oneshot(request(Method::GET)).await.unwrap_err();
    assert_eq!(seen.header(X_ATTEMPT), ["1", "1", "2", "2", "3", "3"]);
}

/// A classifier for HTTP servers.
fn server_errors(result: Result<&Response<Incoming>, &Error>) -> Outcome {
    match result {
        Ok(response) if !response.status().is_server_error() => Outcome::Success,
        _ => Outcome::Failure,
    }
}

/// A hyper client whose requests can be sent again while their bodies are streamed.
fn hyper_client(
    limit: usize,
) -> impl CloneService<Request<Feed>, Response = Response<Incoming>, Error = Error> {
    let backoff = Backoff::constant(Duration::from_millis(1)).jitter(Jitter::None);
    let retry = RetryLayer::config("orders")
        .backoff(backoff)
        .replay(HttpReplay::new().attempt_header(HeaderName::from_static(X_ATTEMPT)))
        .classify(classify_fn(server_errors))
        .build()
        .unwrap();
    ServiceBuilder::new()
        .layer(ReplayBodyLayer::new().limit(limit))
        .layer(retry)
        .service(Client::builder(TokioExecutor::new()).build_http::<ReplayBody<Feed>>())
}

/// A server that tells what came, and how it answers the attempts.
struct TestServer {
    address: SocketAddr,
    /// The attempt whose head was read last.
    attempt: watch::Receiver<u32>,
    /// The bodies that were read to their end.
    bodies: Arc<Mutex<Vec<Bytes>>>,
}

#[derive(Clone, Copy, PartialEq)]
enum First {
    /// 503 after the request was read.
    Unavailable,
    /// 503 before its body was read.
    UnavailableAtOnce,
    /// The connection is cut in the middle of the body.
    Reset,
}

async fn server(first: First) -> TestServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, attempt) = watch::channel(0);
    let bodies = Arc::<Mutex<Vec<Bytes>>>::default();
    let seen = Arc::clone(&bodies);
    tokio::spawn(async move {
        let sender = Arc::new(sender);
        for connection in 1.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            if connection == 1 && first == First::Reset {
                let mut read = Vec::new();
                while !read.ends_with(b"12 \r\n") {
                    stream.read_buf(&mut read).await.unwrap();
                }
                stream.set_zero_linger().unwrap();
                continue;
            }
            let (sender, seen) = (Arc::clone(&sender), Arc::clone(&seen));
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (sender, seen) = (Arc::clone(&sender), Arc::clone(&seen));
                async move {
                    let attempt = request.headers()[X_ATTEMPT]
                        .to_str()
                        .unwrap()
                        .parse()
                        .unwrap();
                    sender.send_replace(attempt);
                    let is_first = attempt == 1;
                    let mut response = Response::new(Full::new(Bytes::new()));
                    if is_first {
                        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                    }
                    if !is_first || first != First::UnavailableAtOnce {
                        let body = request.into_body().collect().await?.to_bytes();
                        seen.lock().unwrap().push(body);
                    }
                    Ok::<_, hyper::Error>(response)
                }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            let connection = connection.serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async { drop(connection.await) });
        }
    });
    TestServer {
        address,
        attempt,
        bodies,
    }
}

fn order(address: SocketAddr, body: Feed) -> Request<Feed> {
    let request = Request::post(format!("http://{address}/orders"));
    request
        .header("idempotency-key", "8e03978e")
        .body(body)
        .unwrap()
}

/// Sends "12 " and, when the attempt with this number is under way, "bolts".
async fn send_in_two_parts(first: First, continued_at: u32) -> (StatusCode, TestServer) {
    let mut server = server(first).await;
    let (source, body) = feed();
    assert!(source.send("12 "));
    let call = hyper_client(100).oneshot(order(server.address, body));
    let rest = async {
        let mut attempt = server.attempt.clone();
        attempt
            .wait_for(|attempt| *attempt >= continued_at)
            .await
            .unwrap();
        assert!(source.send("bolts"));
        drop(source);
    };
    let (response, ()) = tokio::join!(call, rest);
    server.attempt.mark_unchanged();
    (response.unwrap().status(), server)
}

#[tokio::test]
async fn a_streamed_body_is_sent_again_after_an_answer_that_is_a_failure() {
    let (status, server) = send_in_two_parts(First::Unavailable, 1).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(*server.bodies.lock().unwrap(), ["12 bolts", "12 bolts"]);
}

#[tokio::test]
async fn a_body_is_sent_again_while_it_is_still_streamed() {
    let (status, server) = send_in_two_parts(First::UnavailableAtOnce, 2).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(*server.bodies.lock().unwrap(), ["12 bolts"]);
}

#[tokio::test]
async fn the_standard_stack_takes_the_policy() {
    let server = server(First::Unavailable).await;
    let stack = buttress::standard("orders")
        .unlimited()
        .retry(|retry| retry.backoff(Backoff::constant(Duration::from_millis(1))))
        .replay(HttpReplay::new().attempt_header(HeaderName::from_static(X_ATTEMPT)))
        .classify(server_errors as fn(Result<&Response<Incoming>, &Error>) -> Outcome)
        .build()
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let request = Request::put(format!("http://{}/orders", server.address));
    let request = request.body(Full::from("12 bolts")).unwrap();
    let response = stack.wrap(client).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(*server.bodies.lock().unwrap(), ["12 bolts", "12 bolts"]);
}

#[tokio::test]
async fn a_connection_that_is_reset_in_the_middle_of_the_body_is_made_good() {
    let (status, server) = send_in_two_parts(First::Reset, 2).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(*server.bodies.lock().unwrap(), ["12 bolts"]);
}

#[tokio::test]
async fn a_body_above_the_limit_arrives_and_is_not_sent_again() {
    let server = server(First::Unavailable).await;
    let (source, body) = feed();
    for _ in 0..30 {
        assert!(source.send("12 bolts"));
    }
    drop(source);
    let call = hyper_client(100).oneshot(order(server.address, body));
    assert_eq!(
        call.await.unwrap().status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(*server.bodies.lock().unwrap(), ["12 bolts".repeat(30)]);
    assert_eq!(*server.attempt.borrow(), 1);
}

#[tokio::test]
async fn a_request_that_may_not_be_acted_on_twice_is_sent_once() {
    let server = server(First::Unavailable).await;
    let (_, body) = feed();
    let mut order = order(server.address, body);
    order.headers_mut().clear();
    let call = hyper_client(100).oneshot(order);
    assert_eq!(
        call.await.unwrap().status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(*server.attempt.borrow(), 1);
}

#[tokio::test]
async fn a_request_body_that_fails_is_not_held_against_the_service() {
    let server = server(First::Unavailable).await;
    let breaker = CircuitBreakerLayer::config("orders")
        .consecutive_failures(1)
        .classify(Classifier::new())
        .build()
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http::<ReplayBody<Feed>>();
    let client = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new())
        .layer(breaker.clone())
        .service(client);
    let request = Request::post(format!("http://{}/orders", server.address));
    // Its sender goes away after the first part.
    let (source, body) = feed();
    assert!(source.send("12 "));
    source.fail("connection reset");
    let request = request.header(X_ATTEMPT, 1).body(body).unwrap();
    let error = client.oneshot(request).await.unwrap_err();
    assert_eq!(breaker.handle().state(), State::Closed, "{error:?}");
    let result: Result<&Response<()>, _> = Err(&error);
    assert_eq!(Classifier::new().classify(result), Outcome::Ignored);
    assert_eq!(grpc::Classifier::new().classify(result), Outcome::Ignored);
}

#[tokio::test]
async fn a_body_that_is_too_long_to_be_kept_is_sent_again_if_nobody_has_read_it() {
    let (_socket, address) = closed_port();
    for limit in [999, 1_000] {
        let seen = Seen::default();
        let noted = seen.clone();
        let client = ServiceBuilder::new()
            .layer(ReplayBodyLayer::new().limit(limit))
            .layer(retry(HttpReplay::new()))
            .map_request(move |request: Request<ReplayBody<Full<Bytes>>>| {
                assert_eq!(request.body().size_hint().exact(), Some(1_000));
                noted.note(&request);
                request
            })
            .service(buttress::hyper::Client::new(
                Client::builder(TokioExecutor::new()).build_http(),
            ));
        let body = Full::from(vec![b'b'; 1_000]);
        let request = Request::post(format!("http://{address}/orders")).body(body);
        client.oneshot(request.unwrap()).await.unwrap_err();
        assert_eq!(seen.attempts(), 3, "{limit}");
    }
}

#[tokio::test]
async fn an_attempt_that_is_over_does_not_read_the_body_away_from_the_next_one() {
    const PART: [u8; 1_000] = [b'b'; 1_000];
    const PARTS: usize = 20_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (source, body) = feed();
    assert!(source.send("12 "));
    let server = async {
        let (mut first, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"12 \r\n") {
            first.read_buf(&mut read).await.unwrap();
        }
        let unavailable = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        first.write_all(unavailable).await.unwrap();
        let (mut second, _) = listener.accept().await.unwrap();
        for _ in 0..PARTS {
            assert!(source.send(Bytes::from_static(&PART)));
        }
        drop(source);
        // The first connection takes all that it can get, before the second one takes anything.
        while read.len() < PARTS * PART.len() {
            match first.read_buf(&mut read).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        let mut last = Vec::new();
        while !last.ends_with(b"\r\n0\r\n\r\n") {
            last.drain(..last.len().saturating_sub(10));
            let length = second.read_buf(&mut last).await.unwrap();
            assert_ne!(length, 0, "cut off");
        }
        let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        second.write_all(ok).await.unwrap();
    };
    let call = hyper_client(64 * 1024).oneshot(order(address, body));
    let (response, ()) = tokio::join!(call, server);
    assert_eq!(response.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_hedge_and_the_first_attempt_read_one_body() {
    let server = server(First::Unavailable).await;
    let hedge = HedgeLayer::config("orders")
        .delay(Duration::from_millis(1))
        .replay(HttpReplay::new().all_idempotent())
        .build()
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http::<ReplayBody<Feed>>();
    let mut attempts = 0;
    let (source, body) = feed();
    assert!(source.send("12 "));
    let mut source = Some(source);
    // The first attempt waits for the rest of the body, which comes when the hedge has been sent.
    let client = service_fn_clone(move |mut request: Request<ReplayBody<Feed>>| {
        attempts += 1;
        // Both are answered with 200.
        request
            .headers_mut()
            .insert(X_ATTEMPT, (attempts + 1).into());
        if let Some(source) = source.take_if(|_| attempts == 2) {
            assert!(source.send("bolts"));
        }
        client.request(request)
    });
    let client = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new())
        .layer(hedge)
        .service(client);
    let response = client.oneshot(order(server.address, body)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let bodies = server.bodies.lock().unwrap().clone();
    assert!(!bodies.is_empty());
    assert!(bodies.iter().all(|body| body == "12 bolts"), "{bodies:?}");
}

/// A service of a function that changes what it knows.
fn service_fn_clone<Req, F, Fut, Res, E>(
    call: F,
) -> impl Service<Req, Response = Res, Error = E, Future = Fut> + Clone
where
    F: FnMut(Req) -> Fut,
    Fut: Future<Output = Result<Res, E>>,
{
    let call = Arc::new(Mutex::new(call));
    service_fn(move |request| (call.lock().unwrap())(request))
}

/// The gRPC status of an answer without a body.
fn grpc_status<B>(result: Result<&Response<B>, &Error>) -> Outcome {
    match result {
        Ok(response) if !response.headers().contains_key("grpc-status") => Outcome::Success,
        _ => Outcome::Failure,
    }
}

#[tokio::test]
async fn a_generated_client_tries_again_what_was_unavailable() {
    let previous = Arc::<Mutex<Vec<Option<String>>>>::default();
    let seen = Arc::clone(&previous);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_reporter, health) = tonic_health::server::health_reporter();
    let unavailable_once = move |request: tonic::Request<()>| {
        let header = request.metadata().get(GRPC_PREVIOUS);
        let header = header.map(|header| header.to_str().unwrap().to_owned());
        let mut seen = seen.lock().unwrap();
        seen.push(header);
        match seen.len() {
            1 => Err(Status::unavailable("starting")),
            _ => Ok(request),
        }
    };
    let health = InterceptedService::new(health, unavailable_once);
    let server = Server::builder().add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

    let is_read = |path: &str| path == "/grpc.health.v1.Health/Check";
    let replay = HttpReplay::new()
        .idempotent_paths(is_read)
        .grpc_previous_attempts();
    let retry = RetryLayer::config("health")
        .backoff(Backoff::constant(Duration::from_millis(1)))
        .replay(replay)
        .classify(classify_fn(grpc_status::<tonic::body::Body>))
        .build()
        .unwrap();
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy();
    let stack = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new())
        .layer(retry)
        .map_request(|request: Request<ReplayBody<tonic::body::Body>>| {
            request.map(tonic::body::Body::new)
        })
        .service(channel);
    let mut client = HealthClient::new(stack);
    client.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(*previous.lock().unwrap(), [None, Some("1".to_owned())]);

    let unknown = HealthCheckRequest {
        service: "unknown".to_owned(),
    };
    let status = client.check(unknown).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(previous.lock().unwrap().len(), 5, "tried three times");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_was_lost_is_not_sent_even_if_the_first_was_not() {
    let (source, body) = feed();
    assert!(source.send("12 bolts, 12 nuts"));
    drop(source);
    let mut attempts = 0;
    let refuses_in_the_end = service_fn_clone(|request: Request<ReplayBody<Feed>>| {
        attempts += 1;
        async {
            drop(request.into_body().collect().await?);
            Err::<(), BoxError>(io::Error::from(io::ErrorKind::ConnectionRefused).into())
        }
    });
    let client = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new().limit(10))
        .layer(retry(HttpReplay::new().all_idempotent()))
        .service(refuses_in_the_end);
    client.oneshot(Request::new(body)).await.unwrap_err();
    assert_eq!(attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_request_whose_copy_was_lost_is_not_hedged() {
    for (length, sent) in [(5, 2), (15, 1)] {
        let (source, body) = feed();
        assert!(source.send(vec![b'b'; length]));
        drop(source);
        let mut attempts = 0;
        let slow = service_fn_clone(|request: Request<ReplayBody<Feed>>| {
            attempts += 1;
            async {
                drop(request.into_body().collect().await?);
                tokio::time::sleep(Duration::from_secs(10)).await;
                Ok::<_, BoxError>(())
            }
        });
        let hedge = HedgeLayer::config("orders").delay(Duration::from_secs(1));
        let replay = HttpReplay::new().all_idempotent();
        let client = ServiceBuilder::new()
            .layer(ReplayBodyLayer::new().limit(10))
            .layer(hedge.replay(replay).build().unwrap())
            .service(slow);
        client.oneshot(Request::new(body)).await.unwrap();
        assert_eq!(attempts, sent, "{length} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_of_replay_bodies_waits_in_the_call() {
    let service = tower::limit::ConcurrencyLimit::new(
        service_fn(|_: Request<ReplayBody<Full<Bytes>>>| {
            std::future::pending::<Result<(), BoxError>>()
        }),
        1,
    );
    let mut client = ReplayBodyLayer::new().wrap(service);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let request = || Request::new(Full::new(Bytes::from_static(b"12")));
    for _ in 0..2 {
        assert!(client.poll_ready(&mut cx).is_ready());
        let call = tokio_test::task::spawn(client.call(request())).poll();
        assert!(call.is_pending());
    }
}

#[test]
fn what_goes_from_thread_to_thread_can() {
    fn is_send<T: Send + Sync + Unpin>() {}
    is_send::<ReplayBody<tonic::body::Body>>();
    is_send::<ReplayBody<Incoming>>();
    is_send::<HttpReplay>();
    is_send::<buttress::http::TimeoutBody<Incoming>>();
    assert!(ReplayBody::<Feed>::default().try_copy().is_some());
    assert_eq!(Deadline::current(), None);
}
