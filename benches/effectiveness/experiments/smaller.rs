//! Smaller questions, each with its experiment.
//!
//! How large must a concurrency limit be so that it refuses hardly any call while the service is healthy? Does a fault
//! of 10 ms open a breaker at 20,000 calls a second, and how many calls fail in a real outage before it opens? How many
//! calls at a time are blocked by probes to hanging dependencies? Does a limit above the real quota cost more than no
//! limit? Should a retry after an overload cost more than another one?
//!
//! Not scaled: all settings are the defaults.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    future::ready,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use buttress::{
    Backoff, BulkheadLayer, CircuitBreakerLayer, Classify, Error, Outcome, Rate, RetryLayer,
    TimeoutLayer, circuit_breaker::Config, classify_fn, standard,
};
use rand::RngExt;
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt, service_fn};

use super::x9_breaker::is_refusal;
use crate::harness::{
    Backend, Client, Event, Fault, Form, Goal, Model, Report, Results, Run, Table, Variant, World,
    boxed, lock, poisson, simulate,
};

pub(crate) fn run(form: Form) -> Report {
    let tables = vec![
        limits(form),
        high_rate(form),
        probes(form),
        quota(form),
        overloads(form),
    ];
    Report::new("smaller questions", tables)
}

// ---- the size of a concurrency limit

const RULE: &str = "4 λW + 5";
type Rule = fn(f64) -> f64;
/// The limit for so many calls in flight on average.
const RULES: [Variant<Rule>; 4] = [
    ("2 λW", |mean| 2.0 * mean),
    ("4 λW", |mean| 4.0 * mean),
    ("2 λW + 5", |mean| 2.0 * mean + 5.0),
    (RULE, |mean| 4.0 * mean + 5.0),
];

fn limits(form: Form) -> Table {
    let mut table = Table::new(form, &RULES);
    for (bursts, what) in [
        (false, "Poisson"),
        (true, "bursts of 2.5 × for a fifth of a second"),
    ] {
        for mean in form.pick(&[1.0, 10.0][..], &[0.5, 1.0, 2.0, 5.0, 10.0, 50.0]) {
            let results = Results::new(&RULES, form.pick(2, 10), |rule, seed| {
                refused(seed, *mean, rule(*mean).ceil() as usize, bursts)
            });
            table
                .row(
                    format!("λW = {mean}, {what}: refused, %"),
                    3,
                    results.cells(|refused| *refused),
                )
                .goal(RULE, Goal::AtMost(1.0));
        }
    }
    table
}

/// The calls that a limit refuses to a service that is well, in percent. They take 50 ms on average, exponentially.
fn refused(seed: u64, mean: f64, limit: usize, bursts: bool) -> f64 {
    const SERVICE: f64 = 0.05;
    let run = simulate(100, seed, async |world| {
        let (own, random) = (world.clone(), Arc::new(Mutex::new(world.random())));
        let service = boxed(service_fn(move |()| {
            let draw: f64 = lock(&random).random();
            let time = Duration::from_secs_f64(-SERVICE * (1.0 - draw).ln());
            let world = own.clone();
            async move {
                world.sleep(time).await;
                Ok::<_, BoxError>(())
            }
        }));
        let client = boxed(BulkheadLayer::new("service", limit).layer(service));
        let rate = mean / SERVICE;
        let until = Duration::from_secs_f64(20_000.0 / rate);
        let refusals = Arc::new(AtomicU32::new(0));
        let (mut random, mut calls) = (world.random(), 0.0);
        // The most that there are at a time, of which some are left out.
        let most = if bursts { 2.5 * rate } else { rate };
        for at in poisson(world.random(), most, until) {
            let is_burst = at.subsec_millis() < 200;
            // 2.5 × for a fifth of the time, and 0.625 × otherwise: as many in all.
            if bursts && !is_burst && !random.random_bool(0.25) {
                continue;
            }
            world.sleep_until(at).await;
            calls += 1.0;
            let refusals = Arc::clone(&refusals);
            let done = move |answer| {
                refusals.fetch_add(u32::from(is_refusal(&answer)), Ordering::Relaxed);
            };
            world.begin(&client, done).await;
        }
        100.0 * f64::from(refusals.load(Ordering::Relaxed)) / calls
    });
    run.outcome
}

