//! X6: the share of calls that a fast-failing endpoint attracts.
//!
//! Ten endpoints that answer in 20 ms. One of them fails all or some of its calls in 1 ms: by latency alone it is the
//! best endpoint. Calls come at a steady rate from one client.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use buttress::{
    Balance,
    balance::{Config, Endpoint, LeastLoaded, LoadMetric, RoundRobin},
};
use rand::RngExt;
use tower::{
    BoxError, Service,
    balance::p2c,
    discover::ServiceList,
    load::{CompleteOnResponse, PeakEwma, PendingRequests},
    service_fn,
    util::BoxCloneSyncService,
};

use crate::harness::{
    Axis, Client, Event, Form, Goal, Line, Plot, Report, Results, Run, Table, Variant, World,
    boxed, lock, pool, simulate,
};

/// A second of tokio's clock for each simulated millisecond.
const SCALE: u32 = 1_000;
const ENDPOINTS: usize = 10;
const LATENCY: Duration = Duration::from_millis(20);
const FAILS_IN: Duration = Duration::from_millis(1);

pub(crate) type Backend = BoxCloneSyncService<(), (), BoxError>;
pub(crate) type Balancer = fn(&World, Vec<Backend>) -> Client;

const OURS: &str = "buttress";
const TOWER: &str = "tower Balance";
const VARIANTS: [Variant<Balancer>; 4] = [
    ("round robin", |world, backends| {
        let config = ours(world).choose(RoundRobin);
        balance(config.build(endpoints(backends)))
    }),
    ("least request", |world, backends| {
        let config = ours(world)
            .choose(LeastLoaded)
            .measure(LoadMetric::InFlight);
        balance(config.build(endpoints(backends)))
    }),
    (TOWER, tower_balance),
    (OURS, |world, backends| {
        balance(ours(world).build(endpoints(backends)))
    }),
];

/// The defaults, scaled.
fn defaults(scale: u32) -> Config {
    Balance::config(pool())
        .latency_decay(scale * Duration::from_secs(5))
        .failure_decay(scale * Duration::from_secs(4))
        .failure_penalty(scale * Duration::from_secs(5))
        .slow_start(scale * Duration::from_secs(10))
        .max_wait(scale * Duration::from_secs(1))
}

pub(crate) fn ours(world: &World) -> Config {
    defaults(SCALE).seed(world.seed())
}

pub(crate) fn endpoints(backends: Vec<Backend>) -> impl Iterator<Item = Endpoint<Backend>> {
    let backends = backends.into_iter().enumerate();
    backends.map(|(key, backend)| Endpoint::new(key, backend))
}

pub(crate) fn balance<S, E>(built: Result<S, E>) -> Client
where
    S: Service<(), Response = (), Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
    E: std::fmt::Debug,
{
    boxed(built.expect("the configuration is valid"))
}

/// Tower's balancer with its peak EWMA.
pub(crate) fn tower_balance(world: &World, backends: Vec<Backend>) -> Client {
    let services = backends.into_iter().map(|backend| measured(world, backend));
    let services: Vec<_> = services.collect();
    tower_shared(p2c::Balance::new(ServiceList::new::<()>(services)))
}

/// Tower's balancer with the calls in flight.
pub(crate) fn tower_in_flight(_: &World, backends: Vec<Backend>) -> Client {
    let counted = |backend| PendingRequests::new(backend, CompleteOnResponse::default());
    let services: Vec<_> = backends.into_iter().map(counted).collect();
    tower_shared(p2c::Balance::new(ServiceList::new::<()>(services)))
}

/// An endpoint with tower's peak EWMA.
pub(crate) fn measured(world: &World, backend: Backend) -> PeakEwma<Backend> {
    let (default, decay) = (
        world.scaled(Duration::from_millis(20)),
        world.scaled(Duration::from_secs(10)),
    );
    let completion = CompleteOnResponse::default();
    PeakEwma::new(backend, default, decay.as_nanos() as f64, completion)
}

