//! X2: backoff under contention.
//!
//! Marc Brooker, *Exponential Backoff And Jitter*, AWS Architecture Blog, 2015: clients update one row with optimistic
//! concurrency control, all at once. Each client reads the version of the row and writes with it. A client that finds a
//! newer version backs off and starts again.

use std::{
    f64::consts::TAU,
    future::ready,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use buttress::{Backoff, Jitter, RetryLayer};
use rand::{RngExt, rngs::SmallRng};
use tokio::{task::JoinSet, time::Sleep};
use tower::{
    BoxError, Layer, ServiceExt,
    retry::{
        self, Policy,
        backoff::{Backoff as _, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff},
    },
    service_fn,
    util::rng::Rng,
};

use crate::harness::{
    Client, Event, Form, Goal, Report, Results, Run, Table, Variant, World, boxed, lock, simulate,
};

/// One second of tokio's clock for each simulated millisecond.
const SCALE: u32 = 1000;
const CLIENTS: usize = 100;
/// As many as a retry layer can be told to make.
const ATTEMPTS: u32 = 10_000;
/// The first ceiling of the exponential.
const FIRST: Duration = Duration::from_millis(10);
const CAP: Duration = Duration::from_secs(2);

fn exponential(scale: u32) -> Backoff {
    Backoff::exponential(scale * FIRST, scale * CAP)
}

/// The preset, scaled.
fn contention(scale: u32) -> Backoff {
    Backoff::exponential(scale * Duration::from_millis(100), scale * CAP)
}

const FULL: &str = "buttress, full";
const CONTENTION: &str = "buttress, contention";
/// The retry of each column. The short form runs the last two.
const VARIANTS: [Variant<Protect>; 6] = [
    ("no jitter", |world, client| {
        ours(world, client, exponential(SCALE).jitter(Jitter::None))
    }),
    ("tower", tower),
    ("buttress, equal", |world, client| {
        ours(world, client, exponential(SCALE).jitter(Jitter::Equal))
    }),
    ("buttress, decorrelated", |world, client| {
        let backoff = Backoff::decorrelated(SCALE * (FIRST / 2), SCALE * CAP);
        ours(world, client, backoff)
    }),
    (FULL, |world, client| {
        ours(world, client, exponential(SCALE))
    }),
    (CONTENTION, |world, client| {
        ours(world, client, contention(SCALE))
    }),
];

type Protect = fn(&World, Client) -> Client;

pub(crate) fn run(form: Form) -> Report {
    assert_eq!(contention(1), Backoff::contention(), "the preset");

    let variants = &VARIANTS[form.pick(4, 0)..];
    let results = Results::new(variants, form.pick(10, 100), |protect, seed| {
        all_write(seed, *protect).outcome
    });
    let correlations = Results::new(variants, 1, |protect, seed| correlation(seed, *protect));

    let mut table = Table::new(form, variants);
    table
        .row(
            "completion of all 100 clients, ms",
            0,
            results.cells(|outcome| outcome.completion.as_secs_f64() * 1e3),
        )
        .reference("no jitter 63840, equal 6654,")
        .reference("full 4928, decorrelated 4527")
        .goal(FULL, Goal::Within(4930.0, 0.10))
        .goal(CONTENTION, Goal::AtMost(5300.0))
        .row(
            "writes",
            0,
            results.cells(|outcome| f64::from(outcome.writes)),
        )
        .reference("no jitter 1863, equal 811,")
        .reference("full 797, decorrelated 997")
        .goal(FULL, Goal::Within(797.0, 0.05))
        .goal(CONTENTION, Goal::AtMost(550.0))
        .row(
            "|r| of the delays of two requests",
            3,
            correlations.cells(|r| r.abs()),
        )
        .goal(FULL, Goal::AtMost(0.05))
        .goal(CONTENTION, Goal::AtMost(0.05))
        .repeats(|seed| all_write(seed, VARIANTS[4].1).log);
    Report::new("X2 backoff under contention", vec![table])
}

struct Outcome {
    completion: Duration,
    writes: u32,
}

/// All clients update the row once, from the start.
fn all_write(seed: u64, protect: Protect) -> Run<Outcome> {
    simulate(SCALE, seed, async |world| {
        let row = Mutex::new(Row {
            random: world.random(),
            version: 0,
            writes: 0,
        });
        let database = Arc::new(Database {
            world: world.clone(),
            row,
        });
        let client = {
            let database = Arc::clone(&database);
            boxed(service_fn(move |()| Arc::clone(&database).update()))
        };
        let client = protect(world, client);
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(client.clone().oneshot(()));
        }
        while let Some(answer) = clients.join_next().await {
            answer
                .expect("a client does not panic")
                .expect("a client goes on until its write is accepted");
            world.record(&Event::Success);
        }
        Outcome {
            completion: world.now(),
            writes: database.row().writes,
        }
    })
}

