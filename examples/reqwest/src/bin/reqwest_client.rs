//! A whole client for reqwest: retries, a deadline, a circuit breaker and a limit around a reqwest client, which keeps
//! its methods and responses.
//!
//! `cargo run --package example-reqwest --bin reqwest_client`

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use buttress::http::HttpReplay;
use buttress::reqwest::Client;
use buttress::{Attempts, BoxError, ConfigError, bulkhead};
use reqwest::header::HeaderName;
use tokio::net::TcpListener;

const MS: Duration = Duration::from_millis(1);
const ATTEMPT: HeaderName = HeaderName::from_static("x-attempt");

/// The recipe.
fn client() -> Result<Client, ConfigError> {
    buttress::reqwest::client("search")
        .timeout(300 * MS) // one attempt, until the head of its answer
        .deadline(2_000 * MS) // the whole answer; the time is sent to the service
        .circuit_breaker(|breaker| breaker.consecutive_failures(9))
        .concurrency_limit(50)
        .replay(HttpReplay::new().attempt_header(ATTEMPT)) // optional: the server sees which attempt it is
        .build(reqwest::Client::builder().no_proxy())
}

/// Calls a service as with reqwest. Also returns the number of attempts.
async fn stock(search: &Client, url: String) -> Result<(String, u32), BoxError> {
    let response = search.get(url).send().await?.error_for_status()?;
    let attempts: Option<&Attempts> = response.extensions().get();
    let made = attempts.map_or(1, |attempts| attempts.made);
    Ok((response.text().await?, made))
}

/// The attempt numbers that each path has received.
type Seen = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

async fn answer(
    State(seen): State<Seen>,
    request: axum::extract::Request,
) -> (StatusCode, &'static str) {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value.map_or("-", |value| value.to_str().unwrap_or("?"))
    };
    let attempt = header("x-attempt");
    let path = request.uri().path();
    println!(
        "  {path}, attempt {attempt}, {} ms are left",
        header("x-request-timeout-ms")
    );
    let mut seen = seen.lock().expect("nobody panics with the lock");
    seen.entry(path.to_owned())
        .or_default()
        .push(attempt.to_owned());
    match (path, attempt) {
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
    let search = client()?;
    let handle = search.handle();
    let url = |path: &str| format!("http://{server}{path}");
    let attempts = |path: &str| {
        let seen = seen.lock().expect("nobody panics with the lock");
        seen.get(path).map_or(0, Vec::len)
    };
    let in_flight = || handle.bulkhead().map(bulkhead::Handle::in_flight);

    println!("GET, first answered with 502");
    let (text, made) = stock(&search, url("/stock")).await?;
    println!("  {text} after {made} attempts");
    assert_eq!((&*text, made, in_flight()), ("12 bolts", 2, Some(0)));

    println!("POST, answered with 502");
    let visit = search.post(url("/visits")).body("1");
    let response = visit.send().await?;
    println!("  {}", response.status());
    assert_eq!(
        (attempts("/visits"), response.status()),
        (1, StatusCode::BAD_GATEWAY)
    );
    drop(response); // holds its permit

    println!("POST with a key, first answered with 502");
    let order = search
        .post(url("/orders"))
        .header("idempotency-key", "8e03978e");
    let response = order.body("12 bolts").send().await?;
    println!("  {}", response.status());
    assert_eq!(
        (attempts("/orders"), response.status()),
        (2, StatusCode::OK)
    );

    println!("POST to a port that refuses the connection");
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await?
        .local_addr()?;
    let error = search
        .post(format!("http://{gone}/"))
        .body("1")
        .send()
        .await
        .expect_err("nobody listens");
    println!("  {error:#}");
    assert_eq!((error.attempts(), error.was_sent()), (Some(3), false));

    println!("GET of what is not there");
    let error = stock(&search, url("/nothing")).await.expect_err("fails");
    println!("  {error}");
    assert_eq!(attempts("/nothing"), 1);

    println!("a service that is down");
    let error = loop {
        match search.get(url("/down")).send().await {
            Ok(response) => println!("  {}", response.status()),
            Err(error) => break error,
        }
    };
    println!("  {error:#}");
    assert!(error.is_rejection());
    assert_eq!(attempts("/down"), 9);
    Ok(())
}