// ---- a breaker that sees many calls

const MANY: f64 = 20_000.0;
const IN_A_ROW: &str = "1,000 in a row";
type Change = fn(Config) -> Config;
const BREAKERS: [Variant<Change>; 3] = [
    ("default", |config| config),
    ("fail_fast: 12 in a row", Config::fail_fast),
    (IN_A_ROW, |config| config.consecutive_failures(1_000)),
];

fn high_rate(form: Form) -> Table {
    let mut table = Table::new(form, &BREAKERS);
    let results = |millis: u64| {
        Results::new(&BREAKERS, form.pick(1, 5), move |breaker, seed| {
            blip(seed, Duration::from_millis(millis), *breaker).outcome
        })
    };
    let (short, long) = (results(10), results(2_000));
    table
        .row(
            "20,000/s, down for 10 ms: calls refused",
            0,
            short.cells(|(refused, _)| *refused),
        )
        .goal("default", Goal::AtMost(0.0))
        .goal(IN_A_ROW, Goal::AtMost(0.0))
        .row(
            "20,000/s, down for 2 s: calls that fail before it opens",
            0,
            long.cells(|(_, leaked)| *leaked),
        )
        .goal(IN_A_ROW, Goal::AtMost(1_100.0))
        .repeats(|seed| blip(seed, Duration::from_millis(10), BREAKERS[2].1).log);
    table
}

/// Calls that are refused, and calls that fail, if a service is down for so long.
fn blip(seed: u64, down: Duration, breaker: fn(Config) -> Config) -> Run<(f64, f64)> {
    simulate(1, seed, async |world| {
        let begins = Duration::from_secs(3);
        let down = begins..begins + down;
        let (own, span) = (world.clone(), down.clone());
        let service = boxed(service_fn(move |()| {
            own.record(&Event::Attempt);
            ready(if span.contains(&own.now()) {
                Err(BoxError::from("down"))
            } else {
                Ok(())
            })
        }));
        let config = breaker(CircuitBreakerLayer::config("service")).seed(world.seed());
        let layer = config.build().expect("the configuration is valid");
        let client = boxed(layer.layer(service));
        let counts: [Arc<AtomicU32>; 2] = Default::default();
        for at in poisson(world.random(), MANY, down.end + Duration::from_millis(500)) {
            world.advance_to(at).await;
            let counts = counts.clone();
            let done = move |answer: Result<_, _>| {
                if answer.is_err() {
                    let index = usize::from(!is_refusal(&answer));
                    counts[index].fetch_add(1, Ordering::Relaxed);
                }
            };
            world.begin(&client, done).await;
        }
        let [refused, failed] = counts.map(|count| f64::from(count.load(Ordering::Relaxed)));
        (refused, failed)
    })
}

// ---- probes of dependencies that hang

const DEPENDENCIES: usize = 42;
const GROWS: &str = "open_growth(2, 30 s)";
/// The breaker, and the timeout of a call in milliseconds.
const PROBING: [Variant<(Change, u64)>; 3] = [
    ("default", (|config| config, 2_000)),
    ("timeout 300 ms", (|config| config, 300)),
    (
        GROWS,
        (
            |config| config.open_growth(2.0, Duration::from_secs(30)),
            2_000,
        ),
    ),
];

fn probes(form: Form) -> Table {
    let mut table = Table::new(form, &PROBING);
    let results = Results::new(&PROBING, form.pick(1, 5), |(breaker, timeout), seed| {
        hang(seed, *breaker, Duration::from_millis(*timeout))
    });
    table
        .row(
            "42 dependencies hang for 5 min: calls that are blocked",
            1,
            results.cells(|(blocked, _)| *blocked),
        )
        .goal("timeout 300 ms", Goal::AtMost(0.2 * DEPENDENCIES as f64))
        .goal(GROWS, Goal::AtMost(0.2 * DEPENDENCIES as f64))
        .row(
            "… refused after they are well again, s",
            1,
            results.cells(|(_, extra)| *extra),
        );
    table
}

