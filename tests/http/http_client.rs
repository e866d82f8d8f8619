//! Whole HTTP clients, in paused time.
#![cfg(feature = "http")]
// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::debugging::{DebugValue, DebuggingRecorder};
use buttress::balance::Endpoint;
use buttress::discover::Watch;
use buttress::http::client::{ResponseBody, health_check};
use buttress::http::{AddOriginLayer, Client, ReplayBody, client};
use buttress::{BoxError, CloneService, ErrorKind, Stage};
use bytes::Bytes;
use futures_core::future::BoxFuture;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tower::{Service, service_fn};

const SECOND: Duration = Duration::from_secs(1);

type Body = Full<Bytes>;

/// The heads of the requests that a client got.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Head>>>);

/// The URI of a request, and the time that its header grants.
type Head = (String, Option<String>);

impl Seen {
    fn take(&self) -> Vec<Head> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// Returns how many requests went to this host.
    fn to(&self, host: &str) -> usize {
        let prefix = format!("http://{host}/");
        let seen = self.0.lock().unwrap();
        seen.iter()
            .filter(|(uri, _)| uri.starts_with(&prefix))
            .count()
    }
}

/// A client that answers after 10 ms with this function of the host and the path.
fn answers(
    seen: &Seen,
    status: impl Fn(&str, &str) -> u16 + Clone + Send + Sync + 'static,
) -> impl CloneService<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send>
+ Send
+ Sync
+ 'static {
    let seen = seen.clone();
    service_fn(move |request: Request<Body>| {
        let timeout = request.headers().get("x-request-timeout-ms");
        let timeout = timeout.map(|value| value.to_str().unwrap().to_owned());
        let uri = request.uri();
        let status = status(uri.host().unwrap_or_default(), uri.path());
        seen.0.lock().unwrap().push((uri.to_string(), timeout));
        async move {
            sleep(Duration::from_millis(10)).await;
            let mut response = Response::new(Body::from("12 bolts"));
            *response.status_mut() = status.try_into().unwrap();
            Ok::<_, BoxError>(response)
        }
    })
}

async fn get<S>(client: &Client<S>, uri: &str) -> u16
where
    S: CloneService<Request<Body>, Response = Response<Body>, Future: Send> + Send + Sync,
{
    let request = Request::get(uri).body("").unwrap();
    let response = client.send(request).await.unwrap();
    let status = response.status().as_u16();
    response.into_body().collect().await.unwrap();
    status
}

#[tokio::test(start_paused = true)]
async fn a_request_is_tried_again_and_tells_how_much_time_is_left() {
    let seen = Seen::default();
    let count = seen.clone();
    let busy_at_first = move |_: &str, _: &str| {
        if count.0.lock().unwrap().is_empty() {
            503
        } else {
            200
        }
    };
    let inventory = client("inventory")
        .deadline(SECOND)
        .concurrency_limit(50)
        .wrap(answers(&seen, busy_at_first))
        .unwrap();
    let uri = "http://inventory/bolts";
    assert_eq!(get(&inventory, uri).await, 200);
    let seen = seen.take();
    let left = |(_, left): &(String, Option<String>)| left.as_deref().unwrap().parse::<u64>();
    let left: Vec<_> = seen.iter().map(|seen| left(seen).unwrap()).collect();
    assert_eq!(
        seen.iter().map(|(uri, _)| uri).collect::<Vec<_>>(),
        [uri, uri]
    );
    assert!(left[0] <= 1_000 && left[1] < left[0], "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_have_acted_is_sent_once() {
    let seen = Seen::default();
    let orders = client("orders").concurrency_limit(50);
    let orders = orders.wrap(answers(&seen, |_, _| 502)).unwrap();
    let order = Request::post("http://orders/").body("12 bolts").unwrap();
    let response = orders.send(order).await.unwrap();
    assert_eq!(response.status(), 502);
    assert_eq!(seen.take().len(), 1);
}

/// Answers with a body that never comes.
async fn stalls(
    _: Request<Body>,
) -> Result<Response<impl http_body::Body<Data = Bytes, Error = BoxError>>, BoxError> {
    let frames = futures::stream::pending::<Result<Frame<Bytes>, BoxError>>();
    Ok(Response::new(http_body_util::StreamBody::new(frames)))
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_body_is_that_of_the_stack_alone() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let exports = client("exports")
        .deadline(3 * SECOND)
        .no_measure()
        .concurrency_limit(50)
        .wrap(service_fn(stalls))
        .unwrap();
    let request = Request::get("http://exports/").body("").unwrap();
    let response = exports.send(request).await.unwrap();
    let began = Instant::now();
    let error = response.into_body().collect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(began.elapsed(), 3 * SECOND);
    let mut ends = recorder.snapshotter().snapshot();
    ends.retain(|(key, _)| key.name() == "buttress_timeouts_total");
    let [(key, count)] = &ends[..] else {
        panic!("{ends:?}");
    };
    assert_eq!(*count, DebugValue::Counter(1));
    assert!(key.labels().any(|label| label.value() == "deadline"));
}

#[tokio::test(start_paused = true)]
async fn a_body_holds_its_permit_and_may_not_be_silent_for_ever() {
    let exports = client("exports")
        .body_timeout(|body| body.idle(SECOND))
        .concurrency_limit(50)
        .wrap(service_fn(stalls))
        .unwrap();
    let request = Request::get("http://exports/").body("").unwrap();
    let response = exports.send(request).await.unwrap();
    let handle = exports.handle();
    let in_flight = || handle.bulkhead().unwrap().in_flight();
    assert_eq!(in_flight(), 1);
    let began = Instant::now();
    let error = response.into_body().collect().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.stage()),
        (ErrorKind::Timeout, Stage::NextPart)
    );
    assert_eq!(began.elapsed(), SECOND);
    assert_eq!(in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_streamed_body_is_sent_again() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&bodies);
    let client_of_streams = service_fn(move |request: Request<ReplayBody<Body>>| {
        let seen = Arc::clone(&seen);
        async move {
            let body = request.into_body().collect().await?.to_bytes();
            let mut seen = seen.lock().unwrap();
            seen.push(body);
            let mut response = Response::new(Body::default());
            *response.status_mut() = if seen.len() == 1 { 503 } else { 200 }.try_into()?;
            Ok::<_, BoxError>(response)
        }
    });
    let uploads = client("uploads").concurrency_limit(50);
    let uploads = uploads.wrap(client_of_streams).unwrap();
    let request = Request::put("http://uploads/")
        .body(Body::from("12 bolts"))
        .unwrap();
    assert_eq!(uploads.send(request).await.unwrap().status(), 200);
    assert_eq!(*bodies.lock().unwrap(), ["12 bolts", "12 bolts"]);
}

