//! Servers of axum and tonic in one expression, over real sockets.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use buttress::http::HttpStreams;
use buttress::http::server::Handle;
use buttress::{Rate, RateLimitLayer, grpc, http as web};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::Code;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::feed::{Feed, feed};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

type Client = legacy::Client<HttpConnector, Full<Bytes>>;

fn client() -> Client {
    legacy::Client::builder(TokioExecutor::new()).build_http()
}

async fn ask(client: &Client, server: SocketAddr, path: &str, tenant: &str) -> Response<Incoming> {
    let request = Request::post(format!("http://{server}{path}")).header("x-tenant", tenant);
    let request = request.body(Full::from("bolts")).unwrap();
    client.request(request).await.unwrap()
}

fn tenant(request: &Request<Body>) -> String {
    let tenant = request.headers().get("x-tenant");
    let tenant = tenant.and_then(|tenant| tenant.to_str().ok());
    tenant.unwrap_or("anybody").to_owned()
}

/// A server of axum, and its handle.
struct Running {
    address: SocketAddr,
    handle: Handle,
    /// Tells it to stop.
    stop: oneshot::Sender<()>,
    /// Returns `true` if it has ended by itself.
    task: JoinHandle<bool>,
}

/// Starts a server that streams `body` once. When it is stopped, its calls have `within` to end.
async fn serve(within: Duration, body: Feed) -> Running {
    let limit = RateLimitLayer::config("tenants", Rate::per_minute(1)).burst(2);
    let protect = web::server("shop")
        .deadline(20 * SECOND)
        .concurrency_limit(4)
        .request_body(|body| body.idle(SECOND))
        .keyed(tenant, limit)
        .build()
        .unwrap();
    let handle = protect.handle();
    let body = Arc::new(Mutex::new(Some(body)));
    let ready = handle.clone();
    let app = Router::new()
        .route("/stock", post(async |body: Bytes| body))
        .route("/hangs", post(pending::<()>))
        .route(
            "/stream",
            post(async move || Body::new(body.lock().unwrap().take().unwrap())),
        )
        .layer(protect)
        // Not under the layer, so that it answers while the server drains.
        .route(
            "/ready",
            post(async move || {
                if ready.is_ready() {
                    StatusCode::OK
                } else {
                    StatusCode::SERVICE_UNAVAILABLE
                }
            }),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let server = axum::serve(listener, app).with_graceful_shutdown(handle.drained());
    let running = handle.clone();
    let task = tokio::spawn(async move {
        let stopped = async move { stopped.await.unwrap() };
        let ended = running.run_until(stopped, within, server).await;
        ended.map(Result::unwrap).is_some()
    });
    Running {
        address,
        handle,
        stop,
        task,
    }
}

/// Waits until something is so that another task brings about.
async fn until(mut is_so: impl FnMut() -> bool) {
    let waits = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    let waits = tokio::time::timeout(Duration::from_secs(60), waits);
    waits.await.expect("another task brings it about");
}

#[tokio::test]
async fn axum_answers_calls_and_refuses_a_tenant_that_asks_too_often() {
    let server = serve(SECOND, feed().1).await;
    let client = client();
    let mut statuses = Vec::new();
    for tenant in ["ant", "ant", "ant", "bee"] {
        let answer = ask(&client, server.address, "/stock", tenant).await;
        statuses.push(answer.status().as_u16());
        if answer.status() == StatusCode::OK {
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, "bolts");
        } else {
            let seconds = answer.headers()["retry-after"].to_str().unwrap();
            assert!((1..=60).contains(&seconds.parse::<u32>().unwrap()));
        }
    }
    assert_eq!(statuses, [200, 200, 429, 200]);
    until(|| server.handle.in_flight() == 0).await;
}

#[tokio::test]
async fn an_upload_that_stalls_is_told_so_and_its_connection_is_closed() {
    let server = serve(SECOND, feed().1).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /stock HTTP/1.1\r\nhost: shop\r\ncontent-length: 1000\r\n\r\nbolts";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // To the end of the connection.
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert_eq!(server.handle.in_flight(), 0);
}