/// The calls that are blocked on average once the breakers have opened, and the seconds for which a dependency that is well again
/// is refused.
fn hang(seed: u64, breaker: fn(Config) -> Config, timeout: Duration) -> (f64, f64) {
    let hangs = Duration::from_secs(20)..Duration::from_secs(320);
    let opened = hangs.start + Duration::from_secs(20);
    let run = simulate(1, seed, async |world| {
        let mut dependencies = Vec::new();
        for _ in 0..DEPENDENCIES {
            let faults = vec![(hangs.clone(), Fault::Silent)];
            let backend = Backend::new(world, Model::Delay(Duration::from_millis(20)), faults);
            let config = breaker(CircuitBreakerLayer::config("service")).seed(world.seed());
            let stack = ServiceBuilder::new()
                .layer(config.build().expect("the configuration is valid"))
                .layer(TimeoutLayer::new("service", timeout));
            let client = boxed(stack.service(backend.client()));
            dependencies.push((backend, client, Arc::new(Mutex::new(hangs.end))));
        }
        let mut random = world.random();
        let until = hangs.end + Duration::from_secs(60);
        for at in poisson(world.random(), 10.0 * DEPENDENCIES as f64, until) {
            world.sleep_until(at).await;
            let (_, client, last) = &dependencies[random.random_range(..DEPENDENCIES)];
            let last = Arc::clone(last);
            let done = move |answer| {
                if is_refusal(&answer) {
                    *lock(&last) = at;
                }
            };
            world.begin(client, done).await;
        }
        let measured = opened..hangs.end;
        let (mut probes, mut extra) = (0, 0.0);
        for (backend, _, last) in &dependencies {
            probes += backend.attempts(&measured);
            extra += lock(last).saturating_sub(hangs.end).as_secs_f64();
        }
        let seconds = measured.end.saturating_sub(measured.start).as_secs_f64();
        let blocked = probes as f64 * timeout.as_secs_f64() / seconds;
        (blocked, extra / DEPENDENCIES as f64)
    });
    run.outcome
}

// ---- a rate limit above the real quota

const QUOTA: f64 = 100.0;
const ASKED: f64 = 150.0;
const DEFAULT: &str = "buttress";
const QUOTAS: [Variant<Limited>; 4] = [
    ("nothing", |_, service| service),
    (DEFAULT, |world, service| {
        limited(world, service, 150, false)
    }),
    ("one_quota()", |world, service| {
        limited(world, service, 150, true)
    }),
    (
        "one_quota(), the limit below the quota",
        |world, service| limited(world, service, 95, true),
    ),
];

type Limited = fn(&World, Client) -> Client;

#[derive(Clone, Copy)]
struct OfQuota;

impl<Res> Classify<Res> for OfQuota {
    fn classify(&self, result: Result<&Res, &Error>) -> Outcome {
        match result {
            Ok(_) => Outcome::Success,
            Err(error) if error.is_rejection() => Outcome::Ignored,
            Err(_) => Outcome::Throttled {
                retry_after: Some(Duration::from_secs(1)),
            },
        }
    }
}

fn limited(world: &World, service: Client, rate: u32, one_quota: bool) -> Client {
    let stack = standard("partner")
        .timeout(Duration::from_secs(1))
        .deadline(Duration::from_secs(5))
        .unlimited()
        .classify(OfQuota)
        .rate_limit(Rate::per_second(rate), |limit| {
            if one_quota { limit.one_quota() } else { limit }
        })
        .seed(world.seed())
        .build();
    boxed(stack.expect("the configuration is valid").layer(service))
}

