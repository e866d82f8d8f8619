//! X7: the textbook metastable failure.
//!
//! Bronson et al., *Metastable Failures in Distributed Systems*, `HotOS` 2021: a database that can answer 300 queries a
//! second serves 280. Then its network is cut for ten seconds, and the callers time out and retry. Their retries keep
//! it overloaded after the cut is repaired, with queries whose callers have left.
//!
//! Not scaled: both budgets measure their rates per second of tokio's clock. All times are so long that the resolution
//! of its timers does not matter.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use buttress::stack::Standard;
use buttress::standard;
use tower::{Layer, ServiceBuilder, retry, timeout};

use crate::harness::{
    Axis, Backend, Client, Fault, Form, Goal, Line, Model, Plot, Report, Results, Run, Table,
    TowerRetry, Variant, World, boxed, lock, poisson, simulate,
};

const OUTAGE: Range<Duration> = Duration::from_secs(60)..Duration::from_secs(70);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(3);

const NO_BUDGET: &str = "retry without budget";
const OURS: &str = "buttress";
const LIMITED: &str = "buttress, 100 at once";
/// Three times what a healthy database has in flight.
const LIMIT: usize = 100;
/// The stack of each column, for so many attempts. The short form runs the last three.
const VARIANTS: [Variant<Protect>; 5] = [
    ("no retry", |_, database, _| {
        let stack = ServiceBuilder::new().layer(timeout::TimeoutLayer::new(ATTEMPT_TIMEOUT));
        boxed(stack.service(database))
    }),
    ("tower, TpsBudget", |_, database, attempts| {
        tower(database, TowerRetry::with_budget(attempts - 1))
    }),
    (NO_BUDGET, |_, database, attempts| {
        tower(database, TowerRetry::without_budget(attempts - 1))
    }),
    (OURS, |world, database, attempts| {
        ours(standard("database").unlimited(), world, database, attempts)
    }),
    (LIMITED, |world, database, attempts| {
        let stack = standard("database").concurrency_limit(LIMIT);
        ours(stack, world, database, attempts)
    }),
];

type Protect = fn(&World, Client, u32) -> Client;

pub(crate) fn run(form: Form) -> Report {
    let variants = &VARIANTS[form.pick(2, 0)..];
    let (seeds, seconds) = form.pick((1, 100), (10, 700));
    let results = |per_second, attempts| {
        Results::new(variants, seeds, |protect, seed| {
            let protect = |world: &World, database| protect(world, database, attempts);
            episode(seed, seconds, per_second, protect).outcome
        })
    };

    let mut table = Table::new(form, variants);
    let cases = [
        (
            280,
            2,
            "no budget never, TpsBudget 294, buttress 3.0 (most 4)",
        ),
        (295, 3, ""),
        (280, 3, ""),
        (295, 2, ""),
    ];
    for (per_second, attempts, reference) in &cases[..form.pick(2, 4)] {
        let results = results(*per_second, *attempts);
        let case = format!("{per_second}/s, {attempts} attempts");
        table
            .row(
                format!("{case}: recovery, s"),
                1,
                results.cells(|outcome| outcome.recovery),
            )
            .reference(*reference)
            .goal(NO_BUDGET, Goal::Never)
            .row(
                format!("{case}: slowest recovery, s"),
                0,
                results.greatest(|outcome| outcome.recovery),
            )
            .goal(OURS, Goal::AtMost(5.0))
            .goal(LIMITED, Goal::AtMost(5.0))
            .row(
                format!("{case}: load at the end, /s"),
                0,
                results.cells(|outcome| outcome.load),
            );
    }
    if let Form::Full = form {
        for (per_second, goal) in [(140, Goal::AtMost(600.0)), (160, Goal::Never)] {
            table
                .row(
                    format!("{per_second}/s, 2 attempts: recovery, s"),
                    1,
                    results(per_second, 2).cells(|outcome| outcome.recovery),
                )
                .reference("no budget: never above 150/s (published)")
                .goal(NO_BUDGET, goal);
        }
    }
    table.repeats(|seed| {
        episode(seed, 80, 280, |world, database| {
            VARIANTS[4].1(world, database, 2)
        })
        .log
    });
    let report = Report::new("X7 the textbook metastable failure", vec![table]);
    match form {
        Form::Short => report,
        Form::Full => report.plot(goodput()),
    }
}

