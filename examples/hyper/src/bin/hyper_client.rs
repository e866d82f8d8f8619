//! A client of hyper-util behind the standard stack for HTTP: requests with and without retries, answers that do not
//! come, and bodies that stall.
//!
//! `cargo run --package example-hyper --bin hyper_client`

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use buttress::{BoxError, Cause, Error, ErrorKind, bulkhead, hyper};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::net::TcpListener;
use tokio::time::{Instant, Interval, interval};

const MS: Duration = Duration::from_millis(1);

/// A client of one service. Cheap to clone: the clones share the state of the stack.
#[derive(Clone)]
struct Shop {
    client: buttress::http::Client<hyper::Client<Client<HttpConnector, Full<Bytes>>>>,
    server: SocketAddr,
}

impl Shop {
    fn new(server: SocketAddr) -> Result<Self, BoxError> {
        // With HTTP/2, pings find a connection that has died silently. Requests that time out do not close it, so later
        // requests would use it again.
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(Duration::from_secs(10))
            .http2_keep_alive_timeout(Duration::from_secs(2))
            .http2_keep_alive_while_idle(true)
            .build_http();
        let client = buttress::http::client("shop")
            .timeout(200 * MS) // until the head of an answer
            .deadline(3_000 * MS) // all attempts and the body; the server is told of it
            .body_timeout(|body| body.idle(150 * MS)) // shorter than the default of 30 s, for this demonstration
            .concurrency_limit(50)
            .wrap(hyper::Client::new(client))?; // the adapter proves whether a request was sent
        Ok(Self { client, server })
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let request = Request::builder().method(method);
        request.uri(format!("http://{}{path}", self.server))
    }

    /// Sends a request and reads the whole answer.
    async fn send(&self, request: http::request::Builder) -> Result<(StatusCode, Bytes), BoxError> {
        let request = request.body(Full::from("12 bolts"))?;
        let response = self.client.send(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    fn in_flight(&self) -> usize {
        let handle = self.client.handle();
        let bulkhead = handle.bulkhead();
        bulkhead.map_or(0, bulkhead::Handle::in_flight)
    }
}

/// Number of requests for each path.
type Seen = Arc<Mutex<BTreeMap<String, u32>>>;

/// A body of three parts, one every 50 ms. It then ends, or stalls.
struct Parts {
    left: u32,
    ticks: Interval,
    ends: bool,
}

impl Parts {
    fn body(ends: bool) -> axum::body::Body {
        let (left, ticks) = (3, interval(50 * MS));
        axum::body::Body::new(Self { left, ticks, ends })
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match (self.left, self.ends) {
            (0, true) => return Poll::Ready(None),
            (0, false) => return Poll::Pending,
            _ => {}
        }
        ready!(self.ticks.poll_tick(cx));
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"bolt ")))))
    }
}

/// The service: each path has a different fault, in most cases only for the first request.
async fn answer(
    State(seen): State<Seen>,
    request: axum::extract::Request,
) -> axum::response::Response {
    let path = request.uri().path().to_owned();
    let times = {
        let mut seen = seen.lock().expect("nobody panics with the lock");
        let times = seen.entry(path.clone()).or_default();
        *times += 1;
        *times
    };
    let answer = |status: u16| Response::builder().status(status);
    let answer = match (path.as_str(), times) {
        ("/busy", 1) => answer(503).header("retry-after", 1).body("".into()),
        ("/orders" | "/visits" | "/stock", 1) => answer(502).body("".into()),
        ("/hangs", 1) => pending().await,
        ("/stream", _) => answer(200).body(Parts::body(true)),
        ("/stalls", _) => answer(200).body(Parts::body(false)),
        ("/orders", _) => answer(201).body("ordered".into()),
        _ => answer(200).body("12 bolts".into()),
    };
    answer.expect("is valid")
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let shop = Shop::new(listener.local_addr()?)?;
    let seen = Seen::default();
    let app = Router::new().fallback(answer).with_state(Arc::clone(&seen));
    tokio::spawn(async { axum::serve(listener, app).await });

    println!("                                    status    requests     took");
    let tell = |what: &str, status: StatusCode, path: &str, began: Instant| {
        let seen = seen.lock().expect("nobody panics with the lock");
        let requests = seen.get(path).copied().unwrap_or_default();
        let took = began.elapsed();
        let millis = took.as_millis();
        println!("{what:36}{:6}{requests:12}{millis:6} ms", status.as_u16());
        (status.as_u16(), requests, took)
    };
    let get = async |what, path| {
        let began = Instant::now();
        let (status, _) = shop.send(shop.request(Method::GET, path)).await?;
        Ok::<_, BoxError>(tell(what, status, path, began))
    };
    let (status, requests, _) = get("GET, first answered with 502", "/stock").await?;
    assert_eq!((status, requests), (200, 2));
    let (status, requests, took) = get("GET, first 503 with Retry-After: 1", "/busy").await?;
    assert_eq!((status, requests), (200, 2));
    assert!(took >= 1_000 * MS, "it waits as long as it was told");
    let (status, requests, took) = get("GET, first without an answer", "/hangs").await?;
    assert_eq!((status, requests), (200, 2));
    assert!(took >= 200 * MS, "that is the timeout of an attempt");

    // The server may have acted on the first request, and would act twice.
    let began = Instant::now();
    let visit = shop.request(Method::POST, "/visits");
    let (status, _) = shop.send(visit).await?;
    let (status, requests, _) = tell("POST, answered with 502", status, "/visits", began);
    assert_eq!((status, requests), (502, 1));
    // By the key, the server recognizes the second request as a repetition.
    let began = Instant::now();
    let order = shop.request(Method::POST, "/orders");
    let order = order.header("idempotency-key", "8e03978e");
    let (status, _) = shop.send(order).await?;
    let (status, requests, _) = tell("POST with a key, first 502", status, "/orders", began);
    assert_eq!((status, requests), (201, 2));

    println!("a body that is streamed");
    let request = shop.request(Method::GET, "/stream").body(Full::default())?;
    let response = shop.client.send(request).await?;
    println!("  at its head {} call is in flight", shop.in_flight());
    assert_eq!(shop.in_flight(), 1);
    let body = response.into_body().collect().await?.to_bytes();
    println!("  after {} bytes {} are", body.len(), shop.in_flight());
    assert_eq!((body.len(), shop.in_flight()), (15, 0));

    println!("a body that stalls");
    let began = Instant::now();
    let Err(error) = shop.send(shop.request(Method::GET, "/stalls")).await else {
        return Err("it has no end".into());
    };
    println!("  {error}, after {} ms in all", began.elapsed().as_millis());
    let kind = Error::find(error.as_ref()).map(Cause::kind);
    assert_eq!((kind, shop.in_flight()), (Some(ErrorKind::Timeout), 0));
    Ok(())
}
