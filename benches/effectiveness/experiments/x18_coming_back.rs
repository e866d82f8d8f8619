//! X18: recovery of a slow replica.
//!
//! The setup of X3: eleven replicas, a call each millisecond, and one replica that is slow for 30 s. After its recovery
//! it should soon have its share again. However, each call that tests the replica before its recovery is slow.
//!
//! Not scaled: the layers have their default settings.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use buttress::{Balance, balance::RoundRobin};
use rand::RngExt;
use tower::{BoxError, service_fn};

use super::x3_slow_replica::latency;
use super::x6_fails_fast::{Backend, Balancer, balance, endpoints, tower_balance, tower_in_flight};
use crate::harness::{
    Axis, Event, Form, Goal, Line, Plot, Report, Results, Run, Table, Variant, World, lock, pool,
    simulate,
};

const REPLICAS: usize = 11;
/// Calls in a second.
const RATE: u32 = 1_000;
const SECONDS: u32 = 90;
const SLOW: Range<u32> = 15..45;
const IN_TIME: Duration = Duration::from_secs(1);
/// The part of its share from which on a replica is back.
const BACK: f64 = 0.8;

const OURS: &str = "buttress";
const VARIANTS: [Variant<Balancer>; 4] = [
    ("round robin", |world, backends| {
        let config = Balance::config(pool()).choose(RoundRobin);
        balance(config.seed(world.seed()).build(endpoints(backends)))
    }),
    ("tower, in flight", tower_in_flight),
    ("tower, peak EWMA", tower_balance),
    (OURS, |world, backends| {
        let config = Balance::config(pool()).seed(world.seed());
        balance(config.build(endpoints(backends)))
    }),
];

pub(crate) fn run(form: Form) -> Report {
    // The short form runs the last.
    let (variants, seeds) = (&VARIANTS[form.pick(3, 0)..], form.pick(2, 5));
    let mut table = Table::new(form, variants);
    for (millis, goal) in [(2_000, 19.0), (500, 10.0)] {
        let latency = Duration::from_millis(millis);
        let results = Results::new(variants, seeds, |balancer, seed| {
            simulate_calls(seed, latency, *balancer).outcome
        });
        table
            .row(
                format!("{} s: back after, s", latency.as_secs_f64()),
                1,
                results.cells(Outcome::back_after),
            )
            .goal(OURS, Goal::AtMost(goal))
            .row(
                "… answered within 1 s, %",
                3,
                results.cells(|outcome| 100.0 * outcome.in_time),
            )
            .goal(OURS, Goal::AtLeast(99.95));
    }
    let short = Duration::from_millis(500);
    table.repeats(|seed| simulate_calls(seed, short, VARIANTS[3].1).log);
    let report = Report::new("X18 coming back", vec![table]);
    match form {
        Form::Short => report,
        Form::Full => report.plot(shares()),
    }
}

/// The calls that the slow replica gets, second by second.
fn shares() -> Plot {
    let line = |(name, balancer): &Variant<Balancer>| {
        let slow = Duration::from_secs(2);
        let outcome = simulate_calls(1, slow, *balancer).outcome;
        let percent = |count: u32| 100.0 * f64::from(count) / f64::from(RATE);
        Line::seconds(*name, outcome.counts.into_iter().map(percent))
    };
    Plot {
        file: "x18_share",
        title: "1000 calls a second over eleven replicas, one of which takes 2 s for a while",
        x: Axis::linear("time, s", 0.0..f64::from(SECONDS)),
        y: Axis::linear("calls that this one gets, %", 0.0..15.0),
        lines: VARIANTS.iter().map(line).collect(),
        spans: vec![(f64::from(SLOW.start)..f64::from(SLOW.end), "slow")],
    }
}

struct Outcome {
    /// The calls of each second that the slow replica gets.
    counts: Vec<u32>,
    /// The share of calls that are answered in time.
    in_time: f64,
}

impl Outcome {
    /// The seconds from the end of its slowness until it gets its share again.
    fn back_after(&self) -> f64 {
        let fair = f64::from(RATE) / REPLICAS as f64;
        let after = &self.counts[SLOW.end as usize..];
        let back = after
            .iter()
            .position(|count| f64::from(*count) >= BACK * fair);
        // At the end of the first such second.
        back.map_or(f64::INFINITY, |seconds| 1.0 + seconds as f64)
    }
}

fn simulate_calls(seed: u64, slow: Duration, balancer: Balancer) -> Run<Outcome> {
    simulate(1, seed, async |world| {
        let count = Arc::new(AtomicU32::new(0));
        let replica = |n| replica(world, (n == 0).then_some(slow), &count);
        let client = balancer(world, (0..REPLICAS).map(replica).collect());
        let in_time = Arc::new(Mutex::new(0u32));
        let mut counts = Vec::new();
        for second in 0..SECONDS {
            for call in 0..RATE {
                let at = Duration::from_millis((second * 1_000 + call).into());
                world.sleep_until(at).await;
                let (in_time, ended) = (Arc::clone(&in_time), world.clone());
                let done = move |_| {
                    if ended.now().saturating_sub(at) <= IN_TIME {
                        *lock(&in_time) += 1;
                    }
                };
                world.begin(&client, done).await;
            }
            counts.push(count.swap(0, Ordering::Relaxed));
        }
        world.sleep(2 * slow).await;
        let in_time = f64::from(*lock(&in_time)) / f64::from(SECONDS * RATE);
        Outcome { counts, in_time }
    })
}

/// A replica that takes the time `slow` for a while, if it is the slow one.
fn replica(world: &World, slow: Option<Duration>, count: &Arc<AtomicU32>) -> Backend {
    let (world, count) = (world.clone(), Arc::clone(count));
    let random = Arc::new(Mutex::new(world.random()));
    Backend::new(service_fn(move |()| {
        world.record(&Event::Attempt);
        let during = Duration::from_secs(SLOW.start.into())..Duration::from_secs(SLOW.end.into());
        let usual = latency(lock(&random).random());
        let latency = slow.map_or(usual, |slow| {
            count.fetch_add(1, Ordering::Relaxed);
            if during.contains(&world.now()) {
                slow
            } else {
                usual
            }
        });
        let world = world.clone();
        async move {
            world.sleep(latency).await;
            Ok::<_, BoxError>(())
        }
    }))
}
