//! Whole clients against real servers on loopback.
// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use buttress::balance::Endpoint;
use buttress::http::HttpReplay;
use buttress::{BoxError, CallOptions, Cause, Error, ErrorKind, grpc, hyper};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{self, Channel, Server};
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::HealthReporter;

use crate::clients::closed_port;

const SECOND: Duration = Duration::from_secs(1);

type HyperClient = hyper::Client<legacy::Client<HttpConnector, Full<Bytes>>>;

/// Both have no parameter left to write down.
struct Clients {
    http: buttress::http::Client<HyperClient>,
    grpc: HealthClient<grpc::Client>,
}

async fn http_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/orders", any(async |body: String| body));
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    address
}

async fn grpc_server() -> (SocketAddr, HealthReporter) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (reporter, health) = tonic_health::server::health_reporter();
    let server = Server::builder().add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    (address, reporter)
}

fn hyper_client() -> HyperClient {
    hyper::Client::new(legacy::Client::builder(TokioExecutor::new()).build_http())
}

fn channel(address: SocketAddr) -> Channel {
    let endpoint = transport::Endpoint::from_shared(format!("http://{address}"));
    endpoint.unwrap().connect_lazy()
}

fn grpc_config() -> grpc::Config {
    grpc::client("health")
        .deadline(5 * SECOND)
        .concurrency_limit(50)
}

fn about(service: &str) -> HealthCheckRequest {
    let service = service.to_owned();
    HealthCheckRequest { service }
}

#[tokio::test]
async fn one_expression_each_calls_over_http_and_grpc_in_a_task() {
    let (address, _reporter) = grpc_server().await;
    let orders = buttress::http::client("orders").deadline(5 * SECOND);
    let clients = Clients {
        http: orders.concurrency_limit(50).wrap(hyper_client()).unwrap(),
        grpc: HealthClient::new(grpc_config().wrap(channel(address)).unwrap()),
    };
    let uri = format!("http://{}/orders", http_server().await);
    let calls = tokio::spawn(async move {
        let Clients { http, mut grpc } = clients;
        let response = http.send(Request::post(uri).body("12 bolts")?).await?;
        let body = response.into_body().collect().await?.to_bytes();
        let health = grpc.check(about("")).await?.into_inner();
        Ok::<_, BoxError>((body, health.status))
    });
    let (body, status) = calls.await.unwrap().unwrap();
    assert_eq!((&body[..], status), (&b"12 bolts"[..], 1));
}

/// The orders have no key: they are sent again only because the adapter under all the layers proves that they were not sent.
#[tokio::test]
async fn an_order_to_a_replica_that_is_gone_goes_to_another_one() {
    let (_socket, gone) = closed_port();
    let orders = buttress::http::client("orders").concurrency_limit(50);
    let origins = [gone, http_server().await].map(|address| format!("http://{address}"));
    let orders = orders.replicas(hyper_client(), origins).unwrap();
    for _ in 0..20 {
        let request = Request::post("/orders").body("12 bolts").unwrap();
        let response = orders.send(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "12 bolts");
    }
}

#[tokio::test]
async fn a_call_of_grpc_to_a_replica_that_is_gone_goes_to_another_one() {
    let (_socket, gone) = closed_port();
    let (address, _reporter) = grpc_server().await;
    let replicas = [gone, address].map(|address| Endpoint::new(address, channel(address)));
    let mut health = HealthClient::new(grpc_config().replicas(replicas).unwrap());
    for _ in 0..20 {
        let answer = health.check(about("")).await.unwrap().into_inner();
        assert_eq!(answer.status, 1);
    }
}