/// The row behind its network.
struct Database {
    world: World,
    row: Mutex<Row>,
}

struct Row {
    random: SmallRng,
    version: u32,
    writes: u32,
}

impl Database {
    /// One attempt of a client: read the row, then write with the version that was read.
    async fn update(self: Arc<Self>) -> Result<(), BoxError> {
        self.message().await;
        let read = self.row().version;
        self.message().await;

        self.message().await;
        self.world.record(&Event::Attempt);
        let is_accepted = {
            let mut row = self.row();
            row.writes += 1;
            let is_accepted = row.version == read;
            row.version += u32::from(is_accepted);
            is_accepted
        };
        self.message().await;
        if is_accepted {
            Ok(())
        } else {
            Err("somebody else has written".into())
        }
    }

    /// A message takes |N(10, 2)| ms.
    async fn message(&self) {
        let delay = {
            let random = &mut self.row().random;
            // Box and Muller's way to a normal distribution.
            let (radius, angle) = (1.0 - random.random::<f64>(), TAU * random.random::<f64>());
            10.0 + 2.0 * (-2.0 * radius.ln()).sqrt() * angle.cos()
        };
        self.world
            .sleep(Duration::from_secs_f64(delay.abs() / 1e3))
            .await;
    }

    fn row(&self) -> MutexGuard<'_, Row> {
        lock(&self.row)
    }
}

fn ours(world: &World, client: Client, backoff: Backoff) -> Client {
    let retry = RetryLayer::config("row")
        .max_attempts(ATTEMPTS)
        .backoff(backoff)
        .no_budget()
        .seed(world.seed())
        .build()
        .expect("the configuration is valid");
    boxed(retry.layer(client))
}

fn tower(world: &World, client: Client) -> Client {
    let random = TowerRandom(world.random());
    let mut maker =
        ExponentialBackoffMaker::new(world.scaled(FIRST), world.scaled(CAP), 0.99, random)
            .expect("the configuration is valid");
    boxed(retry::RetryLayer::new(TowerPolicy(maker.make_backoff())).layer(client))
}

/// Retries until it succeeds, with tower's own backoff. Tower clones the policy for each request.
#[derive(Clone)]
struct TowerPolicy(ExponentialBackoff<TowerRandom>);

impl Policy<(), (), BoxError> for TowerPolicy {
    type Future = Sleep;

    fn retry(&mut self, (): &mut (), result: &mut Result<(), BoxError>) -> Option<Sleep> {
        result.is_err().then(|| self.0.next_backoff())
    }

    fn clone_request(&mut self, (): &()) -> Option<()> {
        Some(())
    }
}

/// Tower's generator is seeded by the operating system; this one repeats.
#[derive(Clone)]
struct TowerRandom(SmallRng);

impl Rng for TowerRandom {
    fn next_u64(&mut self) -> u64 {
        self.0.random()
    }
}

/// The correlation between the delays of two requests that are made by one client, and fail again
/// and again.
fn correlation(seed: u64, protect: Protect) -> f64 {
    let attempts = simulate(SCALE, seed, async |world| {
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let client = {
            let (world, attempts) = (world.clone(), Arc::clone(&attempts));
            boxed(service_fn(move |()| {
                let mut attempts = lock(&attempts);
                attempts.push(world.now().as_secs_f64());
                let is_last = attempts.len() % ATTEMPTS as usize == 0;
                ready(if is_last {
                    Ok(())
                } else {
                    Err(BoxError::from("not yet"))
                })
            }))
        };
        let client = protect(world, client);
        for _ in 0..2 {
            client
                .clone()
                .oneshot(())
                .await
                .expect("the last attempt succeeds");
        }
        lock(&attempts).clone()
    });
    let delays =
        |attempts: &[f64]| -> Vec<f64> { attempts.windows(2).map(|two| two[1] - two[0]).collect() };
    let (first, second) = attempts.outcome.split_at(ATTEMPTS as usize);
    pearson(&delays(first), &delays(second))
}

fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (x_mean, y_mean) = (mean(x), mean(y));
    let covariance = |x: &[f64], x_mean: f64, y: &[f64], y_mean: f64| -> f64 {
        x.iter()
            .zip(y)
            .map(|(x, y)| (x - x_mean) * (y - y_mean))
            .sum()
    };
    covariance(x, x_mean, y, y_mean)
        / (covariance(x, x_mean, x, x_mean) * covariance(y, y_mean, y, y_mean)).sqrt()
}
