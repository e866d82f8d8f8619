//! X5: the power of two choices, in the supermarket model.
//!
//! 100 servers, each with a queue and an exponential service time of mean 1; calls come at random, 90 for each unit
//! of time. How long a call takes in the mean is known for a very large number of servers.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use buttress::{
    Balance,
    balance::{Choose, Config, Endpoints, LeastLoaded, LoadMetric, WeightedRandom},
};
use rand::{RngExt, rngs::SmallRng};
use tower::{BoxError, service_fn};

use super::x6_fails_fast::{Backend, balance, endpoints};
use crate::harness::{
    Client, Form, Goal, Report, Results, Run, Table, Variant, World, lock, poisson, pool, simulate,
};

/// 10 s of tokio's clock for each thousandth of a service time.
const SCALE: u32 = 10_000;
const SERVERS: usize = 100;
/// The load of a server.
const RHO: f64 = 0.9;

type Balancer = fn(Config, Vec<Backend>) -> Client;

/// The published rule, as a policy of one's own: the less loaded of two.
#[derive(Clone)]
struct TwoChoices;

impl<Req> Choose<Req> for TwoChoices {
    fn choose(&self, _: &Req, endpoints: &mut Endpoints<'_>) -> usize {
        let one = endpoints.random_below(endpoints.len());
        let mut other = endpoints.random_below(endpoints.len() - 1);
        other += usize::from(other >= one);
        if endpoints.load(other) < endpoints.load(one) {
            other
        } else {
            one
        }
    }
}

const TWO: &str = "two choices";
const OURS: &str = "three, the default";
/// The short form runs those that have goals: to look at all of 100 servers takes long.
const VARIANTS: [Variant<Balancer>; 4] = [
    ("one choice", |config, backends| {
        balance(config.choose(WeightedRandom).build(endpoints(backends)))
    }),
    (TWO, |config, backends| {
        balance(config.choose(TwoChoices).build(endpoints(backends)))
    }),
    (OURS, |config, backends| {
        balance(config.build(endpoints(backends)))
    }),
    ("least of all", |config, backends| {
        balance(config.choose(LeastLoaded).build(endpoints(backends)))
    }),
];

pub(crate) fn run(form: Form) -> Report {
    let variants = &VARIANTS[form.pick(1..3, 0..4)];
    let mut table = Table::new(form, variants);
    let (seeds, units) = form.pick((2, 300), (8, 2_000));
    let results = Results::new(variants, seeds, |balancer, seed| {
        simulate_queues(seed, units, *balancer).outcome
    });
    table
        .row(
            "mean time of a call, in service times",
            3,
            results.cells(|mean| *mean),
        )
        .reference(
            "for a very large number: one choice 10, two 2.614, three 2.028; for 100: two 2.66",
        )
        .goal(TWO, Goal::Within(2.66, 0.03))
        .goal(OURS, Goal::Within(2.06, 0.03))
        .repeats(|seed| simulate_queues(seed, 50, VARIANTS[2].1).log);
    Report::new("X5 power of two choices", vec![table])
}

/// The mean time of a call, after a warm-up.
fn simulate_queues(seed: u64, units: u64, balancer: Balancer) -> Run<f64> {
    let warm_up = Duration::from_secs(50);
    simulate(SCALE, seed, async |world| {
        let backends = (0..SERVERS).map(|_| queue(world)).collect();
        // So much time goes by between two calls that each of them would ask which endpoint to eject.
        let config = Balance::config(pool()).no_outlier_ejection();
        let config = config.measure(LoadMetric::InFlight).seed(world.seed());
        let client = balancer(config, backends);
        let until = warm_up + Duration::from_secs(units);
        let times = Arc::new(Mutex::new((0u32, 0.0)));
        for at in poisson(world.random(), RHO * SERVERS as f64, until) {
            world.sleep_until(at).await;
            let (times, ended) = (Arc::clone(&times), world.clone());
            let done = move |_| {
                if at > warm_up {
                    let (count, sum) = &mut *lock(&times);
                    *count += 1;
                    *sum += ended.now().saturating_sub(at).as_secs_f64();
                }
            };
            world.begin(&client, done).await;
        }
        // Until the last of them has ended.
        world.sleep(Duration::from_secs(100)).await;
        let (count, sum) = *lock(&times);
        sum / f64::from(count)
    })
}

/// A server that works on one call after the other.
fn queue(world: &World) -> Backend {
    let world = world.clone();
    let state: Arc<Mutex<(SmallRng, Duration)>> =
        Arc::new(Mutex::new((world.random(), Duration::ZERO)));
    Backend::new(service_fn(move |()| {
        let (random, free_at) = &mut *lock(&state);
        let service = -(1.0 - random.random::<f64>()).ln();
        *free_at = world.now().max(*free_at) + Duration::from_secs_f64(service);
        let (world, finished) = (world.clone(), *free_at);
        async move {
            world.sleep_until(finished).await;
            Ok::<_, BoxError>(())
        }
    }))
}
