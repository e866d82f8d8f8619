//! The whole client for reqwest against real servers on loopback.
// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use buttress::CallOptions;
use buttress::balance::Endpoint;
use buttress::discover::Watch;
use buttress::http::{AddOriginLayer, Classifier};
use buttress::reqwest::{Adapter, Client, Config, RequestBuilder, client, health_check};
use buttress::{
    Attempts, Backoff, BoxError, Cause, Error, ErrorKind, FallbackLayer, GaveUp, Jitter,
};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use reqwest::redirect::Policy;
use reqwest::{ClientBuilder, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::clients::closed_port;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A request that a server got.
struct Seen {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

#[derive(Clone)]
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Serves on a port that is free. `answer` gets the number of the request, from 1.
    async fn new<A, R>(answer: A) -> Self
    where
        A: Fn(usize, &Seen) -> R + Clone + Send + Sync + 'static,
        R: IntoResponse + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let app = Router::new().fallback(async move |request: axum::extract::Request| {
            let (head, body) = request.into_parts();
            let seen = Seen {
                method: head.method,
                uri: head.uri,
                headers: head.headers,
                body: body.collect().await.unwrap().to_bytes(),
            };
            let mut log = log.lock().unwrap();
            let response = answer(log.len() + 1, &seen).into_response();
            log.push(seen);
            response
        });
        tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
        Self { address, seen }
    }

    /// Answers the first request with this status, and others with a text.
    async fn first(status: u16) -> Self {
        Self::new(move |number, _| match number {
            1 => (StatusCode::from_u16(status).unwrap(), ""),
            _ => (StatusCode::OK, "12 bolts"),
        })
        .await
    }

    /// Answers with a text, and never fails.
    async fn good() -> Self {
        Self::new(|_, _| "12 bolts").await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn seen(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn last<T>(&self, read: impl Fn(&Seen) -> T) -> T {
        read(self.seen.lock().unwrap().last().unwrap())
    }
}

/// A body that begins and never goes on.
struct Stalls(bool);

impl http_body::Body for Stalls {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"12 ")))))
    }
}

fn builder() -> ClientBuilder {
    reqwest::Client::builder().no_proxy()
}

fn config(name: &str) -> Config {
    let soon = Backoff::constant(MS).jitter(Jitter::None);
    client(name)
        .timeout(30 * SECOND)
        .response_timeout(100 * SECOND)
        .retry(|retry| retry.backoff(soon))
        .no_circuit_breaker()
        .concurrency_limit(50)
}

fn web(name: &str) -> Client {
    config(name).build(builder()).unwrap()
}

/// A client of a finished one of reqwest.
fn wrapped(name: &str) -> Client {
    config(name).wrap(builder().build().unwrap()).unwrap()
}

fn attempts(response: &Response) -> Option<(u32, Option<GaveUp>)> {
    let attempts = response.extensions().get();
    attempts.map(|attempts: &Attempts| (attempts.made, attempts.gave_up))
}

