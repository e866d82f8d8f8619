//! X3: one slow replica.
//!
//! Eleven replicas, a call each millisecond for a minute. From 15 s on, one replica takes 2 s for each call, for 30 s.
//! A call succeeds if it is answered within 1 s, and no caller gives up earlier.
//!
//! The hedge has a fixed delay of 700 ms, which leaves time for one more answer: a setting for a known waiting time of
//! callers. The default hedge, which shortens the tail of all calls and sends one hedge for 50 calls, is shown for
//! comparison.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use buttress::balance::{LoadMetric, RoundRobin};
use buttress::{HedgeLayer, hedge};
use rand::RngExt;
use tower::{BoxError, Layer, service_fn};

use super::x6_fails_fast::{Backend, Balancer, balance, endpoints, ours, tower_balance};
use crate::harness::{
    Client, Event, Form, Goal, Report, Results, Run, Table, Variant, World, boxed, lock, simulate,
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
const IN_FLIGHT: &str = "buttress, in flight";
const OURS: &str = "buttress";
const HEDGED: &str = "buttress, hedge after 700 ms";
const VARIANTS: [Variant<Balancer>; 6] = [
    (ROUND_ROBIN, |world, backends| {
        let config = ours(world).choose(RoundRobin);
        balance(config.build(endpoints(backends)))
    }),
    ("tower Balance", tower_balance),
    (IN_FLIGHT, |world, backends| {
        let config = ours(world).measure(LoadMetric::InFlight);
        balance(config.build(endpoints(backends)))
    }),
    (OURS, |world, backends| {
        balance(ours(world).build(endpoints(backends)))
    }),
    (HEDGED, |world, backends| {
        hedged(world, backends, |hedge| {
            hedge.delay(SCALE * Duration::from_millis(700))
        })
    }),
    ("buttress, hedge as it is", |world, backends| {
        hedged(world, backends, |hedge| hedge)
    }),
];

fn hedged(
    world: &World,
    backends: Vec<Backend>,
    change: fn(hedge::Config) -> hedge::Config,
) -> Client {
    // The default, scaled.
    let config = HedgeLayer::config("search").window(SCALE * Duration::from_secs(30));
    let hedge = change(config).build().expect("the configuration is valid");
    boxed(hedge.layer(balance(ours(world).build(endpoints(backends)))))
}

pub(crate) fn run(form: Form) -> Report {
    let mut table = Table::new(form, &VARIANTS);
    let results = Results::new(&VARIANTS, form.pick(1, 10), |balancer, seed| {
        simulate_calls(seed, *balancer).outcome
    });
    table
        .row(
            "answered within 1 s, %",
            3,
            results.cells(|outcome| outcome.in_time * 100.0),
        )
        .reference("published: round robin 95, least loaded 99, peak EWMA 99.9")
        .goal(ROUND_ROBIN, Goal::Within(95.45, 0.0003))
        .goal(OURS, Goal::AtLeast(99.96))
        // 100.00 %
        .goal(HEDGED, Goal::AtLeast(99.995))
        .row(
            "extra requests, %",
            3,
            results.cells(|outcome| outcome.extra * 100.0),
        )
        .goal(HEDGED, Goal::AtMost(0.1))
        .repeats(|seed| simulate_calls(seed, VARIANTS[4].1).log);
    Report::new("X3 one slow replica", vec![table])
}

struct Outcome {
    /// The share of calls that are answered in time.
    in_time: f64,
    /// The requests that were sent beyond one for each call, as a share of the calls.
    extra: f64,
}

fn simulate_calls(seed: u64, balancer: Balancer) -> Run<Outcome> {
    simulate(SCALE, seed, async |world| {
        let sent = Arc::new(AtomicU32::new(0));
        let replica = |n| replica(world, n == 0, &sent);
        let backends = (0..REPLICAS).map(replica).collect();
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
        let share = |calls| f64::from(calls) / f64::from(CALLS);
        Outcome {
            in_time: share(*lock(&in_time)),
            extra: share(sent.load(Ordering::Relaxed) - CALLS),
        }
    })
}

fn replica(world: &World, becomes_slow: bool, sent: &Arc<AtomicU32>) -> Backend {
    let (world, sent) = (world.clone(), Arc::clone(sent));
    let random = Arc::new(Mutex::new(world.random()));
    Backend::new(service_fn(move |()| {
        world.record(&Event::Attempt);
        sent.fetch_add(1, Ordering::Relaxed);
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
pub(crate) fn latency(quantile: f64) -> Duration {
    let upper = LATENCY.iter().position(|(at, _)| *at > quantile);
    let upper = upper.unwrap_or(LATENCY.len() - 1);
    let ((from, least), (to, most)) = (LATENCY[upper - 1], LATENCY[upper]);
    let millis = least + (most - least) * (quantile - from) / (to - from);
    Duration::from_secs_f64(millis / 1e3)
}
