//! A reqwest client behind the standard stack for HTTP: requests are copied with `try_clone`, classified by status, and
//! over at the end of the body.
//!
//! `cargo run --package example-reqwest --bin reqwest_client`

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use buttress::http::{BodyTimeoutLayer, PropagateDeadlineLayer, is_idempotent};
use buttress::stack::Handle;
use buttress::{BoxError, Error, Replay, bulkhead};
use reqwest::{Request, Response};
use tokio::net::TcpListener;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};

const MS: Duration = Duration::from_millis(1);

/// Which requests are sent again, and how they are copied.
#[derive(Clone)]
struct TryClone;

impl Replay<Request> for TryClone {
    fn copy(&self, request: &Request) -> Option<Request> {
        request.try_clone() // `None` for a body that is streamed
    }

    fn is_idempotent(&self, request: &Request) -> bool {
        is_idempotent(request.method(), request.headers())
    }

    fn set_attempt(&self, request: &mut Request, attempt: u32) {
        request.headers_mut().insert("x-attempt", attempt.into());
    }
}

/// Takes and gives what reqwest does. Boxed, which makes it a type that can be written.
type Client = BoxCloneSyncService<Request, Response, Error>;

/// The recipe.
fn client() -> Result<(Client, Handle), BoxError> {
    let stack = buttress::http::standard("search")
        .replay(TryClone)
        .timeout(300 * MS)
        .deadline(2_000 * MS) // the whole answer
        .circuit_breaker(|breaker| breaker.consecutive_failures(9))
        .concurrency_limit(50)
        .build()?;
    let deadline = PropagateDeadlineLayer::config("search")
        .headers(Request::headers_mut)
        .build()?;
    let client = ServiceBuilder::new()
        // reqwest's response again, with `text`, `chunk` and so on. It carries the permit.
        .map_response(|response: http::Response<_>| {
            Response::from(response.map(reqwest::Body::wrap))
        })
        .layer(stack.clone())
        .layer(BodyTimeoutLayer::new("search")) // ends a body that is silent for 30 s
        .layer(deadline)
        .map_response(http::Response::<reqwest::Body>::from) // has a status and a body to look at
        .service(buttress::reqwest::Client::build(
            reqwest::Client::builder().no_proxy(),
        )?); // says whether a request was sent
    Ok((Client::new(client), stack.handle()))
}

/// Numbers of the attempts that each path was sent.
type Seen = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

async fn answer(
    State(seen): State<Seen>,
    request: axum::extract::Request,
) -> (StatusCode, &'static str) {
    let attempt = request.headers().get("x-attempt");
    let attempt = attempt.and_then(|attempt| attempt.to_str().ok());
    let attempt = attempt.unwrap_or("-").to_owned();
    let path = request.uri().path().to_owned();
    let mut seen = seen.lock().expect("nobody panics with the lock");
    seen.entry(path.clone()).or_default().push(attempt.clone());
    match (&*path, &*attempt) {
        ("/down", _) => (StatusCode::SERVICE_UNAVAILABLE, ""),
        ("/nothing", _) => (StatusCode::NOT_FOUND, ""),
        (_, "1") => (StatusCode::BAD_GATEWAY, ""),
        _ => (StatusCode::OK, "12 bolts"),
    }
}

async fn open(seen: &Seen) -> Result<SocketAddr, BoxError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let app = Router::new().fallback(answer).with_state(Arc::clone(seen));
    tokio::spawn(async { axum::serve(listener, app).await });
    Ok(address)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let seen = Seen::default();
    let server = open(&seen).await?;
    let (client, handle) = client()?;
    // Only builds requests. Its `send` would go past the stack.
    let build = reqwest::Client::builder().no_proxy().build()?;
    let url = |path: &str| format!("http://{server}{path}");
    let attempts = |path: &str| {
        let seen = seen.lock().expect("nobody panics with the lock");
        let attempts = seen.get(path).cloned().unwrap_or_default();
        println!("  attempts: {}", attempts.join(", "));
        attempts.len()
    };
    let in_flight = || handle.bulkhead().map(bulkhead::Handle::in_flight);

    println!("GET, first answered with 502");
    let request = build.get(url("/stock")).build()?;
    let response = client.clone().oneshot(request).await?;
    assert_eq!(in_flight(), Some(1));
    println!("  {}: {}", response.status(), response.text().await?);
    assert_eq!((attempts("/stock"), in_flight()), (2, Some(0)));

    println!("POST, answered with 502");
    let request = build.post(url("/visits")).body("1").build()?;
    let response = client.clone().oneshot(request).await?;
    println!("  {}", response.status());
    assert_eq!(
        (attempts("/visits"), response.status()),
        (1, StatusCode::BAD_GATEWAY)
    );

    println!("POST with a key, first answered with 502");
    let request = build.post(url("/orders")).body("12 bolts");
    let request = request.header("idempotency-key", "8e03978e").build()?;
    let response = client.clone().oneshot(request).await?;
    println!("  {}", response.status());
    assert_eq!(
        (attempts("/orders"), response.status()),
        (2, StatusCode::OK)
    );

    println!("GET of what is not there");
    let request = build.get(url("/nothing")).build()?;
    let response = client.clone().oneshot(request).await?;
    println!("  {}", response.status());
    assert_eq!(attempts("/nothing"), 1);

    println!("a service that is down");
    let error = loop {
        let request = build.get(url("/down")).build()?;
        match client.clone().oneshot(request).await {
            Ok(response) => println!("  {}", response.status()),
            Err(error) => break error,
        }
    };
    println!("  {error:#}");
    assert!(error.is_rejection());
    assert_eq!(attempts("/down"), 9);
    Ok(())
}
