//! X3: one slow replica.
//!
//! Eleven replicas, a call each millisecond for a minute. From 15 s on, one replica takes 2 s for each call, for 30 s.
//! A call succeeds if it is answered within 1 s; nobody gives up before that is known.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use buttress::balance::{Measure, RoundRobin};
use rand::RngExt;
use tower::{BoxError, service_fn};

use super::x6_fails_fast::{Backend, Balancer, balance, endpoints, ours, tower_balance};
use crate::harness::{
    Event, Form, Goal, Report, Results, Run, Table, Variant, World, lock, simulate,
};

const SCALE: u32 = 1_000;
const REPLICAS: usize = 11;
const CALLS: u32 = 60_000;
const SLOW: std::ops::Range<Duration> = Duration::from_secs(15)..Duration::from_secs(45);
const SLOW_LATENCY: Duration = Duration::from_secs(2);
const IN_TIME: Duration = Duration::from_secs(1);

/// Quantiles of the latency of a replica that is well, in milliseconds; between them it is linear.
const LATENCY: [(f64, f64); 7] = [
    (0.0, 164.09),
    (0.5, 167.48),
    (0.9, 176.70),
    (0.95, 181.72),
    (0.99, 192.31),
    (0.999, 198.83),
    (1.0, 199.99),
];

const ROUND_ROBIN: &str = "round robin";
const IN_FLIGHT: &str = "ours, in flight";
const OURS: &str = "ours";
const VARIANTS: [Variant<Balancer>; 4] = [
    (ROUND_ROBIN, |world, backends| {
        let config = ours(world).choose(RoundRobin::default());
        balance(config.build(endpoints(backends)))
    }),
    ("tower Balance", tower_balance),
    (IN_FLIGHT, |world, backends| {
        let config = ours(world).measure(Measure::InFlight);
        balance(config.build(endpoints(backends)))
    }),
    (OURS, |world, backends| {
        balance(ours(world).build(endpoints(backends)))
    }),
];

pub(crate) fn run(form: Form) -> Report {
    let mut table = Table::new(form, &VARIANTS);
    let results = Results::new(&VARIANTS, form.pick(1, 10), |balancer, seed| {
        simulate_calls(seed, *balancer).outcome
    });
    table
        .row(
            "answered within 1 s, %",
            3,
            results.cells(|share| share * 100.0),
        )
        .reference("published: round robin 95, least loaded 99, peak EWMA 99.9")
        .goal(ROUND_ROBIN, Goal::Within(95.45, 0.0003))
        .goal(OURS, Goal::AtLeast(99.96))
        .repeats(|seed| simulate_calls(seed, VARIANTS[3].1).log);
    Report::new("X3 one slow replica", vec![table])
}

/// The share of calls that are answered in time.
fn simulate_calls(seed: u64, balancer: Balancer) -> Run<f64> {
    simulate(SCALE, seed, async |world| {
        let backends = (0..REPLICAS).map(|n| replica(world, n == 0)).collect();
        let client = balancer(world, backends);
        let in_time = Arc::new(Mutex::new(0u32));
        for call in 0..CALLS {
            let at = Duration::from_millis(1) * call;
            world.sleep_until(at).await;
            let (in_time, ended) = (Arc::clone(&in_time), world.clone());
            let done = move |_| {
                if ended.now().saturating_sub(at) <= IN_TIME {
                    *lock(&in_time) += 1;
                }
            };
            world.begin(&client, done).await;
        }
        world.sleep(2 * SLOW_LATENCY).await;
        let in_time = *lock(&in_time);
        f64::from(in_time) / f64::from(CALLS)
    })
}

fn replica(world: &World, becomes_slow: bool) -> Backend {
    let world = world.clone();
    let random = Arc::new(Mutex::new(world.random()));
    Backend::new(service_fn(move |()| {
        world.record(&Event::Attempt);
        let latency = if becomes_slow && SLOW.contains(&world.now()) {
            SLOW_LATENCY
        } else {
            latency(lock(&random).random())
        };
        let world = world.clone();
        async move {
            world.sleep(latency).await;
            Ok::<_, BoxError>(())
        }
    }))
}

/// The latency at this quantile.
fn latency(quantile: f64) -> Duration {
    let upper = LATENCY.iter().position(|(at, _)| *at > quantile);
    let upper = upper.unwrap_or(LATENCY.len() - 1);
    let ((from, least), (to, most)) = (LATENCY[upper - 1], LATENCY[upper]);
    let millis = least + (most - least) * (quantile - from) / (to - from);
    Duration::from_secs_f64(millis / 1e3)
}
