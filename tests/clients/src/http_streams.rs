//! Exchanges that outlast the times of an answer, over real sockets: upgraded connections, tunnels, server-sent events, and
//! uploads.
// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use crate::feed::{Feed, Source, feed};
use buttress::http::{BodyTimeoutLayer, HttpStandard, ReplayBody, ReplayBodyLayer};
use buttress::{BoxError, CallOptions, Error, ErrorKind};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep, timeout};
use tower::{ServiceBuilder, ServiceExt};

/// The time for the head of an answer. Long enough for a busy machine.
const HEAD: Duration = Duration::from_millis(500);
/// The time for a whole answer.
const ANSWER: Duration = Duration::from_millis(1_200);
/// The longest silence of a body.
const IDLE: Duration = Duration::from_millis(300);
/// Longer than all of them.
const PAUSE: Duration = Duration::from_millis(1_500);
/// Too long for a test.
const LONG: Duration = Duration::from_secs(60);

/// A stack whose times are all short.
fn stack() -> HttpStandard {
    let stack = buttress::http::standard("streams").concurrency_limit(10);
    stack.timeout(HEAD).deadline(ANSWER)
}

fn body_timeout() -> BodyTimeoutLayer {
    let config = BodyTimeoutLayer::config("streams").idle(IDLE);
    config.build().unwrap()
}

type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

fn boxed<B>(body: B) -> Answer
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    Response::new(body.map_err(Into::into).boxed_unsync())
}

/// Answers a request for another protocol, in which all is sent back.
fn upgrade(request: Request<Incoming>) -> Answer {
    let mut response = boxed(Empty::new());
    if request.method() != Method::CONNECT {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, "upgrade".parse().unwrap());
        headers.insert(UPGRADE, "websocket".parse().unwrap());
    }
    tokio::spawn(async {
        let upgraded = hyper::upgrade::on(request).await.unwrap();
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
        tokio::io::copy(&mut from, &mut to).await
    });
    response
}

/// Reads an upload, or sends events of which the sources go to the test, or switches to another protocol.
async fn answer(
    request: Request<Incoming>,
    sources: UnboundedSender<Source>,
) -> Result<Answer, hyper::Error> {
    match request.uri().path() {
        "/upload" => {
            let body = request.into_body().collect().await?;
            Ok(boxed(Full::from(body.to_bytes())))
        }
        "/events" => {
            let (source, body) = feed();
            sources.send(source).unwrap();
            let mut response = boxed(body);
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, "text/event-stream".parse().unwrap());
            Ok(response)
        }
        _ => Ok(upgrade(request)),
    }
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
            let service = service_fn(move |request| answer(request, sources.clone()));
            if version == 1 {
                let http = http1::Builder::new().serve_connection(io, service);
                tokio::spawn(http.with_upgrades());
            } else {
                let http = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(http.serve_connection(io, service));
            }
        }
    });
    (address, streams)
}

fn request(method: Method, address: SocketAddr, path: &str) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method);
    let request = request.uri(format!("http://{address}{path}"));
    request.body(Full::default()).unwrap()
}

#[tokio::test]
async fn a_web_socket_and_a_tunnel_outlast_every_timeout() {
    let (address, _streams) = serve(1).await;
    let layer = stack().build().unwrap();
    let client = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(body_timeout())
        .service(Client::builder(TokioExecutor::new()).build_http());
    let mut socket = request(Method::GET, address, "/socket");
    let headers = socket.headers_mut();
    headers.insert(CONNECTION, "upgrade".parse().unwrap());
    headers.insert(UPGRADE, "websocket".parse().unwrap());
    let connect = request(Method::CONNECT, address, "");
    let mut open = Vec::new();
    for request in [socket, connect] {
        let mut response = client.clone().oneshot(request).await.unwrap();
        let tunnel = hyper::upgrade::on(&mut response).await.unwrap();
        // The body is held while the connection is used.
        open.push((TokioIo::new(tunnel), response.into_body()));
    }
    let bulkhead = layer.handle().bulkhead().unwrap().in_flight();
    assert_eq!(bulkhead, 0, "the limit is for answers");
    for word in [b"ping", b"pong"] {
        for (tunnel, _) in &mut open {
            tunnel.write_all(word).await.unwrap();
            let mut echo = [0; 4];
            tunnel.read_exact(&mut echo).await.unwrap();
            assert_eq!(&echo, word);
        }
        sleep(PAUSE).await;
    }
    for (_, body) in open {
        assert!(body.collect().await.unwrap().to_bytes().is_empty());
    }
}

