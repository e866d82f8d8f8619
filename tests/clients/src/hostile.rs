//! Callers that do harm, over real sockets and in real time. `tests/hostile` tests the same and more in virtual time.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use buttress::circuit_breaker::State;
use buttress::http::PropagateDeadlineLayer;
use buttress::hyper::Client;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tower::ServiceBuilder;

use crate::callers::{Body, MS, Patience, answer, call_for};

/// A server that answers after 20 ms, and at `/slow` after 500 ms. At `/obeys` it answers 504 when the time is over that the
/// caller has brought.
async fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = async |request: Request<Incoming>| {
        let told = request.headers().get("x-request-timeout-ms");
        let told = told.map(|told| MS * told.to_str().unwrap().parse().unwrap());
        let (time, status) = match (request.uri().path(), told) {
            ("/slow", _) => (500 * MS, 200),
            ("/obeys", Some(told)) if told < 20 * MS => (told, 504),
            _ => (20 * MS, 200),
        };
        sleep(time).await;
        Ok::<_, Infallible>(answer(status))
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let http = http1::Builder::new();
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service_fn(answer)));
        }
    });
    address
}

/// Callers of whom 70 % do harm, for 3 s.
async fn honest_callers_lose_nothing(path: &'static str, patience: Patience) {
    let address = serve().await;
    // A call counts as enough time for the server from a tenth of the timeout on. A busy machine may stand still for longer than
    // a tenth of the default.
    let stack = buttress::http::standard("honest").timeout(Duration::from_secs(5));
    let stack = stack.unlimited().seed(1).build().unwrap();
    let client = legacy::Client::builder(TokioExecutor::new()).build_http::<Body>();
    let client = ServiceBuilder::new()
        .layer(stack.clone())
        .layer(PropagateDeadlineLayer::new("honest"))
        .service(Client::new(client));
    let request = move |path: &str| {
        let request = Request::get(format!("http://{address}{path}"));
        request.body(Body::default()).unwrap()
    };
    let losses = call_for(&client, Duration::from_secs(3), 1, move |draw| {
        if draw < 0.7 {
            (request(path), patience)
        } else {
            (request("/"), Patience::Full)
        }
    });
    let lost = losses.await.percent();
    assert!(lost <= 0.0, "{path}, {patience:?}: {lost} %");
    let breaker = stack.handle().circuit_breaker().unwrap().clone();
    assert_eq!(breaker.state(), State::Closed, "{path}, {patience:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_with_too_little_time_do_not_open_the_breaker_for_others() {
    tokio::join!(
        honest_callers_lose_nothing("/", Patience::Deadline(12 * MS)),
        honest_callers_lose_nothing("/", Patience::Drops(12 * MS)),
        honest_callers_lose_nothing("/obeys", Patience::Deadline(12 * MS)),
        honest_callers_lose_nothing("/slow", Patience::Deadline(100 * MS)),
    );
}