fn quota(form: Form) -> Table {
    let seconds = form.pick(20, 120);
    let results = Results::new(&QUOTAS, form.pick(1, 5), |protect, seed| {
        throttled(seed, seconds, *protect).outcome
    });
    let mut table = Table::new(form, &QUOTAS);
    let alone = results.cells(|(success, _)| *success)[0].mean();
    table
        .row(
            "150/s, quota 100/s, limit 150/s, Retry-After 1: success, %",
            1,
            results.cells(|(success, _)| *success),
        )
        .goal(DEFAULT, Goal::AtLeast(alone.floor() - 1.0))
        .row(
            "… attempts for a call",
            2,
            results.cells(|(_, attempts)| *attempts),
        )
        .repeats(|seed| throttled(seed, 10, QUOTAS[2].1).log);
    table
}

/// The share of calls that succeed, in percent, and the attempts for each, over a service that answers 100 calls a second and throttles
/// the rest.
fn throttled(seed: u64, seconds: u64, protect: Limited) -> Run<(f64, f64)> {
    simulate(1, seed, async |world| {
        // When the bucket will be full, and the attempts.
        let (own, state) = (world.clone(), Arc::new(Mutex::new((0.0, 0.0))));
        let counted = Arc::clone(&state);
        let service = boxed(service_fn(move |()| {
            own.record(&Event::Attempt);
            let (now, mut state) = (own.now().as_secs_f64(), lock(&state));
            let (full, attempts) = &mut *state;
            *attempts += 1.0;
            let next = f64::max(*full, now) + 1.0 / QUOTA;
            // A tenth of a second of it may come at once.
            let is_allowed = next <= now + 0.1;
            if is_allowed {
                *full = next;
            }
            ready(if is_allowed {
                Ok(())
            } else {
                Err(BoxError::from("429"))
            })
        }));
        let client = protect(world, service);
        let successes = Arc::new(AtomicU32::new(0));
        let mut calls = 0.0;
        for at in poisson(world.random(), ASKED, Duration::from_secs(seconds)) {
            world.sleep_until(at).await;
            calls += 1.0;
            let successes = Arc::clone(&successes);
            let done = move |answer: Result<_, _>| {
                successes.fetch_add(u32::from(answer.is_ok()), Ordering::Relaxed);
            };
            world.begin_call(client.clone().oneshot(()), done).await;
        }
        world.sleep(Duration::from_secs(10)).await;
        let (_, attempts) = *lock(&counted);
        let successes = f64::from(successes.load(Ordering::Relaxed));
        (100.0 * successes / calls, attempts / calls)
    })
}

// ---- the cost of a retry after overload

const DEAR: &str = "20 tokens";
/// The cost of a retry of a client whose server is overloaded.
#[derive(Clone, Copy, PartialEq)]
enum Cost {
    NoRetry,
    Twenty,
    Ten,
}
const COSTS: [Variant<Cost>; 3] = [
    ("no retry", Cost::NoRetry),
    (DEAR, Cost::Twenty),
    ("10 tokens", Cost::Ten),
];

/// The server that says that it is overloaded.
#[derive(Clone, Copy)]
enum Server {
    /// It can do 500 calls a second of 20 ms. It turns away those that would wait for more than 20 ms, and that takes a worker
    /// so many milliseconds.
    Sheds(u64),
    /// It turns away this share of the attempts, whatever the load.
    ByChance(f64),
}

/// Retries make a server that sheds slower, however cheap its refusals are, and the dear ones least. Where refusals have nothing to do
/// with the load, more retries help more: there the cheap ones win. Both are better than none then.
fn overloads(form: Form) -> Table {
    let mut table = Table::new(form, &COSTS);
    let results = |server, load: f64| {
        Results::new(&COSTS, form.pick(1, 5), move |cost, seed| {
            retried(seed, server, load * CAPACITY, *cost)
        })
    };
    for (load, refusal) in form.pick(&[(2.0, 1)][..], &[(1.2, 1), (2.0, 1), (2.0, 5)]) {
        let results = results(Server::Sheds(*refusal), *load);
        let served = results.cells(|(served, _)| 100.0 * served / CAPACITY);
        // A refusal of 5 ms takes a quarter of what a call takes.
        let (alone, most) = (served[0].mean(), if *refusal == 1 { 1.0 } else { 3.0 });
        table
            .row(
                format!("{load} × the capacity, a refusal takes {refusal} ms: goodput, %"),
                2,
                served,
            )
            .goal(DEAR, Goal::AtLeast((10.0 * (alone - most)).floor() / 10.0))
            .row("… attempts for a call", 3, results.cells(|(_, sent)| *sent));
    }
    for share in form.pick(&[0.3][..], &[0.05, 0.3, 0.5, 1.0]) {
        let results = results(Server::ByChance(*share), 1.0);
        table
            .row(
                format!("{share} of the attempts are turned away: errors, %"),
                2,
                results.cells(|(served, _)| 100.0 - 100.0 * served / CAPACITY),
            )
            .row("… attempts for a call", 3, results.cells(|(_, sent)| *sent));
    }
    table
}