#[tokio::test(start_paused = true)]
async fn replicas_share_the_calls_and_one_that_fails_costs_none() {
    let seen = Seen::default();
    let one_fails = |host: &str, _: &str| if host == "10.0.0.2" { 500 } else { 200 };
    let origins = [
        "http://10.0.0.1:80",
        "http://10.0.0.2:80",
        "http://10.0.0.3:80",
    ];
    let search = client("search")
        .balance(|balance| balance.seed(1))
        .concurrency_limit(50)
        .replicas(answers(&seen, one_fails), origins)
        .unwrap();
    for _ in 0..60 {
        assert_eq!(get(&search, "/stock").await, 200);
    }
    let calls = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"].map(|host| seen.to(host));
    assert!(calls[0] > 10 && calls[2] > 10 && calls[1] < 10, "{calls:?}");
    let balancer = search.balancer().unwrap();
    assert_eq!(balancer.endpoints().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn replicas_have_no_circuit_breaker_unless_it_is_asked_for() {
    let seen = Seen::default();
    let client = || answers(&seen, |_, _| 200);
    let config = || buttress::http::client("search").concurrency_limit(50);
    let origins = ["http://10.0.0.1:80"];
    let has_breaker = |handle: buttress::stack::Handle| handle.circuit_breaker().is_some();
    assert!(has_breaker(config().wrap(client()).unwrap().handle()));
    assert!(!has_breaker(
        config().replicas(client(), origins).unwrap().handle()
    ));
    let config = config().circuit_breaker(|breaker| breaker);
    assert!(has_breaker(
        config.replicas(client(), origins).unwrap().handle()
    ));
}

#[tokio::test(start_paused = true)]
async fn replicas_are_found_and_replaced() {
    let seen = Seen::default();
    let entry = |port: u16| (port, std::net::SocketAddr::from(([10, 0, 0, 1], port)));
    let (list, addresses) = watch::channel(vec![entry(81)]);
    let source = Watch::new(addresses, |_, address| AddOriginLayer::http(*address));
    let search = client("search").concurrency_limit(50);
    let search = search.discover(answers(&seen, |_, _| 200), source).unwrap();
    assert_eq!(get(&search, "/stock").await, 200);
    assert_eq!(seen.to("10.0.0.1:81"), 1);
    list.send_replace(vec![entry(82)]);
    sleep(SECOND).await;
    assert_eq!(get(&search, "/stock").await, 200);
    assert_eq!(seen.to("10.0.0.1:82"), 1);
}

#[tokio::test(start_paused = true)]
async fn health_checks_and_priorities_move_the_calls() {
    let seen = Seen::default();
    let primary_is_ill = |host: &str, path: &str| match (host, path) {
        ("primary", "/health") => 404,
        _ => 200,
    };
    let origins = [
        Endpoint::from("http://primary"),
        Endpoint::from("http://backup").priority(1),
    ];
    let search = client("search")
        .concurrency_limit(50)
        .replicas(answers(&seen, primary_is_ill), origins)
        .unwrap()
        .check_health(health_check("/health").interval(SECOND))
        .unwrap();
    sleep(60 * SECOND).await;
    let (probes, _) = (seen.take(), seen.take());
    assert!(
        probes.len() > 100,
        "both are asked once a second: {}",
        probes.len()
    );
    for _ in 0..20 {
        assert_eq!(get(&search, "/stock").await, 200);
    }
    let stock = |host| {
        let uri = format!("http://{host}/stock");
        let seen = seen.0.lock().unwrap();
        seen.iter().filter(|(seen, _)| *seen == uri).count()
    };
    assert_eq!((stock("primary"), stock("backup")), (0, 20));
}

#[tokio::test(start_paused = true)]
async fn one_target_has_no_health_to_check() {
    let client = client("search").concurrency_limit(50);
    let client = client.wrap(answers(&Seen::default(), |_, _| 200)).unwrap();
    let error = client.check_health(health_check("/health")).unwrap_err();
    assert!(error.to_string().contains("replicas"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn one_target_has_no_balancer_to_configure() {
    let config = || {
        let config = client("search").concurrency_limit(50);
        config.balance(|balance| balance.seed(1))
    };
    let seen = Seen::default();
    let answers = || answers(&seen, |_, _| 200);
    let error = config().wrap(answers()).unwrap_err();
    assert!(error.to_string().contains("replicas"), "{error}");
    assert!(config().replicas(answers(), ["http://a"]).is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_is_none_is_refused() {
    let config = || client("search").concurrency_limit(50);
    let seen = Seen::default();
    for origins in [vec!["10.0.0.1:80"], vec!["http://a", "http://a"], vec![]] {
        let client = answers(&seen, |_, _| 200);
        assert!(
            config().replicas(client, origins.clone()).is_err(),
            "{origins:?}"
        );
    }
}

/// A client in a field of generic code, and in a task.
struct Stock<S> {
    client: Client<S>,
}

impl<S> Stock<S>
where
    S: CloneService<Request<Body>, Response = Response<Body>, Future: Send> + Send + Sync + 'static,
{
    async fn count(&self) -> Result<Bytes, BoxError> {
        let request = Request::get("http://stock/bolts").body("")?;
        let response: Response<ResponseBody<Body>> = self.client.send(request).await?;
        Ok(response.into_body().collect().await?.to_bytes())
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_is_one_type_and_goes_into_tasks() {
    let seen = Seen::default();
    let inner = answers(&seen, |_, _| 200);
    let config = || client("stock").concurrency_limit(50);
    let one = config().wrap(inner.clone()).unwrap();
    let many = config()
        .replicas(inner.clone(), ["http://10.0.0.1:80"])
        .unwrap();
    let address = std::net::SocketAddr::from(([10, 0, 0, 1], 80));
    let (_list, addresses) = watch::channel(vec![("a", address)]);
    let source = Watch::new(addresses, |_, address| AddOriginLayer::http(*address));
    let found = config().discover(inner, source).unwrap();
    for client in [one, many, found] {
        let stock = Stock { client };
        let count = tokio::spawn(async move { stock.count().await });
        assert_eq!(count.await.unwrap().unwrap(), "12 bolts");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_is_a_service_of_tower() {
    let inner = service_fn(
        |_: Request<Body>| -> BoxFuture<'static, Result<Response<Body>, BoxError>> {
            Box::pin(pending())
        },
    );
    let client = client("slow")
        .response_timeout(SECOND)
        .concurrency_limit(50);
    let mut client = client.wrap(inner).unwrap();
    std::future::poll_fn(|cx| Service::<Request<Body>>::poll_ready(&mut client, cx))
        .await
        .unwrap();
    let call = client.call(Request::get("http://slow/").body(Body::default()).unwrap());
    let error = timeout(5 * SECOND, call).await.unwrap().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_bodies_in_flight() {
    let config = client("search").drain().unlimited();
    let search = config.wrap(answers(&Seen::default(), |_, _| 200)).unwrap();
    let ask = || search.send(Request::get("http://search/").body("").unwrap());
    let response = ask().await.unwrap();

    let handle = search.handle();
    let drain = handle.drain().unwrap();
    assert_eq!(drain.drain(SECOND).await, 1, "its body is not read");
    let refused = ask().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Draining);

    let drained = tokio::spawn(drain.drained());
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "12 bolts"
    );
    timeout(SECOND, drained).await.unwrap().unwrap();
}
