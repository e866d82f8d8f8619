//! X14: hedging over a balancer with one slow replica.
//!
//! As X3, with hedging as it is: eleven replicas, a call each millisecond for a minute, and one replica that takes 2 s, or
//! half a second, for each call from 15 s to 45 s. And ten replicas that take 10 ms and an exponential time of 10 ms in the
//! mean, a call each 2 ms, of which one never answers in that time.
//!
//! A hedge ends before the slow replica has answered: nobody sees how slow it is. Taken for as slow as it was waited
//! for, it is hardly slower than the others.
//!
//! The one that never answers gets two calls without hedging, which wait for ever: it is not tried again while they do,
//! and nobody would see it come back. Where hedges end these calls it is tried again, each time after a longer silence: two or
//! three times in 30 s. 1.3 times two calls are no more than that, so the goal is a share of all calls here, and that those which
//! it gets are answered in time by others.
//!
//! Not scaled: the layers are as users get them.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use buttress::{
    Balance, HedgeLayer,
    balance::{LoadMetric, RoundRobin},
    standard,
};
use rand::RngExt;
use tower::{
    BoxError, Layer,
    hedge::{Hedge, Policy},
    service_fn,
};

use super::x3_slow_replica::latency;
use super::x6_fails_fast::{Backend, Balancer, balance, endpoints, tower_balance, tower_shared};
use crate::harness::{
    Axis, Client, Event, Form, Goal, Line, Plot, Report, Results, Run, Sample, Table, Variant,
    World, boxed, lock, millis_at, pool, simulate,
};

const SECONDS: u32 = 60;
const SLOW: Range<Duration> = Duration::from_secs(15)..Duration::from_secs(45);

const ALONE: &str = "buttress, no hedge";
const OURS: &str = "buttress";
const STACK: &str = "buttress, stack";
const VARIANTS: [Variant<Balancer>; 6] = [
    ("round robin", |world, backends| {
        let config = Balance::config(pool()).choose(RoundRobin);
        balance(config.seed(world.seed()).build(endpoints(backends)))
    }),
    ("tower Balance and Hedge", |world, backends| {
        let (balance, window) = (tower_balance(world, backends), Duration::from_secs(30));
        tower_shared(Hedge::new(balance, Always, 100, 0.98, window))
    }),
    ("least request, hedge", |world, backends| {
        let config = Balance::config(pool()).measure(LoadMetric::InFlight);
        hedged(balance(
            config.seed(world.seed()).build(endpoints(backends)),
        ))
    }),
    (ALONE, ours),
    (OURS, |world, backends| hedged(ours(world, backends))),
    (STACK, |world, backends| {
        let stack = standard("search").unlimited().hedge(|hedge| hedge);
        let stack = stack.seed(world.seed()).build();
        let stack = stack.expect("the configuration is valid");
        boxed(stack.layer(ours(world, backends)))
    }),
];

/// Tower's policy that hedges each call.
#[derive(Clone)]
struct Always;

impl Policy<()> for Always {
    fn clone_request(&self, (): &()) -> Option<()> {
        Some(())
    }

    fn can_retry(&self, (): &()) -> bool {
        true
    }
}

fn ours(world: &World, backends: Vec<Backend>) -> Client {
    let config = Balance::config(pool()).seed(world.seed());
    balance(config.build(endpoints(backends)))
}

fn hedged(client: Client) -> Client {
    boxed(HedgeLayer::new("search").layer(client))
}

/// How many times its share without hedging the slow one may get.
const MARGIN: f64 = 1.3;
/// The share of the one that hangs: 7 of 15,000 calls.
const OF_HANGING: f64 = 0.05;

/// A pool of which one replica is slow for a while.
#[derive(Clone, Copy)]
struct Pool {
    replicas: usize,
    pause: Duration,
    /// The time that the slow one takes; it never answers without.
    slow: Option<Duration>,
    usual: fn(f64) -> Duration,
}

/// As in X3.
const fn unequal(slow: Duration) -> Pool {
    Pool {
        replicas: 11,
        pause: Duration::from_millis(1),
        slow: Some(slow),
        usual: latency,
    }
}

