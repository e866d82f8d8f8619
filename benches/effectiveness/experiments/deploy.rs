//! A rolling deploy: ten endpoints are restarted one after the other, under load.
//!
//! In the first table each endpoint is drained: it leaves the list, finishes its calls, restarts, and is listed again.
//! In the second table it stops abruptly: calls in flight are cut off, further calls are refused until it has
//! restarted, and the list does not change.
//!
//! Not scaled: the stack has its default settings.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    convert::Infallible,
    io,
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use buttress::{Balance, balance::RoundRobin, discover, standard};
use futures_core::Stream;
use rand::{RngExt, rngs::SmallRng};
use tokio::sync::{mpsc, watch};
use tower::{BoxError, Layer, balance::p2c, discover::Change, load::PeakEwma, retry, service_fn};

use super::x6_fails_fast::{Backend, balance, measured, tower_shared};
use crate::harness::{
    Client, Event, Form, Goal, Report, Results, Run, Table, TowerRetry, Variant, World, boxed,
    lock, millis_at, poisson, pool, simulate,
};

const ENDPOINTS: usize = 10;
/// Half of what the endpoints can do.
const RATE: f64 = 1_000.0;
/// Calls that an endpoint works on at a time.
const WORKERS: usize = 4;
/// The mean of the exponential service times.
const SERVICE: Duration = Duration::from_millis(20);
/// One endpoint after the other.
const STEP: Duration = Duration::from_secs(8);
/// From the list to the restart.
const DRAIN: Duration = Duration::from_secs(1);
const RESTART: Duration = Duration::from_secs(3);
/// In which the load of an endpoint is measured.
const WINDOW: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
enum Deploy {
    Drained,
    Abrupt,
}

/// When the deploy of this endpoint begins.
fn begins(endpoint: usize) -> Duration {
    STEP * endpoint as u32 + STEP / 2
}

impl Deploy {
    /// When the endpoint is not listed.
    fn unlisted(self, endpoint: usize) -> Option<Range<Duration>> {
        let begins = begins(endpoint);
        match self {
            Self::Drained => Some(begins..begins + DRAIN + RESTART),
            Self::Abrupt => None,
        }
    }

    /// When the endpoint is down.
    fn down(self, endpoint: usize) -> Range<Duration> {
        let begins = begins(endpoint);
        match self {
            Self::Drained => begins + DRAIN..begins + DRAIN + RESTART,
            Self::Abrupt => begins..begins + RESTART,
        }
    }
}

const OURS: &str = "buttress";
const VARIANTS: [Variant<Protect>; 4] = [
    ("round robin", |world, list| {
        let config = Balance::config(pool()).choose(RoundRobin);
        balance(config.seed(world.seed()).discover(list.ours()))
    }),
    ("tower Balance", |world, list| tower(world, &list)),
    ("… retry", |world, list| {
        let retry = retry::RetryLayer::new(TowerRetry::with_budget(2));
        boxed(retry.layer(tower(world, &list)))
    }),
    (OURS, |world, list| {
        let config = Balance::config(pool()).seed(world.seed());
        let stack = standard("search")
            .timeout(Duration::from_secs(1))
            .deadline(Duration::from_secs(5))
            .concurrency_limit(100)
            .seed(world.seed())
            .build();
        let stack = stack.expect("the configuration is valid");
        boxed(stack.layer(balance(config.discover(list.ours()))))
    }),
];

type Protect = fn(&World, List) -> Client;

/// The endpoints, and which of them are listed.
struct List {
    servers: Vec<Backend>,
    listed: watch::Receiver<Vec<(usize, ())>>,
}

impl List {
    fn ours(self) -> impl discover::Source<Key = usize, Service = Backend> + Send + 'static {
        let servers = self.servers;
        discover::Watch::new(self.listed, move |key: &usize, ()| servers[*key].clone())
    }
}

