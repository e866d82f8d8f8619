//! X17: weights as shares.
//!
//! The parts are: nine endpoints of weight 1 and one of weight 0.1 that take 10 ms, at a low and at a high rate; two
//! endpoints of weights 3 and 1 with one call at a time, and with the heavy one hanging or failing; and endpoints of
//! equal weight that take nearly the same time.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use buttress::balance::{Endpoint, LeastLoaded, LoadMetric, WeightedRandom};
use rand::RngExt;
use tower::{BoxError, ServiceExt, service_fn};

use super::x6_fails_fast::{Backend, balance, ours, tower_balance};
use crate::harness::{
    Client, Event, Form, Goal, Report, Results, Run, Table, Variant, World, lock, poisson, simulate,
};

/// A second of tokio's clock for each simulated millisecond.
const SCALE: u32 = 1_000;
/// The calls of a run.
const CALLS: u32 = 20_000;
const LATENCY: Duration = Duration::from_millis(10);

type Balancer = fn(&World, Vec<(f64, Backend)>) -> Client;

const OURS: &str = "buttress";
const VARIANTS: [Variant<Balancer>; 4] = [
    ("random, by weight", |world, backends| {
        let config = ours(world).choose(WeightedRandom);
        balance(config.build(endpoints(backends)))
    }),
    ("tower Balance, no weights", |world, backends| {
        let backends = backends.into_iter().map(|(_, backend)| backend);
        tower_balance(world, backends.collect())
    }),
    ("least request for its weight", |world, backends| {
        let config = ours(world).choose(LeastLoaded);
        let config = config.measure(LoadMetric::InFlight);
        balance(config.build(endpoints(backends)))
    }),
    (OURS, |world, backends| {
        balance(ours(world).build(endpoints(backends)))
    }),
];

fn endpoints(backends: Vec<(f64, Backend)>) -> impl Iterator<Item = Endpoint<Backend>> {
    let backends = backends.into_iter().enumerate();
    backends.map(|(key, (weight, backend))| Endpoint::new(key, backend).weight(weight))
}

/// The way in which calls come.
#[derive(Clone, Copy)]
enum Arrivals {
    /// So many a second, at random.
    Poisson(f64),
    /// One after the other.
    OneAtATime,
}

/// The time that a call takes, in terms of the usual time of the endpoint.
#[derive(Clone, Copy)]
enum Times {
    Constant,
    Exponential,
}

/// What is wrong with the first endpoint.
#[derive(Clone, Copy)]
enum Fault {
    Hangs,
    Fails,
}

#[derive(Clone, Copy)]
struct Scenario {
    /// The weight of each endpoint, and the time that a call takes as a multiple of [`LATENCY`].
    endpoints: &'static [(f64, f64)],
    arrivals: Arrivals,
    times: Times,
    fault: Option<Fault>,
}

/// Nine of weight 1, and one of a tenth.
const CANARY: [(f64, f64); 10] = {
    let mut endpoints = [(1.0, 1.0); 10];
    endpoints[0] = (0.1, 1.0);
    endpoints
};

