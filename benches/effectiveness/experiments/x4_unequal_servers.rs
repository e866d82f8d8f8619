//! X4: ten unequal servers.
//!
//! The servers take from 0 to 2 s, constant for each server. The two slowest also fail: two calls in five, and three in
//! five. Fifty workers call one after the other, each at most ten times a second.
//!
//! Not scaled: the layers have their default settings. All times are whole milliseconds anyway.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use buttress::{
    Balance, RetryLayer,
    balance::{OutlierEjection, RoundRobin},
};
use rand::RngExt;
use tower::{Layer, ServiceExt, retry, service_fn};

use super::x6_fails_fast::{Backend, balance, endpoints, tower_balance, tower_in_flight};
use crate::harness::{
    Client, Event, Form, Goal, Report, Results, Run, Table, TowerRetry, Variant, World, boxed,
    lock, millis_at, pool, simulate,
};

/// Milliseconds, and the share of calls that fail.
const SERVERS: [(u64, f32); 10] = [
    (0, 0.0),
    (10, 0.0),
    (20, 0.0),
    (40, 0.0),
    (80, 0.0),
    (160, 0.0),
    (320, 0.0),
    (640, 0.0),
    (1_000, 0.4),
    (2_000, 0.6),
];
const WORKERS: u64 = 50;
/// A worker calls no more often than this.
const PACE: Duration = Duration::from_millis(100);

type Protect = fn(&World, Vec<Backend>) -> Client;

const OURS: &str = "buttress, retry";
const TUNED: &str = "… tuned";
const VARIANTS: [Variant<Protect>; 7] = [
    ("round robin", |world, servers| {
        let config = Balance::config(pool()).choose(RoundRobin);
        let config = config.no_outlier_ejection().seed(world.seed());
        balance(config.build(endpoints(servers)))
    }),
    ("tower, in flight", tower_in_flight),
    ("tower, peak EWMA", tower_balance),
    ("… retry", |world, servers| {
        let retry = retry::RetryLayer::new(TowerRetry::with_budget(2));
        boxed(retry.layer(tower_balance(world, servers)))
    }),
    ("buttress", ours),
    (OURS, |world, servers| retried(world, ours(world, servers))),
    (TUNED, |world, servers| {
        // Servers that fail are found out sooner, and left alone for longer.
        let ejection = OutlierEjection::new().consecutive_failures(3);
        let ejection = ejection.base_ejection_time(Duration::from_secs(60));
        let config = Balance::config(pool()).outlier_ejection(ejection);
        let balancer = balance(config.seed(world.seed()).build(endpoints(servers)));
        retried(world, balancer)
    }),
];

fn ours(world: &World, servers: Vec<Backend>) -> Client {
    let config = Balance::config(pool()).seed(world.seed());
    balance(config.build(endpoints(servers)))
}

fn retried(world: &World, balancer: Client) -> Client {
    let retry = RetryLayer::config("search").seed(world.seed()).build();
    boxed(retry.expect("the configuration is valid").layer(balancer))
}

