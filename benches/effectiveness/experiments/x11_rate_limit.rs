//! X11: the calls that a rate limit admits.
//!
//! A limit of 100 calls a second, with bursts of 10. Greedy callers must get the rate and no more: in every window of
//! time T at most 10 + ⌊100·T⌋ calls, wherever it begins. Callers that keep to the limit must not be refused. Waiting
//! calls must pass in their order, and hardly later than in an ideal queue.
//!
//! Tower's limit counts in fixed windows, so it admits the calls of two windows around the edge between them.

use std::{
    future::ready,
    iter::{from_fn, repeat_with},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use buttress::{Rate, RateLimitLayer};
use rand::RngExt;
use tower::{BoxError, Layer, Service, limit, service_fn};

use crate::harness::{
    Client, Event, Form, Goal, Report, Results, Run, Table, Variant, World, boxed, lock, poisson,
    simulate,
};

const PER_SECOND: u32 = 100;
const BURST: u32 = 10;

const TOWER: &str = "tower, fixed window";
const OURS: &str = "buttress";
/// The limit of each column.
const VARIANTS: [Variant<Protect>; 2] = [
    (TOWER, |service| {
        let layer = limit::RateLimitLayer::new(PER_SECOND.into(), Duration::from_secs(1));
        let limit = Arc::new(Mutex::new(layer.layer(service)));
        boxed(service_fn(move |()| {
            let mut limit = lock(&limit);
            // Its readiness is the limit. Who finds it used up is refused, as a load shed would.
            match limit.poll_ready(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(())) => limit.call(()),
                _ => Box::pin(ready(Err("limited".into()))),
            }
        }))
    }),
    (OURS, |service| {
        let config = RateLimitLayer::config("service", Rate::per_second(PER_SECOND));
        let layer = config.build().expect("the configuration is valid");
        assert_eq!(layer.handle().burst(), BURST, "the default");
        boxed(layer.layer(service))
    }),
];

type Protect = fn(Client) -> Client;

/// Makes the arrivals of one run.
type Arrivals = fn(&World, Form) -> Box<dyn Iterator<Item = Duration>>;

pub(crate) fn run(form: Form) -> Report {
    Report::new("X11 rate limit", vec![bounds(form), waits(form)])
}

fn bounds(form: Form) -> Table {
    let mut table = Table::new(form, &VARIANTS);
    let seeds = form.pick(2, 3);
    let measured = |arrivals: Arrivals| {
        Results::new(&VARIANTS, seeds, |protect, seed| {
            admit(form, seed, *protect, arrivals).outcome
        })
    };

    let adversary = measured(adversary);
    let bound = f64::from(PER_SECOND + BURST);
    table
        .row(
            "adversary: most in any second",
            0,
            adversary.greatest(|calls| calls.most_in(Duration::from_secs(1))),
        )
        .reference("100 + a burst of 10")
        .goal(OURS, Goal::AtMost(bound))
        .row(
            "adversary: most in any 20 ms",
            0,
            adversary.greatest(|calls| calls.most_in(Duration::from_millis(20))),
        )
        .reference("2 + a burst of 10; fixed window 2 × 100 - 1")
        .goal(OURS, Goal::AtMost(f64::from(2 + BURST)));
    for (name, calls) in [
        ("adversary", adversary),
        ("greedy", measured(greedy)),
        ("8 callers", measured(eight_callers)),
        (
            "on-off Poisson × 1.5",
            measured(|world, form| on_off(world, form, 1.5)),
        ),
    ] {
        table
            .row(
                format!("{name}: most above 100·T, in any window"),
                2,
                calls.greatest(Calls::above_the_rate),
            )
            .goal(OURS, Goal::AtMost(f64::from(BURST)))
            .row(
                format!("{name}: admitted, × the limit"),
                4,
                calls.cells(Calls::of_the_limit),
            );
        if !name.starts_with("on-off") {
            table.goal(OURS, Goal::Within(1.0, 0.001));
        }
    }
    for (name, arrivals) in [
        ("50 %", (|world, form| shaped(world, form, 0.5)) as Arrivals),
        ("80 %", |world, form| shaped(world, form, 0.8)),
        ("95 %", |world, form| shaped(world, form, 0.95)),
    ] {
        table
            .row(
                format!("on-off Poisson, shaped to {name} and bursts of 10: refused"),
                0,
                measured(arrivals).cells(|calls| calls.refused),
            )
            .goal(OURS, Goal::AtMost(0.0));
    }
    for (name, arrivals) in [
        ("0.5", (|world, form| on_off(world, form, 0.5)) as Arrivals),
        ("0.8", |world, form| on_off(world, form, 0.8)),
        ("0.95", |world, form| on_off(world, form, 0.95)),
        ("1.5", |world, form| on_off(world, form, 1.5)),
    ] {
        table.row(
            format!("on-off Poisson × {name}: refused, %"),
            1,
            measured(arrivals).cells(Calls::refused_share),
        );
    }
    table.repeats(|seed| {
        admit(form, seed, VARIANTS[1].1, |world, form| {
            on_off(world, form, 1.5)
        })
        .log
    });
    table
}