fn tower(world: &World, list: &List) -> Client {
    let (sender, changes) = mpsc::unbounded_channel();
    let (mut listed, world, servers) = (list.listed.clone(), world.clone(), list.servers.clone());
    let mut known = Vec::new();
    let mut announce = move |listed: &[(usize, ())]| {
        let keys: Vec<_> = listed.iter().map(|(key, ())| *key).collect();
        let added = keys.iter().filter(|key| !known.contains(*key));
        for key in added {
            let endpoint = measured(&world, servers[*key].clone());
            sender.send(Change::Insert(*key, endpoint)).ok();
        }
        for key in known.iter().filter(|key| !keys.contains(key)) {
            sender.send(Change::Remove(*key)).ok();
        }
        known = keys;
    };
    announce(&listed.borrow_and_update());
    tokio::spawn(async move {
        while listed.changed().await.is_ok() {
            announce(&listed.borrow_and_update());
        }
    });
    tower_shared(p2c::Balance::new(Changes(changes)))
}

/// What tower's balancer discovers.
struct Changes(mpsc::UnboundedReceiver<Change<usize, PeakEwma<Backend>>>);

impl Stream for Changes {
    type Item = Result<Change<usize, PeakEwma<Backend>>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|change| change.map(Ok))
    }
}

pub(crate) fn run(form: Form) -> Report {
    // The short form runs the last one.
    let variants = &VARIANTS[form.pick(3, 0)..];
    let table = |deploy: Deploy| {
        let endpoints = form.pick(4, ENDPOINTS);
        let results = Results::new(variants, form.pick(1, 10), |protect, seed| {
            simulate_deploy(seed, deploy, endpoints, *protect).outcome
        });
        let mut table = Table::new(form, variants);
        table
            .row(
                match deploy {
                    Deploy::Drained => "drained: failed requests",
                    Deploy::Abrupt => "abrupt: failed requests",
                },
                1,
                results.cells(|outcome| outcome.failed),
            )
            .row("… at most", 0, results.greatest(|outcome| outcome.failed))
            .goal(OURS, Goal::AtMost(0.0))
            .row(
                "greatest load in a second, × fair share",
                2,
                results.greatest(|outcome| outcome.greatest_load),
            )
            .goal(OURS, Goal::AtMost(2.0))
            .row(
                "attempts per request",
                4,
                results.cells(|outcome| outcome.attempts),
            )
            .row("p50, ms", 0, results.cells(|outcome| outcome.latency(0.5)))
            .row("p99, ms", 0, results.cells(|outcome| outcome.latency(0.99)))
            .row(
                "p99.9, ms",
                0,
                results.cells(|outcome| outcome.latency(0.999)),
            )
            .repeats(|seed| simulate_deploy(seed, deploy, 1, VARIANTS[3].1).log);
        table
    };
    let tables = vec![table(Deploy::Drained), table(Deploy::Abrupt)];
    Report::new("Rolling deploy", tables)
}

struct Outcome {
    failed: f64,
    /// The greatest load of an endpoint in a window, as a multiple of what each of them would have.
    greatest_load: f64,
    /// Attempts per request.
    attempts: f64,
    /// Of the requests that succeeded, in order.
    latencies: Vec<Duration>,
}

impl Outcome {
    fn latency(&self, rank: f64) -> f64 {
        millis_at(rank, &self.latencies)
    }
}

/// What each endpoint got in each window.
type Loads = Arc<Mutex<Vec<[u32; ENDPOINTS]>>>;

