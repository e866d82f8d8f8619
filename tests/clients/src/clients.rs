//! One stack over the clients that people have, against real servers on loopback, and under axum.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use crate::stack;

use std::error::Error as StdError;
use std::future::pending;
use std::io;
use std::net::SocketAddr;

use ::hyper::body::Incoming;
use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::routing::{any, get};
use buttress::http::grpc::PeekedBody;
use buttress::tonic::Client;
use buttress::{
    BoxError, ByClone, CloneService, Error, ErrorKind, ErrorsAreFailures, Never, Outcome, Replay,
    hyper,
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use stack::stack;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

/// Copies requests that do harm when they are acted on twice, and counts the attempts.
#[derive(Clone)]
struct NotIdempotent<F> {
    copy: F,
    attempts: watch::Sender<u32>,
}

impl<F> NotIdempotent<F> {
    fn new(copy: F) -> Self {
        let attempts = watch::Sender::default();
        Self { copy, attempts }
    }
}

impl<Req, F: Fn(&Req) -> Option<Req>> Replay<Req> for NotIdempotent<F> {
    fn copy(&self, request: &Req) -> Option<Req> {
        (self.copy)(request)
    }

    fn is_idempotent(&self, _: &Req) -> bool {
        false
    }

    fn set_attempt(&self, _: &mut Req, attempt: u32) {
        self.attempts.send_replace(attempt);
    }
}

/// A classifier for HTTP servers and clients.
fn server_errors<B>(result: Result<&Response<B>, &Error>) -> Outcome {
    match result {
        Ok(response) if !response.status().is_server_error() => Outcome::Success,
        _ => Outcome::Failure,
    }
}

/// The kind of the I/O error in the chain of sources.
fn io_error(error: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref::<io::Error>())
        .map(io::Error::kind)
}

/// A port that is ours, and refuses connections until it is told to listen.
pub(crate) fn closed_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Sends a request that must not be acted on twice to a port that refuses it, and returns the error.
async fn refused<S, Req>(client: S, request: Req, copy: impl Fn(&Req) -> Option<Req>) -> Error
where
    S: CloneService<Req, Response: std::fmt::Debug>,
{
    let replay = NotIdempotent::new(copy);
    let attempts = replay.attempts.subscribe();
    let layers = stack("refused", replay, ErrorsAreFailures).unwrap();
    let error = layers.layer(client).oneshot(request).await.unwrap_err();
    assert_eq!(*attempts.borrow(), 3, "a refused connection was not sent");
    assert_eq!(io_error(&error), Some(io::ErrorKind::ConnectionRefused));
    error
}

async fn http_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/", any(async || "12 bolts"));
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    address
}

fn hyper_client()
-> impl CloneService<Request<Full<Bytes>>, Response = Response<Incoming>, Error = Error> {
    hyper::Client::new(legacy::Client::builder(TokioExecutor::new()).build_http())
}

fn http_request(address: SocketAddr) -> Request<Full<Bytes>> {
    let request = Request::get(format!("http://{address}/"));
    request.body(Full::default()).unwrap()
}

#[tokio::test]
async fn a_hyper_client_gets_an_answer() {
    let address = http_server().await;
    let layers = stack("hyper", ByClone, server_errors::<Incoming>).unwrap();
    let client = layers.layer(hyper_client());
    let response = client.oneshot(http_request(address)).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "12 bolts");
}

#[tokio::test]
async fn a_hyper_client_tries_a_refused_connection_again() {
    let (_socket, address) = closed_port();
    refused(hyper_client(), http_request(address), |request| {
        Some(request.clone())
    })
    .await;
}

fn reqwest_client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn reqwest_request(address: SocketAddr) -> reqwest::Request {
    let client = reqwest_client();
    client
        .post(format!("http://{address}/"))
        .body("1 bolt")
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_reqwest_client_gets_an_answer() {
    let address = http_server().await;
    let try_clone = |request: &reqwest::Request| request.try_clone();
    let layers = stack("reqwest", try_clone, ErrorsAreFailures).unwrap();
    let client = layers.layer(reqwest_client());
    let response = client.oneshot(reqwest_request(address)).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "12 bolts");
}

