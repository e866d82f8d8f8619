//! Errors of layers as responses of HTTP and gRPC, in virtual time and over real sockets.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use crate::feed;

use std::error::Error as StdError;
use std::future::{Ready, pending, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{self, Poll};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use buttress::http::respond::{AnsweredError, ForClients, ForServers, Refusal};
use buttress::http::{BodyTimeoutLayer, InheritDeadlineLayer, Protocol, RespondLayer};
use buttress::{
    BoxError, BulkheadLayer, CircuitBreakerLayer, DeadlineLayer, Error, ErrorKind, Rate,
    RateLimitLayer, TimeoutLayer,
};
use bytes::Bytes;
use feed::{Feed, feed};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, SizeHint};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use tokio::net::{TcpListener, TcpSocket};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

/// A body that has no `Default`, and says little about itself.
#[derive(Debug, PartialEq)]
struct Streamed(u32);

impl Body for Streamed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(left) = self.0.checked_sub(1) else {
            return Poll::Ready(None);
        };
        self.0 = left;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"12 bolts")))))
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(3);
        hint
    }
}

fn http_request() -> Request<()> {
    Request::get("/stock?item=bolts").body(()).unwrap()
}

fn grpc_request() -> Request<()> {
    let request = Request::post("/").header("content-type", "application/grpc+proto");
    request.body(()).unwrap()
}

type Answered = Response<Streamed>;

async fn bolts(_: Request<()>) -> Result<Answered, BoxError> {
    Ok(Response::new(Streamed(2)))
}

async fn fails(_: Request<()>) -> Result<Answered, BoxError> {
    Err("the password is swordfish".into())
}

async fn panics(request: Request<()>) -> Result<Answered, BoxError> {
    assert_ne!(request.uri().path(), "/stock", "in the handler");
    bolts(request).await
}

async fn hangs(_: Request<()>) -> Result<Answered, BoxError> {
    pending().await
}

fn open_breaker() -> CircuitBreakerLayer {
    let breaker = CircuitBreakerLayer::new("inventory");
    breaker.handle().force_open();
    breaker
}

/// A rate limit that has no token for the next 4.2 seconds.
fn used_up() -> RateLimitLayer {
    let limit = RateLimitLayer::new("inventory", Rate::per_second(1));
    limit.handle().pause(Duration::from_millis(4_200));
    limit
}

fn header<'a, B>(response: &'a Response<B>, name: &str) -> Option<&'a str> {
    let value = response.headers().get(name)?;
    Some(value.to_str().unwrap())
}

#[tokio::test(start_paused = true)]
async fn an_answer_passes_as_it_came() {
    let server = RespondLayer::for_servers().wrap(service_fn(bolts));
    let body = server.oneshot(http_request()).await.unwrap().into_body();
    assert!(!body.is_end_stream());
    assert_eq!(body.size_hint().lower(), 3);
    assert_eq!(body.size_hint().upper(), None);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "12 bolts12 bolts");

    let client = RespondLayer::for_clients().wrap(service_fn(bolts));
    let response = client.oneshot(http_request()).await.unwrap();
    assert!(response.extensions().get::<AnsweredError>().is_none());
    assert_eq!(response.into_body().into_inner(), Some(Streamed(2)));
}

#[tokio::test(start_paused = true)]
async fn http_is_told_by_its_status_and_when_to_come_back() {
    let layer = ServiceBuilder::new()
        .layer(RespondLayer::for_servers())
        .layer(used_up());
    let response = layer.service_fn(bolts).oneshot(http_request()).await;
    let Ok(response) = response;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(header(&response, "retry-after"), Some("5"));
    let cause = response.extensions().get::<AnsweredError>().unwrap();
    let kind = Some(cause.error().kind());
    assert_eq!(kind, Some(ErrorKind::RateLimited));
    assert!(Error::find(cause).is_some(), "also as a source");
    let body = response.into_body();
    assert!(body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(0));
    assert!(body.into_inner().is_none());
}

