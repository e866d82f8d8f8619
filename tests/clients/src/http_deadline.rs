//! Deadlines that travel with requests, in virtual time and over two real hops.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use crate::debugging::{DebugValue, DebuggingRecorder};
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use buttress::http::deadline::PropagateDeadlineConfig;
use buttress::http::{InheritDeadlineLayer, PropagateDeadlineLayer, Protocol, RespondLayer};
use buttress::{
    Backoff, BoxError, CloneService, Deadline, DeadlineLayer, Error, ErrorKind, Jitter, RetryLayer,
    TimeoutLayer,
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::time::{Instant, advance, sleep};
use tower::limit::ConcurrencyLimitLayer;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const MS: Duration = Duration::from_millis(1);
const HTTP: &str = "x-request-timeout-ms";
const GRPC: &str = "grpc-timeout";

fn request() -> Request<()> {
    Request::new(())
}

fn grpc_request() -> Request<()> {
    let request = Request::post("/").header("content-type", "application/grpc");
    request.body(()).unwrap()
}

/// The requests that a service was sent: the values of a header.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<Vec<String>>>>);

impl Sent {
    /// A service that keeps the values of `header`, and answers after a while, or fails so often.
    fn service(
        &self,
        header: &'static str,
        fails: u32,
    ) -> impl CloneService<Request<()>, Response = ()> + use<> {
        let (sent, fails) = (self.clone(), Arc::new(AtomicU32::new(fails)));
        service_fn(move |request: Request<()>| {
            let values = request.headers().get_all(header).iter();
            let values = values.map(|value| value.to_str().unwrap().to_owned());
            sent.0.lock().unwrap().push(values.collect());
            let one_less = |left: u32| left.checked_sub(1);
            let relaxed = Ordering::Relaxed;
            let fails = fails.fetch_update(relaxed, relaxed, one_less).is_ok();
            async move {
                sleep(100 * MS).await;
                if fails { Err("reset") } else { Ok(()) }
            }
        })
    }

    fn all(&self) -> Vec<Vec<String>> {
        self.0.lock().unwrap().clone()
    }

    fn only(&self) -> Vec<String> {
        let all = self.all();
        assert_eq!(all.len(), 1);
        all[0].clone()
    }
}

fn propagate(
    change: impl FnOnce(PropagateDeadlineConfig) -> PropagateDeadlineConfig,
) -> PropagateDeadlineLayer {
    change(PropagateDeadlineLayer::config("inventory"))
        .build()
        .unwrap()
}

/// What a request carries that is sent with so much time left.
async fn sent_with(
    left: Duration,
    header: &'static str,
    request: Request<()>,
    layer: PropagateDeadlineLayer,
) -> Vec<String> {
    let sent = Sent::default();
    let client = layer.layer(sent.service(header, 0));
    let call = Deadline::after(left).scope(client.oneshot(request));
    call.await.unwrap();
    sent.only()
}

#[tokio::test(start_paused = true)]
async fn each_attempt_carries_what_is_left() {
    let sent = Sent::default();
    let retry = RetryLayer::config("inventory")
        .backoff(buttress::Backoff::constant(50 * MS).jitter(buttress::Jitter::None))
        .build()
        .unwrap();
    let client = ServiceBuilder::new()
        .layer(DeadlineLayer::new("inventory", 2_000 * MS))
        .layer(retry)
        .layer(TimeoutLayer::new("inventory", 1_000 * MS))
        .layer(PropagateDeadlineLayer::new("inventory"))
        .service(sent.service(HTTP, 2));
    client.oneshot(request()).await.unwrap();
    assert_eq!(sent.all(), [["2000"], ["1850"], ["1700"]]);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_deadline_is_left_alone() {
    let sent = Sent::default();
    let client = PropagateDeadlineLayer::new("inventory").wrap(sent.service(HTTP, 0));
    client.oneshot(request()).await.unwrap();
    assert!(sent.only().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_grpc_request_carries_it_as_grpc_does() {
    let layer = || propagate(|config| config);
    let grpc = sent_with(70 * MS, GRPC, grpc_request(), layer()).await;
    assert_eq!(grpc, ["70000000n"]);
    let http = sent_with(70 * MS, HTTP, grpc_request(), layer()).await;
    assert!(http.is_empty(), "and not as HTTP does");

    let fixed = propagate(|config| config.protocol(Protocol::Grpc));
    let grpc = sent_with(2_000 * MS, GRPC, request(), fixed).await;
    assert_eq!(grpc, ["2000000u"]);
}

#[tokio::test(start_paused = true)]
async fn the_header_slack_and_timeout_can_be_chosen() {
    let envoy = "x-envoy-expected-rq-timeout-ms";
    let layer = propagate(|config| config.header(HeaderName::from_static(envoy)).slack(30 * MS));
    assert_eq!(sent_with(500 * MS, envoy, request(), layer).await, ["470"]);

    let layer = || propagate(|config| config.timeout(300 * MS).slack(30 * MS));
    assert_eq!(sent_with(500 * MS, HTTP, request(), layer()).await, ["270"]);
    assert_eq!(sent_with(200 * MS, HTTP, request(), layer()).await, ["170"]);
    let sent = Sent::default();
    let client = layer().wrap(sent.service(HTTP, 0));
    client.oneshot(request()).await.unwrap();
    assert_eq!(sent.only(), ["270"], "also without a deadline");
}

#[tokio::test(start_paused = true)]
async fn a_smaller_value_in_the_request_is_kept() {
    for (present, expected) in [
        (&["200"][..], "200"),
        (&["900"], "500"),
        (&["soon"], "500"),
        (&["-1"], "500"),
        (&["900", "300"], "300"),
        (&["soon", "900"], "500"),
    ] {
        let mut request = request();
        for value in present {
            let value = HeaderValue::from_static(value);
            request.headers_mut().append(HTTP, value);
        }
        let layer = PropagateDeadlineLayer::new("inventory");
        let sent = sent_with(500 * MS, HTTP, request, layer).await;
        assert_eq!(sent, [expected], "{present:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_timeout_that_a_caller_has_set_is_that_of_each_attempt_or_of_them_all() {
    let with_timeout = || {
        let mut request = grpc_request();
        let headers = request.headers_mut();
        headers.insert(GRPC, HeaderValue::from_static("250m"));
        request
    };
    let retry = || {
        let config = RetryLayer::config("inventory").no_budget().max_attempts(3);
        let backoff = Backoff::constant(10 * MS).jitter(Jitter::None);
        config.backoff(backoff).build().unwrap()
    };
    let sent = Sent::default();
    let stack = ServiceBuilder::new()
        .layer(retry())
        .layer(PropagateDeadlineLayer::new("inventory"));
    let client = stack.service(sent.service(GRPC, 2));
    client.oneshot(with_timeout()).await.unwrap();
    assert_eq!(sent.all(), [["250m"], ["250m"], ["250m"]]);

    let sent = Sent::default();
    let stack = ServiceBuilder::new()
        .layer(InheritDeadlineLayer::new("inventory"))
        .layer(retry())
        .layer(PropagateDeadlineLayer::new("inventory"));
    let client = stack.service(sent.service(GRPC, 2));
    let error = client.oneshot(with_timeout()).await.unwrap_err();
    let kind = Some(error.kind());
    assert_eq!(kind, Some(ErrorKind::DeadlineExceeded));
    let left = |values: &Vec<String>| {
        let value = values[0]
            .strip_suffix('u')
            .or(values[0].strip_suffix("000n"));
        value.map_or(250, |micros| micros.parse::<u64>().unwrap() / 1_000)
    };
    let left: Vec<_> = sent.all().iter().map(left).collect();
    assert_eq!(left, [250, 140, 30]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_says_itself_that_nothing_is_left_is_not_sent() {
    let sent = Sent::default();
    let client = PropagateDeadlineLayer::new("inventory").wrap(sent.service(GRPC, 0));
    for present in ["0n", "00000000H", "999999n", "999u"] {
        let mut request = grpc_request();
        let headers = request.headers_mut();
        headers.insert(GRPC, HeaderValue::from_static(present));
        let call = Deadline::after(500 * MS).scope(client.clone().oneshot(request));
        let error = call.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{present}");
        assert!(error.is_rejection());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_for_which_nothing_is_left_is_not_sent() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _local = metrics::set_default_local_recorder(&recorder);
    let sent = Sent::default();
    let layer = propagate(|config| config.slack(50 * MS));
    let client = layer.wrap(sent.service(HTTP, 0));
    let lefts = [Duration::ZERO, 50 * MS, 50 * MS + MS / 2];
    for left in lefts {
        let call = Deadline::after(left).scope(client.clone().oneshot(request()));
        let error = call.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        assert!(error.is_rejection());
    }
    assert!(sent.all().is_empty());
    let mut snapshot = snapshotter.snapshot();
    // Other tests of the process have layers of this name, with gauges.
    snapshot.retain(|(_, value)| !matches!(value, DebugValue::Gauge(_)));
    let [(key, DebugValue::Counter(refused))] = &snapshot[..] else {
        panic!("{snapshot:?}");
    };
    assert_eq!(*refused, lefts.len() as u64);
    let labels: Vec<_> = key.labels().map(metrics::Label::value).collect();
    let expected = [
        "inventory",
        "propagate_deadline",
        "deadline_exceeded",
        "enforce",
    ];
    assert_eq!(labels, expected);
}

/// A call that keeps the only place of an inner service for 100 ms, and one that waits for it.
async fn second_of_two(left: Duration) -> (Sent, Result<(), Error>) {
    let sent = Sent::default();
    let one = ConcurrencyLimitLayer::new(1).layer(sent.service(HTTP, 0));
    let client = PropagateDeadlineLayer::new("inventory").wrap(one);
    let calls =
        async { tokio::join!(client.clone().oneshot(request()), client.oneshot(request())) };
    let (first, second) = Deadline::after(left).scope(calls).await;
    first.unwrap();
    (sent, second)
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waited_is_sent_with_what_is_left_then() {
    let (sent, second) = second_of_two(500 * MS).await;
    second.unwrap();
    assert_eq!(sent.all(), [["500"], ["400"]]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waited_for_too_long_is_not_sent() {
    let (sent, second) = second_of_two(80 * MS).await;
    let error = second.unwrap_err();
    assert!(error.is_rejection());
    assert_eq!(sent.all(), [["80"]]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_refused_gives_back_what_its_handle_has_reserved() {
    let mut says_itself = request();
    let headers = says_itself.headers_mut();
    headers.insert(HTTP, HeaderValue::from_static("0"));
    for (left, late) in [(Duration::ZERO, request()), (500 * MS, says_itself)] {
        let sent = Sent::default();
        let one = ConcurrencyLimitLayer::new(1).layer(sent.service(HTTP, 0));
        let mut client = PropagateDeadlineLayer::new("inventory").wrap(one);
        let other = client.clone();
        client.ready().await.unwrap();
        let call = async { client.call(late).await };
        Deadline::after(left).scope(call).await.unwrap_err();
        tokio::time::timeout(200 * MS, other.oneshot(request()))
            .await
            .expect("the place is free")
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_not_ready_does_not_keep_others_from_calling() {
    let never = tower::util::BoxCloneSyncService::new(Never);
    let mut client = PropagateDeadlineLayer::new("inventory").wrap(never);
    let ready = client.ready().await;
    assert!(ready.is_ok());
    let call = DeadlineLayer::new("inventory", 100 * MS).wrap(client);
    let error = call.oneshot(request()).await.unwrap_err();
    let kind = Some(error.kind());
    assert_eq!(kind, Some(ErrorKind::DeadlineExceeded));
}

/// A service that is never ready.
#[derive(Clone)]
struct Never;

impl Service<Request<()>> for Never {
    type Response = ();
    type Error = BoxError;
    type Future = std::future::Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Pending
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        unreachable!("it is not ready")
    }
}

/// A client that obeys the header itself, and has an error of its own for that.
fn obeys(error: BoxError) -> impl CloneService<Request<()>, Response = (), Error = BoxError> {
    let error = Arc::new(Mutex::new(Some(error)));
    service_fn(move |request: Request<()>| {
        let millis = request.headers()[HTTP].to_str().unwrap().parse().unwrap();
        let error = error.lock().unwrap().take().unwrap();
        async move {
            sleep(Duration::from_millis(millis)).await;
            Err(error)
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_client_that_ends_the_call_itself_has_exceeded_the_deadline() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    for slack in [0, 20] {
        let layer = propagate(|config| config.slack(slack * MS));
        let client = DeadlineLayer::new("inventory", 200 * MS)
            .layer(layer.layer(obeys("timeout expired".into())));
        let error = client.oneshot(request()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{slack}");
        assert!(!error.is_rejection() && error.was_sent());
    }
    let ended = recorder.snapshotter().snapshot();
    let ended = ended.iter().find_map(|(key, value)| {
        let mut labels = key.labels();
        let is_ours = labels.any(|label| label.value() == "propagate_deadline");
        (is_ours && key.name() == "buttress_timeouts_total").then_some(value)
    });
    assert_eq!(ended, Some(&DebugValue::Counter(2)));
}

#[tokio::test(start_paused = true)]
async fn an_error_that_comes_in_time_passes_and_so_does_one_of_this_crate() {
    let sent = Sent::default();
    let client = PropagateDeadlineLayer::new("inventory").wrap(sent.service(HTTP, 1));
    let call = Deadline::after(101 * MS).scope(client.oneshot(request()));
    let error = call.await.unwrap_err();
    assert_eq!(error.service_error().unwrap().to_string(), "reset");

    // It was not sent at all, however late that became known.
    let refused = Error::refused("inventory", None);
    let client = PropagateDeadlineLayer::new("inventory").wrap(obeys(refused.into()));
    let call = Deadline::after(100 * MS).scope(client.oneshot(request()));
    let error = call.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);

    let never = service_fn(|_: Request<()>| pending::<Result<(), BoxError>>());
    let timeout = TimeoutLayer::new("inventory", 200 * MS).layer(never);
    let ours = timeout.oneshot(request()).await.unwrap_err();
    let client = PropagateDeadlineLayer::new("inventory").wrap(obeys(ours.into()));
    let call = Deadline::after(100 * MS).scope(client.oneshot(request()));
    let error = call.await.unwrap_err();
    let kind = Some(error.kind());
    assert_eq!(kind, Some(ErrorKind::Timeout));
}

#[tokio::test(start_paused = true)]
async fn a_request_of_another_type_tells_where_its_headers_are() {
    let layer = PropagateDeadlineLayer::config("inventory")
        .headers(reqwest::Request::headers_mut)
        .build()
        .unwrap();
    let client = layer.wrap(service_fn(async |request: reqwest::Request| {
        Ok::<_, BoxError>(request.headers()[HTTP].clone())
    }));
    let url = "http://localhost/".parse().unwrap();
    let request = reqwest::Request::new(http::Method::GET, url);
    let call = Deadline::after(2_000 * MS).scope(client.oneshot(request));
    assert_eq!(call.await.unwrap(), "2000");
}

/// Asks a server that says how long it has, in milliseconds.
async fn asked(layer: &InheritDeadlineLayer, headers: &[(&str, &str)]) -> Result<u128, Error> {
    let server = layer.wrap(service_fn(async |_: Request<()>| {
        tokio::task::yield_now().await;
        let left = Deadline::current().map(|deadline| deadline.remaining().as_millis());
        Ok::<_, Infallible>(left.unwrap_or(u128::MAX))
    }));
    let mut request = request();
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        request.headers_mut().append(name, value);
    }
    server.oneshot(request).await
}

#[tokio::test(start_paused = true)]
async fn a_server_has_the_time_that_its_caller_has() {
    let layer = InheritDeadlineLayer::new("shop");
    let asked = async |headers: &[(&str, &str)]| asked(&layer, headers).await.unwrap();
    assert_eq!(asked(&[(HTTP, "250")]).await, 250);
    assert_eq!(asked(&[(GRPC, "3S")]).await, 3_000);
    assert_eq!(asked(&[(GRPC, "3S"), (HTTP, "250")]).await, 250);
    assert_eq!(asked(&[(HTTP, "900"), (HTTP, "250")]).await, 250);
    assert_eq!(asked(&[]).await, 60_000, "the default maximum");
    let outer = Deadline::after(100 * MS);
    assert_eq!(outer.scope(asked(&[(HTTP, "250")])).await, 100);
    assert_eq!(asked(&[(GRPC, "99999999H")]).await, 60_000);
    assert_eq!(asked(&[(HTTP, "9999999999")]).await, 60_000);
}

#[tokio::test(start_paused = true)]
async fn a_header_that_makes_no_sense_is_as_if_it_were_not_there() {
    let layer = InheritDeadlineLayer::new("shop");
    for header in [
        (HTTP, ""),
        (HTTP, "-5"),
        (HTTP, "soon"),
        (HTTP, "1.5"),
        (HTTP, "99999999999"),
        (HTTP, "٣"),
        (GRPC, "5"),
        (GRPC, "123456789m"),
        (GRPC, "-5S"),
        (GRPC, "5s"),
    ] {
        let left = asked(&layer, &[header]).await.unwrap();
        assert_eq!(left, 60_000, "{header:?}");
    }
    let left = asked(&layer, &[(GRPC, "5"), (HTTP, "70")]).await;
    assert_eq!(left.unwrap(), 70, "the other one counts");
}

#[tokio::test(start_paused = true)]
async fn a_server_allows_no_more_than_its_maximum() {
    let layer = InheritDeadlineLayer::config("shop")
        .max(1_000 * MS)
        .header(HeaderName::from_static("connect-timeout-ms"))
        .build()
        .unwrap();
    let asked = async |headers: &[(&str, &str)]| asked(&layer, headers).await.unwrap();
    assert_eq!(asked(&[]).await, 1_000);
    assert_eq!(asked(&[("connect-timeout-ms", "5000")]).await, 1_000);
    assert_eq!(asked(&[("connect-timeout-ms", "500")]).await, 500);
    assert_eq!(asked(&[(HTTP, "500")]).await, 1_000, "not its header");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_too_late_is_refused_before_work_begins() {
    let server = service_fn(
        |_: Request<()>| -> std::future::Ready<Result<(), BoxError>> {
            unreachable!("is not asked")
        },
    );
    let server = InheritDeadlineLayer::new("shop").wrap(server);
    for header in [(HTTP, "0"), (GRPC, "0n")] {
        let request = Request::get("/").header(header.0, header.1);
        let call = server.clone().oneshot(request.body(()).unwrap());
        let error = call.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        assert!(error.is_rejection());
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_is_not_done_by_then_is_given_up() {
    let held = Arc::new(());
    let server = service_fn({
        let held = Arc::clone(&held);
        move |_: Request<()>| {
            let held = Arc::clone(&held);
            async move {
                pending::<()>().await;
                drop(held);
                Ok::<_, BoxError>(())
            }
        }
    });
    let server = InheritDeadlineLayer::new("shop").wrap(server);
    let began = Instant::now();
    let request = Request::get("/").header(HTTP, "250").body(()).unwrap();
    let mut call = Box::pin(server.oneshot(request));
    let ended = tokio::time::timeout(10_000 * MS, call.as_mut()).await;
    let error = ended.expect("at some time").unwrap_err();
    assert!((250 * MS..=252 * MS).contains(&began.elapsed()));
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(error.was_sent());
    drop(call);
    assert_eq!(Arc::strong_count(&held), 1);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_with_the_call() {
    let layer = InheritDeadlineLayer::new("shop");
    asked(&layer, &[(HTTP, "250")]).await.unwrap();
    assert_eq!(Deadline::current(), None);
    advance(MS).await;
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused() {
    let field = |config: PropagateDeadlineConfig| {
        let error = config.build().unwrap_err();
        (error.field(), error.to_string())
    };
    let config = || PropagateDeadlineLayer::config("inventory");
    assert_eq!(field(PropagateDeadlineLayer::config("")).0, "name");
    assert_eq!(field(config().slack(Duration::MAX)).0, "slack");
    assert_eq!(field(config().timeout(Duration::ZERO)).0, "timeout");
    let (field, text) = field(config().timeout(100 * MS).slack(100 * MS));
    assert_eq!(field, "slack");
    assert!(
        text.ends_with("slack is 100ms, but must be less than the timeout, 100ms"),
        "{text}"
    );

    let max = InheritDeadlineLayer::config("shop").max(Duration::ZERO);
    assert_eq!(max.build().unwrap_err().field(), "max");
    let max = InheritDeadlineLayer::config("shop").max(Duration::MAX);
    assert_eq!(max.build().unwrap_err().field(), "max");
    assert_eq!(config().slack(MS), config().slack(MS));
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    address
}

/// What a server does with every request: it inherits the deadline, and says so if it comes too late.
fn inherits(router: Router) -> Router {
    router.layer(
        ServiceBuilder::new()
            .layer(RespondLayer::for_servers())
            .layer(InheritDeadlineLayer::new("shop")),
    )
}

type Client = BoxCloneSyncService<Request<Full<Bytes>>, Response<hyper::body::Incoming>, Error>;

fn client(slack: Duration) -> Client {
    let client = legacy::Client::builder(TokioExecutor::new()).build_http();
    Client::new(propagate(|config| config.slack(slack)).wrap(client))
}

async fn get_text(client: Client, address: SocketAddr) -> Result<(StatusCode, String), BoxError> {
    let request = Request::get(format!("http://{address}/")).body(Full::default())?;
    let response = client.oneshot(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8(body.to_vec())?))
}

/// The milliseconds that a handler has left.
fn left() -> u128 {
    Deadline::current().map_or(u128::MAX, |deadline| deadline.remaining().as_millis())
}

#[tokio::test]
async fn the_second_hop_has_less_time_than_the_first_one() {
    const SLACK: u128 = 1_000;
    let warehouse = serve(inherits(
        Router::new().route("/", get(async || left().to_string())),
    ))
    .await;
    let shop = Router::new()
        .route(
            "/",
            get(
                async |State((client, warehouse)): State<(Client, SocketAddr)>| {
                    let own = left();
                    let (_, theirs) = get_text(client, warehouse).await.unwrap();
                    format!("{own} {theirs}")
                },
            ),
        )
        .with_state((client(SLACK as u32 * MS), warehouse));
    let shop = serve(inherits(shop)).await;

    let call = get_text(client(Duration::ZERO), shop);
    let (status, text) = Deadline::after(30_000 * MS).scope(call).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    let (own, theirs) = text.split_once(' ').unwrap();
    let (own, theirs): (u128, u128) = (own.parse().unwrap(), theirs.parse().unwrap());
    assert!(own <= 30_000 && own > 10_000, "{text}");
    assert!(theirs <= own - SLACK && theirs > 5_000, "{text}");
}

#[tokio::test]
async fn a_server_says_that_a_request_comes_too_late() {
    let router = inherits(Router::new().route("/", get(async || "in time")));
    let address = serve(router).await;
    let request = Request::get(format!("http://{address}/")).header(HTTP, "0");
    let client = legacy::Client::builder(TokioExecutor::new()).build_http();
    let request = request.body(Full::<Bytes>::default()).unwrap();
    let response = client.request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
}