/// Attempts of one run: a million in the full form.
fn attempts(form: Form) -> u32 {
    form.pick(20_000, 1_000_000)
}

/// One call, so that a window begins; then, just before it is over, as many as there can be.
fn adversary(_: &World, form: Form) -> Box<dyn Iterator<Item = Duration>> {
    let saturating =
        (0..attempts(form)).map(|n| Duration::from_millis(990) + n * Duration::from_micros(100));
    Box::new([Duration::ZERO].into_iter().chain(saturating))
}

/// Ten thousand a second.
fn greedy(_: &World, form: Form) -> Box<dyn Iterator<Item = Duration>> {
    Box::new((0..attempts(form)).map(|n| n * Duration::from_micros(100)))
}

/// Each of eight callers calls again at some time within the next 2 ms, 1 ms on average.
fn eight_callers(world: &World, form: Form) -> Box<dyn Iterator<Item = Duration>> {
    let mut random = world.random();
    let mut next = [Duration::ZERO; 8];
    let arrivals = repeat_with(move || {
        let first = next.iter_mut().min().expect("there are eight");
        let at = *first;
        *first += Duration::from_nanos(random.random_range(..2_000_000));
        at
    });
    Box::new(arrivals.take(attempts(form) as usize))
}

/// Half of the time nothing, and for the rest as much as gives `load` times the limit on average. Phases last a
/// tenth of a second.
fn on_off(world: &World, form: Form, load: f64) -> Box<dyn Iterator<Item = Duration>> {
    const PHASE: Duration = Duration::from_millis(100);
    let until = Duration::from_secs(u64::from(attempts(form)) / 1_000);
    let arrivals = poisson(world.random(), 2.0 * load * f64::from(PER_SECOND), until);
    Box::new(arrivals.filter(|at| at.as_nanos() / PHASE.as_nanos() % 2 == 0))
}

/// Those of twice as many that keep to `load` times the limit and to bursts of 10, by the books of the caller.
fn shaped(world: &World, form: Form, load: f64) -> Box<dyn Iterator<Item = Duration>> {
    let mut arrivals = on_off(world, form, 2.0);
    // A little below, since these books are kept in floating point.
    let most = f64::from(BURST) - 1e-6;
    let (mut tokens, mut last) = (most, Duration::ZERO);
    Box::new(from_fn(move || {
        arrivals.find(|at| {
            let came = at.saturating_sub(last).as_secs_f64() * load * f64::from(PER_SECOND);
            (tokens, last) = (most.min(tokens + came), *at);
            let keeps_to_it = tokens >= 1.0;
            tokens -= if keeps_to_it { 1.0 } else { 0.0 };
            keeps_to_it
        })
    }))
}

/// What was let through.
#[derive(Default)]
struct Calls {
    /// When, in nanoseconds.
    admitted: Vec<u64>,
    refused: f64,
}

impl Calls {
    /// The most that came in any window of this length.
    fn most_in(&self, length: Duration) -> f64 {
        let mut first = 0;
        let most = self.admitted.iter().enumerate().map(|(last, at)| {
            while u128::from(at - self.admitted[first]) >= length.as_nanos() {
                first += 1;
            }
            last + 1 - first
        });
        most.max().unwrap_or(0) as f64
    }

    /// The most by which a window of any length `T` exceeds the rate times `T`.
    ///
    /// Exactly: with `n` calls before one at time `t`, that is the greatest rise of `n - rate × t`.
    fn above_the_rate(&self) -> f64 {
        const SECOND: i128 = 1_000_000_000;
        let (mut lowest, mut most) = (i128::MAX, 0);
        for (before, at) in self.admitted.iter().enumerate() {
            let level = before as i128 * SECOND - i128::from(*at) * i128::from(PER_SECOND);
            lowest = lowest.min(level);
            most = most.max(level + SECOND - lowest);
        }
        most as f64 / SECOND as f64
    }

    /// The rate once the first burst is over, in parts of the limit.
    fn of_the_limit(&self) -> f64 {
        let after = &self.admitted[2 * BURST as usize..];
        let nanos = after[after.len() - 1] - after[0];
        (after.len() - 1) as f64 * 1e9 / (nanos as f64 * f64::from(PER_SECOND))
    }

    /// Per cent.
    fn refused_share(&self) -> f64 {
        100.0 * self.refused / (self.admitted.len() as f64 + self.refused)
    }
}

