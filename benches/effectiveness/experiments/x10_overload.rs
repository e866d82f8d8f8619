//! X10: a server with a capacity of four fifths of its load.
//!
//! 12 threads, 100 calls a second. A call takes 50 ms, then 150 ms for a time, then 50 ms again. During the slow time
//! the server can answer 80 calls a second. Callers wait 5 s. Without a limit, the queue in the server grows until
//! every answer comes late or too late. With a limit, admitted calls are answered soon, and all others are refused at
//! once.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use buttress::{
    BulkheadLayer, TimeoutLayer,
    bulkhead::{Aimd, Handle},
};
use tower::{Layer, ServiceBuilder};

use crate::harness::{
    Axis, Backend, Client, Form, Goal, Line, Model, Plot, Report, Results, Run, Table, Variant,
    World, boxed, lock, millis_at, poisson, simulate,
};

/// A tenth of a second of tokio's clock for each simulated millisecond.
const SCALE: u32 = 100;
const WORKERS: usize = 12;
const RATE: f64 = 100.0;
const TIMEOUT: Duration = Duration::from_secs(5);
/// When the server is slow.
const SLOW_FROM: Duration = Duration::from_secs(20);

/// What is between the callers and the server.
enum Protection {
    Nothing,
    Timeout,
    /// Tower's limit, which turns away who finds no permit.
    Tower(usize),
    Bulkhead(usize),
    /// A limit that learns from a timeout after so many milliseconds, inside it.
    TimesOut(u32),
    /// A limit that takes a call of more than so many milliseconds for a sign of overload.
    Slow(u32),
}
use Protection::{Bulkhead, Nothing, Slow, Timeout, TimesOut, Tower};

const LIMIT_15: &str = "buttress, 15";
const LIMIT_24: &str = "buttress, 24";
const TIMES_OUT: &str = "adaptive, timeout 500 ms";
const SLOW: &str = "adaptive, slow from 250 ms";

const VARIANTS: [Variant<Protection>; 8] = [
    ("nothing", Nothing),
    ("timeout", Timeout),
    ("tower limit, 15", Tower(15)),
    ("tower limit, 24", Tower(24)),
    (LIMIT_15, Bulkhead(15)),
    (LIMIT_24, Bulkhead(24)),
    (TIMES_OUT, TimesOut(500)),
    (SLOW, Slow(250)),
];

/// The greatest limit that the adaptive one may find.
const MAX: usize = 1_000;

pub(crate) fn run(form: Form) -> Report {
    assert_eq!(
        queueing(1, 15),
        BulkheadLayer::config("server", 15).queue(100),
        "the defaults"
    );
    let seeds = form.pick(3, 100);
    let slow = Duration::from_secs(40);
    let results = Results::new(&VARIANTS, seeds, |protection, seed| {
        overload(seed, protection, slow).outcome
    });
    let mut table = Table::new(form, &VARIANTS);
    table
        .row(
            "before: success, %",
            2,
            results.cells(|o| o.before.success()),
        )
        .goal(LIMIT_15, Goal::AtLeast(99.8))
        .goal(LIMIT_24, Goal::AtLeast(99.8))
        .row("slow: success, %", 1, results.cells(|o| o.slow.success()))
        .reference("timeout only 50.2, limit 40 80.8, at most 80 + what is queued at its end")
        .goal(LIMIT_15, Goal::AtLeast(79.0))
        .goal(LIMIT_24, Goal::AtLeast(80.0))
        .row("slow: p50, ms", 0, results.cells(|o| o.slow.latency(0.5)))
        .reference("timeout only 2490, limit 40 457")
        .goal(LIMIT_15, Goal::AtMost(205.0))
        .goal(LIMIT_24, Goal::AtMost(315.0))
        .row("slow: p99, ms", 0, results.cells(|o| o.slow.latency(0.99)))
        .reference("timeout only 4981, limit 40 543")
        .goal(LIMIT_15, Goal::AtMost(270.0))
        .goal(LIMIT_24, Goal::AtMost(380.0))
        .row("after: success, %", 2, results.cells(|o| o.after.success()))
        .goal(LIMIT_15, Goal::AtLeast(99.8))
        .goal(LIMIT_24, Goal::AtLeast(99.8))
        .goal(SLOW, Goal::AtLeast(99.8))
        .row(
            "after: p99, ms",
            0,
            results.cells(|o| o.after.latency(0.99)),
        )
        .repeats(|seed| overload(seed, &VARIANTS[5].1, slow).log);
    let report = Report::new(
        "X10 overload: a limit with a short queue",
        vec![table, no_ratchet(form)],
    );
    match form {
        Form::Short => report,
        Form::Full => report.plot(goodput(&results, slow)),
    }
}

