//! X1: hedging.
//!
//! Dean and Barroso, *The Tail at Scale*, CACM 2013: a second copy of a slow request, sent to another replica, shortens
//! the tail for a few percent more requests. The four parts are: a case with an exact theory, the published numbers,
//! the overload that hedging can cause, and the question whether hedging ever does harm.

mod bigtable;
mod fan_out;
mod harm;
mod replicas;
mod storm;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use buttress::{HedgeLayer, hedge::Config};
use rand::{RngExt, rngs::SmallRng};
use tower::{
    BoxError, Service, ServiceExt,
    hedge::{Hedge, Policy},
    service_fn,
    util::BoxCloneService,
};

use crate::harness::{Form, Report, World, boxed, lock};

pub(crate) fn run(form: Form) -> Report {
    let (bigtable, plot) = bigtable::table(form);
    let tables = vec![
        fan_out::table(form),
        bigtable,
        storm::table(form),
        harm::table(form),
    ];
    Report::new("X1 hedging", tables).plot(plot)
}

const NONE: &str = "no hedging";
const TOWER: &str = "tower";
const OURS: &str = "buttress";

/// One leaf of a fan-out, or a service behind a load balancer.
type Client = BoxCloneService<Arc<Operation>, (), BoxError>;

/// What is asked for once, and the luck of each attempt at it: drawn beforehand, so that an operation
/// has the same with and without hedging.
struct Operation {
    luck: [Luck; 2],
    attempts: AtomicUsize,
}

/// Two random numbers, above 0 and at most 1.
#[derive(Clone, Copy)]
struct Luck {
    work: f64,
    route: f64,
}

impl Operation {
    fn new(random: &mut SmallRng) -> Arc<Self> {
        let mut draw = || 1.0 - random.random::<f64>();
        let mut luck = || Luck {
            work: draw(),
            route: draw(),
        };
        Arc::new(Self {
            luck: [luck(), luck()],
            attempts: AtomicUsize::new(0),
        })
    }

    /// Begins an attempt.
    fn attempt(&self) -> Luck {
        self.luck[self.attempts.fetch_add(1, Ordering::Relaxed)]
    }

    /// How many attempts there have been.
    fn attempts(&self) -> usize {
        self.attempts.load(Ordering::Relaxed)
    }
}

/// The defaults, scaled.
fn defaults(scale: u32) -> Config {
    HedgeLayer::config("leaf").window(scale * Duration::from_secs(30))
}

fn ours(config: Config, leaf: Client) -> Client {
    let layer = config.build().expect("the configuration is valid");
    boxed(layer.wrap::<Arc<Operation>, _>(leaf))
}

/// The textbook: one more attempt after a certain time, and nothing else.
fn fixed(delay: Duration, leaf: Client) -> Client {
    boxed(service_fn(move |operation: Arc<Operation>| {
        let leaf = leaf.clone();
        async move {
            let first = leaf.clone().oneshot(Arc::clone(&operation));
            tokio::pin!(first);
            tokio::select! {
                biased;
                answer = &mut first => return answer,
                () = tokio::time::sleep(delay) => {}
            }
            tokio::select! {
                biased;
                answer = first => answer,
                answer = leaf.oneshot(operation) => answer,
            }
        }
    }))
}

/// The rival: tower's hedge at the same percentile.
fn tower(world: &World, window: Duration, leaf: Client) -> Client {
    #[derive(Clone)]
    struct Always;

    impl Policy<Arc<Operation>> for Always {
        fn clone_request(&self, operation: &Arc<Operation>) -> Option<Arc<Operation>> {
            Some(Arc::clone(operation))
        }

        fn can_retry(&self, _: &Arc<Operation>) -> bool {
            true
        }
    }

    let hedge = Hedge::new(leaf, Always, 100, 0.98, world.scaled(window));
    // It is no `Clone`.
    let hedge = Arc::new(Mutex::new(hedge));
    boxed(service_fn(move |operation| {
        let mut hedge = lock(&hedge);
        let ready = hedge.poll_ready(&mut Context::from_waker(Waker::noop()));
        assert!(ready.is_ready(), "a replica is always ready");
        hedge.call(operation)
    }))
}

/// The least of the values that is not below `share` of them.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}