#[tokio::test]
async fn a_reqwest_client_tries_a_refused_connection_again() {
    let (_socket, address) = closed_port();
    refused(
        buttress::reqwest::Adapter::build(reqwest::Client::builder().no_proxy()).unwrap(),
        reqwest_request(address),
        reqwest::Request::try_clone,
    )
    .await;
}

async fn serve_health(listener: TcpListener) {
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = Server::builder().add_service(health);
    let incoming = TcpIncoming::from(listener);
    server.serve_with_incoming(incoming).await.unwrap();
}

fn lazy_channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy()
}

fn health_check() -> HealthCheckRequest {
    HealthCheckRequest::default()
}

#[tokio::test]
async fn a_tonic_client_gets_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let channel = lazy_channel(listener.local_addr().unwrap());
    tokio::spawn(serve_health(listener));
    let layers = stack("tonic", Never, ErrorsAreFailures).unwrap();
    let mut client = HealthClient::new(layers.layer(channel));
    let answer = client.check(health_check()).await.unwrap();
    assert_eq!(answer.get_ref().status(), ServingStatus::Serving);
}

#[tokio::test]
async fn a_tonic_channel_tries_a_refused_connection_again_and_is_unavailable_in_the_end() {
    let (_socket, address) = closed_port();
    let request = || Some(Request::new(Body::empty()));
    let channel = Client::new(lazy_channel(address));
    let error = refused(channel, request().unwrap(), |_| request()).await;
    assert_eq!(Status::from_error(error.into()).code(), Code::Unavailable);
}

#[tokio::test]
async fn a_tonic_call_waits_in_its_future_for_a_server_that_is_still_starting() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let channel = lazy_channel(listener.local_addr().unwrap());
    let layers = stack("starting", Never, ErrorsAreFailures).unwrap();
    let mut client = HealthClient::new(layers.layer(channel));
    let mut call = tokio_test::task::spawn(client.check(health_check()));
    assert!(call.poll().is_pending());
    tokio::spawn(serve_health(listener));
    let answer = call.await.unwrap();
    assert_eq!(answer.get_ref().status(), ServingStatus::Serving);
}

#[tokio::test(start_paused = true)]
async fn a_tonic_call_to_a_server_that_never_starts_ends_with_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let channel = lazy_channel(listener.local_addr().unwrap());
    let layers = stack("never", Never, ErrorsAreFailures).unwrap();
    let mut client = HealthClient::new(layers.layer(channel));
    let status = client.check(health_check()).await.unwrap_err();
    let error = Error::find(&status).unwrap();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

/// A client whose calls can be tried again.
///
/// tonic's bodies can be read once only. Those of unary calls are short, so they are read before the
/// stack, and made tonic's again under it.
fn retrying_client<R>(
    channel: Client,
    replay: R,
) -> HealthClient<impl GrpcService<Body, Error = BoxError, ResponseBody = PeekedBody<Body>>>
where
    R: Replay<Request<Full<Bytes>>>,
{
    let stack = ServiceBuilder::new()
        .layer(stack("health", replay, ErrorsAreFailures).unwrap())
        .map_request(|request: Request<Full<Bytes>>| request.map(Body::new))
        .service(channel);
    HealthClient::new(service_fn(move |request: Request<Body>| {
        let stack = stack.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let request = Request::from_parts(head, Full::new(body));
            stack.oneshot(request).await.map_err(BoxError::from)
        }
    }))
}

#[tokio::test]
async fn a_tonic_call_is_tried_again_until_its_server_has_started() {
    let (socket, address) = closed_port();
    let replay = NotIdempotent::new(|request: &Request<Full<Bytes>>| Some(request.clone()));
    let mut attempts = replay.attempts.subscribe();
    let channel = Client::new(lazy_channel(address));
    let mut client = retrying_client(channel, replay);
    let server = async {
        attempts.wait_for(|attempt| *attempt == 2).await.unwrap();
        serve_health(socket.listen(16).unwrap()).await;
    };
    let answer = tokio::select! {
        answer = client.check(health_check()) => answer.unwrap(),
        () = server => unreachable!("serves for ever"),
    };
    assert_eq!(answer.get_ref().status(), ServingStatus::Serving);
}