const CAPACITY: f64 = 500.0;

/// The calls per second that succeed, and the attempts for each call, once the initial budget is used up.
fn retried(seed: u64, server: Server, rate: f64, cost: Cost) -> (f64, f64) {
    const WAIT: Duration = Duration::from_millis(20);
    let run = simulate(1, seed, async |world| {
        let state = Mutex::new((vec![Reverse(Duration::ZERO); 10].into(), world.random()));
        let (own, state) = (world.clone(), Arc::new(state));
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let sent = Arc::clone(&attempts);
        let service = boxed(service_fn(move |()| {
            let (world, now) = (own.clone(), own.now());
            world.record(&Event::Attempt);
            lock(&sent).push(now);
            let mut state = lock(&state);
            let (free_at, random): &mut (BinaryHeap<Reverse<Duration>>, _) = &mut state;
            let mut worker = free_at.peek_mut().expect("there are workers");
            let begins = now.max(worker.0);
            let (is_refused, takes) = match server {
                Server::Sheds(takes) => (begins > now + WAIT, Duration::from_millis(takes)),
                Server::ByChance(share) => (random.random_bool(share), Duration::ZERO),
            };
            let finished = match server {
                Server::Sheds(_) => begins + if is_refused { takes } else { 20 * MILLI },
                Server::ByChance(_) => now,
            };
            worker.0 = finished;
            async move {
                let until = if is_refused { now + takes } else { finished };
                world.sleep_until(until).await;
                let answer = (!is_refused).then_some(());
                answer.ok_or_else(|| BoxError::from("overloaded"))
            }
        }));
        // Without a word about overload it is a failure like any other, here with the same waits.
        let is_dear = cost == Cost::Twenty;
        let classify = classify_fn(move |result: Result<&(), &Error>| match result {
            Ok(()) => Outcome::Success,
            Err(_) if is_dear => Outcome::Overload { retry_after: None },
            Err(_) => Outcome::Failure,
        });
        let after_overload = Backoff::exponential(Duration::from_secs(1), Duration::from_secs(20));
        let retry = RetryLayer::config("service").classify(classify);
        let retry = retry.backoff(after_overload).seed(world.seed()).build();
        let retry = retry.expect("the configuration is valid");
        let client = match cost {
            Cost::NoRetry => service,
            Cost::Twenty | Cost::Ten => boxed(retry.layer(service)),
        };
        let counted = Duration::from_secs(30)..Duration::from_secs(90);
        let successes = Arc::new(AtomicU32::new(0));
        let mut calls = 0.0;
        for at in poisson(world.random(), rate, counted.end) {
            world.sleep_until(at).await;
            let is_counted = counted.contains(&at);
            calls += if is_counted { 1.0 } else { 0.0 };
            let successes = Arc::clone(&successes);
            let done = move |answer: Result<_, _>| {
                let is_good = is_counted && answer.is_ok();
                successes.fetch_add(u32::from(is_good), Ordering::Relaxed);
            };
            world.begin(&client, done).await;
        }
        world.sleep(Duration::from_secs(10)).await;
        let attempts = lock(&attempts);
        let attempts = attempts.iter().filter(|at| counted.contains(at)).count();
        let seconds = counted.end.saturating_sub(counted.start).as_secs_f64();
        let successes = f64::from(successes.load(Ordering::Relaxed));
        (successes / seconds, attempts as f64 / calls)
    });
    run.outcome
}

const MILLI: Duration = Duration::from_millis(1);