pub(crate) fn run(form: Form) -> Report {
    // The short form runs the last.
    let (variants, seeds) = (&VARIANTS[form.pick(3, 0)..], form.pick(1, 5));
    let mut table = Table::new(form, variants);
    let results = |scenario: Scenario| {
        Results::new(variants, seeds, |balancer, seed| {
            simulate_calls(seed, scenario, *balancer).outcome
        })
    };
    let times = [
        (Times::Constant, "constant", 0.1),
        (Times::Exponential, "exponential", 0.3),
    ];
    for (times, name, off) in times {
        for rate in [10, 100, 1_000, 5_000, 20_000] {
            let arrivals = Arrivals::Poisson(rate.into());
            let results = results(Scenario::of(&CANARY, arrivals, times));
            table
                .row(
                    format!("{rate}/s, {name}: share of the canary, % of its weight's"),
                    1,
                    results.cells(|shares| 100.0 * shares.of(0)),
                )
                .goal(OURS, Goal::Within(100.0, off))
                .row(
                    "… of the other that is farthest off",
                    1,
                    results.cells(|shares| 100.0 * shares.farthest_of(1..10)),
                )
                .goal(OURS, Goal::Within(100.0, off));
        }
        let two = &[(1.0, 1.0), (3.0, 1.0)];
        let results = results(Scenario::of(two, Arrivals::OneAtATime, times));
        table
            .row(
                format!("3 : 1, {name}, one at a time: share of the light one, % of its weight's"),
                1,
                results.cells(|shares| 100.0 * shares.of(0)),
            )
            .goal(OURS, Goal::Within(100.0, off));
    }
    let near: [(_, &'static [(f64, f64)]); 2] = [
        ("two", &[(1.0, 1.0), (1.0, 1.05)]),
        ("three", &[(1.0, 1.0), (1.0, 1.05), (1.0, 1.1)]),
    ];
    for (name, endpoints) in near {
        let results = results(Scenario::of(
            endpoints,
            Arrivals::OneAtATime,
            Times::Constant,
        ));
        table
            .row(
                format!(
                    "{name} equal ones, 5 % apart, one at a time: least share, % of the fair one"
                ),
                1,
                results.cells(|shares| 100.0 * shares.least()),
            )
            .goal(OURS, Goal::AtLeast(50.0));
    }
    for (name, fault) in [("hangs", Fault::Hangs), ("fails", Fault::Fails)] {
        for rate in [100, 1_000] {
            let two = &[(3.0, 1.0), (1.0, 1.0)];
            let arrivals = Arrivals::Poisson(rate.into());
            let scenario = Scenario {
                fault: Some(fault),
                ..Scenario::of(two, arrivals, Times::Constant)
            };
            table
                .row(
                    format!("3 : 1, {rate}/s, the heavy one {name}: its share, %"),
                    3,
                    results(scenario).cells(|shares| 100.0 * shares.counted(0)),
                )
                .goal(OURS, Goal::AtMost(0.5));
        }
    }
    let arrivals = Arrivals::Poisson(1_000.0);
    let scenario = Scenario::of(&CANARY, arrivals, Times::Exponential);
    table.repeats(|seed| simulate_calls(seed, scenario, VARIANTS[3].1).log);
    Report::new("X17 weights", vec![table])
}

impl Scenario {
    fn of(endpoints: &'static [(f64, f64)], arrivals: Arrivals, times: Times) -> Self {
        Self {
            endpoints,
            arrivals,
            times,
            fault: None,
        }
    }
}

/// What the endpoints get of the calls.
struct Shares {
    counts: Vec<u32>,
    /// The shares that their weights stand for.
    fair: Vec<f64>,
}

impl Shares {
    /// The share of an endpoint.
    fn counted(&self, place: usize) -> f64 {
        f64::from(self.counts[place]) / f64::from(self.counts.iter().sum::<u32>())
    }

    /// The share of an endpoint as a multiple of that of its weight.
    fn of(&self, place: usize) -> f64 {
        self.counted(place) / self.fair[place]
    }

    /// The share of the endpoint that is farthest from that of its weight.
    fn farthest_of(&self, places: std::ops::Range<usize>) -> f64 {
        let off = |share: &f64| (share - 1.0).abs();
        let shares = places.map(|place| self.of(place));
        shares
            .max_by(|one, other| off(one).total_cmp(&off(other)))
            .unwrap_or(f64::NAN)
    }

    fn least(&self) -> f64 {
        let shares = (0..self.counts.len()).map(|place| self.of(place));
        shares.fold(f64::INFINITY, f64::min)
    }
}

fn simulate_calls(seed: u64, scenario: Scenario, balancer: Balancer) -> Run<Shares> {
    simulate(SCALE, seed, async |world| {
        let counts: Vec<Arc<AtomicU32>> =
            scenario.endpoints.iter().map(|_| Arc::default()).collect();
        let backends = counts.iter().enumerate().map(|(place, count)| {
            let fault = scenario.fault.filter(|_| place == 0);
            let (weight, times) = scenario.endpoints[place];
            let usual = LATENCY.mul_f64(times);
            (weight, backend(world, usual, scenario.times, fault, count))
        });
        let client = balancer(world, backends.collect());
        match scenario.arrivals {
            Arrivals::OneAtATime => {
                for _ in 0..CALLS {
                    client.clone().oneshot(()).await.expect("it never fails");
                }
            }
            Arrivals::Poisson(rate) => {
                let until = Duration::MAX;
                for at in poisson(world.random(), rate, until).take(CALLS as usize) {
                    world.sleep_until(at).await;
                    world.begin(&client, drop).await;
                }
            }
        }
        let weights = scenario.endpoints.iter().map(|(weight, _)| weight);
        let all: f64 = weights.clone().sum();
        Shares {
            counts: counts
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .collect(),
            fair: weights.map(|weight| weight / all).collect(),
        }
    })
}

fn backend(
    world: &World,
    usual: Duration,
    times: Times,
    fault: Option<Fault>,
    count: &Arc<AtomicU32>,
) -> Backend {
    let (world, count) = (world.clone(), Arc::clone(count));
    let random = Arc::new(std::sync::Mutex::new(world.random()));
    Backend::new(service_fn(move |()| {
        count.fetch_add(1, Ordering::Relaxed);
        world.record(&Event::Attempt);
        let latency = match times {
            Times::Constant => usual,
            Times::Exponential => usual.mul_f64(-(1.0 - lock(&random).random::<f64>()).ln()),
        };
        let world = world.clone();
        async move {
            match fault {
                Some(Fault::Hangs) => pending().await,
                Some(Fault::Fails) => return Err(BoxError::from("the endpoint is sick")),
                None => world.sleep(latency).await,
            }
            Ok(())
        }
    }))
}
