//! Response bodies over real sockets: hyper, tonic and axum.
// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use crate::clients::closed_port;
use crate::feed;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::debugging::{DebugValue, DebuggingRecorder};
use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::routing::get;
use buttress::http::{
    BodyTimeoutLayer, Classifier, CompleteOnBodyEnd, HttpReplay, HttpStandardService,
    PropagateDeadlineLayer, ReplayBody, ReplayBodyLayer, RespondLayer, grpc,
};
use buttress::stack::Handle;
use buttress::{Backoff, BoxError, BulkheadLayer, Error, ErrorKind, Jitter, Never, RetryLayer};
use bytes::Bytes;
use feed::{Feed, Source, feed};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};
use tonic::body::Body as TonicBody;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};

/// Data for as long as somebody reads.
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 100])))))
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

fn boxed<B>(body: B) -> Answer
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    Response::new(body.map_err(Into::into).boxed_unsync())
}

/// Answers by path. The sources of streams go to the test.
fn answer(request: Request<Incoming>, sources: &UnboundedSender<Source>) -> Answer {
    let mut response = match request.uri().path() {
        "/full" if request.method() == Method::HEAD => {
            let mut response = boxed(Empty::new());
            let headers = response.headers_mut();
            headers.insert("content-length", HeaderValue::from_static("8"));
            response
        }
        "/full" => boxed(Full::from("12 bolts")),
        "/endless" => boxed(Endless),
        "/upgrade" => boxed(Empty::new()),
        _ if *request.method() == Method::CONNECT => boxed(Empty::new()),
        "/stream" => {
            let (source, body) = feed();
            sources.send(source).unwrap();
            boxed(body)
        }
        "/grpc.health.v1.Health/Check" => {
            let mut response = boxed(Empty::new());
            let headers = response.headers_mut();
            headers.insert("content-type", HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from_static("8"));
            let pushback = HeaderValue::from_static("60000");
            headers.insert("grpc-retry-pushback-ms", pushback);
            response
        }
        "/grpc.health.v1.Health/Watch" => {
            let (source, body) = feed();
            sources.send(source).unwrap();
            let mut response = boxed(body);
            let headers = response.headers_mut();
            headers.insert("content-type", HeaderValue::from_static("application/grpc"));
            response
        }
        status => {
            let mut response = boxed(Empty::new());
            *response.status_mut() = status[1..].parse().unwrap();
            response
        }
    };
    if request.uri().path() == "/upgrade" {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert("connection", HeaderValue::from_static("upgrade"));
        headers.insert("upgrade", HeaderValue::from_static("echo"));
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS || request.method() == Method::CONNECT {
        tokio::spawn(async {
            let mut tunnel = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
            let mut word = [0; 4];
            tunnel.read_exact(&mut word).await.unwrap();
            tunnel.write_all(&word).await.unwrap();
        });
    }
    response
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A server of this version of HTTP.
async fn serve(version: u8) -> (SocketAddr, UnboundedReceiver<Source>) {
    let (listener, address) = listen().await;
    let (sources, streams) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (io, sources) = (TokioIo::new(socket), sources.clone());
            let service = service_fn(move |request| {
                let response = answer(request, &sources);
                async { Ok::<_, Infallible>(response) }
            });
            if version == 1 {
                let http = http1::Builder::new().serve_connection(io, service);
                tokio::spawn(http.with_upgrades());
            } else {
                let mut http = http2::Builder::new(TokioExecutor::new());
                http.max_concurrent_streams(2_000).max_send_buf_size(1_000);
                // A server closes a connection on which many streams are reset before it has accepted them. How many these
                // are depends on how busy the machine is.
                http.max_pending_accept_reset_streams(1_000_000);
                http.max_local_error_reset_streams(None);
                tokio::spawn(http.serve_connection(io, service));
            }
        }
    });
    (address, streams)
}

/// A server that says what it is told, and closes the connection.
async fn says(answer: &'static str) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(socket.read_u8().await.unwrap());
        }
        socket.write_all(answer.as_bytes()).await.unwrap();
    });
    address
}

/// What a user keeps in a struct.
struct Shop {
    client: HttpStandardService<Client<HttpConnector, Full<Bytes>>>,
    handle: Handle,
}

fn client(version: u8) -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new())
        .http2_only(version == 2)
        .http2_initial_stream_window_size(1_000)
        .build_http()
}

