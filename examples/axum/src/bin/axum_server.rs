//! An axum server in one expression. It inherits the deadlines of its callers, limits each tenant and all tenants
//! together, answers refusals in HTTP (429 or 503 with `Retry-After`, 504, 408), and drains when it is told to stop.
//!
//! `cargo run --package example-axum --bin axum_server`

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::routing::{get, post};
use buttress::http::server::Handle;
use buttress::{BoxError, Deadline, Rate, RateLimitLayer};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);

type Hyper = legacy::Client<HttpConnector, Empty<Bytes>>;
type Warehouse = buttress::http::Client<buttress::hyper::Client<Hyper>>;

fn hyper() -> Hyper {
    legacy::Client::builder(TokioExecutor::new()).build_http()
}

fn tenant(request: &Request<Body>) -> String {
    let tenant = request.headers().get("x-tenant");
    let tenant = tenant.and_then(|tenant| tenant.to_str().ok());
    tenant.unwrap_or("anybody").to_owned()
}

/// The recipe. axum wraps each route in the layer. All routes share its limits and its drain.
fn shop(warehouse: SocketAddr) -> Result<(Router, Handle), BoxError> {
    let protect = buttress::http::server("shop")
        .deadline(2_000 * MS) // no caller holds a permit for longer, whatever its header says
        .bulkhead(4, |all| {
            all.queue(4)
                .queue_wait(1_000 * MS)
                .overloaded_wait(1_000 * MS)
        })
        .keyed(
            tenant,
            RateLimitLayer::config("tenants", Rate::per_second(1)).burst(5),
        )
        .request_body(|body| body.idle(200 * MS)) // shorter than the default, because this is a demonstration
        .build()?;
    let (handle, ready) = (protect.handle(), protect.handle());
    let client = buttress::http::client("warehouse") // tells the warehouse how much time is left
        .concurrency_limit(50)
        .wrap(buttress::hyper::Client::new(hyper()))?;
    let router = Router::new()
        .route("/stock", get(stock))
        .route("/report", get(report))
        .route("/orders", post(async |order: Bytes| order))
        .layer(protect)
        .route("/ready", get(async move || readiness(&ready))) // not under the layer
        .with_state((client, warehouse));
    Ok((router, handle))
}

fn readiness(shop: &Handle) -> StatusCode {
    if shop.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// Serves until `stop` completes, then finishes the calls in flight. Returns whether all calls ended in time.
async fn open(
    (router, handle): (Router, Handle),
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(SocketAddr, JoinHandle<bool>), io::Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let server = axum::serve(listener, router).with_graceful_shutdown(handle.drained());
    let within = Duration::from_secs(20);
    let task = tokio::spawn(async move { handle.run_until(stop, within, server).await.is_some() });
    Ok((address, task))
}

/// Returns the milliseconds that are left for a handler.
fn left() -> u128 {
    Deadline::current().map_or(u128::MAX, |deadline| deadline.remaining().as_millis())
}

/// The service that the handlers call.
fn warehouse() -> Result<(Router, Handle), BoxError> {
    let protect = buttress::http::server("stores").unlimited().build()?; // at most 60 s
    let handle = protect.handle();
    let router = Router::new().route("/stock", get(async || left().to_string()));
    Ok((router.layer(protect), handle))
}

/// Answers with the milliseconds that were left here and in the inner service.
async fn stock(
    State((client, warehouse)): State<(Warehouse, SocketAddr)>,
) -> Result<String, StatusCode> {
    let own = left();
    sleep(20 * MS).await;
    let request = Request::get(format!("http://{warehouse}/stock")).body(Empty::new());
    let request = request.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let theirs = client.send(request).await;
    let theirs = theirs.map_err(|_| StatusCode::BAD_GATEWAY)?.into_body();
    let theirs = theirs
        .collect()
        .await
        .map_err(|_| StatusCode::BAD_GATEWAY)?;
    Ok(format!(
        "{own} {}",
        String::from_utf8_lossy(&theirs.to_bytes())
    ))
}

async fn report() -> &'static str {
    sleep(300 * MS).await;
    "all sold"
}

