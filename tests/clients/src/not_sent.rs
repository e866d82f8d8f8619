//! "Not sent" is proved for a request, or it is not assumed: over real clients and servers on loopback.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use crate::clients::closed_port;

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use buttress::balance::Endpoint;
use buttress::http::{HttpStandard, RespondLayer, is_idempotent};
use buttress::rate_limit::Rate;
use buttress::{
    Backoff, Balance, BoxError, Budget, CircuitBreakerLayer, CloneService, Error, ErrorKind,
    GaveUp, Jitter, KeyedLayer, RateLimitLayer, Replay, RetryLayer, TimeoutLayer, hyper as adapter,
    standard,
};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::server::conn::http2;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncWriteExt, DuplexStream, copy, duplex, sink, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::{ServiceBuilder, ServiceExt, service_fn};

const MS: Duration = Duration::from_millis(1);

/// Copies requests that do harm when they are acted on twice.
#[derive(Clone)]
struct ActsOnce;

impl<Req: Clone> Replay<Req> for ActsOnce {
    fn copy(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }

    fn is_idempotent(&self, _: &Req) -> bool {
        false
    }
}

/// The same for calls of tonic, all of which have this body.
#[derive(Clone)]
struct CallsOnce(&'static str);

impl CallsOnce {
    fn body(&self) -> tonic::body::Body {
        tonic::body::Body::new(Full::from(self.0))
    }
}

impl Replay<Request<tonic::body::Body>> for CallsOnce {
    fn copy(&self, request: &Request<tonic::body::Body>) -> Option<Request<tonic::body::Body>> {
        let mut copy = Request::new(self.body());
        copy.method_mut().clone_from(request.method());
        copy.uri_mut().clone_from(request.uri());
        copy.headers_mut().clone_from(request.headers());
        Some(copy)
    }

    fn is_idempotent(&self, _: &Request<tonic::body::Body>) -> bool {
        false
    }
}

/// The policy of the guide for reqwest.
#[derive(Clone)]
struct TryClone;

impl Replay<reqwest::Request> for TryClone {
    fn copy(&self, request: &reqwest::Request) -> Option<reqwest::Request> {
        request.try_clone()
    }

    fn is_idempotent(&self, request: &reqwest::Request) -> bool {
        is_idempotent(request.method(), request.headers())
    }
}

fn soon() -> Backoff {
    Backoff::constant(MS).jitter(Jitter::None)
}

/// Three attempts of requests that do harm when they are acted on twice.
fn retry(name: &str) -> RetryLayer<ActsOnce> {
    let retry = RetryLayer::config(name).backoff(soon()).replay(ActsOnce);
    retry.build().unwrap()
}

fn http_stack(name: &str) -> HttpStandard {
    buttress::http::standard(name)
        .retry(|retry| retry.backoff(soon()))
        .unlimited()
}

type Counter = Arc<AtomicU32>;

fn count(counter: &Counter) -> u32 {
    counter.load(Ordering::SeqCst)
}

/// A service that counts the charges that it makes, and then goes on with `then`.
fn charges<Req, Fut, E>(
    charged: &Counter,
    then: impl Fn(Req) -> Fut + Clone,
) -> impl CloneService<Req, Response = (), Error = E>
where
    Fut: Future<Output = Result<(), E>>,
    E: Into<BoxError> + 'static,
{
    let charged = Arc::clone(charged);
    service_fn(move |request| {
        let (charged, then) = (Arc::clone(&charged), then.clone());
        async move {
            charged.fetch_add(1, Ordering::SeqCst);
            then(request).await
        }
    })
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

type HyperClient = adapter::Client<legacy::Client<HttpConnector, Full<Bytes>>>;

fn hyper_client(is_http2: bool) -> HyperClient {
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    adapter::Client::new(builder.http2_only(is_http2).build_http())
}

fn order(address: SocketAddr) -> Request<Full<Bytes>> {
    let request = Request::post(format!("http://{address}/orders"));
    request.body("12 bolts".into()).unwrap()
}

fn reqwest_order(address: SocketAddr) -> reqwest::Request {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(format!("http://{address}/orders"));
    request.body("12 bolts").build().unwrap()
}

/// A server that acts on each order, and sends the caller on to a server that is gone.
async fn redirects(charged: &Counter) -> SocketAddr {
    let (listener, address) = listen().await;
    let (socket, gone) = closed_port();
    let charged = Arc::clone(charged);
    let charge = move || {
        charged.fetch_add(1, Ordering::SeqCst);
        let receipt = format!("http://{gone}/receipt");
        async { (StatusCode::SEE_OTHER, [("location", receipt)]) }
    };
    let app = Router::new().route("/orders", post(charge));
    tokio::spawn(async move {
        let _socket = socket;
        axum::serve(listener, app).await
    });
    address
}

#[tokio::test]
async fn an_order_that_was_redirected_to_a_dead_server_is_sent_once() {
    let charged = Counter::default();
    let address = redirects(&charged).await;
    let stack = http_stack("pay").replay(TryClone).build().unwrap();
    let finished = reqwest::Client::builder().no_proxy().build().unwrap();
    let finished = ServiceBuilder::new()
        .layer(stack.clone())
        .map_response(Response::<reqwest::Body>::from)
        .service(finished);
    let error = finished.oneshot(reqwest_order(address)).await.unwrap_err();
    assert_eq!((count(&charged), error.was_sent()), (1, true));
    let text = error.to_string();
    assert!(
        text.ends_with("wrap the client with `buttress::hyper` or the like"),
        "{text}"
    );

    let counting = reqwest::Client::builder().no_proxy();
    let counting = buttress::reqwest::Adapter::build(counting).unwrap();
    let counting = ServiceBuilder::new()
        .layer(stack)
        .map_response(Response::<reqwest::Body>::from)
        .service(counting);
    let error = counting.oneshot(reqwest_order(address)).await.unwrap_err();
    assert_eq!((count(&charged), error.was_sent()), (2, true));
    let text = error.to_string();
    assert!(
        text.ends_with("there is no proof that the request was not sent"),
        "{text}"
    );
}

/// Sends a request through a retry to a server that refuses the connection. Returns the error.
async fn refused<C, Req>(client: C, request: Req, replay: impl Replay<Req>) -> Error
where
    C: CloneService<Req, Response: std::fmt::Debug>,
{
    let retry = RetryLayer::config("orders").backoff(soon()).replay(replay);
    let stack = (
        retry.build().unwrap(),
        TimeoutLayer::new("orders", 5_000 * MS),
    );
    let client = ServiceBuilder::new().layer(stack).service(client);
    client.oneshot(request).await.unwrap_err()
}

#[tokio::test]
async fn an_order_whose_connection_is_refused_is_sent_again_through_each_adapter() {
    let (_socket, address) = closed_port();
    let proved = |error: &Error| {
        assert_eq!(
            (error.attempts(), error.gave_up()),
            (Some(3), Some(GaveUp::Exhausted))
        );
        assert_eq!((error.was_sent(), error.is_rejection()), (false, false));
    };
    for is_http2 in [false, true] {
        let client = hyper_client(is_http2);
        proved(&refused(client, order(address), ActsOnce).await);
    }
    let builder = || reqwest::Client::builder().no_proxy();
    let client = buttress::reqwest::Adapter::build(builder()).unwrap();
    proved(&refused(client, reqwest_order(address), TryClone).await);
    let none = reqwest::redirect::Policy::none();
    let client = buttress::reqwest::Adapter::build_with_redirects(builder(), none).unwrap();
    proved(&refused(client, reqwest_order(address), TryClone).await);
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
    let channel = buttress::tonic::Client::new(channel.unwrap().connect_lazy());
    let replay = CallsOnce("");
    let call = Request::post("http://orders/shop.Orders/Add");
    let call = call.body(tonic::body::Body::empty()).unwrap();
    proved(&refused(channel, call, replay).await);
}

#[tokio::test]
async fn without_an_adapter_a_refused_connection_proves_nothing() {
    let (_socket, address) = closed_port();
    let client = legacy::Client::builder(TokioExecutor::new()).build_http();
    let error = refused(client, order(address), ActsOnce).await;
    assert_eq!(
        (error.attempts(), error.gave_up()),
        (Some(1), Some(GaveUp::NotIdempotent))
    );
    assert!(error.was_sent());
    let text = format!("{error}");
    assert!(
        text.contains("wrap the client with `buttress::hyper`"),
        "{text}"
    );
}

/// Calls `checkout` through a retry, and behind a balancer with a retry around it. Both times there must be one charge, and a plain
/// error of the service.
async fn is_charged_once<S>(charged: &Counter, checkout: S) -> Error
where
    S: CloneService<u32, Response = ()>,
{
    let retry = retry("checkout");
    retry.wrap(checkout.clone()).oneshot(1).await.unwrap_err();
    assert_eq!(count(charged), 1);
    let replica = |number: u32| Endpoint::new(format!("replica {number}"), checkout.clone());
    let balance = Balance::new("checkout", (0..3).map(replica)).unwrap();
    let error = retry.wrap(balance.clone()).oneshot(1).await.unwrap_err();
    assert_eq!(count(charged), 2);
    assert!(
        balance
            .handle()
            .endpoints()
            .iter()
            .all(|endpoint| endpoint.is_selectable)
    );
    assert_eq!(error.gave_up(), Some(GaveUp::NotIdempotent));
    assert!(error.was_sent() && !error.is_rejection());
    let breaker = CircuitBreakerLayer::config("checkout").consecutive_failures(1);
    let breaker = breaker.build().unwrap();
    breaker.wrap(checkout).oneshot(1).await.unwrap_err();
    assert_ne!(
        breaker.handle().state(),
        buttress::circuit_breaker::State::Closed
    );
    error
}

#[tokio::test]
async fn a_mail_that_cannot_be_sent_does_not_prove_that_the_card_was_not_charged() {
    let charged = Counter::default();
    let (_socket, gone) = closed_port();
    let mail = move |_: u32| async move { TcpStream::connect(gone).await.map(drop) };
    is_charged_once(&charged, charges(&charged, mail)).await;
}

#[tokio::test]
async fn the_statement_of_the_mails_own_client_is_none_about_the_charge() {
    let (_socket, gone) = closed_port();
    let charged = Counter::default();
    let mail = move |_: u32| {
        let call = hyper_client(false).oneshot(order(gone));
        async { call.await.map(drop) }
    };
    is_charged_once(&charged, charges(&charged, mail)).await;

    let charged = Counter::default();
    let stack = http_stack("mail").replay(ActsOnce).build().unwrap();
    let client = stack.wrap(hyper_client(false));
    let mail = move |_: u32| {
        let call = client.send(order(gone));
        async { call.await.map(drop) }
    };
    let error = is_charged_once(&charged, charges(&charged, mail)).await;
    assert_eq!(error.name(), "mail");
}

/// The future of the mail is there before the card is charged.
#[tokio::test]
async fn a_mail_that_was_prepared_before_the_charge_proves_nothing_either() {
    let (_socket, gone) = closed_port();
    let charged = Counter::default();
    let seen = Arc::clone(&charged);
    let stack = http_stack("mail").replay(ActsOnce).build().unwrap();
    let client = stack.wrap(hyper_client(false));
    let checkout = service_fn(move |_: u32| {
        let (seen, mail) = (Arc::clone(&seen), client.send(order(gone)));
        async move {
            seen.fetch_add(1, Ordering::SeqCst);
            mail.await.map(drop)
        }
    });
    is_charged_once(&charged, checkout).await;
}

#[tokio::test]
async fn a_refusal_of_the_mails_own_breaker_is_a_plain_error_of_the_checkout() {
    let charged = Counter::default();
    let stack = standard("mail").unlimited().build().unwrap();
    stack.handle().circuit_breaker().unwrap().force_open();
    let mail = stack.wrap(service_fn(async |_: u32| Ok::<_, io::Error>(())));
    let error = is_charged_once(&charged, charges(&charged, move |order| mail.send(order))).await;
    assert_eq!(error.kind(), ErrorKind::CircuitOpen);
    let found = Error::find(&error).unwrap();
    let checkout = standard("checkout").unlimited().build().unwrap();
    assert!(found.is_of(&stack.handle()) && !found.is_of(&checkout.handle()));
    assert!(found.is_of(stack.handle().circuit_breaker().unwrap()));

    // A layer without a stack, and in the words of another crate.
    let charged = Counter::default();
    let breaker = CircuitBreakerLayer::new("mail");
    breaker.handle().force_open();
    let mail = breaker.wrap(service_fn(async |_: u32| Ok::<_, io::Error>(())));
    let mail = move |order| {
        let call = mail.send(order);
        async {
            call.await
                .map_err(|error| io::Error::other(anyhow::Error::from(error).context("mail")))
        }
    };
    let error = is_charged_once(&charged, charges(&charged, mail)).await;
    assert_eq!(error.kind(), ErrorKind::CircuitOpen);
    assert!(error.is_of(&breaker.handle()));
}

/// What looks like a request that was dropped before it was written.
#[tokio::test]
async fn an_error_that_passes_through_is_not_asked_whatever_its_type() {
    let charged = Counter::default();
    let canceled = async |_: u32| {
        let (client, _server) = tokio::io::duplex(64);
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(client));
        let (mut sender, connection) = handshake.await?;
        drop(connection);
        let request = Request::new(Empty::<Bytes>::new());
        let error = sender.send_request(request).await.unwrap_err();
        assert!(error.is_canceled());
        Err::<(), hyper::Error>(error)
    };
    is_charged_once(&charged, charges(&charged, canceled)).await;
}

#[tokio::test]
async fn refusals_of_layers_of_this_operation_are_rejections() {
    let calls = Counter::default();
    let seen = Arc::clone(&calls);
    let service = service_fn(move |_: u32| {
        seen.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok::<_, io::Error>(()))
    });
    let breaker = |name: &str| {
        let breaker = CircuitBreakerLayer::new(name);
        breaker.handle().force_open();
        breaker.wrap(service.clone())
    };
    let is_rejected = async |error: Error| {
        assert_eq!(error.gave_up(), Some(GaveUp::Rejected));
        assert!(error.is_rejection() && !error.was_sent());
    };
    // Called directly, whatever its name, and whatever passes the call on.
    let direct = ServiceBuilder::new()
        .layer(retry("checkout"))
        .map_request(|request: u32| request)
        .service(breaker("breaker of the checkout"));
    is_rejected(direct.oneshot(1).await.unwrap_err()).await;
    // Of the same name, in the same task.
    let named = breaker("checkout");
    let waits = service_fn(move |request| {
        let named = named.clone();
        async move {
            tokio::task::yield_now().await;
            named.oneshot(request).await
        }
    });
    is_rejected(retry("checkout").wrap(waits).oneshot(1).await.unwrap_err()).await;
    // Of the same name, in another task.
    let named = breaker("checkout");
    let spawns = service_fn(move |request| {
        let task = tokio::spawn(named.clone().oneshot(request));
        async { task.await.unwrap() }
    });
    let error = retry("checkout").wrap(spawns).oneshot(1).await.unwrap_err();
    assert!(error.was_sent() && !error.is_rejection());
    assert_eq!(count(&calls), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_second_attempt_proves_nothing_about_the_first() {
    let charged = Counter::default();
    let breaker = CircuitBreakerLayer::config("checkout").consecutive_failures(1);
    let breaker = breaker.build().unwrap();
    let fails = charges(&charged, async |_: u32| Err(io::Error::other("down")));
    let inner = RetryLayer::config("checkout")
        .backoff(soon())
        .build()
        .unwrap();
    let error = inner
        .wrap(breaker.wrap(fails))
        .oneshot(1)
        .await
        .unwrap_err();
    assert_eq!((error.kind(), count(&charged)), (ErrorKind::CircuitOpen, 1));
    assert!(error.is_rejection() && error.was_sent());
}

fn service_of<S>(
    stack: S,
) -> impl CloneService<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = Error>
where
    S: CloneService<u32, Response = (), Error = Error>,
{
    service_fn(move |_: Request<Full<Bytes>>| {
        let call = stack.clone().oneshot(1);
        async { call.await.map(|()| Response::new(Full::default())) }
    })
}

#[tokio::test(start_paused = true)]
async fn a_server_answers_the_refusal_of_a_dependency_as_unavailable() {
    async fn statuses<S>(service: S) -> [Response<()>; 2]
    where
        S: CloneService<Request<Full<Bytes>>, Response: Into<Response<()>>, Error = Infallible>,
    {
        let answer = async |content: &'static str| {
            let request = Request::post("/").header("content-type", content);
            let answer = service
                .clone()
                .oneshot(request.body(Full::default()).unwrap())
                .await;
            answer.unwrap().into()
        };
        [answer("text/plain").await, answer("application/grpc").await]
    }
    let used_up = |name: &str| {
        let limit = RateLimitLayer::config(name, Rate::per_minute(1)).burst(1);
        limit.build().unwrap()
    };
    let ok = service_fn(async |_: u32| Ok::<_, io::Error>(()));
    let dependency = used_up("mail").wrap(ok);
    dependency.send(1).await.unwrap();
    let server = RespondLayer::for_servers().wrap(service_of(dependency));
    let [http, grpc] = statuses(server.map_response(|answer| answer.map(drop))).await;
    assert_eq!(http.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!http.headers().contains_key("retry-after"));
    assert_eq!(grpc.headers()["grpc-status"], "14");
    assert!(!grpc.headers().contains_key("grpc-retry-pushback-ms"));

    // Its own, also for each key.
    let ok = service_fn(async |_: Request<Full<Bytes>>| {
        Ok::<_, io::Error>(Response::new(Full::<Bytes>::default()))
    });
    let keyed = KeyedLayer::new(
        "tenants",
        |_: &Request<Full<Bytes>>| 1_u32,
        move |_: &u32| used_up("tenants"),
    );
    let server = ServiceBuilder::new()
        .layer(RespondLayer::for_servers())
        .layer(keyed)
        .service(ok);
    let request = Request::new(Full::default());
    assert_eq!(server.clone().oneshot(request).await.unwrap().status(), 200);
    let [http, grpc] = statuses(server.map_response(|answer| answer.map(drop))).await;
    assert_eq!(http.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(http.headers().contains_key("retry-after"));
    assert_eq!(grpc.headers()["grpc-status"], "8");
    assert!(grpc.headers().contains_key("grpc-retry-pushback-ms"));
}

/// A connection that is closed for a server as a proxy does it: what the server has said arrives, also when the other side goes on
/// to send. (A socket that is closed with something unread is reset, and that deletes what was said last.)
fn lingering(stream: TcpStream) -> DuplexStream {
    let (mut from_client, mut to_client) = stream.into_split();
    let (near, far) = duplex(65_536);
    let (mut from_server, mut to_server) = split(far);
    tokio::spawn(async move {
        let said = copy(&mut from_server, &mut to_client).await;
        said.and(to_client.shutdown().await)
    });
    tokio::spawn(async move {
        if copy(&mut from_client, &mut to_server).await.is_err() {
            drop(copy(&mut from_client, &mut sink()).await);
        }
    });
    near
}

/// The numbers of the orders that a server has acted on.
type Acted = Arc<Mutex<Vec<HeaderValue>>>;

/// An HTTP/2 server that says on each connection that it ends, gracefully, with the request of this number.
async fn restarts(every: u32, acted: &Acted) -> SocketAddr {
    let (listener, address) = listen().await;
    let acted = Arc::clone(acted);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acted, ends) = (Arc::clone(&acted), Arc::new(Notify::new()));
            let (seen, end) = (AtomicU32::new(0), Arc::clone(&ends));
            let answer =
                hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let acted = Arc::clone(&acted);
                    if seen.fetch_add(1, Ordering::SeqCst) + 1 == every {
                        end.notify_one();
                    }
                    async move {
                        let number = request.headers()["x-order"].clone();
                        // One whose body is cut off is not acted on.
                        if let Ok(order) = request.into_body().collect().await {
                            assert_eq!(order.to_bytes(), "12 bolts");
                            acted.lock().unwrap().push(number);
                        }
                        let answer = Response::builder().header("grpc-status", 0);
                        Ok::<_, Infallible>(answer.body(Full::<Bytes>::default()).unwrap())
                    }
                });
            tokio::spawn(async move {
                let http = http2::Builder::new(TokioExecutor::new());
                let mut connection =
                    pin!(http.serve_connection(TokioIo::new(lingering(stream)), answer));
                tokio::select! {
                    _ = connection.as_mut() => return,
                    () = ends.notified() => connection.as_mut().graceful_shutdown(),
                }
                drop(connection.await);
            });
        }
    });
    address
}