fn kind(error: &(dyn std::error::Error + 'static)) -> Option<ErrorKind> {
    Error::find(error).map(Cause::kind)
}

/// One type for one target, replicas and discovery, without a parameter.
struct Shop {
    web: Client,
}

impl Shop {
    async fn order(&self) -> Result<String, BoxError> {
        let response = self.web.put("http://shop/orders").body("12 bolts");
        Ok(response.send().await?.text().await?)
    }
}

#[tokio::test]
async fn a_client_in_a_field_calls_in_a_task_over_one_target_replicas_and_discovery() {
    let server = Server::new(|_, seen: &Seen| seen.body.clone()).await;
    let origin = server.url("");
    let resolved = || builder().resolve("shop", server.address);
    let (_list, origins) = watch::channel(vec![("a", server.address)]);
    let found = Watch::new(origins, |_, address| AddOriginLayer::http(*address));
    for web in [
        config("shop").build(resolved()).unwrap(),
        config("shop").wrap(resolved().build().unwrap()).unwrap(),
        config("shop")
            .replicas(Adapter::build(builder()).unwrap(), [origin])
            .unwrap(),
        config("shop")
            .discover(builder().build().unwrap(), found)
            .unwrap(),
    ] {
        let shop = Shop { web };
        let order = tokio::spawn(async move { shop.order().await });
        assert_eq!(order.await.unwrap().unwrap(), "12 bolts");
    }
    assert_eq!(server.seen(), 4);
}

#[tokio::test]
async fn the_methods_of_the_builder_are_those_of_reqwest() {
    let server = Server::good().await;
    let web = web("methods");
    let mut headers = HeaderMap::new();
    headers.insert("x-one", "1".parse().unwrap());
    let request = web.put(server.url("/orders?a=1"));
    let request = request
        .headers(headers)
        .header("x-two", "2")
        .bearer_auth("t0ken")
        .query(&[("item", "12 bolts")])
        .json(&["bolts", "nuts"])
        .version(http::Version::HTTP_11)
        .with(|request| request.header("x-three", "3"));
    assert_eq!(request.send().await.unwrap().status(), 200);
    server.last(|seen| {
        assert_eq!(seen.method, Method::PUT);
        assert_eq!(seen.uri, "/orders?a=1&item=12+bolts");
        assert_eq!(seen.body, r#"["bolts","nuts"]"#);
        for (name, value) in [
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("authorization", "Bearer t0ken"),
            ("content-type", "application/json"),
        ] {
            assert_eq!(seen.header(name), value);
        }
    });
    let form = web.patch(server.url("/")).form(&[("item", "bolts")]);
    form.basic_auth("shop", Some("secret"))
        .send()
        .await
        .unwrap();
    server.last(|seen| {
        assert_eq!(
            (&seen.method, &seen.body[..]),
            (&Method::PATCH, &b"item=bolts"[..])
        );
        assert_eq!(seen.header("authorization"), "Basic c2hvcDpzZWNyZXQ=");
    });
    for (request, method) in [
        (web.get(server.url("/")), Method::GET),
        (web.post(server.url("/")), Method::POST),
        (web.delete(server.url("/")), Method::DELETE),
        (web.head(server.url("/")), Method::HEAD),
        (
            web.request(Method::OPTIONS, server.url("/")),
            Method::OPTIONS,
        ),
    ] {
        request.send().await.unwrap();
        assert_eq!(server.last(|seen| seen.method.clone()), method);
    }
    let built = builder().build().unwrap().get(server.url("/built")).build();
    web.execute(built.unwrap()).await.unwrap();
    assert_eq!(server.last(|seen| seen.uri.to_string()), "/built");
}

#[tokio::test]
async fn a_response_keeps_all_that_reqwest_puts_into_it() {
    let server = Server::new(|number, seen: &Seen| match (number, seen.uri.path()) {
        (1 | 3, _) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        (_, "/moved") => (StatusCode::FOUND, [("location", "/stock?item=nuts")]).into_response(),
        _ => ([("set-cookie", "basket=7")], "12 bolts").into_response(),
    })
    .await;
    let web = web("response");
    let url = server.url("/stock?item=bolts");
    let response = web.get(&url).send().await.unwrap();
    assert_eq!(attempts(&response), Some((2, None)));
    assert_eq!(response.url().as_str(), url);
    assert_eq!(response.remote_addr(), Some(server.address));
    assert_eq!(response.version(), http::Version::HTTP_11);
    assert_eq!(response.headers()["set-cookie"], "basket=7");
    assert_eq!(response.content_length(), Some(8));
    assert_eq!(response.bytes().await.unwrap(), "12 bolts");
    let mut redirected = web.get(server.url("/moved")).send().await.unwrap();
    assert_eq!(attempts(&redirected), Some((2, None)));
    assert_eq!(redirected.url().as_str(), server.url("/stock?item=nuts"));
    assert_eq!(redirected.chunk().await.unwrap().unwrap(), "12 bolts");
}

#[tokio::test]
async fn the_body_of_a_response_holds_the_permit_of_its_call() {
    let server = Server::good().await;
    let web = web("permit");
    let in_flight = || web.handle().bulkhead().unwrap().in_flight();
    let response = web.get(server.url("/")).send().await.unwrap();
    assert_eq!(in_flight(), 1);
    response.bytes().await.unwrap();
    assert_eq!(in_flight(), 0);
    drop(web.get(server.url("/")).send().await.unwrap());
    assert_eq!(in_flight(), 0);
}

#[tokio::test]
async fn only_requests_that_may_act_twice_are_sent_again_after_an_answer() {
    for (request, sent) in [
        (Method::GET, 2),
        (Method::PUT, 2),
        (Method::DELETE, 2),
        (Method::POST, 1),
        (Method::PATCH, 1),
    ]
    .map(|(method, sent)| ((method, None, None), sent))
    .into_iter()
    .chain([
        ((Method::POST, Some("8e03978e"), None), 2),
        ((Method::POST, None, Some(true)), 2),
        ((Method::GET, None, Some(false)), 1),
    ]) {
        let server = Server::first(503).await;
        let (method, key, mark) = request.clone();
        let mut call = web("again")
            .request(method, server.url("/"))
            .body("12 bolts");
        if let Some(key) = key {
            call = call.header("idempotency-key", key);
        }
        if let Some(mark) = mark {
            call = call.extension(CallOptions::new().idempotent(mark));
        }
        let response = call.send().await.unwrap();
        assert_eq!(server.seen(), sent, "{request:?}");
        assert_eq!(server.last(|seen| seen.body.clone()), "12 bolts");
        assert_eq!(response.status().is_success(), sent == 2);
    }
}

#[tokio::test]
async fn an_order_whose_connection_is_refused_is_sent_again_only_with_a_proof() {
    let (_socket, gone) = closed_port();
    let order = |web: Client| web.post(format!("http://{gone}/")).body("12 bolts").send();
    let error = order(web("built")).await.unwrap_err();
    assert_eq!((error.attempts(), error.was_sent()), (Some(3), false));
    assert!(error.downcast_ref::<reqwest::Error>().unwrap().is_connect());
    let error = order(wrapped("finished")).await.unwrap_err();
    assert_eq!((error.attempts(), error.was_sent()), (Some(1), true));
    assert_eq!(error.gave_up(), Some(GaveUp::NotIdempotent));
    // That it is idempotent needs no proof.
    let get = wrapped("finished").get(format!("http://{gone}/")).send();
    assert_eq!(get.await.unwrap_err().attempts(), Some(3));
}

#[tokio::test]
async fn an_order_that_was_redirected_to_a_dead_server_is_sent_once() {
    let (_socket, gone) = closed_port();
    let server = Server::new(move |_, _| {
        (
            StatusCode::SEE_OTHER,
            [("location", format!("http://{gone}/receipt"))],
        )
    })
    .await;
    for (sent, web) in [(1, web("built")), (2, wrapped("finished"))] {
        let order = web.post(server.url("/orders")).body("12 bolts");
        let error = order.send().await.unwrap_err();
        assert_eq!((server.seen(), error.was_sent()), (sent, true));
        assert_eq!(error.gave_up(), Some(GaveUp::NotIdempotent));
    }
    let web = config("none").redirects(Policy::none()).build(builder());
    let response = web.unwrap().post(server.url("/orders")).send().await;
    assert_eq!(response.unwrap().status(), StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn an_upload_is_sent_again_as_far_as_it_is_kept() {
    let stream = |length| reqwest::Body::wrap(Full::new(Bytes::from(vec![7; length])));
    for (method, length, sent) in [
        (Method::PUT, 1_000, 2),
        (Method::PUT, 100_000, 1),
        (Method::POST, 1_000, 1),
    ] {
        let server = Server::first(503).await;
        let upload = web("upload")
            .request(method, server.url("/"))
            .body(stream(length));
        let response = upload.send().await.unwrap();
        assert_eq!(server.seen(), sent);
        assert_eq!(server.last(|seen| seen.body.len()), length);
        let reason = match (sent, length) {
            (2, _) => None,
            (_, 1_000) => Some(GaveUp::NotIdempotent),
            _ => Some(GaveUp::NotCopyable),
        };
        assert_eq!(attempts(&response), Some((sent as u32, reason)));
    }
    // A body that is whole has any length.
    let server = Server::first(503).await;
    let put = web("whole").put(server.url("/")).body(vec![7; 100_000]);
    assert_eq!(put.send().await.unwrap().status(), 200);
    assert_eq!(
        (server.seen(), server.last(|seen| seen.body.len())),
        (2, 100_000)
    );
}

#[tokio::test]
async fn a_server_that_asks_for_a_long_wait_is_not_asked_again() {
    let server =
        Server::new(|_, _| (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "90")])).await;
    let response = web("wait").get(server.url("/")).send().await.unwrap();
    assert_eq!(attempts(&response), Some((1, Some(GaveUp::RetryAfter))));
    let ignores =
        Classifier::new().status(StatusCode::SERVICE_UNAVAILABLE, buttress::Outcome::Success);
    let web = config("ignores")
        .classify(ignores)
        .build(builder())
        .unwrap();
    let response = web.get(server.url("/")).send().await.unwrap();
    assert_eq!(attempts(&response), None);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_client_or_request_is_on_the_wire_and_over_the_body() {
    let server = Server::new(|_, _| Body::new(Stalls(false))).await;
    let told = || server.last(|seen| seen.header("x-request-timeout-ms").parse::<u64>().ok());
    for (deadline, timeout, end, expected) in [
        (Some(5 * SECOND), None, 5, ErrorKind::DeadlineExceeded),
        (
            Some(5 * SECOND),
            Some(2 * SECOND),
            2,
            ErrorKind::DeadlineExceeded,
        ),
        (
            Some(5 * SECOND),
            Some(9 * SECOND),
            5,
            ErrorKind::DeadlineExceeded,
        ),
        (None, Some(3 * SECOND), 3, ErrorKind::DeadlineExceeded),
        (None, None, 30, ErrorKind::Timeout),
    ] {
        let config = client("late").concurrency_limit(50);
        let config = deadline.into_iter().fold(config, Config::deadline);
        let web = config.build(builder()).unwrap();
        let request = web.get(server.url("/"));
        let request = timeout.into_iter().fold(request, RequestBuilder::timeout);
        let began = Instant::now();
        let response = request.send().await.unwrap();
        let is_told = expected == ErrorKind::DeadlineExceeded;
        assert_eq!(
            told().is_some_and(|ms| ms > 0 && ms <= end * 1_000),
            is_told
        );
        let error = response.text().await.unwrap_err();
        assert_eq!(kind(&error), Some(expected), "{error:?}");
        assert_eq!(began.elapsed().as_secs(), end);
        assert_eq!(web.handle().bulkhead().unwrap().in_flight(), 0);
    }
}

/// A body that gives a part now, and the other one after some time.
struct SlowUpload {
    parts: [Option<&'static [u8]>; 2],
    pause: Pin<Box<Sleep>>,
}

impl http_body::Body for SlowUpload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.parts[0].is_none() {
            std::task::ready!(self.pause.as_mut().poll(cx));
        }
        let part = self.parts.iter_mut().find_map(Option::take);
        Poll::Ready(part.map(|part| Ok(Frame::data(Bytes::from_static(part)))))
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_goes_on_is_not_ended_by_the_timeout() {
    let server = Server::good().await;
    let web = config("slow").timeout(SECOND).build(builder()).unwrap();
    let upload = reqwest::Body::wrap(SlowUpload {
        parts: [Some(b"12 "), Some(b"bolts")],
        pause: Box::pin(sleep(5 * SECOND)),
    });
    let response = web.put(server.url("/")).body(upload).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(server.seen(), 1);
    assert_eq!(server.last(|seen| seen.body.clone()), "12 bolts");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_declared_by_an_extension() {
    let server = Server::new(|_, _| Body::new(Stalls(false))).await;
    let web = config("watch")
        .deadline(5 * SECOND)
        .response_timeout(4 * SECOND)
        .timeout(SECOND);
    let web = web.build(builder()).unwrap();
    let watch = web
        .get(server.url("/"))
        .extension(CallOptions::new().stream(true));
    let response = watch.send().await.unwrap();
    assert_eq!(
        server.last(|seen| seen.header("x-request-timeout-ms").to_owned()),
        ""
    );
    assert!(
        timeout(600 * SECOND, response.bytes()).await.is_err(),
        "goes on"
    );
}

#[tokio::test]
async fn layers_fit_around_the_client() {
    let (_socket, gone) = closed_port();
    let fallback =
        buttress::fallback::from_failure(|failed: buttress::fallback::Failed<'_, Response>| {
            let found = failed
                .result()
                .err()
                .and_then(|error| error.downcast_ref::<reqwest::Error>());
            found.map(|_| Response::from(http::Response::new("stale")))
        });
    let client = FallbackLayer::new("fallback", fallback).wrap(web("inner"));
    let request = reqwest::Request::new(Method::GET, format!("http://{gone}/").parse().unwrap());
    let answer = tokio::spawn(async move { client.send(request).await });
    assert_eq!(
        answer.await.unwrap().unwrap().text().await.unwrap(),
        "stale"
    );
}

#[tokio::test(start_paused = true)]
async fn the_timeout_of_a_request_covers_all_attempts_and_is_no_failure() {
    let server = Server::new(|_, _| StatusCode::INTERNAL_SERVER_ERROR).await;
    let slowly = |retry: buttress::retry::Config| {
        retry.backoff(Backoff::constant(SECOND).jitter(Jitter::None))
    };
    let web = client("attempts")
        .unlimited()
        .retry(slowly)
        .build(builder())
        .unwrap();
    // Another attempt does not fit.
    let response = web
        .get(server.url("/"))
        .timeout(SECOND / 2)
        .send()
        .await
        .unwrap();
    assert_eq!(attempts(&response), Some((1, Some(GaveUp::Deadline))));
}

#[tokio::test]
async fn a_replica_that_is_gone_gets_no_orders() {
    let (_socket, gone) = closed_port();
    let server = Server::good().await;
    let origins = [gone, server.address].map(|address| format!("http://{address}"));
    let search = config("replicas").replicas(Adapter::build(builder()).unwrap(), origins.clone());
    let search = search.unwrap();
    for _ in 0..20 {
        let order = search
            .post("http://search/orders?item=bolts")
            .body("12 bolts");
        let response = order.send().await.unwrap();
        assert_eq!(response.url().as_str(), server.url("/orders?item=bolts"));
        assert_eq!(response.text().await.unwrap(), "12 bolts");
    }
    assert_eq!(server.seen(), 20);
    assert_eq!(search.balancer().unwrap().endpoints().len(), 2);
    // Nothing proves that an order to the finished client was not sent.
    let search = config("finished")
        .balance(|balance| balance.seed(1))
        .replicas(builder().build().unwrap(), origins)
        .unwrap();
    let mut failed = 0;
    for _ in 0..20 {
        failed += u32::from(search.post("http://search/orders").send().await.is_err());
    }
    assert!(failed > 0);
}

#[tokio::test]
async fn a_replica_with_a_client_of_its_own_keeps_the_name_of_the_service() {
    let (_socket, gone) = closed_port();
    let server = Server::good().await;
    let replicas = [gone, server.address].map(|address| {
        let client = builder().resolve("search.internal", address);
        Endpoint::new(address, Adapter::build(client).unwrap())
    });
    let search = config("names").replicas(builder().build().unwrap(), replicas);
    let search = search.unwrap();
    for _ in 0..20 {
        let order = search
            .post("http://search.internal/orders")
            .body("12 bolts");
        let response = order.send().await.unwrap();
        assert_eq!(response.url().as_str(), "http://search.internal/orders");
        assert_eq!(response.remote_addr(), Some(server.address));
        assert_eq!(
            server.last(|seen| seen.header("host").to_owned()),
            "search.internal"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_are_asked_whether_they_work() {
    let well = Server::good().await;
    let ill = Server::new(|_, seen: &Seen| match seen.uri.path() {
        "/health" => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    })
    .await;
    let resolved = Adapter::build(builder().resolve("search", ill.address)).unwrap();
    let replicas = [
        Endpoint::new(
            "well",
            buttress::reqwest::Replica::try_from(&*well.url("")).unwrap(),
        ),
        Endpoint::new("ill", resolved.into()),
    ];
    let search = config("health")
        .replicas(builder().build().unwrap(), replicas)
        .unwrap();
    let health = health_check("http://search/health").interval(SECOND);
    let search = search.check_health(health).unwrap();
    sleep(30 * SECOND).await;
    let is_healthy = |key| {
        search
            .balancer()
            .unwrap()
            .endpoint(key)
            .unwrap()
            .is_selectable
    };
    assert!(is_healthy("well") && !is_healthy("ill"));
    assert_eq!(well.last(|seen| seen.uri.to_string()), "/health");
    let one = config("health").build(builder()).unwrap();
    let refused = one.check_health(health_check("http://search/health"));
    assert_eq!(refused.unwrap_err().field(), "check_health");
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_counts_for_nothing() {
    let breaker = |breaker: buttress::circuit_breaker::Config| breaker.consecutive_failures(1);
    let config = client("bad").concurrency_limit(1).circuit_breaker(breaker);
    let web = config.build(builder()).unwrap();
    for request in [
        web.get("no url"),
        web.get("/stock"),
        web.get("ftp://files/stock"),
        web.get("mailto:stock@shop"),
        web.get("http://shop/").header("no header", ""),
    ] {
        let error = request.send().await.unwrap_err();
        assert_eq!((error.kind(), error.name()), (ErrorKind::Service, "bad"));
        assert_eq!((error.attempts(), error.was_sent()), (None, false));
        let error = error.downcast_ref::<reqwest::Error>().unwrap();
        assert!(error.is_builder(), "{error:?}");
    }
    let server = Server::good().await;
    assert_eq!(web.get(server.url("/")).send().await.unwrap().status(), 200);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let field = |refused: Result<Client, buttress::ConfigError>| refused.unwrap_err().field();
    let finished = || builder().build().unwrap();
    assert_eq!(field(client("").unlimited().build(builder())), "name");
    assert_eq!(field(client("web").build(builder())), "concurrency_limit");
    assert_eq!(field(client("web").wrap(finished())), "concurrency_limit");
    let balanced = config("web").balance(|balance| balance);
    assert_eq!(field(balanced.build(builder())), "balance");
    let redirects = || config("web").redirects(Policy::none());
    assert_eq!(field(redirects().wrap(finished())), "redirects");
    assert_eq!(
        field(redirects().replicas(finished(), ["http://a"])),
        "redirects"
    );
    assert_eq!(
        field(config("web").replicas(finished(), ["10.0.0.1:80"])),
        "scheme"
    );
    assert_eq!(
        field(config("web").replicas(finished(), ["http://a/b"])),
        "path"
    );
    let bad = builder().user_agent("no\nheader");
    let error = config("web").build(bad).unwrap_err();
    assert_eq!(error.field(), "builder");
    assert!(error.to_string().contains("InvalidHeaderValue"), "{error}");
}

/// The promise of `Send` and `'static` holds for what a caller gets.
#[test]
fn clients_and_calls_can_be_moved_to_other_threads() {
    fn check<T: Send + Sync + Clone + 'static>(_: &T) {}
    fn call<T: Future<Output = Result<Response, Error>> + Send + 'static>(_: T) {}
    let web = web("threads");
    check(&web);
    call(web.get("http://shop/").send());
    let request = reqwest::Request::new(Method::GET, "http://shop/".parse().unwrap());
    call(web.execute(request));
    assert!(format!("{web:?} {:?}", web.get("http://shop/")).contains("Client"));
}