/// Sends a request whose caller waits for this number of milliseconds. Returns status, `Retry-After` and text of the
/// answer.
async fn ask(
    client: Hyper,
    shop: SocketAddr,
    path: &str,
    tenant: &str,
    wait: &str,
) -> Result<(u16, Option<u64>, String), BoxError> {
    let request = Request::get(format!("http://{shop}{path}"))
        .header("x-tenant", tenant)
        .header("x-request-timeout-ms", wait);
    let response = client.request(request.body(Empty::new())?).await?;
    let status = response.status().as_u16();
    let retry_after = match response.headers().get("retry-after") {
        Some(seconds) => Some(seconds.to_str()?.parse()?),
        None => None,
    };
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, retry_after, String::from_utf8(body.to_vec())?))
}

/// Sends 12 requests at once, each for the tenant that `tenant` names. Counts the answers by status and `Retry-After`.
async fn burst(
    shop: SocketAddr,
    path: &'static str,
    tenant: impl Fn(usize) -> String,
) -> Result<BTreeMap<(u16, Option<u64>), usize>, BoxError> {
    let client = hyper();
    let mut calls = JoinSet::new();
    for call in 0..12 {
        let (client, tenant) = (client.clone(), tenant(call));
        calls.spawn(async move { ask(client, shop, path, &tenant, "5000").await });
    }
    let mut counts = BTreeMap::new();
    while let Some(answer) = calls.join_next().await {
        let (status, retry_after, _) = answer??;
        *counts.entry((status, retry_after)).or_default() += 1;
    }
    for ((status, retry_after), count) in &counts {
        let hint = retry_after.map(|seconds| format!(", Retry-After: {seconds}"));
        println!("  {count:2} x {status}{}", hint.unwrap_or_default());
    }
    Ok(counts)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (warehouse, _) = open(warehouse()?, std::future::pending()).await?;
    let (router, handle) = shop(warehouse)?;
    let (signal, stopped) = oneshot::channel();
    let stopped = async { stopped.await.unwrap_or_default() }; // in place of SIGTERM
    let (shop, task) = open((router, handle.clone()), stopped).await?;

    println!("a caller that waits for one second");
    let (status, _, text) = ask(hyper(), shop, "/stock", "ant", "1000").await?;
    let (own, theirs) = text.split_once(' ').ok_or("no answer")?;
    println!("  {status}: the shop had {own} ms, and {theirs} ms were left for the warehouse");
    let (own, theirs): (u64, u64) = (own.parse()?, theirs.parse()?);
    assert!(own <= 1_000 && theirs <= own - 20);

    println!("a tenant that asks 12 times at once");
    let counts = burst(shop, "/stock", |_| "bee".into()).await?;
    let is_told =
        |(status, retry_after): &(u16, Option<u64>)| *status == 429 && retry_after.is_some();
    assert!(counts.keys().any(is_told));

    println!("12 tenants that ask for a long report at once");
    let counts = burst(shop, "/report", |call| format!("tenant {call}")).await?;
    // Four calls run at a time, and four more wait.
    let (served, refused) = (counts.get(&(200, None)), counts.get(&(503, Some(1))));
    assert_eq!((served, refused), (Some(&8), Some(&4)));

    println!("a caller of the report that waits for 100 ms only, and says so");
    let began = Instant::now();
    let (status, ..) = ask(hyper(), shop, "/report", "cow", "100").await?;
    println!("  {status} after {} ms", began.elapsed().as_millis());
    assert_eq!(status, 504);
    assert!(began.elapsed() < 290 * MS);

    println!("a caller that sends a part of an order, and then nothing more");
    let mut stream = TcpStream::connect(shop).await?;
    let part = "POST /orders HTTP/1.1\r\nhost: shop\r\ncontent-length: 1000\r\n\r\n12 bolts";
    stream.write_all(part.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    println!("  {}", answer.lines().next().unwrap_or_default());
    assert!(answer.starts_with("HTTP/1.1 408 "));

    println!("the shop is told to stop while a report is being written");
    let call = tokio::spawn(ask(hyper(), shop, "/report", "dog", "5000"));
    sleep(100 * MS).await;
    drop(signal);
    sleep(10 * MS).await;
    let (ready, ..) = ask(hyper(), shop, "/ready", "", "5000").await?;
    let (refused, ..) = ask(hyper(), shop, "/stock", "eel", "5000").await?;
    let (status, _, text) = call.await??;
    println!("  ready: {ready}, a new call: {refused}, the report: {status} {text:?}");
    assert_eq!((ready, refused, status), (503, 503, 200));
    assert!(task.await?, "ends by itself");
    assert_eq!(handle.in_flight(), 0);
    Ok(())
}
