//! Roots that wait for many leaves. The share of slow roots has a closed form.

use std::{
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tower::{Service, ServiceExt, service_fn};

use super::{Client, NONE, OURS, Operation, TOWER, boxed, defaults, fixed, ours, tower};
use crate::harness::{
    Event, Form, Goal, Results, Run, Table, Variant, World, lock, poisson, simulate,
};

const SCALE: u32 = 100;
const FAST: Duration = Duration::from_millis(10);
const SLOW: Duration = Duration::from_secs(1);
/// Just after the fast answer.
const DELAY: Duration = Duration::from_micros(10_010);

/// How many roots there are a second: so few that they seldom meet, as in the published benchmark.
const PER_SECOND: f64 = 10.0;
/// No leaf takes longer.
const LONGEST: Duration = Duration::from_secs(6);

const FIXED: &str = "fixed delay";
/// The client of each column. The short form runs the last two.
const VARIANTS: [Variant<Protect>; 4] = [
    (TOWER, |world, leaf| {
        tower(world, Duration::from_secs(2), leaf)
    }),
    (FIXED, |world, leaf| fixed(world.scaled(DELAY), leaf)),
    (NONE, |_, leaf| leaf),
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
#[derive(Clone, Copy)]
struct Case {
    slow: f64,
    leaves: usize,
    roots: usize,
}

pub(super) fn table(form: Form) -> Table {
    let variants = &VARIANTS[form.pick(2, 0)..];
    let mut table = Table::new(form, variants);
    let seeds = |name: &str| if name == OURS { form.pick(1, 5) } else { 1 };
    let cases = [
        (0.01, 100, form.pick(100, 20_000)),
        (1e-4, 2000, form.pick(2, 1000)),
    ];
    for (slow, leaves, roots) in cases {
        let case = Case {
            slow,
            leaves,
            roots,
        };
        let results = Results::with_seeds(variants, seeds, |protect, seed| {
            fan_out(seed, case, *protect).outcome
        });
        let [unhedged, hedged] =
            [slow, slow * slow].map(|slow| 1.0 - (1.0 - slow).powf(leaves as f64));
        let [roots, ours] = [NONE, OURS].map(|name| (roots as u64 * seeds(name)) as f64);
        let named = format!("p = {slow}, {leaves} leaves");
        table
            .row(
                format!("{named}: roots of 1 s or more, %"),
                3,
                results.cells(|outcome| 100.0 * outcome.slow_roots),
            )
            .reference(format!(
                "theory {:.2} → {:.3}",
                100.0 * unhedged,
                100.0 * hedged
            ))
            .goal(NONE, share_of(unhedged, roots))
            .goal(OURS, share_of(hedged, ours))
            .row(
                format!("{named}: extra requests, %"),
                4,
                results.cells(|outcome| 100.0 * outcome.extra),
            )
            .reference(format!("theory {}", 100.0 * slow))
            .goal(OURS, share_of(slow, ours * leaves as f64));
    }
    let case = Case {
        slow: 0.01,
        leaves: 100,
        roots: 20,
    };
    table.repeats(|seed| fan_out(seed, case, VARIANTS[3].1).log);
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

fn fan_out(seed: u64, case: Case, protect: Protect) -> Run<Outcome> {
    let slow = case.slow;
    simulate(SCALE, seed, async |world| {
        let latency = move |luck| if luck <= slow { SLOW } else { FAST };
        let leaves = Leaves::new(world, latency);
        let client = protect(world, leaves.client());
        let roots = leaves.roots(client, case.leaves, 0, case.roots).await;
        let slow_roots = roots.latencies.iter().filter(|latency| **latency >= SLOW);
        Outcome {
            slow_roots: slow_roots.count() as f64 / case.roots as f64,
            extra: roots.extra,
        }
    })
}

/// Leaves that take a random time each, whatever else they do.
pub(super) struct Leaves<F> {
    world: World,
    /// For a number between 0 and 1.
    latency: F,
    attempts: AtomicUsize,
}

/// What is seen of the roots.
pub(super) struct Roots {
    pub(super) latencies: Vec<Duration>,
    /// Attempts at the leaves beyond one for each call, as a share.
    pub(super) extra: f64,
}

/// A root that is under way.
struct Root {
    world: World,
    began: Duration,
    missing: AtomicUsize,
    latencies: Arc<Mutex<Vec<Duration>>>,
}

impl<F> Leaves<F>
where
    F: Fn(f64) -> Duration + Send + Sync + 'static,
{
    pub(super) fn new(world: &World, latency: F) -> Arc<Self> {
        Arc::new(Self {
            world: world.clone(),
            latency,
            attempts: AtomicUsize::new(0),
        })
    }

    pub(super) fn client(self: &Arc<Self>) -> Client {
        let leaves = Arc::clone(self);
        boxed(service_fn(move |operation: Arc<Operation>| {
            let leaves = Arc::clone(&leaves);
            async move {
                leaves.attempts.fetch_add(1, Ordering::Relaxed);
                let latency = (leaves.latency)(operation.attempt().work);
                leaves.world.sleep(latency).await;
                Ok::<_, tower::BoxError>(())
            }
        }))
    }

    /// Sends roots that call so many leaves each, and looks at the last `count` of them.
    pub(super) async fn roots(
        &self,
        mut client: Client,
        leaves: usize,
        warm_up: usize,
        count: usize,
    ) -> Roots {
        let world = &self.world;
        let mut random = world.random();
        let mut latencies = Arc::default();
        let arrivals = poisson(world.random(), PER_SECOND, Duration::MAX);
        for (n, at) in arrivals.take(warm_up + count).enumerate() {
            if n == warm_up {
                world.sleep(LONGEST).await;
                self.attempts.store(0, Ordering::Relaxed);
                latencies = Arc::default();
            }
            let pause = if n < warm_up { Duration::ZERO } else { LONGEST };
            world.sleep_until(at + pause).await;
            let root = Arc::new(Root {
                world: world.clone(),
                began: world.now(),
                missing: AtomicUsize::new(leaves),
                latencies: Arc::clone(&latencies),
            });
            for _ in 0..leaves {
                let service = client.ready().await.expect("it is always ready");
                let call = service.call(Operation::new(&mut random));
                let root = Arc::clone(&root);
                tokio::spawn(async move {
                    call.await.expect("a leaf always answers");
                    root.leaf_answered();
                });
            }
        }
        world.sleep(LONGEST).await;
        let latencies = mem::take(&mut *lock(&latencies));
        assert_eq!(latencies.len(), count, "every root is answered");
        let attempts = self.attempts.load(Ordering::Relaxed);
        Roots {
            latencies,
            extra: attempts as f64 / (count * leaves) as f64 - 1.0,
        }
    }
}

impl Root {
    fn leaf_answered(&self) {
        if self.missing.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.world.record(&Event::Success);
            let latency = self.world.now().saturating_sub(self.began);
            lock(&self.latencies).push(latency);
        }
    }
}
