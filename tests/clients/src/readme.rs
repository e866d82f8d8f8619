//! The guide's clients and servers, run against real ones. The code that runs is the guide's own text. Calls are made in
//! spawned tasks, as a service would make them.
// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use ::axum::Router;
use ::axum::routing::{get, post};
use ::http::{HeaderMap, StatusCode};
use buttress::{Error, ErrorKind};
use tokio::net::{TcpListener, TcpSocket};

const PAGES: [&str; 2] = [
    include_str!("../../../src/guide/http.md"),
    include_str!("../../../src/guide/outcomes.md"),
];

/// Serves on a port that is free.
async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async { ::axum::serve(listener, app).await.unwrap() });
    address
}

/// A port that is ours, and refuses connections.
fn closed_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Fails when it is asked for the first time. Also returns how often it was asked.
fn fails_once() -> (Router, Arc<AtomicU32>) {
    let asked = Arc::new(AtomicU32::new(0));
    let times = Arc::clone(&asked);
    let stock = get(async move || match times.fetch_add(1, Ordering::Relaxed) {
        0 => Err(StatusCode::INTERNAL_SERVER_ERROR),
        _ => Ok("12 bolts"),
    });
    (Router::new().route("/stock", stock), asked)
}

/// The same for orders, which have a key.
fn fails_once_at_orders() -> (Router, Arc<AtomicU32>) {
    let asked = Arc::new(AtomicU32::new(0));
    let times = Arc::clone(&asked);
    let orders = post(async move |headers: HeaderMap| {
        assert_eq!(headers["idempotency-key"], "order-1");
        match times.fetch_add(1, Ordering::Relaxed) {
            0 => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::OK,
        }
    });
    (Router::new().route("/orders", orders), asked)
}

/// A body that begins and never goes on.
struct Stalls(bool);

impl http_body::Body for Stalls {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Pending;
        }
        let begin = bytes::Bytes::from_static(b"12 ");
        Poll::Ready(Some(Ok(http_body::Frame::data(begin))))
    }
}

/// Answers at `/stock`, and stalls after the head at `/stalls`.
fn stalls() -> Router {
    let body = || ::axum::body::Body::new(Stalls(false));
    Router::new()
        .route("/stock", get(async || "12 bolts"))
        .route("/stalls", get(async move || body()))
}

/// The kind of our own error, at which the body ended.
fn kind(error: &(dyn std::error::Error + 'static)) -> Option<ErrorKind> {
    Error::find(error).map(buttress::Cause::kind)
}

#[test]
fn the_guide_shows_what_is_run_here() {
    for (name, code) in [
        ("hyper", include_str!("readme/hyper.rs")),
        ("replicas", include_str!("readme/replicas.rs")),
        ("tonic", include_str!("readme/tonic.rs")),
        ("reqwest", include_str!("readme/reqwest.rs")),
        ("axum", include_str!("readme/axum.rs")),
        ("classifier", include_str!("readme/classifier.rs")),
        ("call_options", include_str!("readme/call_options.rs")),
    ] {
        let block = format!("```rust\n{code}```\n");
        let is_shown = PAGES.iter().any(|page| page.contains(&block));
        assert!(is_shown, "the guide has another {name}.rs");
    }
}

mod a_hyper_client {
    include!("readme/hyper.rs");

    #[tokio::test]
    async fn gets_its_answer_at_the_second_attempt() {
        let (app, asked) = super::fails_once();
        let uri = format!("http://{}/stock", super::serve(app).await);
        let (inventory, uri) = (inventory().unwrap(), uri.parse().unwrap());
        let answer = tokio::spawn(async move { stock(&inventory, uri).await }).await;
        assert_eq!(answer.unwrap().unwrap(), "12 bolts");
        // More often on a machine that is so busy that an attempt times out.
        assert!(asked.load(super::Ordering::Relaxed) >= 2);
    }

    #[tokio::test(start_paused = true)]
    async fn is_not_held_by_a_server_that_stalls_after_the_head() {
        let server = super::serve(super::stalls()).await;
        let uri = move |path: &str| format!("http://{server}{path}").parse::<Uri>().unwrap();
        let inventory = inventory().unwrap();
        let began = tokio::time::Instant::now();
        // As many calls as the limit permits.
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (inventory, uri) = (inventory.clone(), uri("/stalls"));
            calls.spawn(async move { stock(&inventory, uri).await.unwrap_err() });
        }
        let calls = tokio::time::timeout(Duration::from_secs(600), calls.join_all());
        for error in calls.await.expect("no call hangs") {
            let kind = super::kind(&*error);
            assert_eq!(kind, Some(super::ErrorKind::DeadlineExceeded), "{error}");
        }
        assert!(began.elapsed() < Duration::from_millis(2_100));
        // As soon as the circuit breaker permits it, others are served: the permits are back.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(stock(&inventory, uri("/stock")).await.unwrap(), "12 bolts");
    }
}

