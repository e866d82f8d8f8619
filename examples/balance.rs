//! Ten servers behind one client: eight healthy servers of unequal speed, one that fails at once, and a slow one.
//! Compares round robin, least loaded of three by calls in flight, and least loaded of three by peak EWMA.
//!
//! `cargo run --example balance`

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use buttress::balance::{Choose, Config, Endpoint, LoadMetric, RoundRobin};
use buttress::{Balance, BoxError, Error, Outcome};
use bytes::Bytes;
use http::{Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::server::conn::http1;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};
use tower::service_fn;
use tower::util::BoxCloneSyncService;

const MS: Duration = Duration::from_millis(1);
const CALLS: usize = 1_000;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Well,
    Fails,
    Slow,
}
use Kind::{Fails, Slow, Well};

/// Number of the server that answered, and its answer.
type Answer = (Kind, StatusCode);
type Server = BoxCloneSyncService<(), Answer, BoxError>;

/// Opens a server on a free port.
async fn open(status: StatusCode, takes: Duration) -> Result<SocketAddr, BoxError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serve = hyper::service::service_fn(move |_| async move {
                sleep(takes).await;
                let mut response = Response::new(Empty::<Bytes>::new());
                *response.status_mut() = status;
                Ok::<_, Infallible>(response)
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), serve);
            tokio::spawn(connection);
        }
    });
    Ok(address)
}

/// Makes a client of one server.
fn client(kind: Kind, address: SocketAddr) -> Result<Server, BoxError> {
    let http = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let uri: Uri = format!("http://{address}/").parse()?;
    Ok(Server::new(service_fn(move |()| {
        let answer = http.get(uri.clone());
        async move {
            let answer = answer.await?;
            let status = answer.status();
            answer.into_body().collect().await?;
            Ok((kind, status))
        }
    })))
}

struct Results {
    /// Percent of the calls that got an answer other than an error.
    success: f64,
    /// Percent of the calls that the two bad servers got.
    bad: f64,
    p99: Duration,
}

/// Makes a call every 2 ms.
async fn run<P>(policy: &str, config: Config<P>, servers: &[Server]) -> Result<Results, BoxError>
where
    P: Choose<()> + Clone + Send + Sync + 'static,
{
    let endpoints = servers.iter().cloned().enumerate();
    let endpoints = endpoints.map(|(key, server)| Endpoint::new(key, server));
    // Without this classifier, only connection errors would be failures.
    let config = config.classify(|result: Result<&Answer, &Error>| match result {
        Ok((_, status)) if !status.is_server_error() => Outcome::Success,
        _ => Outcome::Failure,
    });
    let balance = config.build(endpoints)?;
    let (mut calls, mut ticks) = (JoinSet::new(), interval(2 * MS));
    for _ in 0..CALLS {
        ticks.tick().await;
        let (balance, began) = (balance.clone(), Instant::now());
        calls.spawn(async move { (balance.send(()).await, began.elapsed()) });
    }
    let (mut kinds, mut times, mut good) = (Vec::new(), Vec::new(), 0);
    for (answer, took) in calls.join_all().await {
        let (kind, status) = answer?;
        kinds.push(kind);
        times.push(took);
        good += usize::from(status.is_success());
    }
    times.sort_unstable();
    let percent = |count: usize| 100.0 * count as f64 / CALLS as f64;
    let share = |kind| percent(kinds.iter().filter(|&&of| of == kind).count());
    let (well, fails, slow) = (share(Well), share(Fails), share(Slow));
    let (success, p50, p99) = (percent(good), times[CALLS / 2], times[CALLS * 99 / 100]);
    println!(
        "{policy:15} {well:5.1} % {fails:5.1} % {slow:5.1} % {p50:8.1?} {p99:8.1?} {success:5.1} %"
    );
    let bad = fails + slow;
    Ok(Results { success, bad, p99 })
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut servers = Vec::new();
    for n in 1..=8 {
        servers.push(client(Well, open(StatusCode::OK, n * 3 * MS).await?)?);
    }
    let failing = open(StatusCode::INTERNAL_SERVER_ERROR, MS).await?;
    servers.push(client(Fails, failing)?);
    servers.push(client(Slow, open(StatusCode::OK, 400 * MS).await?)?);

    println!("policy             well   fails    slow      p50      p99 success");
    let config = || Balance::config("search");
    let round_robin = config().choose(RoundRobin);
    let round_robin = run("round robin", round_robin, &servers).await?;
    let in_flight = config().measure(LoadMetric::InFlight);
    run("three, in flight", in_flight, &servers).await?;
    let ewma = run("three, peak EWMA", config(), &servers).await?;
    assert!(ewma.success > round_robin.success && ewma.bad < round_robin.bad / 2.0);
    assert!(ewma.p99 < round_robin.p99);
    Ok(())
}
