//! X9: the calls that a circuit breaker lets into an outage, and the calls that it refuses after it.
//!
//! One client makes 100 calls a second to a dependency that dies now and then. Its calls then fail at once, or are not
//! answered and time out after a second. *Leaked* calls reach the dependency while it is dead. *Extra* is the time
//! after its recovery for which calls are still refused. A shorter open time means more leaked calls and less extra
//! time.

use std::{
    future::ready,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use buttress::{Cause, CircuitBreakerLayer, Error, TimeoutLayer, circuit_breaker::Config};
use rand::{RngExt, rngs::SmallRng, seq::SliceRandom};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use crate::harness::{
    Axis, Backend, Client, Fault, Form, Goal, Line, Model, Plot, Report, Results, Run, Sample,
    Table, Variant, World, boxed, lock, poisson, simulate,
};

/// A tenth of a second of tokio's clock for each simulated millisecond.
const SCALE: u32 = 100;
const RATE: f64 = 100.0;
/// How long the dependency is well before each outage: until any breaker is closed, and has seen
/// enough.
const HEALTHY: Duration = Duration::from_secs(20);
/// Outages last this many seconds.
const OUTAGE: Range<f64> = 5.0..120.0;

const DEFAULTS: &str = "buttress";
const FAIL_FAST: &str = "buttress, fail_fast";
/// The breaker of each column, scaled. The short form runs the last two.
const VARIANTS: [Variant<Breaker>; 3] = [
    ("no breaker", |_| None),
    (DEFAULTS, |scale| Some(defaults(scale))),
    (FAIL_FAST, |scale| Some(fail_fast(scale))),
];

type Breaker = fn(u32) -> Option<Config>;

/// The defaults, scaled.
fn defaults(scale: u32) -> Config {
    CircuitBreakerLayer::config("dependency")
        .window(scale * Duration::from_secs(10))
        .open_for(scale * Duration::from_secs(2))
        .probe_lease(scale * Duration::from_secs(5))
}

/// The preset, scaled.
fn fail_fast(scale: u32) -> Config {
    defaults(scale)
        .fail_fast()
        .open_for(scale * Duration::from_millis(1300))
}

pub(crate) fn run(form: Form) -> Report {
    assert_eq!(
        defaults(1),
        CircuitBreakerLayer::config("dependency"),
        "the defaults"
    );
    assert_eq!(
        fail_fast(1),
        CircuitBreakerLayer::config("dependency").fail_fast(),
        "the preset"
    );

    let (seeds, draws) = form.pick((3, 3), (5, 60));
    let variants = &VARIANTS[form.pick(1, 0)..];
    let mut table = Table::new(form, variants);

    let outages = |fault| {
        Results::new(variants, seeds, |breaker, seed| {
            simulate_outages(seed, draws, fault, breaker).outcome
        })
    };
    let fails_fast = outages(Fault::FailsFast);
    table
        .row(
            "fails fast: leaked calls per outage",
            1,
            fails_fast.cells(Outages::leaked),
        )
        .reference("resilience4j 55, Polly 311, Hystrix 510, tower-resilience 51")
        .goal(DEFAULTS, Goal::AtMost(135.0))
        .goal(FAIL_FAST, Goal::AtMost(60.0))
        .row("fails fast: extra, s", 2, fails_fast.cells(Outages::extra))
        .reference("resilience4j 27.5, Polly 2.8, Hystrix 2.4, tower-resilience 13.4")
        .goal(DEFAULTS, Goal::AtMost(1.2))
        .goal(FAIL_FAST, Goal::AtMost(0.8))
        .row(
            "fails fast: longest extra, s",
            2,
            fails_fast.greatest(Outages::longest_extra),
        )
        .goal(DEFAULTS, Goal::AtMost(2.7))
        .goal(FAIL_FAST, Goal::AtMost(2.0));
    let times_out = outages(Fault::Silent);
    table
        .row(
            "times out: leaked calls per outage",
            1,
            times_out.cells(Outages::leaked),
        )
        .goal(DEFAULTS, Goal::AtMost(145.0))
        .goal(FAIL_FAST, Goal::AtMost(145.0))
        .row("times out: extra, s", 2, times_out.cells(Outages::extra))
        .goal(DEFAULTS, Goal::AtMost(1.7))
        .goal(FAIL_FAST, Goal::AtMost(1.2))
        .row(
            "times out: longest extra, s",
            2,
            times_out.greatest(Outages::longest_extra),
        )
        .goal(DEFAULTS, Goal::AtMost(3.7))
        .goal(FAIL_FAST, Goal::AtMost(2.6));

    let hours = form.pick(0.25, 20.0);
    table
        .row(
            format!("refused in {hours} h with 20 % errors"),
            0,
            Results::new(variants, 1, |breaker, seed| {
                refused_when_well(seed, hours, breaker)
            })
            .cells(|refused| *refused),
        )
        .goal(DEFAULTS, Goal::AtMost(0.0))
        .goal(FAIL_FAST, Goal::AtMost(0.0))
        .repeats(|seed| simulate_outages(seed, 3, Fault::Silent, VARIANTS[1].1).log);
    let title = "X9 circuit breaker: leak against recovery";
    match form {
        Form::Short => Report::new(title, vec![table]),
        Form::Full => {
            let (trade_off, plot) = trade_off(form, seeds, draws);
            Report::new(title, vec![table, trade_off]).plot(plot)
        }
    }
}

/// The defaults with other open times.
fn trade_off(form: Form, seeds: u64, draws: u32) -> (Table, Plot) {
    const OPEN_FOR: [Variant<f64>; 5] = [
        ("open 0.5 s", 0.5),
        ("1 s", 1.0),
        ("2 s", 2.0),
        ("5 s", 5.0),
        ("10 s", 10.0),
    ];
    let results = Results::new(&OPEN_FOR, seeds, |open_for, seed| {
        let breaker =
            |scale: u32| Some(defaults(scale).open_for(scale * Duration::from_secs_f64(*open_for)));
        simulate_outages(seed, draws, Fault::FailsFast, breaker).outcome
    });
    let mut table = Table::new(form, &OPEN_FOR);
    let mean = OUTAGE.start.midpoint(OUTAGE.end);
    table
        .row("leaked calls per outage", 1, results.cells(Outages::leaked))
        .reference("k + mean outage / open time")
        .row(
            "mean outage / open time",
            1,
            OPEN_FOR
                .map(|(_, open_for)| Sample::from(mean / open_for))
                .into(),
        )
        .row("extra, s", 2, results.cells(Outages::extra))
        .row(
            "longest extra, s",
            2,
            results.greatest(Outages::longest_extra),
        );
    let extra = results.cells(Outages::extra).into_iter();
    let ours = extra
        .zip(results.cells(Outages::leaked))
        .map(|(extra, leaked)| (extra.mean(), leaked.mean()));
    // Of an independent model of the same outages, with the defaults of each.
    let others = [
        ("resilience4j", (27.5, 55.0)),
        ("Polly", (2.8, 311.0)),
        ("Hystrix", (2.4, 510.0)),
        ("tower-resilience", (13.4, 51.0)),
    ];
    let others = others.map(|(name, point)| Line::dots(name, vec![point]));
    let ours = Line::new("buttress, open for 0.5 to 10 s", ours.collect());
    let plot = Plot {
        file: "x9_trade_off",
        title: "A dependency that dies for 5 to 120 s: what reaches it, and what is refused too long",
        x: Axis::log("refusals after it is well again, s", 0.1..100.0),
        y: Axis::log("calls that reach it while it is dead", 10.0..10_000.0),
        lines: std::iter::once(ours).chain(others).collect(),
        spans: Vec::new(),
    };
    (table, plot)
}

/// What happened in each outage.
struct Outages(Vec<Outage>);

struct Outage {
    leaked: f64,
    /// Seconds from the recovery until the last call that is refused.
    extra: f64,
}

impl Outages {
    fn leaked(&self) -> f64 {
        self.0.iter().map(|outage| outage.leaked).sum::<f64>() / self.0.len() as f64
    }

    fn extra(&self) -> f64 {
        self.0.iter().map(|outage| outage.extra).sum::<f64>() / self.0.len() as f64
    }

    fn longest_extra(&self) -> f64 {
        self.0.iter().map(|outage| outage.extra).fold(0.0, f64::max)
    }
}

fn simulate_outages(
    seed: u64,
    draws: u32,
    fault: Fault,
    breaker: impl Fn(u32) -> Option<Config>,
) -> Run<Outages> {
    simulate(SCALE, seed, async |world| {
        let outages = schedule(world.random(), draws);
        let faults = outages
            .iter()
            .map(|outage| (outage.clone(), fault))
            .collect();
        let backend = Backend::new(world, Model::Delay(Duration::from_millis(10)), faults);
        let timeout = TimeoutLayer::new("dependency", world.scaled(Duration::from_secs(1)));
        let client = protect(
            world,
            breaker(SCALE),
            boxed(timeout.layer(backend.client())),
        );

        let refusals = Arc::new(Mutex::new(Vec::new()));
        let end = outages.last().map_or(HEALTHY, |last| last.end + HEALTHY);
        for at in poisson(world.random(), RATE, end) {
            world.sleep_until(at).await;
            let refusals = Arc::clone(&refusals);
            let done = move |answer| {
                if is_refusal(&answer) {
                    lock(&refusals).push(at);
                }
            };
            world.begin(&client, done).await;
        }

        let refusals = lock(&refusals);
        let outcome = |outage: &Range<Duration>| {
            let afterwards = outage.end..outage.end + HEALTHY;
            let last = refusals
                .iter()
                .rev()
                .find(|at| afterwards.contains(at))
                .unwrap_or(&outage.end);
            Outage {
                leaked: backend.attempts(outage) as f64,
                extra: last.saturating_sub(outage.end).as_secs_f64(),
            }
        };
        Outages(outages.iter().map(outcome).collect())
    })
}

/// Outages of random lengths, one from each of `draws` equal parts of the range, so that their mean
/// is that of the range.
fn schedule(mut random: SmallRng, draws: u32) -> Vec<Range<Duration>> {
    let part = (OUTAGE.end - OUTAGE.start) / f64::from(draws);
    let mut lengths: Vec<f64> = (0..draws)
        .map(|n| OUTAGE.start + part * (f64::from(n) + random.random::<f64>()))
        .collect();
    lengths.shuffle(&mut random);
    let mut end = Duration::ZERO;
    let outage = |length: f64| {
        let start = end + HEALTHY;
        end = start + Duration::from_secs_f64(length);
        start..end
    };
    lengths.into_iter().map(outage).collect()
}

/// The number of calls that a breaker refuses while nothing is wrong but that a fifth of them fail.
fn refused_when_well(seed: u64, hours: f64, breaker: impl Fn(u32) -> Option<Config>) -> f64 {
    let run = simulate(1, seed, async |world| {
        let mut random = world.random();
        let arrivals = poisson(
            world.random(),
            RATE,
            Duration::from_secs_f64(hours * 3600.0),
        );
        let well = boxed(service_fn(move |()| {
            ready(if random.random_bool(0.2) {
                Err(BoxError::from("bad luck"))
            } else {
                Ok(())
            })
        }));
        let mut client = protect(world, breaker(1), well);
        let mut refused = 0;
        for at in arrivals {
            world.advance_to(at).await;
            let answer = client
                .ready()
                .await
                .expect("it is always ready")
                .call(())
                .await;
            refused += u32::from(is_refusal(&answer));
        }
        refused
    });
    f64::from(run.outcome)
}

fn protect(world: &World, breaker: Option<Config>, client: Client) -> Client {
    match breaker {
        Some(config) => boxed(
            config
                .seed(world.seed())
                .build()
                .expect("the configuration is valid")
                .layer(client),
        ),
        None => client,
    }
}

pub(super) fn is_refusal(answer: &Result<(), BoxError>) -> bool {
    answer
        .as_ref()
        .is_err_and(|error| Error::find(error.as_ref()).is_some_and(Cause::is_rejection))
}