#[tokio::test]
async fn a_generated_client_reports_a_refused_connection_as_unavailable() {
    let (_socket, address) = closed_port();
    let mut client = retrying_client(Client::new(lazy_channel(address)), ByClone);
    let status = client.check(health_check()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(io_error(&status), Some(io::ErrorKind::ConnectionRefused));
}

/// What a service that is written by hand may answer.
async fn inventory(item: &'static str) -> io::Result<&'static str> {
    match item {
        "bolts" => Ok("12 bolts"),
        "refused" => Err(io::ErrorKind::ConnectionRefused.into()),
        _ => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

/// Tries both services, and what a user keeps in a struct: the whole stack in a box.
async fn serves_and_fails<S>(client: S)
where
    S: Service<
            &'static str,
            Response = &'static str,
            Error: Into<BoxError> + 'static,
            Future: Send,
        >,
    S: Clone + Send + Sync + 'static,
{
    let replay = NotIdempotent::new(|item: &&'static str| Some(*item));
    let attempts = replay.attempts.subscribe();
    let layers = stack("inventory", replay, ErrorsAreFailures).unwrap();
    let client = BoxCloneSyncService::new(layers.layer(client));
    assert_eq!(client.clone().oneshot("bolts").await.unwrap(), "12 bolts");
    for (item, kind) in [
        ("reset", io::ErrorKind::ConnectionReset),
        // By whom, nobody knows.
        ("refused", io::ErrorKind::ConnectionRefused),
    ] {
        let error = client.clone().oneshot(item).await.unwrap_err();
        assert_eq!(io_error(&error), Some(kind));
        assert_eq!(*attempts.borrow(), 1, "it may have been acted on");
    }
}

#[tokio::test(start_paused = true)]
async fn a_function_is_served_and_tried_again() {
    serves_and_fails(service_fn(inventory)).await;
}

#[tokio::test(start_paused = true)]
async fn a_boxed_service_is_served_and_tried_again() {
    serves_and_fails(BoxCloneSyncService::new(service_fn(inventory))).await;
}

/// The answer to a request that the stack has given up or refused: a router must not fail.
async fn answer(error: Error) -> (StatusCode, String) {
    let status = match error.kind() {
        ErrorKind::Timeout | ErrorKind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Service => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, error.to_string())
}

/// A router with the stack around each of its routes.
fn router() -> Router {
    let stack = stack("api", Never, server_errors::<axum::body::Body>).unwrap();
    Router::new()
        .route("/", get(async || "12 bolts"))
        .route("/hangs", get(pending::<()>))
        .route("/fails", get(async || StatusCode::BAD_GATEWAY))
        .layer(
            ServiceBuilder::new()
                .layer(HandleErrorLayer::new(answer))
                .layer(stack),
        )
}

async fn status_of(router: &Router, path: &str) -> StatusCode {
    let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
    router.clone().oneshot(request).await.unwrap().status()
}

#[tokio::test(start_paused = true)]
async fn an_axum_route_answers_or_times_out() {
    let router = router();
    assert_eq!(status_of(&router, "/").await, StatusCode::OK);
    assert_eq!(status_of(&router, "/fails").await, StatusCode::BAD_GATEWAY);
    assert_eq!(
        status_of(&router, "/hangs").await,
        StatusCode::GATEWAY_TIMEOUT
    );
}

#[tokio::test(start_paused = true)]
async fn one_layer_value_on_two_routes_is_one_breaker() {
    let router = router();
    for _ in 0..20 {
        status_of(&router, "/fails").await;
    }
    assert_eq!(
        status_of(&router, "/").await,
        StatusCode::SERVICE_UNAVAILABLE
    );
}