/// The mean of all runs.
fn goodput(results: &Results<Overload>, slow: Duration) -> Plot {
    let line = |((name, _), runs): (&Variant<Protection>, &Vec<Overload>)| {
        let seconds = 0..runs[0].succeeded.len();
        let mean = |second: usize| {
            let succeeded = runs.iter().map(|run| run.succeeded[second]);
            succeeded.sum::<f64>() / runs.len() as f64
        };
        Line::seconds(*name, seconds.map(mean))
    };
    let shown = ["timeout", "tower limit, 24", LIMIT_24, SLOW];
    let variants = VARIANTS.iter().zip(results.runs());
    let slow_until = SLOW_FROM + slow;
    Plot {
        file: "x10_goodput",
        title: "100 calls a second on a server that can do 240, then 80, then 240",
        x: Axis::linear(
            "time of arrival, s",
            0.0..(slow_until + SLOW_FROM).as_secs_f64(),
        ),
        y: Axis::linear("calls that succeed within 5 s, per second", 0.0..140.0),
        lines: variants
            .filter(|((name, _), _)| shown.contains(name))
            .map(line)
            .collect(),
        spans: vec![(
            SLOW_FROM.as_secs_f64()..slow_until.as_secs_f64(),
            "three times as slow",
        )],
    }
}

/// The adaptive limits in an overload that goes on for long.
fn no_ratchet(form: Form) -> Table {
    const ADAPTIVES: [Variant<Protection>; 2] = [(TIMES_OUT, TimesOut(500)), (SLOW, Slow(250))];
    let seeds = form.pick(1, 5);
    let slow = Duration::from_secs(form.pick(150, 600));
    let results = Results::new(&ADAPTIVES, seeds, |protection, seed| {
        overload(seed, protection, slow).outcome
    });
    let mut table = Table::new(form, &ADAPTIVES);
    // What the server has begun or can begin within the time that a call may take.
    let fits = |time: f64| 80.0 * time + WORKERS as f64;
    table
        .row(
            "600 s of it: success, %",
            1,
            results.cells(|o| o.slow.success()),
        )
        .goal(TIMES_OUT, Goal::AtLeast(70.0))
        .goal(SLOW, Goal::AtLeast(76.0))
        .row("p50, ms", 0, results.cells(|o| o.slow.latency(0.5)))
        .row("p99, ms", 0, results.cells(|o| o.slow.latency(0.99)))
        .row("greatest limit", 0, results.greatest(|o| o.greatest_limit))
        .reference("1000 is the most that it may be")
        .goal(TIMES_OUT, Goal::AtMost(1.5 * fits(0.5)))
        .goal(SLOW, Goal::AtMost(1.5 * fits(0.25)))
        .row("limit at its end", 0, results.cells(|o| o.limit_at_the_end))
        .goal(TIMES_OUT, Goal::AtMost(fits(0.5)))
        .goal(SLOW, Goal::AtMost(fits(0.25)))
        .row("after: success, %", 2, results.cells(|o| o.after.success()))
        .goal(TIMES_OUT, Goal::AtLeast(99.8))
        .goal(SLOW, Goal::AtLeast(99.8));
    table
}

/// What came of the calls that arrived in each of the three times.
struct Overload {
    before: Calls,
    slow: Calls,
    after: Calls,
    /// Of the calls that arrived in each second.
    succeeded: Vec<f64>,
    greatest_limit: f64,
    limit_at_the_end: f64,
}

/// The latencies of the calls that succeeded, in order, and the number of all.
struct Calls {
    latencies: Vec<Duration>,
    all: usize,
}