#[tokio::test(start_paused = true)]
async fn grpc_is_told_in_trailers_without_a_message() {
    let layer = ServiceBuilder::new()
        .layer(RespondLayer::for_servers())
        .layer(used_up());
    let response = layer.service_fn(bolts).oneshot(grpc_request()).await;
    let Ok(response) = response;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "content-type"), Some("application/grpc"));
    assert_eq!(header(&response, "grpc-status"), Some("8"));
    assert_eq!(header(&response, "grpc-message"), Some("too many requests"));
    let pushback: u64 = header(&response, "grpc-retry-pushback-ms")
        .unwrap()
        .parse()
        .unwrap();
    assert!((4_200..=4_201).contains(&pushback), "{pushback}");
    assert_eq!(header(&response, "retry-after"), None);
    assert!(response.into_body().is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn each_layer_has_its_answer() {
    let layer = RespondLayer::for_servers();
    let ms = Duration::from_millis;
    let full = BulkheadLayer::new("inventory", 1);
    let mut held = tokio_test::task::spawn(full.layer(service_fn(hangs)).oneshot(http_request()));
    assert!(held.poll().is_pending());
    let timeout = TimeoutLayer::new("inventory", ms(100));
    let deadline = DeadlineLayer::new("inventory", ms(100));
    macro_rules! status {
        ($layer:expr, $service:expr) => {{
            let server = layer.layer($layer.layer(service_fn($service)));
            let Ok(http) = server.clone().oneshot(http_request()).await;
            let Ok(grpc) = server.oneshot(grpc_request()).await;
            let grpc = header(&grpc, "grpc-status")
                .unwrap()
                .parse::<i32>()
                .unwrap();
            (http.status().as_u16(), Code::from(grpc))
        }};
    }
    assert_eq!(status!(open_breaker(), bolts), (503, Code::Unavailable));
    assert_eq!(status!(full, bolts), (503, Code::Unavailable));
    assert_eq!(status!(used_up(), bolts), (429, Code::ResourceExhausted));
    assert_eq!(status!(timeout, hangs), (504, Code::DeadlineExceeded));
    assert_eq!(status!(deadline, hangs), (504, Code::DeadlineExceeded));
    assert_eq!(status!(timeout, fails), (500, Code::Internal));
}

#[tokio::test(start_paused = true)]
async fn a_foreign_error_is_answered_by_a_server_without_its_text() {
    let server = RespondLayer::for_servers().wrap(service_fn(fails));
    for request in [http_request(), grpc_request()] {
        let Ok(response) = server.clone().oneshot(request).await;
        assert!(!format!("{:?}", response.headers()).contains("swordfish"));
        let cause = response.extensions().get::<AnsweredError>().unwrap();
        assert!(
            format!("{:?}", cause.error()).ends_with("the password is swordfish"),
            "for logs"
        );
        assert!(response.into_body().is_end_stream());
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_error_passes_through_a_client_untouched() {
    let client = RespondLayer::for_clients().wrap(service_fn(fails));
    let error = client.oneshot(http_request()).await.unwrap_err();
    assert_eq!(
        error.service_error().unwrap().to_string(),
        "the password is swordfish"
    );
}

#[tokio::test(start_paused = true)]
async fn an_error_of_ours_is_found_inside_another_one() {
    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Error);

    let client = ServiceBuilder::new()
        .layer(RespondLayer::for_clients())
        .map_err(|error| BoxError::from(Outer(error)))
        .layer(open_breaker())
        .service_fn(bolts);
    let response = client.oneshot(http_request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn the_protocol_can_be_fixed() {
    let layer = RespondLayer::for_clients().protocol(Protocol::Grpc);
    let client = layer.layer(open_breaker().layer(service_fn(bolts)));
    let response = client.oneshot(http_request()).await.unwrap();
    assert_eq!(header(&response, "grpc-status"), Some("14"));
}

/// A problem document, RFC 9457.
fn problem(refusal: Refusal<'_>) -> Response<Bytes> {
    let mut response = refusal.response();
    if refusal.protocol() == Protocol::Http {
        let json = "application/problem+json".parse().unwrap();
        response.headers_mut().insert("content-type", json);
        let (title, path) = (refusal.message(), refusal.uri().path());
        let body = format!(r#"{{"title":"{title}","instance":"{path}"}}"#);
        *response.body_mut() = body.into();
    }
    response
}

#[tokio::test(start_paused = true)]
async fn a_function_writes_the_whole_answer() {
    let layer = RespondLayer::for_servers().respond(problem);
    let server = layer.layer(used_up().layer(service_fn(bolts)));
    let Ok(response) = server.clone().oneshot(http_request()).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(header(&response, "retry-after"), Some("5"));
    assert!(response.extensions().get::<AnsweredError>().is_some());
    let body = response.into_body();
    let expected = r#"{"title":"too many requests","instance":"/stock"}"#;
    assert!(!body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(expected.len() as u64));
    assert_eq!(body.collect().await.unwrap().to_bytes(), expected);

    let Ok(response) = server.oneshot(grpc_request()).await;
    assert_eq!(header(&response, "grpc-status"), Some("8"));
    assert!(response.into_body().is_end_stream());

    let seen = RespondLayer::for_servers().respond(|refusal: Refusal<'_>| {
        assert_eq!(refusal.kind(), ErrorKind::Service);
        assert_eq!(refusal.method(), Method::GET);
        assert_eq!(refusal.retry_after(), None);
        assert_eq!(
            (refusal.status().as_u16(), refusal.code()),
            (500, buttress::http::grpc::Code::Internal)
        );
        let error = refusal.error().service_error().unwrap();
        Response::new(error.to_string().into())
    });
    let Ok(response) = seen.wrap(service_fn(fails)).oneshot(http_request()).await;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "the password is swordfish");
}

#[tokio::test(start_paused = true)]
async fn a_panic_passes() {
    let server = RespondLayer::for_servers().wrap(service_fn(panics));
    let call = tokio::spawn(server.oneshot(http_request()));
    assert!(call.await.unwrap_err().is_panic());
}

/// A service that is ready once, or whose readiness fails.
#[derive(Clone)]
struct Readiness(Poll<Result<(), &'static str>>);

impl Service<Request<()>> for Readiness {
    type Response = Answered;
    type Error = &'static str;
    type Future = Ready<Result<Answered, &'static str>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), &'static str>> {
        self.0
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(Streamed(1))))
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_always_ready_and_answers_an_error_of_readiness() {
    let mut server = RespondLayer::for_servers().layer(Readiness(Poll::Ready(Err("down"))));
    let Ok(ready) = server.ready().await;
    let Ok(response) = ready.call(http_request()).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);

    let mut client = RespondLayer::for_clients().layer(Readiness(Poll::Ready(Err("down"))));
    let error = client.ready().await.unwrap().call(http_request()).await;
    assert_eq!(
        error.unwrap_err().service_error().unwrap().to_string(),
        "down"
    );

    let mut server = RespondLayer::for_servers().layer(Readiness(Poll::Pending));
    let Ok(ready) = server.ready().await;
    let mut call = tokio_test::task::spawn(ready.call(http_request()));
    assert!(call.poll().is_pending());
    let ended = format!("{call:?}");
    assert!(ended.contains("Waiting"), "{ended}");
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    address
}

#[tokio::test]
async fn an_axum_router_answers_over_a_socket() {
    let router = Router::new()
        .route("/", get(async || "12 bolts"))
        .route("/hangs", get(pending::<()>))
        .layer(
            ServiceBuilder::new()
                .layer(RespondLayer::for_servers().respond(problem))
                .layer(InheritDeadlineLayer::new("shop"))
                .layer(RateLimitLayer::new("shop", Rate::per_minute(2))),
        );
    let address = serve(router).await;
    let client = legacy::Client::builder(TokioExecutor::new()).build_http();
    let get = async |path: &str| {
        let request = Request::get(format!("http://{address}{path}"));
        let request = request.header("x-request-timeout-ms", "10000");
        let request = request.body(Full::<Bytes>::default()).unwrap();
        client.request(request).await.unwrap()
    };
    let mut statuses = Vec::new();
    let mut last = None;
    while statuses.len() < 32 && last.is_none() {
        let response = get("/").await;
        statuses.push(response.status().as_u16());
        last = (response.status() != StatusCode::OK).then_some(response);
    }
    let last = last.expect("the limit is soon used up");
    assert_eq!(statuses[0], 200);
    assert_eq!(last.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = header(&last, "retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    assert_eq!(
        header(&last, "content-type"),
        Some("application/problem+json")
    );
    let body = last.into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(b"{\"title\""));
}

async fn health_channel() -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = Server::builder().add_service(health);
    let incoming = TcpIncoming::from(listener);
    tokio::spawn(async { server.serve_with_incoming(incoming).await.unwrap() });
    lazy_channel(address)
}

fn lazy_channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    endpoint.unwrap().connect_lazy()
}

fn health_check() -> HealthCheckRequest {
    HealthCheckRequest::default()
}

/// What a tonic client sees when a layer has ended the call.
macro_rules! status_of {
    ($layer:expr, $channel:expr) => {{
        let stack = RespondLayer::for_clients().layer($layer.layer($channel));
        HealthClient::new(stack)
            .check(health_check())
            .await
            .map(|answer| answer.get_ref().status())
    }};
}

#[tokio::test]
async fn a_tonic_client_gets_an_answer_through_it() {
    let breaker = CircuitBreakerLayer::new("health");
    let answer = status_of!(breaker, health_channel().await);
    assert_eq!(answer.unwrap(), ServingStatus::Serving);
}

#[tokio::test]
async fn a_tonic_client_sees_what_a_refusal_means() {
    let channel = health_channel().await;
    let status: Status = status_of!(open_breaker(), channel.clone()).unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let told = status.message();
    assert!(
        told.starts_with("circuit breaker \"inventory\" is open"),
        "{told}"
    );

    let status = status_of!(used_up(), channel.clone()).unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.metadata().contains_key("grpc-retry-pushback-ms"));

    let closed = BulkheadLayer::new("inventory", 1);
    let hangs = service_fn(|_: Request<tonic::body::Body>| async {
        pending::<Result<Response<tonic::body::Body>, BoxError>>().await
    });
    let mut held = tokio_test::task::spawn({
        let request = Request::new(tonic::body::Body::empty());
        closed.layer(hangs).oneshot(request)
    });
    assert!(held.poll().is_pending());
    let status = status_of!(closed, channel).unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.metadata().contains_key("grpc-retry-pushback-ms"));
}