type Uploads = Client<hyper_util::client::legacy::connect::HttpConnector, ReplayBody<Feed>>;

/// Sends an upload of these parts, `every` so often, or of 64 KiB without end. The result is the body of the answer.
async fn upload(version: u8, address: SocketAddr, parts: Option<u32>) -> Result<Bytes, Error> {
    let http: Uploads = Client::builder(TokioExecutor::new())
        .http2_only(version == 2)
        .build_http();
    let stack = buttress::http::standard("uploads").timeout(HEAD);
    let client = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new())
        .layer(stack.no_retry().unlimited().build().unwrap())
        .service(http);
    let (source, body) = feed();
    let sends = tokio::spawn(async move {
        match parts {
            Some(parts) => {
                for _ in 0..parts {
                    sleep(HEAD / 2).await;
                    source.send("part");
                }
            }
            None => {
                while source.send(vec![0; 64 * 1_024]) {
                    sleep(Duration::from_millis(1)).await;
                }
            }
        }
    });
    let request = Request::post(format!("http://{address}/upload")).body(body);
    let response = client.oneshot(request.unwrap()).await?;
    let answer = response.into_body().collect().await?.to_bytes();
    sends.await.unwrap();
    Ok(answer)
}

#[tokio::test]
async fn an_upload_may_take_longer_than_its_answer() {
    for version in [1, 2] {
        let (address, _streams) = serve(version).await;
        let answer = upload(version, address, Some(5)).await;
        assert_eq!(answer.unwrap(), "part".repeat(5), "HTTP/{version}");
    }
}

#[tokio::test]
async fn a_server_that_accepts_an_upload_and_does_not_read_it_is_given_up() {
    for version in [1, 2] {
        let (listener, address) = listen().await;
        let accepts = tokio::spawn(async move {
            let _socket = listener.accept().await.unwrap();
            sleep(LONG).await;
        });
        let began = Instant::now();
        let answer = timeout(LONG, upload(version, address, None)).await;
        let error = answer.expect("ends").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "HTTP/{version}: {error}");
        assert!(began.elapsed() >= HEAD, "HTTP/{version}");
        accepts.abort();
    }
}

/// The events that are read, of one at once and one after a pause, and the calls in flight when the stream is over.
async fn events(version: u8, is_declared: bool) -> (String, usize) {
    let (address, mut streams) = serve(version).await;
    let layer = stack().build().unwrap();
    let http = Client::builder(TokioExecutor::new())
        .http2_only(version == 2)
        .build_http();
    let client = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(body_timeout())
        .service(http);
    let mut request = request(Method::GET, address, "/events");
    if is_declared {
        request
            .extensions_mut()
            .insert(CallOptions::new().stream(true));
    }
    let mut body = client.oneshot(request).await.unwrap().into_body();
    let source = streams.recv().await.unwrap();
    tokio::spawn(async move {
        source.send("data: 12\n");
        sleep(PAUSE).await;
        source.send("data: 13\n");
    });
    let mut seen = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        seen.extend(frame.into_data().unwrap());
    }
    let in_flight = layer.handle().bulkhead().unwrap().in_flight();
    (String::from_utf8(seen).unwrap(), in_flight)
}

#[tokio::test]
async fn server_sent_events_outlast_every_timeout_if_they_are_declared() {
    let declared = async { tokio::join!(events(1, true), events(2, true)) };
    let others = async { tokio::join!(events(1, false), events(2, false)) };
    let (declared, others) = tokio::join!(declared, others);
    let all = ("data: 12\ndata: 13\n".to_owned(), 0);
    assert_eq!(declared, (all.clone(), all));
    let one = ("data: 12\n".to_owned(), 0);
    assert_eq!(others, (one.clone(), one));
}