/// One run of each variant.
fn goodput() -> Plot {
    const SECONDS: u64 = 240;
    let line = |(name, protect): &Variant<Protect>| {
        let protect = |world: &World, database| protect(world, database, 2);
        let history = episode(1, SECONDS, 280, protect).outcome.history;
        let succeeded = history.iter().map(|second| f64::from(second.succeeded));
        Line::seconds(*name, succeeded)
    };
    Plot {
        file: "x7_goodput",
        title: "280 calls a second on a database that can do 300, cut off for ten seconds",
        x: Axis::linear("time of arrival, s", 40.0..SECONDS as f64),
        y: Axis::linear("calls that succeed, per second", 0.0..450.0),
        // The last two are the same here.
        lines: VARIANTS[..4].iter().map(line).collect(),
        spans: vec![(OUTAGE.start.as_secs_f64()..OUTAGE.end.as_secs_f64(), "cut")],
    }
}

pub(super) struct Outcome {
    /// Seconds from the end of the outage to the first ten in a row that are good; infinite if
    /// there are none.
    pub(super) recovery: f64,
    /// Attempts per second that the database gets in the last twenty seconds.
    load: f64,
    /// Second by second.
    history: Vec<Second>,
}

/// The calls that arrive in one second.
#[derive(Clone, Copy, Default)]
struct Second {
    arrived: u32,
    succeeded: u32,
}

pub(super) fn episode(
    seed: u64,
    seconds: u64,
    per_second: u32,
    protect: impl Fn(&World, Client) -> Client,
) -> Run<Outcome> {
    simulate(1, seed, async |world| {
        let queue = Model::Fifo {
            workers: 30,
            service: Duration::from_millis(100),
        };
        let database = Backend::new(world, queue, vec![(OUTAGE, Fault::HoldsMessages)]);
        let client = protect(world, database.client());

        let history = Arc::new(Mutex::new(vec![Second::default(); seconds as usize]));
        let until = Duration::from_secs(seconds);
        for at in poisson(world.random(), f64::from(per_second), until) {
            world.sleep_until(at).await;
            let (history, arrived) = (Arc::clone(&history), at.as_secs() as usize);
            lock(&history)[arrived].arrived += 1;
            let done = move |answer: Result<_, _>| {
                lock(&history)[arrived].succeeded += u32::from(answer.is_ok());
            };
            world.begin(&client, done).await;
        }
        let last = until.saturating_sub(Duration::from_secs(20))..until;
        let history = lock(&history).clone();
        Outcome {
            recovery: recovery(&history),
            history,
            load: database.attempts(&last) as f64 / 20.0,
        }
    })
}

fn recovery(history: &[Second]) -> f64 {
    let is_good = |second: &Second| f64::from(second.succeeded) >= 0.95 * f64::from(second.arrived);
    let mut tens = history[OUTAGE.end.as_secs() as usize..].windows(10);
    tens.position(|ten| ten.iter().all(is_good))
        .map_or(f64::INFINITY, |seconds| seconds as f64)
}

fn tower(database: Client, policy: TowerRetry) -> Client {
    let stack = ServiceBuilder::new()
        .layer(retry::RetryLayer::new(policy))
        .layer(timeout::TimeoutLayer::new(ATTEMPT_TIMEOUT));
    boxed(stack.service(database))
}

/// The standard stack as users get it.
fn ours(stack: Standard, world: &World, database: Client, attempts: u32) -> Client {
    let stack = stack
        .timeout(ATTEMPT_TIMEOUT)
        .deadline(DEADLINE)
        .retry(|retry| retry.max_attempts(attempts))
        .seed(world.seed())
        .build();
    boxed(stack.expect("the configuration is valid").layer(database))
}