const TWO_SECONDS: Pool = unequal(Duration::from_secs(2));
const HALF_A_SECOND: Pool = unequal(Duration::from_millis(500));
const HANGS: Pool = Pool {
    replicas: 10,
    pause: Duration::from_millis(2),
    slow: None,
    usual: |quantile| Duration::from_secs_f64(0.01 * (1.0 - (1.0 - quantile).ln())),
};

pub(crate) fn run(form: Form) -> Report {
    // The short form runs the last three.
    let (variants, seeds) = (&VARIANTS[form.pick(3, 0)..], form.pick(2, 5));
    let mut table = Table::new(form, variants);
    for (name, pool) in [
        ("2 s", TWO_SECONDS),
        ("0.5 s", HALF_A_SECOND),
        ("hangs", HANGS),
    ] {
        let results = Results::new(variants, seeds, |client, seed| {
            simulate_calls(seed, pool, *client).outcome
        });
        let shares = results.cells(|outcome| 100.0 * outcome.share);
        let alone = variants.iter().position(|(name, _)| *name == ALONE);
        let alone = alone.map_or(f64::NAN, |place| shares[place].mean());
        let most = pool.slow.map_or(OF_HANGING, |_| round(MARGIN * alone));
        table
            .row(
                format!("{name}: calls that the slow one gets, %"),
                3,
                shares,
            )
            .goal(OURS, Goal::AtMost(most))
            .goal(STACK, Goal::AtMost(most));
        table.row(
            "… p99.9 while it is slow, ms",
            0,
            results.cells(Outcome::p999),
        );
        if pool.slow == TWO_SECONDS.slow {
            table
                .goal(OURS, Goal::AtMost(205.0))
                .goal(STACK, Goal::AtMost(205.0));
        }
        table.row(
            "… answered within 300 ms, %",
            3,
            results.cells(|outcome| 100.0 * outcome.within(Duration::from_millis(300))),
        );
        if pool.slow != TWO_SECONDS.slow {
            table
                .goal(OURS, Goal::AtLeast(99.9))
                .goal(STACK, Goal::AtLeast(99.9));
        }
        table
            .row(
                "… copies, % of the calls, most of before, while and after",
                2,
                copies(&results),
            )
            .goal(OURS, Goal::AtMost(2.2))
            .goal(STACK, Goal::AtMost(2.2));
    }
    table.repeats(|seed| simulate_calls(seed, HANGS, VARIANTS[5].1).log);
    let report = Report::new("X14 hedging over a balancer", vec![table]);
    match form {
        Form::Short => report,
        Form::Full => report.plot(shares()),
    }
}

fn round(share: f64) -> f64 {
    (share * 1e4).round() / 1e4
}

fn copies(results: &Results<Outcome>) -> Vec<Sample> {
    results.cells(|outcome| {
        let copies = outcome.copies.iter().copied();
        100.0 * copies.fold(0.0, f64::max)
    })
}

/// The calls that the slow replica gets, second by second.
fn shares() -> Plot {
    let line = |(name, client): &Variant<Balancer>| {
        let outcome = simulate_calls(1, TWO_SECONDS, *client).outcome;
        Line::seconds(*name, outcome.shares.into_iter().map(|share| 100.0 * share))
    };
    let seconds = |at: Duration| at.as_secs_f64();
    Plot {
        file: "x14_share",
        title: "1000 calls a second over eleven replicas, one of which takes 2 s for a while",
        x: Axis::linear("time, s", 0.0..f64::from(SECONDS)),
        y: Axis::linear("calls that this one gets, %", 0.0..15.0),
        lines: VARIANTS.iter().map(line).collect(),
        spans: vec![(seconds(SLOW.start)..seconds(SLOW.end), "slow")],
    }
}

struct Outcome {
    /// The share of the attempts that the slow replica gets while it is slow.
    share: f64,
    /// The same for each second.
    shares: Vec<f64>,
    /// The latencies of the calls that begin while it is slow, in order.
    latencies: Vec<Duration>,
    /// The attempts beyond one for each call, as a share of the calls: before, while and after it is slow.
    copies: [f64; 3],
}

