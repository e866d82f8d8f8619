//! Attacks and faults that the layers of the recipes bound, over real sockets in paused time.
// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use buttress::http::{
    BodyTimeoutLayer, CompleteOnBodyEnd, InheritDeadlineLayer, RespondLayer, standard,
};
use buttress::{BoxError, BulkheadLayer, bulkhead};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full};
use hyper::server::conn::http2;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, Interval, interval, sleep};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{ServiceBuilder, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The most calls that the shop works on at once.
const LIMIT: usize = 100;

/// A body without an end, one byte a second.
struct Drips(Interval);

impl http_body::Body for Drips {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        ready!(self.0.poll_tick(cx));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b".")))))
    }
}

/// The recipe for servers. Its permits are held until the body of the response has been sent.
async fn shop() -> (SocketAddr, bulkhead::Handle) {
    let bulkhead = BulkheadLayer::config("shop", LIMIT).completion(CompleteOnBodyEnd);
    let bulkhead = bulkhead.build().unwrap();
    let handle = bulkhead.handle();
    let layers = ServiceBuilder::new()
        .layer(RespondLayer::for_servers())
        .layer(InheritDeadlineLayer::new("shop"))
        .layer(bulkhead)
        .layer(BodyTimeoutLayer::new("shop"));
    let router = Router::new()
        .route("/stock", get(async || "12 bolts"))
        .route("/orders", post(async |order: Bytes| order))
        .route("/events", get(async || Body::new(Drips(interval(SECOND)))))
        .layer(layers);
    let (listener, address) = listen().await;
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    (address, handle)
}

/// Asks for an hour, and goes on until the server ends the connection. Sends one byte of a body a second, if it has one.
async fn attack(shop: SocketAddr, head: &str, has_body: bool) {
    let mut stream = TcpStream::connect(shop).await.unwrap();
    let head = format!("{head} HTTP/1.1\r\nhost: shop\r\nx-request-timeout-ms: 3600000\r\n");
    let length = if has_body {
        "content-length: 1000000\r\n"
    } else {
        ""
    };
    let head = format!("{head}{length}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut answer, mut body) = stream.split();
    let send = async {
        while !has_body || body.write_all(b".").await.is_ok() {
            sleep(SECOND).await;
        }
    };
    let receive = async {
        let mut part = [0; 1024];
        while answer.read(&mut part).await.is_ok_and(|read| read > 0) {}
    };
    tokio::select! {
        () = send => {}
        () = receive => {}
    }
}

async fn status(shop: SocketAddr) -> u16 {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::get(format!("http://{shop}/stock")).body(Empty::<Bytes>::new());
    let response = client.request(request.unwrap()).await.unwrap();
    response.status().as_u16()
}

/// As many attackers as there are permits. Returns after how many seconds the last permit was free again.
async fn held_for(head: &'static str, has_body: bool) -> u64 {
    let (shop, handle) = shop().await;
    let mut attackers = JoinSet::new();
    for _ in 0..LIMIT {
        attackers.spawn(attack(shop, head, has_body));
    }
    while handle.in_flight() < LIMIT {
        yield_now().await;
    }
    assert_eq!(status(shop).await, 503, "all permits are held");
    let began = Instant::now();
    while handle.in_flight() > 0 && began.elapsed() < 600 * SECOND {
        sleep(SECOND / 10).await;
    }
    let held_for = began.elapsed().as_secs();
    assert_eq!(status(shop).await, 200, "still held after {held_for} s");
    held_for
}

#[tokio::test(start_paused = true)]
async fn request_bodies_that_drip_hold_permits_for_no_longer_than_the_maximum() {
    let held_for = held_for("POST /orders", true).await;
    assert!(held_for <= 61, "{held_for} s");
}

#[tokio::test(start_paused = true)]
async fn response_bodies_that_drip_hold_permits_for_no_longer_than_the_maximum() {
    let held_for = held_for("GET /events", false).await;
    assert!(held_for <= 61, "{held_for} s");
}

/// A way to a server on which connections die without a word, as if a cable had been cut: what is sent on those that
/// there are arrives nowhere, and neither side sees an end. New connections work.
struct Cable {
    address: SocketAddr,
    cuts: watch::Sender<u32>,
}

impl Cable {
    async fn to(server: SocketAddr) -> Self {
        let (listener, address) = listen().await;
        let (cuts, watched) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut cut = watched.clone();
                cut.mark_unchanged();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = cut.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { address, cuts }
    }

    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

/// The time until `call` succeeds, in steps of a second.
async fn recovers_after(mut call: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !call().await {
        assert!(began.elapsed() < 120 * SECOND, "never");
        sleep(SECOND).await;
    }
    began.elapsed()
}

/// The interval and the timeout of the recipes' pings.
const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(2);
/// A call that has begun on a dead connection, and the pause after it.
const ONE_CALL: Duration = Duration::from_secs(3);

#[tokio::test(start_paused = true)]
async fn a_hyper_client_leaves_a_dead_connection_after_a_ping() {
    let (listener, server) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = hyper::service::service_fn(async |_| {
                Ok::<_, BoxError>(Response::new(Full::<Bytes>::from("12 bolts")))
            });
            let http = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http.serve_connection(TokioIo::new(stream), answer));
        }
    });
    let cable = Cable::to(server).await;
    let http = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(INTERVAL)
        .http2_keep_alive_timeout(TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .build_http::<Full<Bytes>>();
    let stack = standard("inventory")
        .deadline(2 * SECOND)
        .no_circuit_breaker();
    let stack = stack.concurrency_limit(50).build().unwrap();
    let client = ServiceBuilder::new()
        .layer(stack)
        .layer(BodyTimeoutLayer::new("inventory"))
        .service(http);
    let call = async || {
        let request = Request::get(format!("http://{}/", cable.address));
        let request = request.body(Full::default()).unwrap();
        match client.clone().oneshot(request).await {
            Ok(response) => response.into_body().collect().await.is_ok(),
            Err(_) => false,
        }
    };
    assert!(call().await);
    cable.cut();
    let after = recovers_after(call).await;
    assert!(after <= INTERVAL + TIMEOUT + ONE_CALL, "{after:?}");
    // Pings are also sent while there are no calls, so that the first one does not pay for it.
    cable.cut();
    sleep(INTERVAL + TIMEOUT + SECOND).await;
    assert!(call().await);
}

#[tokio::test(start_paused = true)]
async fn a_tonic_channel_leaves_a_dead_connection_after_a_ping() {
    let (listener, server) = listen().await;
    let (_reporter, health) = tonic_health::server::health_reporter();
    let incoming = TcpIncoming::from(listener);
    tokio::spawn(
        Server::builder()
            .add_service(health)
            .serve_with_incoming(incoming),
    );
    let cable = Cable::to(server).await;
    let channel = Endpoint::from_shared(format!("http://{}", cable.address))
        .unwrap()
        .http2_keep_alive_interval(INTERVAL)
        .keep_alive_timeout(TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_lazy();
    let call = async || {
        let mut client = HealthClient::new(channel.clone());
        let mut request = tonic::Request::new(HealthCheckRequest::default());
        request.set_timeout(2 * SECOND);
        client.check(request).await.is_ok()
    };
    assert!(call().await);
    cable.cut();
    let after = recovers_after(call).await;
    assert!(after <= INTERVAL + TIMEOUT + ONE_CALL, "{after:?}");
    cable.cut();
    sleep(INTERVAL + TIMEOUT + SECOND).await;
    assert!(call().await);
}