fn shop(version: u8, limit: usize) -> Shop {
    // How fast this machine is does not matter.
    let stack = buttress::http::standard("wire")
        .no_retry()
        .no_timeout()
        .no_response_timeout();
    let stack = stack.concurrency_limit(limit).build().unwrap();
    Shop {
        handle: stack.handle(),
        client: stack.wrap(client(version)),
    }
}

fn request(method: Method, address: SocketAddr, path: &str) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method);
    let request = request.uri(format!("http://{address}{path}"));
    request.body(Full::default()).unwrap()
}

impl Shop {
    async fn get(
        &self,
        address: SocketAddr,
        path: &str,
    ) -> Response<impl Body<Data = Bytes, Error = Error> + Unpin + use<>> {
        let request = request(Method::GET, address, path);
        self.client.clone().oneshot(request).await.unwrap()
    }

    fn in_flight(&self) -> usize {
        self.handle.bulkhead().unwrap().in_flight()
    }
}

/// The outcomes of attempts since this was last asked.
fn outcomes(recorder: &DebuggingRecorder) -> BTreeMap<String, u64> {
    let mut outcomes = BTreeMap::new();
    for (key, value) in recorder.snapshotter().snapshot() {
        let label = |name| {
            let label = key.labels().find(|label| label.key() == name);
            label.map(|label| label.value().to_owned())
        };
        if key.name() == "buttress_calls_total"
            && label("stage").unwrap() == "attempt"
            && let DebugValue::Counter(count @ 1..) = value
        {
            outcomes.insert(label("outcome").unwrap(), count);
        }
    }
    outcomes
}

fn only(outcome: &str) -> BTreeMap<String, u64> {
    BTreeMap::from([(outcome.to_owned(), 1)])
}

#[tokio::test]
async fn answers_without_a_body_are_over_at_their_head() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    for version in [1, 2] {
        let (address, _streams) = serve(version).await;
        let shop = shop(version, 10);
        for path in ["/204", "/304", "/200"] {
            let response = shop.get(address, path).await;
            assert_eq!(shop.in_flight(), 0, "{path} over HTTP/{version}");
            drop(response);
            assert_eq!(outcomes(&recorder), only("success"));
        }
        let head = request(Method::HEAD, address, "/full");
        let response = shop.client.clone().oneshot(head).await.unwrap();
        assert_eq!(response.headers()["content-length"], "8");
        assert_eq!(shop.in_flight(), 0);
        drop(response);
        assert_eq!(outcomes(&recorder), only("success"));
    }
}

#[tokio::test]
async fn a_body_that_is_dropped_after_its_last_byte_is_a_success() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    for version in [1, 2] {
        let (address, _streams) = serve(version).await;
        let shop = shop(version, 10);
        let mut body = shop.get(address, "/full").await.into_body();
        assert_eq!(shop.in_flight(), 1);
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(data, "12 bolts");
        drop(body);
        assert_eq!(shop.in_flight(), 0);
        assert_eq!(outcomes(&recorder), only("success"), "HTTP/{version}");
        drop(shop.get(address, "/full").await);
        assert_eq!(outcomes(&recorder), only("cancelled"), "HTTP/{version}");
    }
}

#[tokio::test]
async fn a_slow_body_holds_its_permit_and_a_reset_is_a_failure() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    for version in [1, 2] {
        let (address, mut streams) = serve(version).await;
        let shop = shop(version, 10);
        for fails in [false, true] {
            let mut body = shop.get(address, "/stream").await.into_body();
            let source = streams.recv().await.unwrap();
            for _ in 0..3 {
                source.send("part");
                assert!(body.frame().await.unwrap().is_ok());
                assert_eq!(shop.in_flight(), 1);
            }
            if fails {
                source.fail("disk on fire");
                assert!(body.frame().await.unwrap().is_err());
            } else {
                drop(source);
                while let Some(frame) = body.frame().await {
                    assert!(frame.unwrap().into_data().unwrap().is_empty());
                }
            }
            assert_eq!(shop.in_flight(), 0);
            let outcome = if fails { "failure" } else { "success" };
            assert_eq!(outcomes(&recorder), only(outcome), "HTTP/{version}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_shorter_than_it_says_is_a_failure() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    let torn = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    for answer in [short, torn] {
        let address = says(answer).await;
        let shop = shop(1, 10);
        let body = shop.get(address, "/").await.into_body();
        assert!(body.collect().await.is_err());
        assert_eq!(shop.in_flight(), 0);
        assert_eq!(outcomes(&recorder), only("failure"));
    }
}

#[tokio::test]
async fn early_hints_are_not_the_answer() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let address = says(
        "HTTP/1.1 103 Early Hints\r\nlink: </bolts.css>\r\n\r\n\
         HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n12",
    )
    .await;
    let shop = shop(1, 10);
    let body = shop.get(address, "/").await.into_body();
    assert_eq!(shop.in_flight(), 1);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "12");
    assert_eq!(outcomes(&recorder), only("success"));
}

