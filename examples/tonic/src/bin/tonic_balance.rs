//! Four gRPC servers behind one client: a balancer over tonic channels, with retries to another server. One server is
//! killed and started again while calls go on.
//!
//! `cargo run --package example-tonic --bin tonic_balance`

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use buttress::balance::Endpoint;
use buttress::http::HttpReplay;
use buttress::{BoxError, grpc};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint as Address};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::ServiceExt;

const MS: Duration = Duration::from_millis(1);
const SERVERS: usize = 4;
const VICTIM: usize = 3;
const CALLS_PER_SECOND: u32 = 400;
/// Length of the demonstration in half seconds.
const STEPS: usize = 12;

fn channel(address: SocketAddr) -> Result<Channel, BoxError> {
    // Pings find a connection that has died silently.
    Ok(Address::from_shared(format!("http://{address}"))?
        .http2_keep_alive_interval(10_000 * MS)
        .keep_alive_timeout(2_000 * MS)
        .keep_alive_while_idle(true)
        .connect_lazy())
}

/// The generated client, over the stack and the balancer.
type Client = HealthClient<grpc::Client>;

/// The recipe.
fn client(addresses: &[SocketAddr]) -> Result<Client, BoxError> {
    let mut replicas = Vec::new();
    for address in addresses {
        replicas.push(Endpoint::new(address, channel(*address)?));
    }
    let client = grpc::client("health")
        .replay(HttpReplay::new().idempotent_paths(|path| path.ends_with("/Check")))
        .timeout(500 * MS)
        .deadline(2_000 * MS)
        .concurrency_limit(200)
        // The times are shorter than the defaults for this demonstration.
        .balance(|balance| balance.failure_decay(200 * MS).latency_decay(200 * MS))
        .replicas(replicas)?; // retries go to another one
    Ok(HealthClient::new(client))
}

/// Serves until the task is aborted, which closes the port and all connections.
fn serve(listener: TcpListener, calls: &Arc<AtomicU32>) -> JoinHandle<()> {
    let calls = Arc::clone(calls);
    tokio::spawn(async move {
        let (_reporter, health) = tonic_health::server::health_reporter();
        let health = InterceptedService::new(health, move |request: tonic::Request<()>| {
            calls.fetch_add(1, Ordering::Relaxed);
            Ok(request)
        });
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let health = health.clone();
            let serve = hyper::service::service_fn(move |request: Request<Incoming>| {
                let answer = health.clone().oneshot(request);
                async {
                    sleep(5 * MS).await;
                    answer.await
                }
            });
            let http = http2::Builder::new(TokioExecutor::new());
            connections.spawn(http.serve_connection(TokioIo::new(stream), serve));
        }
    })
}

/// Makes a call every few milliseconds for this time, each in its own task. Returns the number of failed calls.
async fn load(client: Client, time: Duration) -> usize {
    let end = Instant::now() + time;
    let mut calls = JoinSet::new();
    let mut ticks = interval(Duration::from_secs(1) / CALLS_PER_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while ticks.tick().await < end {
        let mut client = client.clone();
        calls.spawn(async move {
            let answer = client.check(HealthCheckRequest::default()).await;
            answer.map_err(|status| println!("failed: {status}"))
        });
    }
    let answers = calls.join_all().await;
    answers.iter().filter(|answer| answer.is_err()).count()
}

/// Prints each server's share of the calls in the last half second, and returns these percentages.
fn report(step: usize, event: &str, calls: &[Arc<AtomicU32>]) -> Vec<f64> {
    let calls = calls.iter();
    let calls: Vec<_> = calls
        .map(|calls| f64::from(calls.swap(0, Ordering::Relaxed)))
        .collect();
    let sum: f64 = calls.iter().sum::<f64>().max(1.0);
    let shares: Vec<_> = calls.iter().map(|calls| 100.0 * calls / sum).collect();
    print!("{:4.1} s", step as f64 / 2.0);
    for share in &shares {
        print!("{share:6.0} %");
    }
    println!("   {event}");
    shares
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (mut servers, mut addresses, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SERVERS {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        addresses.push(listener.local_addr()?);
        let count = Arc::default();
        servers.push(serve(listener, &count));
        calls.push(count);
    }
    let client = client(&addresses)?;
    let load = tokio::spawn(load(client, STEPS as u32 * 500 * MS));

    println!("what each server gets");
    let mut victim = Vec::new();
    for step in 0..STEPS {
        let mut event = "";
        if step == 3 {
            servers[VICTIM].abort();
            event = "one is killed";
        }
        if step == 6 {
            let listener = TcpListener::bind(addresses[VICTIM]).await?;
            servers[VICTIM] = serve(listener, &calls[VICTIM]);
            event = "it is started again";
        }
        sleep(500 * MS).await;
        victim.push(report(step, event, &calls)[VICTIM]);
    }
    let failed = load.await?;
    println!("{failed} calls failed");
    assert_eq!(failed, 0, "retries go to a server that works");
    let mean = |steps: &[f64]| steps.iter().sum::<f64>() / steps.len() as f64;
    assert!(mean(&victim[..3]) > 5.0, "all are well");
    assert!(mean(&victim[4..6]) < 1.0, "it is gone");
    assert!(mean(&victim[STEPS - 4..]) > 5.0, "it is back");
    Ok(())
}