#[tokio::test]
async fn a_drain_of_axum_finishes_the_stream_in_flight_and_refuses_the_rest() {
    let (source, body) = feed();
    let server = serve(60 * SECOND, body).await;
    let (address, client) = (server.address, client());
    let mut streamed = ask(&client, address, "/stream", "ant").await.into_body();
    assert!(source.send("12 "));
    assert!(streamed.frame().await.unwrap().is_ok());
    let ready = ask(&client, address, "/ready", "").await;
    assert_eq!(ready.status(), StatusCode::OK);

    server.stop.send(()).unwrap();
    until(|| !server.handle.is_ready()).await;
    let refused = ask(&client, address, "/stock", "bee").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["connection"], "close");
    assert!(!refused.headers().contains_key("retry-after"));
    let ready = ask(&client, address, "/ready", "").await;
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);

    assert!(!server.task.is_finished());
    assert!(source.send("bolts"));
    drop(source);
    let rest = streamed.collect().await.unwrap().to_bytes();
    assert_eq!(rest, "bolts", "nothing is lost");
    drop(client);
    assert!(server.task.await.unwrap(), "ends by itself");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_drain_of_axum_ends_at_its_time() {
    let server = serve(300 * MS, feed().1).await;
    let (address, client) = (server.address, client());
    let call = tokio::spawn(async move { ask(&client, address, "/hangs", "ant").await });
    until(|| server.handle.in_flight() == 1).await;
    let began = Instant::now();
    server.stop.send(()).unwrap();
    assert!(!server.task.await.unwrap());
    assert!(began.elapsed() >= 300 * MS);
    call.abort();
}

/// A server of tonic whose handle drains it.
async fn grpc_server(permits: usize) -> (Channel, Handle, JoinHandle<bool>) {
    let streams = HttpStreams::new().paths(|path| path.ends_with("/Watch"));
    let protect = grpc::server("health")
        .concurrency_limit(permits)
        .streaming(streams)
        .build()
        .unwrap();
    let handle = protect.handle();
    let (reporter, health) = tonic_health::server::health_reporter();
    let server = tonic::transport::Server::builder()
        .layer(protect)
        .add_service(health);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = TcpIncoming::from(listener);
    let server = server.serve_with_incoming_shutdown(incoming, handle.drained());
    let task = tokio::spawn(async move {
        let _reporter = reporter;
        server.await.is_ok()
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    (endpoint.unwrap().connect_lazy(), handle, task)
}

#[tokio::test]
async fn tonic_answers_calls_and_refuses_those_beyond_the_limit() {
    let (channel, handle, _task) = grpc_server(1).await;
    let mut client = HealthClient::new(channel);
    let answer = client.check(HealthCheckRequest::default()).await;
    assert!(answer.is_ok(), "{answer:?}");
    let watched = client.watch(HealthCheckRequest::default()).await;
    let mut watched = watched.unwrap().into_inner();
    assert!(watched.message().await.unwrap().is_some());
    assert_eq!(handle.bulkhead().unwrap().in_flight(), 1);
    let refused = client.check(HealthCheckRequest::default()).await;
    let refused = refused.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unavailable, "overloaded")
    );
    let pushback = refused.metadata().get("grpc-retry-pushback-ms").unwrap();
    assert_eq!(pushback, "1000");
}

#[tokio::test]
async fn a_drain_of_tonic_waits_for_the_stream_in_flight() {
    let (channel, handle, task) = grpc_server(4).await;
    let mut client = HealthClient::new(channel);
    let watched = client.watch(HealthCheckRequest::default()).await;
    let mut watched = watched.unwrap().into_inner();
    assert!(watched.message().await.unwrap().is_some());
    let drain = tokio::spawn(handle.drain(60 * SECOND));
    let refused = client.check(HealthCheckRequest::default()).await;
    let refused = refused.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unavailable, "shutting down")
    );
    assert!(!refused.metadata().contains_key("grpc-retry-pushback-ms"));
    assert!(!drain.is_finished() && !task.is_finished());
    drop(watched);
    assert_eq!(drain.await.unwrap(), 0);
    drop(client);
    assert!(task.await.unwrap(), "ends by itself");
}