#[tokio::test]
async fn a_hint_that_is_garbage_harms_nobody() {
    let bad = "HTTP/1.1 503 No\r\nretry-after: \u{fc}\r\ndate: -1\r\ncontent-length: 0\r\n\r\n";
    let huge = "HTTP/1.1 429 No\r\nretry-after: 99999999999999999999\r\ncontent-length: 0\r\n\r\n";
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    for (answer, outcome) in [(bad, "overload"), (huge, "throttled")] {
        let shop = shop(1, 10);
        assert!(
            !shop
                .get(says(answer).await, "/")
                .await
                .status()
                .is_success()
        );
        assert_eq!(outcomes(&recorder), only(outcome));
    }
}

#[tokio::test]
async fn an_upgrade_is_over_at_its_head_and_its_tunnel_works() {
    let (address, _streams) = serve(1).await;
    let shop = shop(1, 10);
    let mut upgrade = request(Method::GET, address, "/upgrade");
    let headers = upgrade.headers_mut();
    headers.insert("connection", HeaderValue::from_static("upgrade"));
    headers.insert("upgrade", HeaderValue::from_static("echo"));
    let connect = request(Method::CONNECT, address, "");
    for request in [upgrade, connect] {
        let response = shop.client.clone().oneshot(request).await.unwrap();
        assert_eq!(shop.in_flight(), 0, "{response:?}");
        let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        tunnel.write_all(b"ping").await.unwrap();
        let mut word = [0; 4];
        tunnel.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"ping");
    }
}

#[tokio::test]
async fn a_thousand_streams_that_are_given_up_at_random_give_all_permits_back() {
    const STREAMS: usize = 1_000;
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let (address, _streams) = serve(2).await;
    let shop = shop(2, STREAMS);
    // So that there is a connection.
    assert!(shop.get(address, "/200").await.body().is_end_stream());
    assert_eq!(outcomes(&recorder), only("success"));

    let mut seed = 7_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize
    };
    let mut readers = JoinSet::new();
    for _ in 0..STREAMS {
        let call = shop
            .client
            .clone()
            .oneshot(request(Method::GET, address, "/endless"));
        let (polls, reads) = (random() % 9, random() % 4);
        readers.spawn(async move {
            let mut call = pin!(call);
            let mut left = polls;
            // Gives up after so many polls, if there is no head by then. Of nine streams one waits for its head.
            let head = poll_fn(|cx| match call.as_mut().poll(cx) {
                Poll::Ready(response) => Poll::Ready(Some(response.unwrap())),
                Poll::Pending if polls == 8 => Poll::Pending,
                Poll::Pending if left == 0 => Poll::Ready(None),
                Poll::Pending => {
                    left -= 1;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            });
            let Some(response) = head.await else {
                return 0;
            };
            let mut body = response.into_body();
            for _ in 0..reads {
                assert!(body.frame().await.unwrap().is_ok());
            }
            reads
        });
    }
    yield_now().await;
    assert!(shop.in_flight() > 0);
    let reads: usize = readers.join_all().await.into_iter().sum();
    assert!(reads > 0, "some got an answer");
    assert_eq!(shop.in_flight(), 0);
    let given_up = BTreeMap::from([("cancelled".to_owned(), STREAMS as u64)]);
    assert_eq!(outcomes(&recorder), given_up);
}

/// What a user keeps in a struct.
struct Health {
    client: HealthClient<
        buttress::stack::StandardService<Channel, Never, grpc::Classifier, CompleteOnBodyEnd>,
    >,
    handle: Handle,
}

impl Health {
    fn new(address: SocketAddr) -> Self {
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .connect_lazy();
        let stack = grpc::standard("health").replay(Never).concurrency_limit(10);
        let stack = stack.build().unwrap();
        Self {
            handle: stack.handle(),
            client: HealthClient::new(stack.wrap(channel)),
        }
    }