/// That nothing was sent is proved, so all three attempts are made, unless the request says otherwise.
#[tokio::test]
async fn the_options_of_a_request_reach_the_stack_over_http_and_grpc() {
    let (_socket, gone) = closed_port();
    let once = CallOptions::new().no_retry();
    let late = CallOptions::new().deadline(Duration::ZERO);
    let orders = buttress::http::client("orders").unlimited();
    let orders = orders.wrap(hyper_client()).unwrap();
    let client = grpc_config().wrap(channel(gone)).unwrap();
    // The options pass through generated code and interceptors.
    let mut health = HealthClient::with_interceptor(client, Ok);
    for (options, kind, attempts) in [
        (None, ErrorKind::Service, Some(3)),
        (Some(once), ErrorKind::Service, Some(1)),
        (Some(late), ErrorKind::DeadlineExceeded, None),
    ] {
        let mut order = Request::post(format!("http://{gone}/orders"));
        let mut check = tonic::Request::new(about(""));
        if let Some(options) = options {
            order = order.extension(options);
            check.extensions_mut().insert(options);
        }
        let error = orders.send(order.body("12 bolts").unwrap()).await;
        let error = error.unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (kind, attempts));
        let status = health.check(check).await.unwrap_err();
        if options == Some(late) {
            assert_eq!(status.code(), Code::DeadlineExceeded);
        } else {
            assert_eq!(status.code(), Code::Unavailable);
        }
        let cause = Error::find(&status).unwrap();
        assert_eq!((cause.kind(), cause.attempts()), (kind, attempts));
    }
}

#[tokio::test]
async fn errors_are_statuses_with_their_cause_inside() {
    let code = |status: &Status| (status.code(), Error::find(status).map(Cause::kind));
    let (_socket, gone) = closed_port();
    let config = grpc_config().circuit_breaker(|breaker| breaker.consecutive_failures(3));
    let client = config.wrap(channel(gone)).unwrap();
    let handle = client.handle();
    let mut health = HealthClient::new(client);
    let refused = health.check(about("")).await.unwrap_err();
    assert_eq!(
        code(&refused),
        (Code::Unavailable, Some(ErrorKind::Service))
    );
    handle.circuit_breaker().unwrap().force_open();
    let open = health.check(about("")).await.unwrap_err();
    assert_eq!(
        code(&open),
        (Code::Unavailable, Some(ErrorKind::CircuitOpen))
    );
    assert!(
        open.message()
            .contains("circuit breaker \"health\" is open"),
        "{open}"
    );

    let (address, _reporter) = grpc_server().await;
    let config = grpc_config().deadline(SECOND / 5);
    let mut health = HealthClient::new(config.wrap(channel(address)).unwrap());
    let mut stream = health.watch(about("")).await.unwrap().into_inner();
    stream.message().await.unwrap();
    let late = stream.message().await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late:?}");
    let unknown = health.check(about("nobody")).await.unwrap_err();
    assert_eq!(code(&unknown), (Code::NotFound, None));
}

#[tokio::test]
async fn an_interceptor_goes_around_the_client() {
    let (address, _reporter) = grpc_server().await;
    let interceptor = |mut request: tonic::Request<()>| {
        request
            .metadata_mut()
            .insert("tenant", "blue".parse().unwrap());
        Ok(request)
    };
    let client = grpc_config().wrap(channel(address)).unwrap();
    let mut health: HealthClient<InterceptedService<grpc::Client, _>> =
        HealthClient::with_interceptor(client, interceptor);
    assert_eq!(
        health.check(about("")).await.unwrap().into_inner().status,
        1
    );
}

#[tokio::test]
async fn health_checks_of_grpc_need_no_generated_code() {
    let ((well, _well), (ill, reporter)) = (grpc_server().await, grpc_server().await);
    reporter
        .set_service_status("", ServingStatus::NotServing)
        .await;
    let replicas = [well, ill].map(|address| Endpoint::new(address, channel(address)));
    let replay = HttpReplay::new().all_idempotent();
    let client = grpc_config().replay(replay).replicas(replicas).unwrap();
    let client = client.check_health(grpc::health_check("")).unwrap();
    let balancer = client.balancer().unwrap().clone();
    let is_selectable = |address: SocketAddr| {
        let endpoint = balancer.endpoint(&address.to_string());
        endpoint.unwrap().is_selectable
    };
    while is_selectable(ill) {
        tokio::task::yield_now().await;
    }
    assert!(is_selectable(well));
}