mod settings_of_one_call {
    include!("readme/call_options.rs");

    use hyper_util::rt::TokioExecutor;
    use tonic::transport::{Endpoint, Server, server::TcpIncoming};

    fn shop() -> Shop {
        let hyper = legacy::Client::builder(TokioExecutor::new()).build_http();
        let shop = buttress::http::client("shop").concurrency_limit(50);
        shop.wrap(hyper::Client::new(hyper)).unwrap()
    }

    /// Answers after so long.
    async fn slow(time: Duration) -> String {
        let stock = super::get(async move || tokio::time::sleep(time).await);
        let app = super::Router::new().route("/stock", stock);
        format!("http://{}/stock", super::serve(app).await)
    }

    #[tokio::test]
    async fn a_report_is_asked_for_once_and_waited_for() {
        let (app, asked) = super::fails_once();
        let uri = format!("http://{}/stock", super::serve(app).await);
        let shop = shop();
        let call = tokio::spawn({
            let shop = shop.clone();
            async move { report(&shop, &uri).await }
        });
        assert_eq!(call.await.unwrap().unwrap(), 500);
        assert_eq!(asked.load(super::Ordering::Relaxed), 1);
        // Longer than the timeout of the client.
        let uri = slow(Duration::from_millis(2_200)).await;
        assert_eq!(report(&shop, &uri).await.unwrap(), 200);
    }

    #[tokio::test]
    async fn an_order_with_a_key_is_sent_again() {
        let (app, asked) = super::fails_once_at_orders();
        let uri = format!("http://{}/orders", super::serve(app).await);
        let call = tokio::spawn(async move { order(&shop(), &uri, "order-1").await });
        assert_eq!(call.await.unwrap().unwrap(), 200);
        assert!(asked.load(super::Ordering::Relaxed) >= 2);
    }

    #[tokio::test]
    async fn a_call_of_grpc_and_a_query_get_their_answers() {
        let listener = super::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (_reporter, health) = tonic_health::server::health_reporter();
        let server = Server::builder().add_service(health);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        let channel = Endpoint::from_shared(address).unwrap().connect_lazy();
        let client = buttress::grpc::client("health").unlimited().wrap(channel);
        let mut client = HealthClient::new(client.unwrap());
        let call = tokio::spawn(async move { check(&mut client).await });
        assert_eq!(call.await.unwrap().unwrap(), 1);
        let db = client::client("db").unlimited().build().unwrap();
        let call = tokio::spawn(async move { query(&db).await });
        assert_eq!(call.await.unwrap().unwrap(), "12 bolts");
    }
}

mod several_replicas {
    include!("readme/replicas.rs");

    use http_body_util::BodyExt;

    #[tokio::test]
    async fn answer_although_one_is_down() {
        let (_socket, down) = super::closed_port();
        let mut replicas = vec![down];
        for _ in 0..2 {
            let stock = super::get(async || "12 bolts");
            replicas.push(super::serve(super::Router::new().route("/stock", stock)).await);
        }
        let search = search(replicas).unwrap();
        for _ in 0..20 {
            let request = http::Request::get("/stock").body(Full::default()).unwrap();
            let search = search.clone();
            let call = tokio::spawn(async move { search.send(request).await });
            let answer = call.await.unwrap().unwrap();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, "12 bolts");
        }
    }
}

mod a_tonic_client {
    include!("readme/tonic.rs");

    use tonic::transport::{Server, server::TcpIncoming};

    #[tokio::test]
    async fn gets_its_answer() {
        let listener = super::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (_reporter, health) = tonic_health::server::health_reporter();
        let server = Server::builder().add_service(health);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        let call = tokio::spawn(async move { check(address).await });
        call.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn is_told_that_nobody_is_there() {
        let (_socket, down) = super::closed_port();
        let error = check(format!("http://{down}")).await.unwrap_err();
        let status = error.downcast_ref::<tonic::Status>().unwrap();
        assert_eq!(status.code(), tonic::Code::Unavailable);
    }
}

mod a_reqwest_client {
    include!("readme/reqwest.rs");