    fn in_flight(&self) -> usize {
        self.handle.bulkhead().unwrap().in_flight()
    }
}

fn check(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

#[tokio::test]
async fn a_tonic_call_is_over_when_its_status_has_come() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let (listener, address) = listen().await;
    let (mut reporter, service) = tonic_health::server::health_reporter();
    let server = Server::builder().add_service(service);
    let server = tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));

    let mut health = Health::new(address);
    let answer = health.client.check(check("")).await.unwrap();
    assert_eq!(answer.get_ref().status(), ServingStatus::Serving);
    assert_eq!(health.in_flight(), 0);
    assert_eq!(outcomes(&recorder), only("success"), "by the trailers");
    let error = health.client.check(check("nobody")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(health.in_flight(), 0);
    assert_eq!(outcomes(&recorder), only("success"), "by the head");

    let mut watched = health.client.watch(check("")).await.unwrap().into_inner();
    let serving = watched.message().await.unwrap().unwrap();
    assert_eq!(serving.status(), ServingStatus::Serving);
    reporter
        .set_service_status("", tonic_health::ServingStatus::NotServing)
        .await;
    let changed = watched.message().await.unwrap().unwrap();
    assert_eq!(changed.status(), ServingStatus::NotServing);
    assert_eq!(health.in_flight(), 1);
    drop(watched);
    assert_eq!(health.in_flight(), 0);
    assert_eq!(outcomes(&recorder), only("cancelled"));

    let mut watched = health.client.watch(check("")).await.unwrap().into_inner();
    assert!(watched.message().await.unwrap().is_some());
    reporter.clear_service_status("").await;
    while let Ok(Some(_)) = watched.message().await {}
    assert_eq!(health.in_flight(), 0);
    assert_eq!(outcomes(&recorder), only("success"));
    server.abort();
}

#[tokio::test]
async fn a_tonic_call_without_quota_ends_with_its_head() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let (address, _streams) = serve(2).await;
    let mut health = Health::new(address);
    let error = health.client.check(check("")).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert_eq!(health.in_flight(), 0);
    assert_eq!(outcomes(&recorder), only("throttled"));
}

#[tokio::test(start_paused = true)]
async fn a_tonic_call_that_is_late_has_exceeded_its_deadline_whichever_timer_is_first() {
    for slack in [0, 20] {
        // Nobody answers there.
        let (_listener, address) = listen().await;
        let channel = Endpoint::from_shared(format!("http://{address}"));
        let propagate = PropagateDeadlineLayer::config("health");
        let propagate = propagate
            .slack(Duration::from_millis(slack))
            .build()
            .unwrap();
        let stack = grpc::standard("health").replay(Never).concurrency_limit(10);
        let stack = stack.deadline(Duration::from_millis(200)).no_timeout();
        let channel = ServiceBuilder::new()
            .layer(RespondLayer::for_clients())
            .layer(stack.build().unwrap())
            .layer(propagate)
            .service(channel.unwrap().connect_lazy());
        let status = HealthClient::new(channel)
            .check(check(""))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    }
}

#[tokio::test]
async fn a_tonic_client_in_a_box_can_be_used_in_a_task() {
    type Transport = BoxCloneSyncService<Request<TonicBody>, Response<TonicBody>, Status>;
    let (_socket, address) = closed_port();
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let stack = grpc::standard("health").replay(Never).unlimited();
    let channel = ServiceBuilder::new()
        .map_err(|error: Error| Status::from_error(error.into()))
        .map_response(|response: Response<_>| response.map(TonicBody::new))
        .layer(stack.build().unwrap())
        .service(channel.connect_lazy());
    let mut client = HealthClient::new(Transport::new(channel));
    let call = tokio::spawn(async move { client.check(check("")).await });
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn under_axum_a_permit_is_held_until_the_answer_has_been_written() {
    let layer = BulkheadLayer::config("api", 1)
        .classify(Classifier::new())
        .completion(CompleteOnBodyEnd)
        .build()
        .unwrap();
    let handle = layer.handle();
    let (sources, mut streams) = unbounded_channel();
    let stream = move || {
        let (source, body) = feed();
        sources.send(source).unwrap();
        async { axum::body::Body::new(body) }
    };
    let full = async |error: Error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string());
    let stack = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(full))
        .layer(layer);
    let app = Router::new().route("/", get(stream)).layer(stack);
    let (listener, address) = listen().await;
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });

    let shop = shop(1, 10);
    let mut body = shop.get(address, "/").await.into_body();
    let source = streams.recv().await.unwrap();
    source.send("part");
    assert!(body.frame().await.unwrap().is_ok());
    assert_eq!(handle.in_flight(), 1);
    let refused = shop.get(address, "/").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(source);
    assert!(body.frame().await.is_none());
    assert_eq!(handle.in_flight(), 0);

    // A client that goes away.
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = "GET / HTTP/1.1\r\nhost: api\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    let source = streams.recv().await.unwrap();
    assert_eq!(handle.in_flight(), 1);
    drop(socket);
    source.closed().await;
    while handle.in_flight() > 0 {
        yield_now().await;
    }
}