pub(crate) fn run(form: Form) -> Report {
    let until = Duration::from_secs(form.pick(20, 120));
    // The short form runs the last two.
    let variants = &VARIANTS[form.pick(5, 0)..];
    let results = Results::new(variants, form.pick(2, 10), |protect, seed| {
        simulate_workers(seed, until, *protect).outcome
    });
    let latency = |rank: f64| results.cells(move |outcome| outcome.latency(rank));
    let mut table = Table::new(form, variants);
    table
        .row("requests/s", 1, results.cells(|outcome| outcome.rate))
        .reference("published: round robin 109, linkerd 316; reference 347")
        .goal(OURS, Goal::AtLeast(410.0))
        .goal(TUNED, Goal::AtLeast(410.0))
        .row("p50, ms", 0, latency(0.5))
        .reference("86, 42; 21")
        .row("p95, ms", 0, latency(0.95))
        .reference("1739, 604; 324")
        .goal(OURS, Goal::AtMost(180.0))
        .goal(TUNED, Goal::AtMost(180.0))
        .row("p99, ms", 0, latency(0.99))
        .reference("2100, 734; 652")
        .goal(OURS, Goal::AtMost(340.0))
        .goal(TUNED, Goal::AtMost(340.0))
        .row("success, %", 3, results.cells(|outcome| outcome.success))
        .reference("88.08, 100; 100")
        .goal(OURS, Goal::AtLeast(99.995))
        .goal(TUNED, Goal::AtLeast(99.995))
        .row(
            "attempts per request",
            4,
            results.cells(|outcome| outcome.attempts),
        )
        .reference("reference 1.004")
        .goal(OURS, Goal::AtMost(1.02))
        .goal(TUNED, Goal::AtMost(1.02))
        .repeats(|seed| simulate_workers(seed, Duration::from_secs(5), VARIANTS[5].1).log);
    Report::new("X4 ten unequal servers", vec![table])
}

struct Outcome {
    /// Answers in a second.
    rate: f64,
    /// In percent.
    success: f64,
    /// Attempts per request.
    attempts: f64,
    /// Of all requests, in order.
    latencies: Vec<Duration>,
}

impl Outcome {
    fn latency(&self, rank: f64) -> f64 {
        millis_at(rank, &self.latencies)
    }
}

/// What the workers have seen.
#[derive(Default)]
struct Seen {
    succeeded: u64,
    latencies: Vec<Duration>,
}

fn simulate_workers(seed: u64, until: Duration, protect: Protect) -> Run<Outcome> {
    simulate(1, seed, async |world| {
        let attempts = Arc::new(AtomicU64::new(0));
        let servers = SERVERS.map(|(millis, failing)| server(world, millis, failing, &attempts));
        let client = protect(world, servers.into());
        let history = Arc::new(Mutex::new(Seen::default()));
        for worker in 0..WORKERS {
            let (world, history, client) = (world.clone(), Arc::clone(&history), client.clone());
            let begins = PACE * worker as u32 / WORKERS as u32;
            tokio::spawn(async move {
                world.sleep_until(begins).await;
                work(&world, client, until, &history).await;
            });
        }
        world.sleep_until(until).await;
        let mut history = std::mem::take(&mut *lock(&history));
        history.latencies.sort_unstable();
        let requests = history.latencies.len() as f64;
        Outcome {
            rate: requests / until.as_secs_f64(),
            success: 100.0 * history.succeeded as f64 / requests,
            attempts: attempts.load(Ordering::Relaxed) as f64 / requests,
            latencies: history.latencies,
        }
    })
}

async fn work(world: &World, client: Client, until: Duration, history: &Mutex<Seen>) {
    while world.now() < until {
        let began = world.now();
        let call = client.clone().oneshot(());
        let answer = call.await;
        world.record(if answer.is_ok() {
            &Event::Success
        } else {
            &Event::Failure
        });
        {
            let mut history = lock(history);
            history.succeeded += u64::from(answer.is_ok());
            history.latencies.push(world.now().saturating_sub(began));
        }
        world.sleep_until(began + PACE).await;
    }
}

/// Takes the same time for each call, and fails this share of them at the end of it.
fn server(world: &World, millis: u64, failing: f32, attempts: &Arc<AtomicU64>) -> Backend {
    let (world, attempts) = (world.clone(), Arc::clone(attempts));
    let random = Arc::new(Mutex::new(world.random()));
    Backend::new(service_fn(move |()| {
        attempts.fetch_add(1, Ordering::Relaxed);
        world.record(&Event::Attempt);
        let fails = lock(&random).random::<f32>() < failing;
        let world = world.clone();
        async move {
            if millis > 0 {
                world.sleep(Duration::from_millis(millis)).await;
            }
            if fails {
                return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
            }
            Ok(())
        }
    }))
}
