//! Active and standby: three primaries and two standbys. The primaries are killed one after the other and started
//! again, while calls go on. The standbys take the calls that the primaries cannot take, until the primaries have
//! recovered.
//!
//! `cargo run --example failover`

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use buttress::balance::{Ask, Endpoint, Failover, Handle, HealthCheck};
use buttress::{Balance, BoxError, standard};
use bytes::Bytes;
use http::{Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::server::conn::http1;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tower::service_fn;
use tower::util::BoxCloneSyncService;

const MS: Duration = Duration::from_millis(1);
const PRIMARIES: usize = 3;
const SERVERS: usize = 5;
const CALLS_PER_SECOND: u32 = 400;
/// Length of the demonstration in half seconds.
const STEPS: usize = 18;

/// Answers with the number of the server.
type Server = BoxCloneSyncService<(), usize, BoxError>;

/// Serves until the task is aborted, which closes the port and all connections.
fn serve(listener: TcpListener) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let serve = hyper::service::service_fn(|_| async {
                sleep(5 * MS).await;
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            });
            connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
        }
    })
}

/// Makes a client of one server.
fn client(server: usize, address: SocketAddr) -> Result<Server, BoxError> {
    let http = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let uri: Uri = format!("http://{address}/").parse()?;
    Ok(Server::new(service_fn(move |()| {
        let answer = http.get(uri.clone());
        async move {
            answer.await?.into_body().collect().await?;
            Ok(server)
        }
    })))
}

/// Results of the calls since the last report.
#[derive(Default)]
struct Tally {
    answers: [AtomicU32; SERVERS],
    failed: AtomicU32,
}

/// Makes a call every few milliseconds for `time`, each in its own task.
async fn load(service: impl Fn() -> JoinHandle<()>, time: Duration) {
    let end = Instant::now() + time;
    let mut calls = Vec::new();
    let mut ticks = interval(Duration::from_secs(1) / CALLS_PER_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while ticks.tick().await < end {
        calls.push(service());
    }
    for call in calls {
        // Passes on a panic in a call.
        call.await.expect("calls do not panic");
    }
}

/// Prints each server's share of the calls in the last half second, and returns these percentages.
fn report(step: usize, event: &str, tally: &Tally, handle: &Handle<Server>) -> [f64; SERVERS] {
    let answers = tally.answers.each_ref();
    let answers = answers.map(|answers| f64::from(answers.swap(0, Ordering::Relaxed)));
    let sum: f64 = answers.iter().sum::<f64>().max(1.0);
    let shares = answers.map(|answers| 100.0 * answers / sum);
    print!("{:4.1} s     ", step as f64 / 2.0);
    for (server, share) in shares.iter().enumerate() {
        let gap = if server == PRIMARIES { "     " } else { "" };
        print!("{gap}{share:4.0} %");
    }
    let planned = handle.groups().into_iter().map(|group| 100.0 * group.share);
    let planned: Vec<_> = planned.map(|share| format!("{share:.0}")).collect();
    println!("   {:8} {event}", planned.join(" : "));
    shares
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (mut servers, mut addresses, mut endpoints) = (Vec::new(), Vec::new(), Vec::new());
    for server in 0..SERVERS {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        servers.push(serve(listener));
        addresses.push(address);
        let priority = u8::from(server >= PRIMARIES);
        endpoints.push(Endpoint::new(address, client(server, address)?).priority(priority));
    }

    // The recipe. Health checks notice a dead group. The times are shorter than the defaults for this demonstration.
    let balance = Balance::config("search")
        .failover(
            Failover::new()
                .failback_delay(1_000 * MS)
                .failback_ramp(1_500 * MS),
        )
        .slow_start(500 * MS)
        .build(endpoints)?
        .check_health(
            HealthCheck::new(Ask::new(|| ()))
                .interval(100 * MS)
                .timeout(500 * MS)
                .fall(2),
        )?;
    let handle = balance.handle();
    let stack = standard("search")
        .timeout(1_000 * MS)
        .deadline(3_000 * MS)
        .concurrency_limit(200)
        .build()?;
    let service = stack.wrap(balance);

    let tally = Arc::new(Tally::default());
    let calls = tokio::spawn(load(
        {
            let tally = Arc::clone(&tally);
            move || {
                let (service, tally) = (service.clone(), Arc::clone(&tally));
                tokio::spawn(async move {
                    let tally = match service.send(()).await {
                        Ok(server) => &tally.answers[server],
                        Err(error) => {
                            println!("failed: {error:#}");
                            &tally.failed
                        }
                    };
                    tally.fetch_add(1, Ordering::Relaxed);
                })
            }
        },
        STEPS as u32 * 500 * MS,
    ));

    println!("           primaries              standbys       planned");
    let mut primary = Vec::new();
    for step in 0..STEPS {
        let mut event = "";
        if let Some(victim) = [2, 4, 6].into_iter().position(|at| at == step) {
            servers[victim].abort();
            event = "a primary is killed";
        }
        if step == 8 {
            event = "all are started again";
            for (server, address) in servers.iter_mut().zip(&addresses).take(PRIMARIES) {
                *server = serve(TcpListener::bind(address).await?);
            }
        }
        sleep(500 * MS).await;
        let shares = report(step, event, &tally, &handle);
        primary.push(shares[..PRIMARIES].iter().sum::<f64>());
    }
    calls.await?;

    let failed = tally.failed.load(Ordering::Relaxed);
    println!("{failed} calls failed");
    assert_eq!(failed, 0, "retries go to an endpoint that works");
    assert!(
        primary[..2].iter().all(|share| *share > 99.9),
        "all are well"
    );
    assert!(
        primary[5] > 20.0 && primary[5] < 75.0,
        "one of three is left"
    );
    assert!(primary[7] < 0.1, "the standbys have all");
    assert!(primary[9] < 50.0, "not back at once");
    assert!(primary[STEPS - 2] > 99.9, "fail-back");
    Ok(())
}