impl Outcome {
    /// In milliseconds; infinite if more than one call in a thousand is never answered.
    fn p999(&self) -> f64 {
        match millis_at(0.999, &self.latencies) {
            millis if millis > Duration::MAX.as_secs_f64() => f64::INFINITY,
            millis => millis,
        }
    }

    /// The share of the calls that were answered so soon.
    fn within(&self, time: Duration) -> f64 {
        let soon = self.latencies.partition_point(|latency| *latency <= time);
        soon as f64 / self.latencies.len() as f64
    }
}

/// The attempts on the slow replica, and on all.
#[derive(Default)]
struct Attempts {
    slow: AtomicU32,
    all: AtomicU32,
}

fn simulate_calls(seed: u64, pool: Pool, client: Balancer) -> Run<Outcome> {
    simulate(1, seed, async |world| {
        let attempts = Arc::new(Attempts::default());
        let replica = |n| replica(world, pool, n == 0, &attempts);
        let client = client(world, (0..pool.replicas).map(replica).collect());
        // A call that is never answered takes for ever.
        let while_slow = SLOW.end.saturating_sub(SLOW.start).as_nanos() / pool.pause.as_nanos();
        let latencies = Arc::new(Mutex::new(vec![Duration::MAX; while_slow as usize]));
        let (mut shares, mut copies) = (Vec::new(), [(0, 0); 3]);
        let (mut slow, mut calls) = (0, 0u32);
        for second in 0..SECONDS {
            let begin = Duration::from_secs(second.into());
            let count = (Duration::from_secs(1).as_nanos() / pool.pause.as_nanos()) as u32;
            for call in 0..count {
                let at = begin + pool.pause * call;
                world.sleep_until(at).await;
                let (latencies, ended) = (Arc::clone(&latencies), world.clone());
                let place = SLOW.contains(&at).then(|| {
                    (at.saturating_sub(SLOW.start).as_nanos() / pool.pause.as_nanos()) as usize
                });
                let done = move |_| {
                    if let Some(place) = place {
                        lock(&latencies)[place] = ended.now().saturating_sub(at);
                    }
                };
                world.begin(&client, done).await;
            }
            calls += count;
            let (on_slow, all) = (
                attempts.slow.swap(0, Ordering::Relaxed),
                attempts.all.swap(0, Ordering::Relaxed),
            );
            shares.push(f64::from(on_slow) / f64::from(count));
            let phase = usize::from(begin >= SLOW.start) + usize::from(begin >= SLOW.end);
            slow += if phase == 1 { on_slow } else { 0 };
            copies[phase].0 += all - count;
            copies[phase].1 += count;
        }
        debug_assert_eq!(calls, copies.iter().map(|(_, calls)| calls).sum());
        world.sleep(Duration::from_secs(5)).await;
        let mut latencies = std::mem::take(&mut *lock(&latencies));
        latencies.sort_unstable();
        Outcome {
            share: f64::from(slow) / latencies.len() as f64,
            shares,
            latencies,
            copies: copies.map(|(copies, calls)| f64::from(copies) / f64::from(calls)),
        }
    })
}

fn replica(world: &World, pool: Pool, becomes_slow: bool, attempts: &Arc<Attempts>) -> Backend {
    let (world, attempts) = (world.clone(), Arc::clone(attempts));
    let random = Arc::new(Mutex::new(world.random()));
    Backend::new(service_fn(move |()| {
        world.record(&Event::Attempt);
        attempts.all.fetch_add(1, Ordering::Relaxed);
        if becomes_slow {
            attempts.slow.fetch_add(1, Ordering::Relaxed);
        }
        let latency = if becomes_slow && SLOW.contains(&world.now()) {
            pool.slow
        } else {
            Some((pool.usual)(lock(&random).random()))
        };
        let world = world.clone();
        async move {
            match latency {
                Some(latency) => world.sleep(latency).await,
                None => std::future::pending().await,
            }
            Ok::<_, BoxError>(())
        }
    }))
}