/// A balancer that cannot be cloned, shared by a lock instead of a buffer.
pub(crate) fn tower_shared<B>(balance: B) -> Client
where
    B: Service<(), Response = (), Error = BoxError, Future: Send> + Send + 'static,
{
    let balance = Arc::new(std::sync::Mutex::new(balance));
    boxed(service_fn(move |()| {
        let balance = Arc::clone(&balance);
        async move {
            let call = std::future::poll_fn(|cx| {
                let mut balance = lock(&balance);
                balance
                    .poll_ready(cx)
                    .map(|ready| ready.map(|()| balance.call(())))
            });
            call.await?.await
        }
    }))
}

pub(crate) fn run(form: Form) -> Report {
    assert_eq!(defaults(1), Balance::config(pool()), "the defaults");
    // The short form runs the last two.
    let (seeds, variants) = (form.pick(1, 5), &VARIANTS[form.pick(2, 0)..]);
    let mut table = Table::new(form, variants);
    for (rate, failing, goal) in [
        (1_000, 1.0, 0.05),
        (1_000, 0.3, 0.1),
        (100, 1.0, 0.2),
        (100, 0.3, 0.6),
    ] {
        let results = Results::new(variants, seeds, |balancer, seed| {
            let seconds = form.pick(30, 120) * 1_000 / rate;
            let run = simulate_calls(seed, *balancer, rate, failing, seconds.max(60));
            run.outcome
        });
        table
            .row(
                format!(
                    "{rate}/s, fails {} %: share of calls, %",
                    (failing * 100.0).round()
                ),
                3,
                results.cells(|shares| shares.sick * 100.0),
            )
            .goal(OURS, Goal::AtMost(goal));
        if failing > 0.9 {
            table
                .row(
                    "… of its fair share within 10 s of healing, %",
                    0,
                    results.cells(|shares| shares.healed * 100.0),
                )
                .goal(OURS, Goal::AtLeast(80.0));
        }
    }
    let all = Results::new(variants, seeds, |balancer, seed| {
        simulate_herd(seed, *balancer, form.pick(20, 60)).outcome
    });
    table
        .row(
            "all fail 20 %: greatest share of an endpoint in a second, %",
            1,
            all.cells(|greatest| greatest * 100.0),
        )
        .goal(OURS, Goal::AtMost(25.0));
    table.repeats(|seed| simulate_calls(seed, VARIANTS[3].1, 1_000, 1.0, 10).log);
    let report = Report::new("X6 an endpoint that fails fast", vec![table]);
    match form {
        Form::Short => report,
        Form::Full => report.plot(shares()),
    }
}

/// What the sick endpoint gets, second by second.
fn shares() -> Plot {
    const SICK: u64 = 30;
    const ALL: u64 = 60;
    let line = |(name, balancer): &Variant<Balancer>| {
        let shares = simulate_shares(1, *balancer, SICK, ALL).outcome;
        Line::seconds(*name, shares.into_iter().map(|share| 100.0 * share))
    };
    Plot {
        file: "x6_share",
        title: "1000 calls a second over ten endpoints, one of which fails everything in 1 ms",
        x: Axis::linear("time, s", 0.0..ALL as f64),
        y: Axis::linear("calls that this one gets, %", 0.0..70.0),
        lines: VARIANTS.iter().map(line).collect(),
        spans: vec![(0.0..SICK as f64, "sick")],
    }
}

/// What one endpoint gets of the calls.
struct Shares {
    /// While it is sick.
    sick: f64,
    /// In the tenth second after it healed, as a share of its fair share.
    healed: f64,
}

