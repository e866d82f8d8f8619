//! Servers of axum and tonic in one expression, over real sockets.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use buttress::http::server::Handle;
use buttress::{Rate, RateLimitLayer, grpc, http as web};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::feed::Feed;

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

/// A server of axum, its handle, and the sender of its signal to stop.
struct Running {
    address: SocketAddr,
    handle: Handle,
    stop: oneshot::Sender<()>,
    /// Whether it has ended by itself.
    task: JoinHandle<bool>,
}

/// Starts a server that streams what the test sends, and waits `within` for its calls when it is stopped.
async fn serve(within: Duration, streamed: mpsc::UnboundedReceiver<&'static str>) -> Running {
    let limit = RateLimitLayer::config("tenants", Rate::per_minute(1)).burst(2);
    let protect = web::server("shop")
        .deadline(20 * SECOND)
        .concurrency_limit(4)
        .request_body(|body| body.idle(200 * MS))
        .keyed(tenant, limit)
        .build()
        .unwrap();
    let handle = protect.handle();
    let streamed = std::sync::Arc::new(std::sync::Mutex::new(Some(streamed)));
    let stream = move || {
        let mut parts = streamed.lock().unwrap().take().unwrap();
        let parts = futures_stream(move |cx| parts.poll_recv(cx));
        async move { Body::new(StreamBody::new(parts)) }
    };
    let ready = handle.clone();
    let app = Router::new()
        .route("/stock", post(async |body: Bytes| body))
        .route("/hangs", post(pending::<()>))
        .route("/stream", post(stream))
        .layer(protect)
        // Not under the layer, so that it answers while the server drains.
        .route("/ready", get(async move || match ready.is_ready() {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        }));
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