#[tokio::test]
async fn a_reqwest_client_can_be_over_at_the_end_of_the_body() {
    let (address, mut streams) = serve(1).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let stack = buttress::http::standard("reqwest").replay(reqwest::Request::try_clone);
    let stack = stack.concurrency_limit(10).build().unwrap();
    let url = format!("http://{address}/stream");
    let request = client.get(url).build().unwrap();
    let client = stack.wrap(client.map_response(http::Response::<reqwest::Body>::from));
    let body = client.oneshot(request).await.unwrap().into_body();
    let handle = stack.handle();
    assert_eq!(handle.bulkhead().unwrap().in_flight(), 1);
    streams.recv().await.unwrap().send("12 bolts");
    assert_eq!(body.collect().await.unwrap().to_bytes(), "12 bolts");
    assert_eq!(handle.bulkhead().unwrap().in_flight(), 0);
}

/// For what is to happen at once: longer than any machine is slow.
/// Longer than anything takes, on any machine.
const LONG: Duration = Duration::from_secs(120);

/// Answers each request at first with 503, whose body is short or does not end, and then with 200.
struct Flaky {
    address: SocketAddr,
    /// Connections so far, and those that are open.
    connections: Arc<[AtomicUsize; 2]>,
    failed: UnboundedReceiver<Source>,
}