impl Calls {
    /// The calls that arrived during this time.
    fn during(calls: &[Call], during: &Range<Duration>) -> Self {
        let calls = calls.iter().filter(|call| during.contains(&call.arrived));
        let mut latencies: Vec<_> = calls.clone().filter_map(|call| call.latency).collect();
        latencies.sort_unstable();
        Self {
            latencies,
            all: calls.count(),
        }
    }

    /// The share that succeeded.
    fn success(&self) -> f64 {
        100.0 * self.latencies.len() as f64 / self.all as f64
    }

    /// In milliseconds.
    fn latency(&self, rank: f64) -> f64 {
        millis_at(rank, &self.latencies)
    }
}

struct Call {
    arrived: Duration,
    /// `None` if it failed.
    latency: Option<Duration>,
}

fn overload(seed: u64, protection: &Protection, slow: Duration) -> Run<Overload> {
    simulate(SCALE, seed, async |world| {
        let slow_until = SLOW_FROM + slow;
        let end = slow_until + SLOW_FROM;
        let threads = Model::Threads {
            workers: WORKERS,
            usual: Duration::from_millis(50),
            slow: (SLOW_FROM..slow_until, Duration::from_millis(150)),
        };
        let backend = Backend::new(world, threads, Vec::new());
        let (client, handle) = protect(world, protection, backend.client());
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let (mut greatest, mut at_the_end) = (0, 0);
        for arrived in poisson(world.random(), RATE, end) {
            world.sleep_until(arrived).await;
            let limit = handle.as_ref().map_or(0, Handle::limit);
            if (SLOW_FROM..slow_until).contains(&arrived) {
                greatest = greatest.max(limit);
                at_the_end = limit;
            }
            let (log, now) = (Arc::clone(&calls), world.clone());
            let done = move |answer: Result<(), _>| {
                let latency = answer.is_ok().then(|| now.now().saturating_sub(arrived));
                lock(&log).push(Call { arrived, latency });
            };
            world.begin(&client, done).await;
        }
        // Until the last answer has come, however late it is.
        world.sleep(Duration::from_secs(200)).await;
        let calls = lock(&calls);
        let mut succeeded = vec![0.0; end.as_secs() as usize];
        for call in calls.iter().filter(|call| call.latency.is_some()) {
            succeeded[call.arrived.as_secs() as usize] += 1.0;
        }
        Overload {
            succeeded,
            before: Calls::during(&calls, &(Duration::ZERO..SLOW_FROM)),
            slow: Calls::during(&calls, &(SLOW_FROM..slow_until)),
            after: Calls::during(&calls, &(slow_until..end)),
            greatest_limit: greatest as f64,
            limit_at_the_end: at_the_end as f64,
        }
    })
}

/// A bulkhead with the default queue, scaled.
fn queueing(scale: u32, limit: impl Into<buttress::bulkhead::Limit>) -> buttress::bulkhead::Config {
    BulkheadLayer::config("server", limit)
        .queue(100)
        .queue_wait(scale * Duration::from_millis(100))
}

fn protect(world: &World, protection: &Protection, client: Client) -> (Client, Option<Handle>) {
    let scaled = |ms: u32| world.scaled(Duration::from_millis(ms.into()));
    let mut timeout = TimeoutLayer::new("server", world.scaled(TIMEOUT));
    let config = match protection {
        Nothing => return (client, None),
        Timeout => return (boxed(timeout.layer(client)), None),
        Tower(limit) => {
            let stack = ServiceBuilder::new()
                .load_shed()
                .layer(tower::limit::GlobalConcurrencyLimitLayer::new(*limit))
                .layer(timeout);
            return (boxed(stack.service(client)), None);
        }
        Bulkhead(limit) => queueing(SCALE, *limit),
        TimesOut(ms) => {
            timeout = TimeoutLayer::new("server", scaled(*ms));
            queueing(SCALE, Aimd::between(1, MAX))
        }
        Slow(ms) => queueing(SCALE, Aimd::between(1, MAX).slow_calls(scaled(*ms))),
    };
    let bulkhead = config.build().expect("the configuration is valid");
    let handle = bulkhead.handle();
    let client = ServiceBuilder::new()
        .layer(bulkhead)
        .layer(timeout)
        .service(client);
    (boxed(client), Some(handle))
}