fn admit(form: Form, seed: u64, protect: Protect, arrivals: Arrivals) -> Run<Calls> {
    simulate(1, seed, async |world| {
        let calls = Arc::new(Mutex::new(Calls::default()));
        let client = protect(service(world, &calls));
        for at in arrivals(world, form) {
            world.advance_to(at).await;
            let calls = Arc::clone(&calls);
            let done = move |answer: Result<(), BoxError>| {
                lock(&calls).refused += if answer.is_err() { 1.0 } else { 0.0 };
            };
            world.begin(&client, done).await;
        }
        std::mem::take(&mut *lock(&calls))
    })
}

/// Notes when it is called.
fn service(world: &World, calls: &Arc<Mutex<Calls>>) -> Client {
    let (world, calls) = (world.clone(), Arc::clone(calls));
    boxed(service_fn(move |()| {
        world.record(&Event::Attempt);
        let now = u64::try_from(world.now().as_nanos()).expect("the run is shorter");
        lock(&calls).admitted.push(now);
        ready(Ok::<_, BoxError>(()))
    }))
}

/// A second of tokio's clock for each simulated millisecond: its timers tick in milliseconds.
const SCALE: u32 = 1_000;

fn waits(form: Form) -> Table {
    const WAITING: [Variant<()>; 1] = [("buttress, calls wait", ())];
    let column = WAITING[0].0;
    let mut table = Table::new(form, &WAITING);
    for load in [0.8, 0.95, 1.5] {
        let results = Results::new(&WAITING, form.pick(2, 5), |(), seed| {
            wait(form, seed, load).outcome
        });
        table
            .row(
                format!("on-off Poisson × {load}: 99th percentile of the wait, ms"),
                2,
                results.cells(|waits| 1e3 * percentile(&waits.measured)),
            )
            .row(
                format!("on-off Poisson × {load}: that, × the ideal"),
                4,
                results.cells(|waits| percentile(&waits.measured) / percentile(&waits.ideal)),
            )
            .goal(column, Goal::AtMost(1.02))
            .row(
                format!("on-off Poisson × {load}: out of order"),
                0,
                results.cells(|waits| waits.out_of_order),
            )
            .goal(column, Goal::AtMost(0.0));
    }
    table.repeats(|seed| wait(form, seed, 1.5).log);
    table
}

/// Seconds.
struct Waits {
    measured: Vec<f64>,
    /// Of a queue without any loss.
    ideal: Vec<f64>,
    out_of_order: f64,
}

/// The 99th.
fn percentile(waits: &[f64]) -> f64 {
    let mut sorted = waits.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted[sorted.len() * 99 / 100]
}

fn wait(form: Form, seed: u64, load: f64) -> Run<Waits> {
    simulate(SCALE, seed, async |world| {
        let until = Duration::from_secs(form.pick(20, 200));
        let second = world.scaled(Duration::from_secs(1));
        let config = RateLimitLayer::config("service", Rate::per(PER_SECOND, second))
            .burst(BURST)
            .max_wait(1_000 * second);
        let layer = config.build().expect("the configuration is valid");
        let client = boxed(layer.layer(service_fn(|()| ready(Ok::<_, BoxError>(())))));

        let arrivals: Vec<_> = on_off(world, Form::Full, load)
            .take_while(|at| *at < until)
            .collect();
        let ends = Arc::new(Mutex::new(Vec::new()));
        for (number, at) in arrivals.iter().enumerate() {
            world.sleep_until(*at).await;
            let (ends, now) = (Arc::clone(&ends), world.clone());
            let done = move |answer: Result<(), BoxError>| {
                answer.expect("it may wait for as long as it takes");
                lock(&ends).push((number, now.now()));
            };
            world.begin(&client, done).await;
        }
        world.sleep(2 * until).await;

        let mut ends = std::mem::take(&mut *lock(&ends));
        assert_eq!(ends.len(), arrivals.len(), "all have passed");
        let out_of_order = ends.windows(2).filter(|pair| pair[0].0 > pair[1].0).count();
        ends.sort_unstable_by_key(|(number, _)| *number);
        let waits = ends.iter().zip(&arrivals);
        Waits {
            measured: waits
                .map(|((_, end), at)| end.saturating_sub(*at).as_secs_f64())
                .collect(),
            ideal: ideal(&arrivals),
            out_of_order: out_of_order as f64,
        }
    })
}

/// What each call waits for where tokens are a fluid and no time is lost.
fn ideal(arrivals: &[Duration]) -> Vec<f64> {
    let interval = 1.0 / f64::from(PER_SECOND);
    let mut full_at = 0.0_f64;
    let wait = |at: &Duration| {
        let at = at.as_secs_f64();
        full_at = full_at.max(at) + interval;
        (full_at - f64::from(BURST) * interval - at).max(0.0)
    };
    arrivals.iter().map(wait).collect()
}