    #[tokio::test]
    async fn gets_its_answer_at_the_second_attempt() {
        let (app, asked) = super::fails_once();
        let url = format!("http://{}/stock", super::serve(app).await);
        let search = search(reqwest::Client::builder().no_proxy()).unwrap();
        let answer = tokio::spawn(async move { stock(&search, &url).await }).await;
        assert_eq!(answer.unwrap().unwrap(), "12 bolts");
        // More often on a machine that is so busy that an attempt times out.
        assert!(asked.load(super::Ordering::Relaxed) >= 2);
    }

    #[tokio::test(start_paused = true)]
    async fn is_not_held_by_a_server_that_stalls_after_the_head() {
        let server = super::serve(super::stalls()).await;
        let search = search(reqwest::Client::builder().no_proxy()).unwrap();
        let url = format!("http://{server}/stalls");
        let call = tokio::time::timeout(Duration::from_secs(600), stock(&search, &url));
        let error = call.await.expect("does not hang").unwrap_err();
        let kind = super::kind(&*error);
        assert_eq!(kind, Some(super::ErrorKind::DeadlineExceeded), "{error:?}");
    }
}

mod a_server_under_axum {
    include!("readme/axum.rs");

    #[tokio::test]
    async fn answers_limits_each_tenant_and_ends_by_a_drain() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(serve(listener, async { drop(stopped.await) }));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let stock = |tenant| {
            client
                .get(format!("{server}/stock"))
                .header("x-tenant", tenant)
        };
        let answer = stock("a").send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "12 bolts");
        let late = stock("a").header("x-request-timeout-ms", "0");
        assert_eq!(late.send().await.unwrap().status(), 504);
        let mut flood = StatusCode::OK;
        while flood == StatusCode::OK {
            flood = stock("b").send().await.unwrap().status();
        }
        assert_eq!(flood, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(stock("a").send().await.unwrap().status(), StatusCode::OK);
        let ready = client.get(format!("{server}/ready"));
        assert_eq!(ready.send().await.unwrap().status(), StatusCode::OK);
        stop.send(()).unwrap();
        task.await.unwrap().unwrap();
    }
}

mod a_classifier {
    include!("readme/classifier.rs");

    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use buttress::BoxError;
    use tower::service_fn;

    #[tokio::test(start_paused = true)]
    async fn sees_failures_in_answers() {
        for is_busy in [true, false] {
            let asked = Arc::new(AtomicU32::new(0));
            let times = Arc::clone(&asked);
            let client = service_fn(move |item: String| {
                let answer = match times.fetch_add(1, Ordering::Relaxed) {
                    0 if is_busy => Reply::Busy,
                    0 => Reply::ReadOnly,
                    _ => Reply::Value(item),
                };
                async { Ok::<_, BoxError>(answer) }
            });
            let cache = cache().unwrap().wrap(client);
            let call = tokio::spawn(async move { cache.send("bolts".into()).await });
            let answer = call.await.unwrap();
            assert!(matches!(answer, Ok(Reply::Value(item)) if item == "bolts"));
            assert_eq!(asked.load(Ordering::Relaxed), 2);
        }
    }
}

/// Calls through a closure with a boxed error, and through a box, in handlers of axum.
mod a_handler {
    use ::axum::Router;
    use ::axum::extract::State;
    use ::axum::routing::get;
    use buttress::stack::StandardService;
    use buttress::{BoxError, Error, Outcome, classify_fn, standard};
    use tower::service_fn;
    use tower::util::BoxCloneSyncService;

    type Stock = BoxCloneSyncService<&'static str, usize, BoxError>;

    async fn in_state(State(stock): State<StandardService<Stock>>) -> Result<String, String> {
        let stock = stock.send("bolts").await;
        stock
            .map(|count| count.to_string())
            .map_err(|error| format!("{error:#}"))
    }

    #[tokio::test]
    async fn calls_services_of_any_type() {
        let classify = classify_fn(|result: Result<&usize, &Error>| match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Failure,
        });
        let client = service_fn(|item: &'static str| async { Ok::<_, BoxError>(item.len()) });
        let stack = || standard("stock").unlimited();
        let closures = stack().classify(classify).build().unwrap().wrap(client);
        let boxed = stack().build().unwrap().wrap(Stock::new(client));
        let captured = get(move || async move {
            let count = closures.send("nuts").await;
            count
                .map(|count| count.to_string())
                .map_err(|error| error.to_string())
        });
        let app = Router::new()
            .route("/captured", captured)
            .route("/state", get(in_state).with_state(boxed));
        let address = super::serve(app).await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        for (path, count) in [("captured", "4"), ("state", "5")] {
            let answer = client.get(format!("http://{address}/{path}")).send().await;
            assert_eq!(answer.unwrap().text().await.unwrap(), count);
        }
    }
}