#[tokio::test(start_paused = true)]
async fn a_tonic_client_sees_that_its_time_is_over() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let channel = lazy_channel(listener.local_addr().unwrap());
    let timeout = TimeoutLayer::new("never", Duration::from_secs(1));
    let status = status_of!(timeout, channel).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_tonic_client_sees_that_its_stream_has_stalled() {
    // Longer than a busy machine takes for the first message.
    let timeout = BodyTimeoutLayer::config("health").stream_idle(Duration::from_secs(2));
    let timeout = timeout.build().unwrap();
    let stack = RespondLayer::for_clients().layer(timeout.layer(health_channel().await));
    let watched = HealthClient::new(stack).watch(health_check()).await;
    let mut watched = watched.unwrap().into_inner();
    let serving = watched.message().await.unwrap().unwrap();
    assert_eq!(serving.status(), ServingStatus::Serving);
    let status = watched.message().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    let told = status.message();
    assert!(told.starts_with("\"health\" sent no more"), "{told}");
    assert!(watched.message().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn trailers_tell_in_grpc_what_ended_a_body_and_the_body_is_gone() {
    let echo = service_fn(|request: Request<Feed>| {
        ready(Ok::<_, BoxError>(Response::new(request.into_body())))
    });
    let timeout = BodyTimeoutLayer::config("inventory");
    let second = Duration::from_secs(1);
    let timeout = timeout.idle(second).stream_idle(second);
    let timeout = timeout.build().unwrap();
    let server = RespondLayer::for_servers().layer(timeout.layer(echo));
    let begin = async |request: Request<()>| {
        let (source, body) = feed();
        let Ok(response) = server.clone().oneshot(request.map(|()| body)).await;
        assert!(source.send("part"));
        let mut body = response.into_body();
        assert!(body.frame().await.unwrap().is_ok());
        (source, body)
    };

    let (source, mut body) = begin(grpc_request()).await;
    let trailers = body.frame().await.unwrap().unwrap().into_trailers();
    let trailers = trailers.unwrap();
    assert_eq!(trailers["grpc-status"], "4");
    assert_eq!(trailers["grpc-message"], "not done in time");
    assert_eq!(trailers.len(), 2);
    source.closed().await;
    assert!(body.is_end_stream() && body.frame().await.is_none());

    let (_source, mut body) = begin(http_request()).await;
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let (source, mut body) = begin(grpc_request()).await;
    source.fail("connection reset");
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(
        error.service_error().unwrap().to_string(),
        "connection reset"
    );
}

#[tokio::test]
async fn a_refused_connection_of_tonic_stays_unavailable() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let channel = lazy_channel(socket.local_addr().unwrap());
    let timeout = TimeoutLayer::new("refused", Duration::from_secs(60));
    let status = status_of!(timeout, channel).unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.source().is_some(), "the connection's own error");
}

#[tokio::test]
async fn a_tonic_server_refuses_in_grpc() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_reporter, health) = tonic_health::server::health_reporter();
    let layers = ServiceBuilder::new()
        .layer(RespondLayer::for_servers())
        .layer(open_breaker());
    let server = Server::builder().layer(layers).add_service(health);
    let incoming = TcpIncoming::from(listener);
    tokio::spawn(async { server.serve_with_incoming(incoming).await.unwrap() });
    let mut client = HealthClient::new(lazy_channel(address));
    let status = client.check(health_check()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "unavailable for now");
}

#[test]
fn what_is_public_can_be_shared_and_printed() {
    fn is<T: Clone + Send + Sync + std::fmt::Debug>(_: &T) {}
    is(&RespondLayer::<ForClients>::for_clients());
    is(&RespondLayer::<ForServers>::for_servers().respond(problem));
    is(&RespondLayer::for_servers().layer(()));
}
