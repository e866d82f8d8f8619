//! An axum server that inherits the deadlines of its callers and limits each tenant and all tenants together. It
//! answers a refusal with 429 or 503 and `Retry-After`, and a passed deadline with 504.
//!
//! `cargo run --package example-axum --bin axum_server`

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use buttress::http::{
    BodyTimeoutLayer, InheritDeadlineLayer, PropagateDeadlineLayer, RespondLayer, TimeoutBody,
};
use buttress::{
    BoxError, BulkheadLayer, Deadline, Error, KeyedLayer, Rate, RateLimitLayer, TimeoutLayer,
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt};

const MS: Duration = Duration::from_millis(1);

type Client = BoxCloneSyncService<Request<Empty<Bytes>>, Response<TimeoutBody<Incoming>>, Error>;

fn client() -> Client {
    let http = legacy::Client::builder(TokioExecutor::new()).build_http();
    let client = ServiceBuilder::new()
        .layer(TimeoutLayer::new("shop", 5_000 * MS)) // until the head of the response
        .layer(BodyTimeoutLayer::new("shop")) // for its body
        .layer(PropagateDeadlineLayer::new("shop")) // the deadline in force, as a header
        .service(http);
    Client::new(client)
}

async fn open(router: Router) -> Result<SocketAddr, BoxError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async { axum::serve(listener, router).await });
    Ok(address)
}

/// Milliseconds that a handler may still work.
fn left() -> u128 {
    Deadline::current().map_or(u128::MAX, |deadline| deadline.remaining().as_millis())
}

/// The service behind ours.
fn warehouse() -> Router {
    Router::new()
        .route("/stock", get(async || left().to_string()))
        .layer(
            ServiceBuilder::new()
                .layer(RespondLayer::for_servers())
                .layer(InheritDeadlineLayer::new("warehouse")) // at most 60 s
                .layer(BodyTimeoutLayer::new("warehouse")),
        )
}

/// Answers how many milliseconds were left here, and there.
async fn stock(
    State((client, warehouse)): State<(Client, SocketAddr)>,
) -> Result<String, StatusCode> {
    let own = left();
    sleep(20 * MS).await;
    match ask(client, warehouse, "/stock", "shop").await {
        Ok((200, _, theirs)) => Ok(format!("{own} {theirs}")),
        _ => Err(StatusCode::BAD_GATEWAY),
    }
}

async fn report() -> &'static str {
    sleep(300 * MS).await;
    "all sold"
}

fn tenant(request: &Request<Body>) -> String {
    let tenant = request.headers().get("x-tenant");
    let tenant = tenant.and_then(|tenant| tenant.to_str().ok());
    tenant.unwrap_or("anybody").to_owned()
}

fn shop(warehouse: SocketAddr) -> Result<Router, BoxError> {
    let of_a_tenant = RateLimitLayer::config("tenants", Rate::per_second(1)).burst(5);
    of_a_tenant.clone().build()?;
    let limit = move |_: &String| of_a_tenant.clone().build().expect("has been checked");
    // axum makes a service of each route with these layers. Their state is one.
    let layers = ServiceBuilder::new()
        .layer(RespondLayer::for_servers()) // the layers below fail, a router must not
        .layer(
            // No caller holds a place for longer: neither by its header, nor by a body that drips.
            InheritDeadlineLayer::config("shop")
                .max(2_000 * MS)
                .build()?,
        )
        .layer(KeyedLayer::new("tenants", tenant, limit))
        .layer(
            BulkheadLayer::config("shop", 4)
                .queue(4)
                .queue_wait(1_000 * MS)
                .overloaded_wait(1_000 * MS)
                .build()?,
        )
        .layer(BodyTimeoutLayer::new("shop")); // the body of the response ends at the deadline, too
    Ok(Router::new()
        .route("/stock", get(stock))
        .route("/report", get(report))
        .layer(layers)
        .with_state((client(), warehouse)))
}

/// Sends a request, and returns status, `Retry-After` and text of the answer.
async fn ask(
    client: Client,
    server: SocketAddr,
    path: &str,
    tenant: &str,
) -> Result<(u16, Option<u64>, String), BoxError> {
    let request = Request::get(format!("http://{server}{path}")).header("x-tenant", tenant);
    let response = client.oneshot(request.body(Empty::new())?).await?;
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
    server: SocketAddr,
    path: &'static str,
    tenant: impl Fn(usize) -> String,
) -> Result<BTreeMap<(u16, Option<u64>), usize>, BoxError> {
    let client = client();
    let mut calls = JoinSet::new();
    for call in 0..12 {
        let (client, tenant) = (client.clone(), tenant(call));
        calls.spawn(async move { ask(client, server, path, &tenant).await });
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
    let shop = shop(open(warehouse()).await?)?;
    let shop = open(shop).await?;

    println!("a caller that waits for one second");
    let call = async { ask(client(), shop, "/stock", "ant").await };
    let (status, _, text) = Deadline::after(1_000 * MS).scope(call).await?;
    let (own, theirs) = text.split_once(' ').ok_or("no answer")?;
    println!("  {status}: the shop had {own} ms, and {theirs} ms were left for the warehouse");
    let (own, theirs): (u64, u64) = (own.parse()?, theirs.parse()?);
    assert!(own <= 1_000 && theirs <= own - 20);

    println!("a tenant that asks 12 times at once");
    let counts = burst(shop, "/stock", |_| "bee".into()).await?;
    assert!(
        counts
            .keys()
            .any(|(status, retry_after)| *status == 429 && retry_after.is_some())
    );

    println!("12 tenants that ask for a long report at once");
    let counts = burst(shop, "/report", |call| format!("tenant {call}")).await?;
    // Four at a time, and four more wait.
    assert_eq!(
        (counts.get(&(200, None)), counts.get(&(503, Some(1)))),
        (Some(&8), Some(&4))
    );

    println!("a caller of the report that waits for 100 ms only, and says so");
    let http = legacy::Client::builder(TokioExecutor::new()).build_http();
    let request =
        Request::get(format!("http://{shop}/report")).header("x-request-timeout-ms", "100");
    let began = Instant::now();
    let response = http.request(request.body(Empty::<Bytes>::new())?).await?;
    let took = began.elapsed();
    println!("  {} after {} ms", response.status(), took.as_millis());
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(took < 290 * MS);
    Ok(())
}