async fn flaky(version: u8, is_short: bool) -> Flaky {
    let (listener, address) = listen().await;
    let (sources, failed) = unbounded_channel();
    let connections = Arc::<[AtomicUsize; 2]>::default();
    let counts = Arc::clone(&connections);
    tokio::spawn(async move {
        let requests = Arc::new(AtomicUsize::new(0));
        while let Ok((socket, _)) = listener.accept().await {
            let (sources, requests) = (sources.clone(), Arc::clone(&requests));
            let service = service_fn(move |_: Request<Incoming>| {
                let is_first = requests.fetch_add(1, Ordering::Relaxed) % 2 == 0;
                let mut response = match (is_first, is_short) {
                    (false, _) => boxed(Full::from("12 bolts")),
                    (true, true) => boxed(Full::from("sold out")),
                    (true, false) => {
                        let (source, body) = feed();
                        assert!(source.send("sold out"));
                        sources.send(source).unwrap();
                        boxed(body)
                    }
                };
                if is_first {
                    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                }
                async { Ok::<_, Infallible>(response) }
            });
            let counts = Arc::clone(&counts);
            counts[0].fetch_add(1, Ordering::Relaxed);
            counts[1].fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let io = TokioIo::new(socket);
                if version == 1 {
                    let http = http1::Builder::new().serve_connection(io, service);
                    drop(http.await);
                } else {
                    let http = http2::Builder::new(TokioExecutor::new());
                    drop(http.serve_connection(io, service).await);
                }
                counts[1].fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    Flaky {
        address,
        connections,
        failed,
    }
}

#[tokio::test]
async fn an_answer_that_was_not_good_enough_keeps_no_connection() {
    const CALLS: usize = 10;
    for (version, is_short) in [(1, true), (1, false), (2, true), (2, false)] {
        let mut server = flaky(version, is_short).await;
        let retry = RetryLayer::config("wire")
            .no_budget()
            .backoff(Backoff::constant(Duration::from_millis(5)).jitter(Jitter::None))
            .replay(HttpReplay::new())
            .classify(Classifier::new())
            .build()
            .unwrap();
        let client = retry.wrap(client(version));
        for _ in 0..CALLS {
            let request = request(Method::GET, server.address, "/");
            let response = client.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            let body = response.into_body().collect().await.unwrap();
            assert_eq!(body.to_bytes(), "12 bolts");
        }
        let [so_far, open] = &*server.connections;
        if version == 1 && !is_short {
            // Nothing else ends a body of HTTP/1 that is not read.
            assert!(so_far.load(Ordering::Relaxed) > CALLS);
        } else {
            // A connection that is not back in the pool yet, when the next attempt begins, is made up for by another.
            let so_far = so_far.load(Ordering::Relaxed);
            assert!(so_far <= CALLS / 2, "{version} {is_short} {so_far}");
        }
        let given_up = async {
            while let Ok(source) = server.failed.try_recv() {
                source.closed().await;
            }
            while open.load(Ordering::Relaxed) > 1 {
                yield_now().await;
            }
        };
        timeout(LONG, given_up).await.expect("no body is kept");
    }
}

#[tokio::test]
async fn a_stream_that_stalls_or_trickles_without_end_is_ended() {
    const SHORT: Duration = Duration::from_millis(30);
    for (version, trickles) in [(1, false), (1, true), (2, false), (2, true)] {
        let recorder = DebuggingRecorder::new();
        let _installed = metrics::set_default_local_recorder(&recorder);
        let (address, mut streams) = serve(version).await;
        let config = BodyTimeoutLayer::config("wire");
        let config = if trickles {
            config.total(SHORT)
        } else {
            config.idle(SHORT)
        };
        let layer = config.build().unwrap();
        let http = client(version);
        let stack = buttress::http::standard("wire").concurrency_limit(10);
        let stack = stack.no_timeout().no_response_timeout().build().unwrap();
        let client = stack.wrap(layer.wrap::<Request<_>, _, _>(http));

        let response = client.oneshot(request(Method::GET, address, "/stream"));
        let mut body = response.await.unwrap().into_body();
        let source = streams.recv().await.unwrap();
        let drips = async {
            while source.send("b") && trickles {
                sleep(SHORT / 10).await;
            }
            // The server need not wait either, though the reader still has the body.
            source.closed().await;
        };
        let reads = async {
            loop {
                if let Err(error) = body.frame().await.unwrap() {
                    break Some(error.kind());
                }
            }
        };
        let both = timeout(LONG, async { tokio::join!(reads, drips) });
        let (kind, ()) = both.await.expect("is ended");
        assert_eq!(kind, Some(ErrorKind::Timeout), "{version} {trickles}");
        assert_eq!(stack.handle().bulkhead().unwrap().in_flight(), 0);
        let seen = outcomes(&recorder);
        // A reader that a busy machine has held up when its time was over was late itself.
        let is_late = trickles && seen == only("cancelled");
        assert!(is_late || seen == only("timeout"), "{version} {seen:?}");
    }
}

/// A server of this version that gives back what it gets, at once or when it has it all.
async fn echo(version: u8, at_once: bool) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let io = TokioIo::new(socket);
            let service = service_fn(move |request: Request<Incoming>| async move {
                let body = request.into_body();
                if at_once {
                    return Ok(boxed(body));
                }
                let body = body.collect().await?.to_bytes();
                Ok::<_, hyper::Error>(boxed(Full::from(body)))
            });
            if version == 1 {
                tokio::spawn(http1::Builder::new().serve_connection(io, service));
            } else {
                let http = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(http.serve_connection(io, service));
            }
        }
    });
    address
}

#[tokio::test]
async fn a_request_that_breaks_off_is_not_held_against_the_service() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    for (version, at_once) in [(1, false), (2, false), (2, true)] {
        let address = echo(version, at_once).await;
        let stack = buttress::http::standard("wire").replay(HttpReplay::new().all_idempotent());
        let stack = stack
            .no_timeout()
            .no_response_timeout()
            .concurrency_limit(10);
        let client = Client::builder(TokioExecutor::new())
            .http2_only(version == 2)
            .build_http::<ReplayBody<Feed>>();
        let client = ServiceBuilder::new()
            .layer(ReplayBodyLayer::new())
            .layer(stack.build().unwrap())
            .service(client);

        let (source, body) = feed();
        assert!(source.send("12 "));
        let request = Request::post(format!("http://{address}/")).body(body);
        let mut call = pin!(client.oneshot(request.unwrap()));
        let error = if at_once {
            let mut body = call.await.unwrap().into_body();
            assert!(body.frame().await.unwrap().is_ok());
            source.fail("its sender has gone away");
            body.collect().await.unwrap_err()
        } else {
            source.fail("its sender has gone away");
            call.as_mut().await.unwrap_err()
        };
        let seen = outcomes(&recorder);
        assert_eq!(seen, only("ignored"), "{version} {at_once} {error:?}");
    }
}