fn simulate_calls(
    seed: u64,
    balancer: Balancer,
    rate: u64,
    failing: f32,
    seconds: u64,
) -> Run<Shares> {
    let until = Duration::from_secs(seconds);
    simulate(SCALE, seed, async |world| {
        let counts: [Arc<AtomicU64>; ENDPOINTS] = Default::default();
        let backends = counts.iter().enumerate();
        let backends = backends.map(|(n, count)| {
            let failing = if n == 0 { failing } else { 0.0 };
            backend(world, failing, until, count)
        });
        let client = balancer(world, backends.collect());
        let total = || counts.iter().map(|count| count.load(Ordering::Relaxed));
        let sick = steady(world, &client, rate, Duration::ZERO..until);
        sick.await;
        let sick = counts[0].load(Ordering::Relaxed) as f64 / total().sum::<u64>() as f64;
        let nine = until + Duration::from_secs(9);
        steady(world, &client, rate, until..nine).await;
        let (before, all_before) = (counts[0].load(Ordering::Relaxed), total().sum::<u64>());
        let ten = nine + Duration::from_secs(1);
        steady(world, &client, rate, nine..ten).await;
        let (after, all_after) = (counts[0].load(Ordering::Relaxed), total().sum::<u64>());
        let fair = (all_after - all_before) as f64 / ENDPOINTS as f64;
        Shares {
            sick,
            healed: (after - before) as f64 / fair,
        }
    })
}

/// The share of the calls of each second that go to the endpoint which is sick for a time.
fn simulate_shares(seed: u64, balancer: Balancer, sick: u64, seconds: u64) -> Run<Vec<f64>> {
    const RATE: u64 = 1_000;
    simulate(SCALE, seed, async |world| {
        let counts: [Arc<AtomicU64>; ENDPOINTS] = Default::default();
        let backends = counts.iter().enumerate().map(|(n, count)| {
            let failing = if n == 0 { 1.0 } else { 0.0 };
            backend(world, failing, Duration::from_secs(sick), count)
        });
        let client = balancer(world, backends.collect());
        let mut shares = Vec::new();
        for second in 0..seconds {
            let from = Duration::from_secs(second);
            steady(world, &client, RATE, from..from + Duration::from_secs(1)).await;
            let count = counts[0].swap(0, Ordering::Relaxed);
            shares.push(count as f64 / RATE as f64);
        }
        shares
    })
}

/// The greatest share that an endpoint has of the calls of one second, while all of them fail a fifth of theirs.
fn simulate_herd(seed: u64, balancer: Balancer, seconds: u64) -> Run<f64> {
    const RATE: u64 = 1_000;
    let until = Duration::from_secs(seconds);
    simulate(SCALE, seed, async |world| {
        let counts: [Arc<AtomicU64>; ENDPOINTS] = Default::default();
        let backends = counts
            .iter()
            .map(|count| backend(world, 0.2, until, count))
            .collect();
        let client = balancer(world, backends);
        let mut greatest = 0;
        for second in 0..seconds {
            let from = Duration::from_secs(second);
            steady(world, &client, RATE, from..from + Duration::from_secs(1)).await;
            // The first seconds are those in which nothing is known.
            let most = counts.iter().map(|count| count.swap(0, Ordering::Relaxed));
            let most = most.max().unwrap_or_default();
            greatest = greatest.max(if second < 2 { 0 } else { most });
        }
        greatest as f64 / RATE as f64
    })
}

/// An endpoint that fails this share of its calls until it heals.
fn backend(world: &World, failing: f32, until: Duration, count: &Arc<AtomicU64>) -> Backend {
    let (world, count) = (world.clone(), Arc::clone(count));
    let random = Arc::new(std::sync::Mutex::new(world.random()));
    Backend::new(service_fn(move |()| {
        count.fetch_add(1, Ordering::Relaxed);
        world.record(&Event::Attempt);
        let fails = world.now() < until && lock(&random).random::<f32>() < failing;
        let world = world.clone();
        async move {
            if fails {
                world.sleep(FAILS_IN).await;
                return Err(BoxError::from("the endpoint is sick"));
            }
            world.sleep(LATENCY).await;
            Ok(())
        }
    }))
}

/// Calls at a steady rate.
async fn steady(world: &World, client: &Client, rate: u64, during: std::ops::Range<Duration>) {
    let pause = Duration::from_secs(1) / rate as u32;
    let mut at = during.start;
    while at < during.end {
        world.sleep_until(at).await;
        world.begin(client, drop).await;
        at += pause;
    }
}