/// Deploys so many of the endpoints.
fn simulate_deploy(seed: u64, deploy: Deploy, endpoints: usize, protect: Protect) -> Run<Outcome> {
    // Just before the next one would go.
    let until = STEP * endpoints as u32 + STEP / 2;
    simulate(1, seed, async |world| {
        let loads = Loads::default();
        let servers = (0..ENDPOINTS).map(|n| server(world, deploy, n, &loads));
        let all: Vec<_> = (0..ENDPOINTS).map(|key| (key, ())).collect();
        let (sender, listed) = watch::channel(all.clone());
        let list = List {
            servers: servers.collect(),
            listed,
        };
        let client = protect(world, list);
        let timetable = timetable(deploy, endpoints);
        let clock = world.clone();
        tokio::spawn(async move {
            for (at, without) in timetable {
                clock.sleep_until(at).await;
                let mut list = all.clone();
                list.retain(|(key, ())| Some(*key) != without);
                sender.send_replace(list);
            }
            // The list is not over.
            std::future::pending::<()>().await;
            drop(sender);
        });
        let history = Arc::new(Mutex::new((0_u32, Vec::new())));
        let mut requests = 0.0;
        for at in poisson(world.random(), RATE, until) {
            world.sleep_until(at).await;
            requests += 1.0;
            let (history, ended) = (Arc::clone(&history), world.clone());
            let done = move |answer: Result<(), BoxError>| {
                let mut history = lock(&history);
                match answer {
                    Ok(()) => history.1.push(ended.now().saturating_sub(at)),
                    Err(_) => history.0 += 1,
                }
            };
            world.begin(&client, done).await;
        }
        world.sleep(Duration::from_secs(5)).await;
        let (failed, mut latencies) = std::mem::take(&mut *lock(&history));
        latencies.sort_unstable();
        let loads = lock(&loads);
        let whole = (until.as_secs() / WINDOW.as_secs()) as usize;
        let greatest = loads[..whole].iter().map(|window| {
            let all: u32 = window.iter().sum();
            let most = window.iter().max().copied().unwrap_or(0);
            f64::from(most) * ENDPOINTS as f64 / f64::from(all)
        });
        let attempts: u32 = loads.iter().flatten().sum();
        Outcome {
            failed: f64::from(failed),
            greatest_load: greatest.fold(0.0, f64::max),
            attempts: f64::from(attempts) / requests,
            latencies,
        }
    })
}

/// When the list changes, and which endpoint is not in it from then on.
fn timetable(deploy: Deploy, endpoints: usize) -> Vec<(Duration, Option<usize>)> {
    let unlisted = (0..endpoints).filter_map(|n| Some((n, deploy.unlisted(n)?)));
    let changes = unlisted.flat_map(|(n, when)| [(when.start, Some(n)), (when.end, None)]);
    changes.collect()
}

/// A first-in-first-out queue before a few workers, which is down for a while.
fn server(world: &World, deploy: Deploy, n: usize, loads: &Loads) -> Backend {
    let (world, loads, down) = (world.clone(), Arc::clone(loads), deploy.down(n));
    let free_at: BinaryHeap<_> = vec![Reverse(Duration::ZERO); WORKERS].into();
    let queue = Arc::new(Mutex::new((free_at, world.random())));
    Backend::new(service_fn(move |()| {
        let now = world.now();
        world.record(&Event::Attempt);
        let window = (now.as_nanos() / WINDOW.as_nanos()) as usize;
        {
            let mut loads = lock(&loads);
            if loads.len() <= window {
                loads.resize(window + 1, [0; ENDPOINTS]);
            }
            loads[window][n] += 1;
        }
        let is_down = down.contains(&now);
        let done = (!is_down).then(|| work(&mut lock(&queue), now));
        let (world, closes) = (world.clone(), down.start);
        async move {
            let Some(done) = done else {
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
            };
            if now < closes && closes < done {
                world.sleep_until(closes).await;
                return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
            }
            world.sleep_until(done).await;
            Ok(())
        }
    }))
}

/// When a call that comes now is done.
fn work(
    (free_at, random): &mut (BinaryHeap<Reverse<Duration>>, SmallRng),
    now: Duration,
) -> Duration {
    let work = SERVICE.mul_f64(-(1.0 - random.random::<f64>()).ln());
    let mut next = free_at.peek_mut().expect("a queue has a worker");
    next.0 = now.max(next.0) + work;
    next.0
}
