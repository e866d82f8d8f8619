//! A small shop under load, once with a bare HTTP client and once with buttress around it.
//!
//! ```sh
//! cargo run --release --example quickstart             # 25 s
//! cargo run --release --example quickstart -- --quick  # 6 s
//! ```
//!
//! Each order reserves goods at `stock` and pays at `payments`. Both are real servers on loopback. `stock` stays
//! healthy while `payments` has every kind of fault. Two shops get the same orders at the same times, each with servers
//! of its own. They differ only in `protect`, right below. All printed numbers are measured.

mod column;
mod metrics;
mod options;
mod progress;
mod reasons;
mod report;
mod script;
mod server;
mod shop;
mod verdict;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use buttress::{ConfigError, Error, Outcome, Rate, classify_fn, standard};
use bytes::Bytes;
use http::StatusCode;
use http::header::RETRY_AFTER;
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tower::BoxError;

use column::Column;
use metrics::Metrics;
use options::Options;
use report::Report;
use script::{Contract, Customer, PAYMENTS, STOCK, Script};
use server::Server;
use shop::{Client, Records, Shop};

type Request = http::Request<Full<Bytes>>;
type Response = http::Response<Incoming>;

/// Wraps a client of the server `name`. This is all that there is to copy: the client may be any
/// service that takes such requests and is `Clone`.
///
/// Each server gets a stack of its own, so that trouble at one does not stop the calls to another.
fn protect(
    name: &str,
    contract: Contract,
    client: impl Client,
) -> Result<impl Client, ConfigError> {
    // All layers judge by the same rule.
    let classify = classify_fn(|result: Result<&Response, &Error>| match result {
        Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => Outcome::Throttled {
            retry_after: retry_after(response),
        },
        Ok(response) if !response.status().is_server_error() => Outcome::Success,
        _ => Outcome::Failure,
    });
    // A payment that we gave up on may have been made all the same. So nothing is sent again unless
    // it carries a key by which the server recognises it.
    let if_recognised = |request: &Request| {
        let has_key = request.headers().contains_key("idempotency-key");
        has_key.then(|| request.clone())
    };
    let stack = standard(name)
        .classify(classify)
        .replay(if_recognised)
        .one_quota() // the contract is with the shop, not with its customers
        .deadline(Duration::from_millis(900)) // the whole answer, all attempts together
        .timeout(Duration::from_millis(250)) // each attempt
        // A payment that takes longer than nearly all others is sent once more.
        .hedge(|hedge| hedge)
        // When it is open, one request finds out every quarter of a second whether the server is back.
        .circuit_breaker(|breaker| breaker.fail_fast().open_for(Duration::from_millis(250)))
        // Not more than agreed: a crowd waits for a moment.
        .rate_limit(Rate::per_second(contract.per_second), |limit| {
            limit.burst(10).max_wait(Duration::from_millis(300))
        })
        // A slow server gets no more than it can work off. The queue holds a burst.
        .bulkhead(contract.at_once, |bulkhead| bulkhead.queue(20));
    Ok(stack.build()?.wrap(client))
}

/// For how many seconds the server asks us to stay away.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => return print(options::USAGE),
        Err(wrong) => {
            eprint!("{wrong}\n\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    let report = match play(&options).await {
        Ok(report) => report,
        Err(error) => {
            eprintln!("the play could not be performed: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut text = report.to_string();
    if options.metrics {
        text.push('\n');
        text.push_str(&report.metrics());
    }
    let printed = print(&text);
    match report.verdict() {
        Ok(()) => printed,
        Err(complaint) => {
            eprintln!("this run is not sane: {complaint}");
            ExitCode::FAILURE
        }
    }
}

/// Performs the play with both shops at the same time: whatever else the machine is busy with hits
/// both of them.
async fn play(options: &Options) -> Result<Report, BoxError> {
    let metrics = Metrics::install()?;
    let script = Arc::new(Script::new(options.quick));

    let mut bare = World::open(options.seed).await?;
    let bare_shop = bare.shop(shop::client(), shop::client())?;

    let mut protected = World::open(options.seed).await?;
    let client = |name, contract| protect(name, contract, shop::client());
    let protected_shop = protected.shop(client("stock", STOCK)?, client("payments", PAYMENTS)?)?;

    let start = Instant::now();
    let progress = tokio::spawn(progress::show(
        start,
        Arc::clone(&script),
        [
            ("bare", Arc::clone(&bare.records)),
            ("protected", Arc::clone(&protected.records)),
        ],
    ));
    let customers = script.customers(options.seed);
    let shops = (Arc::clone(&bare_shop), Arc::clone(&protected_shop));
    let served = tokio::spawn(serve(start, customers, shops));
    let end = script.phases.last().map_or(start, |last| start + last.ends);
    let lateness = tokio::spawn(lateness(end));
    // The metrics at the beginning of each phase, and at the end.
    let mut metrics_at = Vec::new();
    for (number, phase) in script.phases.iter().enumerate() {
        sleep_until(start + phase.starts).await;
        metrics_at.push(metrics.snapshot());
        for world in [&mut bare, &mut protected] {
            world.payments.turn(phase.health).await?;
            world.records.turn(number);
        }
    }
    served.await?;
    let lateness = lateness.await?;
    progress.abort();
    // That it was cancelled is known.
    drop(progress.await);
    progress::clear();

    let bare = bare.column().await;
    let protected = protected.column().await;
    metrics_at.push(metrics.snapshot());
    // Not sooner: a gauge shows only what there is.
    drop((bare_shop, protected_shop));
    Ok(Report::new(script, [bare, protected], metrics_at, lateness))
}

/// One shop and its servers.
struct World {
    stock: Server,
    payments: Server,
    records: Arc<Records>,
}

impl World {
    async fn open(seed: u64) -> io::Result<Self> {
        Ok(Self {
            stock: Server::open(seed, STOCK).await?,
            payments: Server::open(seed.wrapping_add(1), PAYMENTS).await?,
            records: Arc::new(Records::default()),
        })
    }

    fn shop<C: Client>(&self, stock: C, payments: C) -> Result<Arc<Shop<C>>, BoxError> {
        let stock = (stock, self.stock.address());
        let payments = (payments, self.payments.address());
        Ok(Arc::new(Shop::new(stock, payments, &self.records)?))
    }

    async fn column(&self) -> Column {
        let payments = self.payments.audit().await;
        Column::new(self.records.samples().clone(), &payments)
    }
}

/// Sends every customer to both shops, and waits until the last one has left.
async fn serve(
    start: Instant,
    customers: Vec<Customer>,
    (bare, protected): (Arc<Shop<impl Client>>, Arc<Shop<impl Client>>),
) {
    let mut served = JoinSet::new();
    for customer in customers {
        sleep_until(start + customer.comes).await;
        served.spawn(Arc::clone(&bare).serve(customer));
        served.spawn(Arc::clone(&protected).serve(customer));
    }
    while served.join_next().await.is_some() {}
}

/// Delay of timers because the machine is busy: for half a second, one timer in ten was later than that.
async fn lateness(end: Instant) -> Duration {
    let mut late = Vec::new();
    let mut now = Instant::now();
    while now < end {
        let due = now + Duration::from_millis(10);
        sleep_until(due).await;
        now = Instant::now();
        late.push(now - due);
    }
    let windows = late.chunks(50);
    let delays = windows.map(|window| column::quantile(window.to_vec(), 0.9));
    delays.max().unwrap_or_default()
}

fn print(text: &str) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()) {
        // A reader that has seen enough is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
