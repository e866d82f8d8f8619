//! Roots that wait for many leaves, where the share of the slow ones has a closed form.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::rngs::SmallRng;
use tower::{ServiceExt, service_fn};

use super::{Client, NONE, OURS, Operation, TOWER, defaults, fixed, ours, tower};
use crate::harness::{
    Event, Form, Goal, Results, Run, Table, Variant, World, lock, poisson, simulate,
};

const SCALE: u32 = 100;
const FAST: Duration = Duration::from_millis(10);
const SLOW: Duration = Duration::from_secs(1);
/// Just after the fast answer.
const DELAY: Duration = Duration::from_micros(10_010);

const FIXED: &str = "fixed delay";
const VARIANTS: [Variant<Protect>; 4] = [
    (NONE, |_, leaf| leaf),
    (TOWER, |world, leaf| {
        tower(world, Duration::from_secs(1), leaf)
    }),
    (FIXED, |world, leaf| fixed(world.scaled(DELAY), leaf)),
    (OURS, |world, leaf| {
        // The closed form knows of no limit.
        let config = defaults(SCALE)
            .delay(world.scaled(DELAY))
            .rate_share(1.0)
            .burst(10_000)
            .slowdown(1000.0);
        ours(config, leaf)
    }),
];

type Protect = fn(&World, Client) -> Client;

/// Leaves that are slow with this probability, so many for each root.
struct Case {
    slow: f64,
    leaves: usize,
    roots: u32,
}

pub(super) fn table(form: Form) -> Table {
    let mut table = Table::new(form, &VARIANTS);
    let seeds = form.pick(2, 5);
    let cases = [
        Case {
            slow: 0.01,
            leaves: 100,
            roots: form.pick(500, 20_000),
        },
        Case {
            slow: 1e-4,
            leaves: 2000,
            roots: form.pick(20, 2000),
        },
    ];
    for case in cases {
        let results = Results::new(&VARIANTS, seeds, |protect, seed| {
            fan_out(seed, &case, *protect).outcome
        });
        let roots = f64::from(case.roots) * seeds as f64;
        let calls = roots * case.leaves as f64;
        let named = format!("p = {}, {} leaves", case.slow, case.leaves);
        let unhedged = 1.0 - (1.0 - case.slow).powf(case.leaves as f64);
        let hedged = 1.0 - (1.0 - case.slow * case.slow).powf(case.leaves as f64);
        table
            .row(
                format!("{named}: roots of 1 s and more, %"),
                3,
                results.cells(|outcome| 100.0 * outcome.slow_roots),
            )
            .reference(format!(
                "closed form {:.2} → {:.3}",
                100.0 * unhedged,
                100.0 * hedged
            ))
            .goal(NONE, share_of(unhedged, roots))
            .goal(OURS, share_of(hedged, roots))
            .row(
                format!("{named}: extra requests, %"),
                4,
                results.cells(|outcome| 100.0 * outcome.extra),
            )
            .reference(format!("closed form {}", 100.0 * case.slow))
            .goal(OURS, share_of(case.slow, calls));
    }
    let case = Case {
        slow: 0.01,
        leaves: 100,
        roots: 20,
    };
    table.repeats(|seed| fan_out(seed, &case, VARIANTS[3].1).log);
    table
}

/// A share of so many draws, in percent, with a band of three standard deviations.
fn share_of(share: f64, draws: f64) -> Goal {
    let band = 3.0 * (share * (1.0 - share) / draws).sqrt();
    Goal::Within(100.0 * share, band / share)
}

struct Outcome {
    slow_roots: f64,
    extra: f64,
}

fn fan_out(seed: u64, case: &Case, protect: Protect) -> Run<Outcome> {
    let slow = case.slow;
    simulate(SCALE, seed, async |world| {
        let latency = move |luck| if luck <= slow { SLOW } else { FAST };
        let leaves = Leaves::new(world, latency);
        let client = protect(world, leaves.client());
        let latencies = leaves.roots(&client, case.leaves, case.roots, 100.0).await;
        let slow_roots = latencies.iter().filter(|latency| **latency >= SLOW);
        Outcome {
            slow_roots: slow_roots.count() as f64 / latencies.len() as f64,
            extra: leaves.extra(),
        }
    })
}

/// Leaves that take a random time each, whatever else they do.
pub(super) struct Leaves<F> {
    world: World,
    latency: F,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    attempts: AtomicUsize,
    calls: AtomicUsize,
}

/// One root that is under way.
struct Root {
    world: World,
    began: Duration,
    missing: AtomicUsize,
    latencies: Arc<Mutex<Vec<Duration>>>,
}

impl Root {
    fn leaf_answered(&self) {
        if self.missing.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.world.record(&Event::Success);
            lock(&self.latencies).push(self.world.now() - self.began);
        }
    }
}

impl<F> Leaves<F>
where
    F: Fn(f64) -> Duration + Copy + Send + 'static,
{
    pub(super) fn new(world: &World, latency: F) -> Self {
        Self {
            world: world.clone(),
            latency,
            counts: Arc::default(),
        }
    }

    pub(super) fn client(&self) -> Client {
        let (world, latency) = (self.world.clone(), self.latency);
        let counts = Arc::clone(&self.counts);
        Client::new(service_fn(move |operation: Arc<Operation>| {
            counts.attempts.fetch_add(1, Ordering::Relaxed);
            let world = world.clone();
            async move {
                world.record(&Event::Attempt);
                world.sleep(latency(operation.attempt().work)).await;
                Ok(())
            }
        }))
    }

    /// Attempts at the leaves beyond one for each call.
    pub(super) fn extra(&self) -> f64 {
        let [attempts, calls] = [&self.counts.attempts, &self.counts.calls]
            .map(|count| count.load(Ordering::Relaxed) as f64);
        attempts / calls - 1.0
    }

    /// How long so many roots took, that wait for so many leaves.
    pub(super) async fn roots(
        &self,
        client: &Client,
        leaves: usize,
        roots: u32,
        per_second: f64,
    ) -> Vec<Duration> {
        let mut random: SmallRng = self.world.random();
        let latencies = Arc::default();
        let arrivals = poisson(self.world.random(), per_second, Duration::MAX);
        for at in arrivals.take(roots as usize) {
            self.world.sleep_until(at).await;
            let root = Arc::new(Root {
                world: self.world.clone(),
                began: self.world.now(),
                missing: AtomicUsize::new(leaves),
                latencies: Arc::clone(&latencies),
            });
            self.counts.calls.fetch_add(leaves, Ordering::Relaxed);
            for _ in 0..leaves {
                let call = client.clone().oneshot(Operation::new(&mut random));
                let root = Arc::clone(&root);
                tokio::spawn(async move {
                    call.await.expect("a leaf always answers");
                    root.leaf_answered();
                });
            }
        }
        // Longer than any leaf takes.
        self.world.sleep(Duration::from_secs(10)).await;
        let latencies = std::mem::take(&mut *lock(&latencies));
        assert_eq!(latencies.len(), roots as usize, "every root is answered");
        latencies
    }
}
