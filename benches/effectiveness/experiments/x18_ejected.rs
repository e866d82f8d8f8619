//! X18 (a): recovery of a failing endpoint.
//!
//! Ten endpoints, one of which fails all calls for 15 s. It may be ejected in this time, and should soon have its share
//! again when it works. The balancer has no stack around it, so that each failed call is visible.
//!
//! Not scaled.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use buttress::{Balance, balance::OutlierEjection};
use rand::RngExt;
use tower::{BoxError, service_fn};

use super::x6_fails_fast::{Backend, Balancer, balance, endpoints, tower_balance};
use crate::harness::{
    Event, Form, Goal, Report, Results, Run, Table, Variant, World, lock, poisson, pool, simulate,
};

const ENDPOINTS: usize = 10;
const FAILS_IN: Duration = Duration::from_millis(1);
const FAILS_FOR: Duration = Duration::from_secs(15);
const END: u64 = 120;

const OURS: &str = "buttress";
const VARIANTS: [Variant<Balancer>; 3] = [
    ("tower Balance", tower_balance),
    ("ejection of 30 s", |world, backends| {
        let ejection = OutlierEjection::new();
        let ejection = ejection.base_ejection_time(Duration::from_secs(30));
        let config = Balance::config(pool()).outlier_ejection(ejection);
        balance(config.seed(world.seed()).build(endpoints(backends)))
    }),
    (OURS, |world, backends| {
        let config = Balance::config(pool()).seed(world.seed());
        balance(config.build(endpoints(backends)))
    }),
];

pub(crate) fn run(form: Form) -> Report {
    let (seeds, variants) = (form.pick(1, 20), &VARIANTS[form.pick(2, 0)..]);
    let mut table = Table::new(form, variants);
    for (latency, rate, goal) in [(20, 1_250.0, 14.0), (500, 200.0, 24.0)] {
        let latency = Duration::from_millis(latency);
        let results = Results::new(variants, seeds, |balancer, seed| {
            episode(seed, *balancer, latency, rate).outcome
        });
        table
            .row(
                format!("{latency:?}, {rate}/s: 80 % of its share after, s"),
                1,
                results.cells(|outcome| outcome.back_after),
            )
            .goal(OURS, Goal::AtMost(goal))
            .row("… failed calls", 0, results.cells(|outcome| outcome.failed))
            .goal(OURS, Goal::AtMost(27.0));
    }
    table.repeats(|seed| episode(seed, VARIANTS[2].1, Duration::from_millis(20), 100.0).log);
    Report::new("X18 (a) coming back from failure", vec![table])
}

struct Outcome {
    /// The seconds from its healing to the first three in a row in which it has 80 % of its share on average.
    back_after: f64,
    failed: f64,
}

fn episode(seed: u64, balancer: Balancer, latency: Duration, rate: f64) -> Run<Outcome> {
    simulate(1, seed, async |world| {
        // At any time of the interval of the ejection.
        let begin =
            Duration::from_secs(30) + Duration::from_secs(10).mul_f64(world.random().random());
        let heals = begin + FAILS_FOR;
        let counts = Arc::new(Mutex::new(vec![[0_u32; 2]; END as usize + 1]));
        let backend = |number| backend(world, number, latency, begin, &counts);
        let client = balancer(world, (0..ENDPOINTS).map(backend).collect());
        let failed = Arc::new(Mutex::new(0_u32));
        for at in poisson(world.random(), rate, Duration::from_secs(END)) {
            world.sleep_until(at).await;
            let failed = Arc::clone(&failed);
            let done = move |answer: Result<(), BoxError>| {
                *lock(&failed) += u32::from(answer.is_err());
            };
            world.begin(&client, done).await;
        }
        let counts = lock(&counts).clone();
        let share = |second: &[[u32; 2]]| {
            let [own, all] =
                [0, 1].map(|place| second.iter().map(|counts| counts[place]).sum::<u32>());
            f64::from(own) * ENDPOINTS as f64 / f64::from(all)
        };
        let first = heals.as_secs_f64().ceil();
        let mut later = counts[first as usize..].windows(3);
        let back = later.position(|seconds| share(seconds) >= 0.8);
        Outcome {
            back_after: back.map_or(f64::INFINITY, |seconds| {
                first + seconds as f64 - heals.as_secs_f64()
            }),
            failed: f64::from(*lock(&failed)),
        }
    })
}

fn backend(
    world: &World,
    number: usize,
    latency: Duration,
    begin: Duration,
    counts: &Arc<Mutex<Vec<[u32; 2]>>>,
) -> Backend {
    let (world, counts) = (world.clone(), Arc::clone(counts));
    Backend::new(service_fn(move |()| {
        world.record(&Event::Attempt);
        let (now, world) = (world.now(), world.clone());
        let [own, all] = &mut lock(&counts)[now.as_secs() as usize];
        *own += u32::from(number == 0);
        *all += 1;
        let fails = number == 0 && (begin..begin + FAILS_FOR).contains(&now);
        async move {
            if fails {
                world.sleep(FAILS_IN).await;
                return Err(BoxError::from("the endpoint fails"));
            }
            world.sleep(latency).await;
            Ok(())
        }
    }))
}
