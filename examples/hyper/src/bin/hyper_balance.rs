//! Three HTTP servers behind one client of hyper-util: a balancer over a changing list of addresses, with retries to
//! another server. One server is killed while calls go on, and another one replaces it in the list.
//!
//! `cargo run --package example-hyper --bin hyper_balance`

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use buttress::discover::Watch;
use buttress::http::{self as resilient, AddOriginLayer};
use buttress::{BoxError, ConfigError, hyper as adapter};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

const MS: Duration = Duration::from_millis(1);
const CALLERS: u32 = 10;
const CALLS_OF_EACH: u32 = 30;

/// A client of the present replicas.
type Search = resilient::Client<adapter::Client<Client<HttpConnector, Full<Bytes>>>>;

/// Addresses by name. A registry, a file or an operator writes the list.
type List = watch::Receiver<Vec<(SocketAddr, SocketAddr)>>;

/// The recipe.
fn search(list: List) -> Result<Search, ConfigError> {
    // With HTTP/2, pings find a connection that has died silently.
    let client = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(Duration::from_secs(10))
        .http2_keep_alive_timeout(Duration::from_secs(2))
        .http2_keep_alive_while_idle(true)
        .build_http();
    resilient::client("search")
        .timeout(500 * MS)
        .deadline(2_000 * MS)
        .concurrency_limit(50)
        // A new replica gets few calls at first. The default of 10 s would be too long for this demonstration.
        .balance(|balance| balance.slow_start(20 * MS))
        // Retries go to another replica.
        .discover(
            adapter::Client::new(client),
            Watch::new(list, |_, address| AddOriginLayer::http(*address)),
        )
}

/// A server, the number of its requests, and the handle that kills it.
struct Server {
    address: SocketAddr,
    calls: Arc<AtomicU32>,
    life: AbortHandle,
}

async fn serve(servers: &mut JoinSet<()>) -> Result<Server, BoxError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (address, calls) = (listener.local_addr()?, Arc::<AtomicU32>::default());
    let seen = Arc::clone(&calls);
    let life = servers.spawn(async move {
        // The connections end with the server, so that clients see them break.
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            let answer = service_fn(move |_| {
                seen.fetch_add(1, Ordering::Relaxed);
                async {
                    sleep(5 * MS).await;
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("12 bolts")))
                }
            });
            let stream = TokioIo::new(stream);
            connections.spawn(http1::Builder::new().serve_connection(stream, answer));
        }
    });
    Ok(Server {
        address,
        calls,
        life,
    })
}

/// Makes calls from several callers at once. Returns the number of failed calls.
async fn load(search: &Search) -> u32 {
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let search = search.clone();
        callers.spawn(async move {
            let mut failed = 0;
            for _ in 0..CALLS_OF_EACH {
                let request = Request::get("/stock").body("");
                let request = request.expect("is valid");
                let answer = search.send(request).await;
                let is_good = match answer {
                    Ok(answer) => answer.into_body().collect().await.is_ok(),
                    Err(error) => {
                        println!("failed: {error:#}");
                        false
                    }
                };
                failed += u32::from(!is_good);
            }
            failed
        });
    }
    callers.join_all().await.iter().sum()
}

/// Prints and returns the number of requests to each server since the last report.
fn report(what: &str, servers: &[&Server], failed: u32) -> Vec<u32> {
    let calls = servers.iter().map(|server| &server.calls);
    let calls: Vec<_> = calls
        .map(|calls| calls.swap(0, Ordering::Relaxed))
        .collect();
    println!("{what:24}{calls:3?}   {failed} failed");
    calls
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut running = JoinSet::new();
    let first = serve(&mut running).await?;
    let second = serve(&mut running).await?;
    let third = serve(&mut running).await?;
    let fourth = serve(&mut running).await?;
    let entry = |server: &Server| (server.address, server.address);
    let (list, replicas) = watch::channel([&first, &second, &third].map(entry).to_vec());
    let search = search(replicas)?;
    let all = [&first, &second, &third, &fourth];

    println!("calls to each server");
    let failed = load(&search).await;
    let calls = report("three servers", &all, failed);
    assert!(calls[..3].iter().all(|calls| *calls > 10) && failed == 0);

    let kill = async {
        while first.calls.load(Ordering::Relaxed) < 5 {
            sleep(MS).await;
        }
        first.life.abort();
    };
    let (failed, ()) = tokio::join!(load(&search), kill);
    let calls = report("the first is killed", &all, failed);
    assert_eq!(failed, 0, "retries go to another server");
    assert!(calls[0] < calls[1] && calls[0] < calls[2]);

    list.send_replace([&second, &third, &fourth].map(entry).to_vec());
    let failed = load(&search).await;
    let calls = report("the fourth replaces it", &all, failed);
    assert!(calls[0] == 0 && calls[3] > 0 && failed == 0);
    Ok(())
}