/// Makes 1,000 calls that must not be acted on twice, from 50 callers at once. Each must succeed, and `acted` counts them.
///
/// About one in 100,000 requests that hyper-util's client (0.1.21) sends while an HTTP/2 connection ends gets neither an
/// answer nor an error, without any layer around it. Such a call is given up after 30 s, and may have acted.
async fn assert_that_all_act_once<C, B>(
    client: C,
    order: impl Fn() -> Request<B>,
    replay: impl Replay<Request<B>> + Send + Sync + 'static,
    acted: &Acted,
) where
    C: CloneService<Request<B>, Response: Send, Future: Send> + Send + 'static,
    B: Send + 'static,
{
    let budget = Budget::config("orders").reserve(10_000).initial(10_000);
    let retry = RetryLayer::config("orders")
        .max_attempts(20)
        .backoff(soon())
        .budget(&budget.build().unwrap())
        .replay(replay);
    let client = retry.build().unwrap().wrap(client);
    let (mut failed, mut hung) = (0, 0);
    for batch in 0..20_u32 {
        let call = |place: u32| {
            let mut order = order();
            let number = (50 * batch + place).into();
            order.headers_mut().insert("x-order", number);
            timeout(Duration::from_secs(30), client.send(order))
        };
        let calls: JoinSet<_> = (0..50).map(call).collect();
        for answer in calls.join_all().await {
            match answer {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    println!("{error:#}");
                    failed += 1;
                }
                Err(_) => hung += 1,
            }
        }
    }
    assert_eq!(failed, 0);
    assert!(hung <= 1, "{hung} calls hang");
    let acted = acted.lock().unwrap();
    let once: HashSet<_> = acted.iter().collect();
    assert_eq!(once.len(), acted.len(), "an order was acted on twice");
    assert!(once.len() >= 1_000 - hung, "an order was lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_that_were_never_written_at_a_graceful_goaway_are_sent_again() {
    let acted = Acted::default();
    let address = restarts(7, &acted).await;
    assert_that_all_act_once(hyper_client(true), || order(address), ActsOnce, &acted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_grpc_that_were_never_written_at_a_graceful_goaway_are_sent_again() {
    let acted = Acted::default();
    let address = restarts(7, &acted).await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
    let channel = buttress::tonic::Client::new(channel.unwrap().connect_lazy());
    let body = CallsOnce("12 bolts");
    let request = move || Request::new(body.body());
    let replay = CallsOnce("12 bolts");
    let request = move || {
        let mut request = request();
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = "/shop.Orders/Add".parse().unwrap();
        request
    };
    assert_that_all_act_once(channel, request, replay, &acted).await;
}

/// A server that resets each first stream of a connection for this reason, and answers the second one.
async fn resets(reason: h2::Reason) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut is_first = true;
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    if std::mem::take(&mut is_first) {
                        respond.send_reset(reason);
                    } else {
                        respond.send_response(Response::new(()), true).unwrap();
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_stream_that_the_server_refused_is_sent_again_and_one_that_it_cancelled_is_not() {
    let address = resets(h2::Reason::REFUSED_STREAM).await;
    let client = retry("orders").wrap(hyper_client(true));
    assert_eq!(client.oneshot(order(address)).await.unwrap().status(), 200);
    for reason in [h2::Reason::CANCEL, h2::Reason::INTERNAL_ERROR] {
        let address = resets(reason).await;
        let client = retry("orders").wrap(hyper_client(true));
        let error = client.oneshot(order(address)).await.unwrap_err();
        assert_eq!(error.gave_up(), Some(GaveUp::NotIdempotent), "{reason:?}");
        assert!(error.was_sent());
    }
}
