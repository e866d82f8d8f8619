//! The hedge storm: in a brown-out all calls are slow and hedged, and the hedges keep the servers slow after the
//! brown-out.

use std::{
    mem,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use buttress::{Budget, DeadlineLayer};
use tower::{Layer, ServiceExt, timeout::TimeoutLayer};

use super::{
    Client, NONE, OURS, Operation, TOWER, boxed, defaults, fixed, ours, quantile,
    replicas::{Cancelled, Replicas, Route},
    tower,
};
use crate::harness::{Form, Goal, Results, Run, Table, Variant, World, lock, poisson, simulate};

const SCALE: u32 = 1000;
const REPLICAS: usize = 20;
/// 60 % of what the replicas can do.
const RATE: f64 = 1200.0;
const DEADLINE: Duration = Duration::from_secs(1);

/// Seconds of a run, up to the end of the last ones.
struct Times {
    healthy: Range<u64>,
    brown_out: Range<u64>,
    afterwards: Range<u64>,
}

impl Times {
    fn of(form: Form) -> Self {
        match form {
            Form::Short => Self {
                healthy: 3..5,
                brown_out: 5..13,
                afterwards: 22..24,
            },
            Form::Full => Self {
                healthy: 10..40,
                brown_out: 40..50,
                afterwards: 100..120,
            },
        }
    }
}

const NO_BUDGET: &str = "after 60 ms, no budget";
/// The client of each column. The short form runs the last two.
const VARIANTS: [Variant<Protect>; 4] = [
    (NONE, with_deadline),
    (TOWER, |world, replicas| {
        with_deadline(world, tower(world, Duration::from_secs(10), replicas))
    }),
    (NO_BUDGET, |world, replicas| {
        let delay = world.scaled(Duration::from_millis(60));
        with_deadline(world, fixed(delay, replicas))
    }),
    (OURS, |world, replicas| {
        // What an unscaled budget makes of the rate.
        let retries = (0.2 * RATE) as u32;
        let budget = Budget::config("leaf").reserve(retries).build();
        let budget = budget.expect("the configuration is valid");
        let deadline = DeadlineLayer::new("leaf", world.scaled(DEADLINE));
        boxed(deadline.layer(ours(defaults(SCALE).budget(&budget), replicas)))
    }),
];

type Protect = fn(&World, Client) -> Client;

fn with_deadline(world: &World, replicas: Client) -> Client {
    boxed(TimeoutLayer::new(world.scaled(DEADLINE)).layer(replicas))
}

pub(super) fn table(form: Form) -> Table {
    let variants = &VARIANTS[form.pick(2, 0)..];
    let seeds = |name: &str| match name {
        NONE | OURS => form.pick(1, 30),
        _ => form.pick(1, 4),
    };
    let times = Times::of(form);
    let results = Results::with_seeds(variants, seeds, |protect, seed| {
        storm(seed, &times, *protect).outcome
    });
    let success = |during: &Range<u64>| results.cells(|outcome| outcome.success(during));
    let mut table = Table::new(form, variants);
    table
        .row(
            "healthy: p99, ms",
            1,
            results.cells(|outcome| outcome.healthy_p99),
        )
        .goal(OURS, Goal::AtMost(form.pick(65.0, 60.0)))
        .row("brown-out: success, %", 2, success(&times.brown_out))
        .reference("no hedging 50 to 51");
    if let Form::Full = form {
        let success = |outcome: &Outcome| outcome.success(&times.brown_out);
        table
            .goal(NONE, Goal::Within(50.5, 0.04))
            .row(
                "brown-out: points more than without",
                2,
                results.compared(|hedged, not| success(hedged) - success(not)),
            )
            .goal(OURS, Goal::AtLeast(-4.0));
    }
    table
        .row("long afterwards: success, %", 3, success(&times.afterwards))
        .reference("no hedging 100, no budget 0")
        .goal(NO_BUDGET, Goal::AtMost(0.0))
        .goal(OURS, Goal::AtLeast(99.99));
    if let Form::Full = form {
        table.goal(NONE, Goal::AtLeast(99.99));
    }
    table
        .row(
            "hedges, % of the calls",
            2,
            results.cells(|outcome| 100.0 * outcome.extra(&(0..times.afterwards.end))),
        )
        .row(
            "hedges in the worst second, %",
            2,
            results.greatest(|outcome| {
                let seconds = 0..times.afterwards.end;
                let extra = seconds.map(|second| 100.0 * outcome.extra(&(second..second + 1)));
                extra.fold(0.0, f64::max)
            }),
        )
        .reference("budget 5")
        .goal(OURS, Goal::AtMost(6.0))
        .repeats(|seed| {
            let times = Times {
                healthy: 1..2,
                brown_out: 2..3,
                afterwards: 4..5,
            };
            storm(seed, &times, VARIANTS[3].1).log
        });
    table
}

struct Outcome {
    healthy_p99: f64,
    seconds: Vec<Second>,
}

/// What arrives in one second.
#[derive(Clone, Copy, Default)]
struct Second {
    calls: u32,
    succeeded: u32,
    attempts: u32,
}

impl Outcome {
    fn sum(&self, during: &Range<u64>, number: impl Fn(&Second) -> u32) -> f64 {
        let seconds = &self.seconds[during.start as usize..during.end as usize];
        f64::from(seconds.iter().map(number).sum::<u32>())
    }

    fn success(&self, during: &Range<u64>) -> f64 {
        100.0 * self.sum(during, |second| second.succeeded)
            / self.sum(during, |second| second.calls)
    }

    fn extra(&self, during: &Range<u64>) -> f64 {
        self.sum(during, |second| second.attempts) / self.sum(during, |second| second.calls) - 1.0
    }
}

fn storm(seed: u64, times: &Times, protect: Protect) -> Run<Outcome> {
    simulate(SCALE, seed, async |world| {
        let Range { start, end } = times.brown_out;
        let slow = Duration::from_secs(start)..Duration::from_secs(end);
        let seconds = times.afterwards.end;
        let route = Route::LeastOfTwo;
        let replicas = Replicas::new(world, REPLICAS, route, Cancelled::Served, slow);
        let client = protect(world, replicas.client());

        let history = Arc::new(Mutex::new(vec![Second::default(); seconds as usize]));
        let latencies = Arc::new(Mutex::new(Vec::new()));
        let mut random = world.random();
        let until = Duration::from_secs(seconds);
        for at in poisson(world.random(), RATE, until) {
            world.sleep_until(at).await;
            let arrived = at.as_secs();
            lock(&history)[arrived as usize].calls += 1;
            let (history, latencies) = (Arc::clone(&history), Arc::clone(&latencies));
            let call = client.clone().oneshot(Operation::new(&mut random));
            let is_healthy = times.healthy.contains(&arrived);
            let ended = world.clone();
            let done = move |answer: Result<_, _>| {
                lock(&history)[arrived as usize].succeeded += u32::from(answer.is_ok());
                if is_healthy {
                    let latency = ended.now().saturating_sub(at);
                    lock(&latencies).push(1e3 * latency.as_secs_f64());
                }
            };
            world.begin_call(call, done).await;
        }
        world.sleep(2 * DEADLINE).await;

        let mut seconds = mem::take(&mut *lock(&history));
        for at in replicas.attempts() {
            if let Some(second) = seconds.get_mut(at.as_secs() as usize) {
                second.attempts += 1;
            }
        }
        let mut latencies = mem::take(&mut *lock(&latencies));
        latencies.sort_by(f64::total_cmp);
        Outcome {
            healthy_p99: quantile(&latencies, 0.99),
            seconds,
        }
    })
}
