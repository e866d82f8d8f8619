//! Does hedging ever do harm? The replicas are random, with Poisson arrivals and exponential service times: no replica
//! is faster than another, and each hedge is additional work.
//!
//! The goal is a mean that is at most 1 % longer. If servers finish losing copies, and half of the capacity or more is
//! in use, no hedging can reach this goal: with a share *h* of hedges the load is ρ(1 + *h*), and the mean time in a
//! random queue grows by ρ*h* / (1 − ρ(1 + *h*)). With the hedges that shorten the tail, this is 1.8 % for ρ = 0.5 and
//! 3.6 % for ρ = 0.7. To stay below 1 % at ρ = 0.7, at most 0.4 % of the calls could have a hedge. The goal there is
//! that the calls pay for less than the work of the hedges.

use std::{
    mem,
    sync::{Arc, Mutex},
    time::Duration,
};

use tower::ServiceExt;

use super::{
    Client, NONE, OURS, Operation, TOWER, defaults, ours, quantile,
    replicas::{Cancelled, Replicas, Route, SERVICE},
    tower,
};
use crate::harness::{Form, Goal, Results, Run, Table, Variant, World, lock, poisson, simulate};

const SCALE: u32 = 1000;
const REPLICAS: usize = 10;

/// The client of each column. The short form runs the first two.
const VARIANTS: [Variant<Protect>; 3] = [
    (NONE, |_, replicas| replicas),
    (OURS, |_, replicas| ours(defaults(SCALE), replicas)),
    (TOWER, |world, replicas| {
        tower(world, Duration::from_secs(30), replicas)
    }),
];

type Protect = fn(&World, Client) -> Client;

#[derive(Clone, Copy)]
struct Case {
    load: f64,
    cancelled: Cancelled,
    seconds: u64,
}

pub(super) fn table(form: Form) -> Table {
    let (seeds, seconds) = form.pick((1, 15), (4, 200));
    let variants = &VARIANTS[..form.pick(2, 3)];
    let mut table = Table::new(form, variants);
    let loads: [(_, &[f64]); 2] = [
        (
            Cancelled::Skipped,
            form.pick(&[0.5], &[0.1, 0.3, 0.5, 0.7, 0.9, 0.95]),
        ),
        (Cancelled::Served, form.pick(&[0.3], &[0.1, 0.3, 0.5, 0.7])),
    ];
    for (cancelled, loads) in loads {
        for &load in loads {
            let case = Case {
                load,
                cancelled,
                seconds,
            };
            let seeds = |name: &str| if name == TOWER { 1 } else { seeds };
            let results = Results::with_seeds(variants, seeds, |protect, seed| {
                episode(seed, case, *protect).outcome
            });
            let more = |number: fn(&Outcome) -> f64| {
                results.compared(|hedged, not| 100.0 * (number(hedged) / number(not) - 1.0))
            };
            let losers = match cancelled {
                Cancelled::Served => "losers are served",
                Cancelled::Skipped => "losers leave the queue",
            };
            let named = format!("{losers}, load {load}");
            // At most the hedges that the default delay asks for: more must not excuse a longer mean.
            let extra = results.cells(|outcome| outcome.extra)[1].mean().min(0.02);
            let most = match cancelled {
                Cancelled::Served if load >= 0.5 => {
                    100.0 * load * extra / (1.0 - load * (1.0 + extra))
                }
                Cancelled::Served | Cancelled::Skipped => 1.0,
            };
            table
                .row(
                    format!("{named}: mean, % more"),
                    2,
                    more(|outcome| outcome.mean),
                )
                .goal(OURS, Goal::AtMost((100.0 * most).round() / 100.0))
                .row(
                    format!("{named}: p99, % more"),
                    2,
                    more(|outcome| outcome.p99),
                )
                .goal(OURS, Goal::AtMost(2.0))
                .row(
                    format!("{named}: extra requests, %"),
                    2,
                    results.cells(|outcome| 100.0 * outcome.extra),
                );
        }
    }
    let case = Case {
        load: 0.5,
        cancelled: Cancelled::Skipped,
        seconds: 5,
    };
    table.repeats(|seed| episode(seed, case, VARIANTS[1].1).log);
    table
}

struct Outcome {
    mean: f64,
    p99: f64,
    extra: f64,
}

fn episode(seed: u64, case: Case, protect: Protect) -> Run<Outcome> {
    simulate(SCALE, seed, async |world| {
        let never = Duration::ZERO..Duration::ZERO;
        let replicas = Replicas::new(world, REPLICAS, Route::Random, case.cancelled, never);
        let client = protect(world, replicas.client());

        let latencies = Arc::new(Mutex::new(Vec::new()));
        let mut random = world.random();
        let until = Duration::from_secs(case.seconds);
        let rate = case.load * REPLICAS as f64 / SERVICE.as_secs_f64();
        for at in poisson(world.random(), rate, until) {
            world.sleep_until(at).await;
            let latencies = Arc::clone(&latencies);
            let ended = world.clone();
            let call = client.clone().oneshot(Operation::new(&mut random));
            let done = move |_| {
                let latency = ended.now().saturating_sub(at);
                lock(&latencies).push(latency.as_secs_f64());
            };
            world.begin_call(call, done).await;
        }
        // Until every queue is empty.
        world.sleep(Duration::from_secs(60)).await;

        let mut latencies = mem::take(&mut *lock(&latencies));
        latencies.sort_by(f64::total_cmp);
        let calls = latencies.len() as f64;
        Outcome {
            mean: latencies.iter().sum::<f64>() / calls,
            p99: quantile(&latencies, 0.99),
            extra: replicas.attempts().len() as f64 / calls - 1.0,
        }
    })
}