/// A server that reads each request and cuts the connection, or does not listen.
async fn cuts(listens: bool) -> (SocketAddr, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    if !listens {
        let (socket, address) = closed_port();
        // No other test gets the port.
        tokio::spawn(async move {
            let _socket = socket;
            pending::<()>().await;
        });
        return (address, requests);
    }
    let (listener, address) = listen().await;
    let count = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(socket.read_u8().await.unwrap());
            }
            count.fetch_add(1, Ordering::Relaxed);
            socket.set_zero_linger().unwrap();
        }
    });
    (address, requests)
}

#[tokio::test]
async fn without_a_head_only_what_may_be_acted_on_twice_or_was_not_sent_is_sent_again() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    // Who listens, what is sent, and how many attempts there are.
    let cases = [
        (true, Method::GET, 3),
        (true, Method::POST, 1),
        (false, Method::GET, 3),
        (false, Method::POST, 3),
    ];
    for (listens, method, attempts) in cases {
        let (address, requests) = cuts(listens).await;
        let stack = buttress::http::standard("wire")
            .retry(|retry| retry.backoff(Backoff::constant(Duration::from_millis(1))))
            .concurrency_limit(10);
        let stack = stack.no_timeout().no_response_timeout().build().unwrap();
        let http = buttress::hyper::Client::new(client(1));
        let request = request(method.clone(), address, "/");
        let error = stack.wrap(http).oneshot(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Service, "it is the client's");
        let failed = BTreeMap::from([("failure".to_owned(), attempts)]);
        assert_eq!(outcomes(&recorder), failed, "{listens} {method}");
        let arrived = if listens { attempts } else { 0 };
        assert_eq!(requests.load(Ordering::Relaxed) as u64, arrived);
        assert_eq!(stack.handle().bulkhead().unwrap().in_flight(), 0);
    }
}

#[tokio::test]
async fn a_body_is_as_long_as_it_says_and_an_answer_that_contradicts_itself_is_a_failure() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let more = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n12 boltsHTTP/1.1 500 No\r\n\r\n";
    let shop = shop(1, 10);
    let body = shop.get(says(more).await, "/").await.into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "12 bolts");
    assert_eq!(outcomes(&recorder), only("success"));

    let two = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\ncontent-length: 4\r\n\r\n12 bolts";
    let negative = "HTTP/1.1 200 OK\r\ncontent-length: -8\r\n\r\n12 bolts";
    for answer in [two, negative] {
        let request = request(Method::GET, says(answer).await, "/");
        shop.client.clone().oneshot(request).await.unwrap_err();
        assert_eq!(shop.in_flight(), 0);
        assert_eq!(outcomes(&recorder), only("failure"));
    }
}

#[tokio::test]
async fn a_grpc_stream_without_a_status_at_its_end_is_a_failure() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let (address, mut streams) = serve(2).await;
    let mut health = Health::new(address);
    // A message without content, and then trailers that say something else, none, or a status. tonic itself takes a stream
    // that ends without one for a good one.
    let ends: [(Option<[_; 2]>, _, _); 4] = [
        (Some(["grpc-message", "done"]), Code::Ok, "failure"),
        (None, Code::Ok, "failure"),
        (Some(["grpc-status", "14"]), Code::Unavailable, "failure"),
        (Some(["grpc-status", "0"]), Code::Ok, "success"),
    ];
    for (trailers, code, outcome) in ends {
        let mut watched = health.client.watch(check("")).await.unwrap().into_inner();
        let source = streams.recv().await.unwrap();
        assert!(source.send(vec![0; 5]));
        assert!(watched.message().await.unwrap().is_some());
        assert_eq!(health.in_flight(), 1);
        if let Some([name, value]) = trailers {
            source.trailers(name, value);
        }
        drop(source);
        let end = watched.message().await;
        let seen = end.err().map_or(Code::Ok, |status| status.code());
        assert_eq!((seen, health.in_flight()), (code, 0), "{trailers:?}");
        assert_eq!(outcomes(&recorder), only(outcome), "{trailers:?}");
    }
}
