//! X13: a zone is lost.
//!
//! Six near endpoints and six far ones, in two priority groups. For a minute something is wrong with the near zone; in the
//! scenario (g) with both. Calls should find the far zone at once, and leave it alone before and after. In the last scenario
//! the zones are small and all endpoints fail some calls by chance, which is no reason to go far.
//!
//! Not scaled: the stack is as users get it, without a circuit breaker, as it is recommended over a balancer.

use std::{
    cell::Cell,
    fmt,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use buttress::{
    Balance, Error, Outcome,
    balance::{Ask, Endpoint, Handle, HealthCheck},
    classify_fn, standard,
};
use rand::{RngExt, rngs::SmallRng};
use tower::{
    BoxError, Layer, ServiceBuilder, ServiceExt, retry, service_fn, timeout::TimeoutLayer,
};

use super::x6_fails_fast::{Backend, tower_balance};
use crate::harness::{
    Axis, Client, Event, Form, Goal, Line, Plot, Report, Results, Run, Table, TowerRetry, Variant,
    World, boxed, lock, poisson, pool, simulate,
};

const NEAR: Duration = Duration::from_millis(20);
const FAR: Duration = Duration::from_millis(40);
const FAST: Duration = Duration::from_millis(1);
const RATE: f64 = 300.0;
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(300);
const DEADLINE: Duration = Duration::from_secs(2);
const LIMIT: usize = 200;
/// The share of requests that fail everywhere, where some do.
const POISON: f64 = 0.02;

/// What is wrong with the near zone.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Fails,
    Hangs,
    /// It is overloaded, and says so to 70 %.
    Refuses,
    /// It fails 30 %.
    FailsSome,
    /// Half of its endpoints hang.
    HalfHangs,
    /// Fails, after a long time in which some requests fail everywhere.
    FailsAfterPoison,
    /// Both zones fail.
    BothFail,
    /// All endpoints fail 10 %, always and each by itself.
    FailsByChance,
}

impl Fault {
    /// The number of endpoints in each zone.
    fn endpoints(self) -> usize {
        if self == Self::FailsByChance { 2 } else { 6 }
    }
}

const SCENARIOS: [(&str, Fault); 8] = [
    ("(a) fails in 1 ms", Fault::Fails),
    ("(b) hangs", Fault::Hangs),
    ("(c) refuses 70 %", Fault::Refuses),
    ("(d) fails 30 %", Fault::FailsSome),
    ("(e) half of it hangs", Fault::HalfHangs),
    (
        "(f) fails, and before 2 % failed everywhere",
        Fault::FailsAfterPoison,
    ),
    ("(g) both zones fail", Fault::BothFail),
    ("(h) 2 and 2 endpoints fail 10 %", Fault::FailsByChance),
];

/// When it happens, in seconds.
#[derive(Clone)]
struct Script {
    poison: Range<u64>,
    fault: Range<u64>,
    /// In which the near zone must have all calls again.
    after: Range<u64>,
    /// The same with a health check.
    long_after: Range<u64>,
}

impl Script {
    fn of(form: Form, fault: Fault) -> Self {
        let poison = if fault == Fault::FailsAfterPoison {
            form.pick(30, 300)
        } else {
            0
        };
        let begin = poison.max(30);
        let end = begin + form.pick(20, 60);
        Self {
            poison: 0..poison,
            fault: begin..end,
            after: end + 60..end + 90,
            long_after: end + 90..end + 120,
        }
    }
}

const NOTHING: &str = "nothing";
const OURS: &str = "buttress";
const CHECKED: &str = "… health check";
/// The short form runs the last two.
const VARIANTS: [Variant<Protect>; 5] = [
    (NOTHING, |world, mut backends| {
        // A list of the near endpoints.
        backends.truncate(backends.len() / 2);
        let random = Arc::new(Mutex::new(world.random()));
        let client = service_fn(move |()| {
            let place = lock(&random).random_range(0..backends.len());
            backends[place].clone().oneshot(())
        });
        Protected::by(boxed(TimeoutLayer::new(DEADLINE).layer(client)))
    }),
    ("tower, one list", |world, backends| {
        let stack = ServiceBuilder::new()
            .layer(TimeoutLayer::new(DEADLINE))
            .layer(retry::RetryLayer::new(TowerRetry::with_budget(2)))
            .layer(TimeoutLayer::new(ATTEMPT_TIMEOUT));
        Protected::by(boxed(stack.service(tower_balance(world, backends))))
    }),
    ("Envoy's rule", |world, backends| {
        let stack = ServiceBuilder::new()
            .layer(TimeoutLayer::new(DEADLINE))
            .layer(retry::RetryLayer::new(TowerRetry::with_budget(2)));
        Protected::by(boxed(stack.service(Envoy::balance(world, backends))))
    }),
    (OURS, |world, backends| ours(world, backends, false)),
    (CHECKED, |world, backends| ours(world, backends, true)),
];

type Protect = fn(&World, Vec<Backend>) -> Protected;

/// A client, and the handle of its balancer if that is ours.
struct Protected {
    client: Client,
    handle: Option<Handle<Backend>>,
}

impl Protected {
    fn by(client: Client) -> Self {
        let handle = None;
        Self { client, handle }
    }

    /// The endpoints of the far zone that are ejected or have been.
    fn ejections(&self) -> u32 {
        let endpoints = self.handle.iter().flat_map(Handle::endpoints);
        let far = endpoints.filter(|endpoint| endpoint.priority == 1);
        far.map(|endpoint| endpoint.ejections).sum()
    }
}

/// The word of an endpoint that is overloaded.
#[derive(Debug)]
struct Busy;

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("503")
    }
}

impl std::error::Error for Busy {}

fn classify(result: Result<&(), &Error>) -> Outcome {
    let Err(error) = result else {
        return Outcome::Success;
    };
    let source = std::error::Error::source(error);
    let mut sources = std::iter::successors(source, |error| error.source());
    if sources.any(<dyn std::error::Error>::is::<Busy>) {
        return Outcome::Overload { retry_after: None };
    }
    Outcome::Failure
}

fn ours(world: &World, backends: Vec<Backend>, is_checked: bool) -> Protected {
    let near = backends.len() / 2;
    let endpoints = backends.into_iter().enumerate();
    let endpoints = endpoints.map(|(number, backend)| {
        let priority = u8::from(number >= near);
        Endpoint::new(number, backend).priority(priority)
    });
    let config = Balance::config(pool()).seed(world.seed());
    let balance = config.classify(classify_fn(classify)).build(endpoints);
    let mut balance = balance.expect("the configuration is valid");
    if is_checked {
        let check = HealthCheck::new(Ask::new(|| ()));
        balance = balance.check_health(check).expect("there is a runtime");
    }
    let handle = balance.handle();
    let stack = standard("search")
        .timeout(ATTEMPT_TIMEOUT)
        .deadline(DEADLINE)
        .concurrency_limit(LIMIT)
        .no_circuit_breaker()
        .seed(world.seed())
        .classify(classify_fn(classify))
        .build();
    let stack = stack.expect("the configuration is valid");
    Protected {
        client: boxed(stack.layer(balance)),
        handle: Some(handle),
    }
}

/// The rule of Envoy: an endpoint is ejected after five failures in a row, for 30 s times the ejections so far; a zone
/// takes 1.4 times its healthy share.
struct Envoy {
    backends: Vec<Backend>,
    hosts: Vec<EnvoyHost>,
    random: SmallRng,
}

#[derive(Clone, Default)]
struct EnvoyHost {
    streak: u32,
    ejections: u32,
    ejected_until: Duration,
}

impl Envoy {
    fn balance(world: &World, backends: Vec<Backend>) -> Client {
        let envoy = Self {
            hosts: vec![EnvoyHost::default(); backends.len()],
            backends,
            random: world.random(),
        };
        let (envoy, world) = (Arc::new(Mutex::new(envoy)), world.clone());
        boxed(service_fn(move |()| {
            let (envoy, world) = (Arc::clone(&envoy), world.clone());
            async move {
                let (place, backend) = lock(&envoy).choose(world.now());
                let call = tokio::time::timeout(ATTEMPT_TIMEOUT, backend.oneshot(()));
                let result = call.await.unwrap_or_else(|late| Err(BoxError::from(late)));
                lock(&envoy).note(place, result.is_ok(), world.now());
                result
            }
        }))
    }

    fn choose(&mut self, now: Duration) -> (usize, Backend) {
        let healthy = |zone: Range<usize>| {
            let healthy = zone.filter(|place| self.hosts[*place].ejected_until <= now);
            healthy.collect::<Vec<_>>()
        };
        let endpoints = self.hosts.len() / 2;
        let (near, far) = (healthy(0..endpoints), healthy(endpoints..2 * endpoints));
        let share = (1.4 * near.len() as f64 / endpoints as f64).min(1.0);
        let zone = if self.random.random::<f64>() < share {
            near
        } else {
            far
        };
        let place = if zone.is_empty() {
            self.random.random_range(0..endpoints)
        } else {
            zone[self.random.random_range(0..zone.len())]
        };
        (place, self.backends[place].clone())
    }

    fn note(&mut self, place: usize, is_good: bool, now: Duration) {
        let host = &mut self.hosts[place];
        host.streak = if is_good { 0 } else { host.streak + 1 };
        if host.streak >= 5 && host.ejected_until <= now {
            host.ejections += 1;
            host.streak = 0;
            host.ejected_until = now + host.ejections * Duration::from_secs(30);
        }
    }
}

pub(crate) fn run(form: Form) -> Report {
    let (seeds, variants) = (form.pick(1, 5), &VARIANTS[form.pick(3, 0)..]);
    let mut table = Table::new(form, variants);
    let mut plot = None;
    for (name, fault) in SCENARIOS {
        let script = Script::of(form, fault);
        let results = Results::new(variants, seeds, |protect, seed| {
            episode(seed, fault, &script, *protect).outcome
        });
        if fault == Fault::BothFail {
            table.row(
                format!("{name}: attempts per call"),
                3,
                results.cells(|outcome| outcome.load(&script.fault)),
            );
            for_both(&mut table, || Goal::AtMost(1.05));
            continue;
        }
        if fault == Fault::FailsByChance {
            table.row(
                format!("{name}: first attempts that go far, %"),
                2,
                results.cells(|outcome| outcome.far(&(5..script.long_after.end))),
            );
            for_both(&mut table, || Goal::AtMost(0.5));
            continue;
        }
        let begin = script.fault.start;
        let first = begin..begin + 10;
        table.row(
            format!("{name}: success, %"),
            2,
            results.cells(|outcome| outcome.success(&script.fault)),
        );
        // The short form lasts a third as long, and what is lost before the change is the same.
        for_both(&mut table, || Goal::AtLeast(form.pick(98.5, 99.5)));
        worst(form, &mut table, &results, &script.fault, 99.0);
        table.row(
            "… in the first 10 s, %",
            2,
            results.cells(|outcome| outcome.success(&first)),
        );
        for_both(&mut table, || Goal::AtLeast(97.0));
        worst(form, &mut table, &results, &first, 94.0);
        table.row(
            "… far zone before, %",
            2,
            results.cells(|outcome| outcome.far(&(5..begin))),
        );
        for_both(&mut table, || Goal::AtMost(0.5));
        table
            .row(
                "… from 60 s after, %",
                2,
                results.cells(|outcome| outcome.far(&script.after)),
            )
            .goal(OURS, Goal::AtMost(0.5))
            .row(
                "… from 90 s after, %",
                2,
                results.cells(|outcome| outcome.far(&script.long_after)),
            )
            .goal(CHECKED, Goal::AtMost(0.5));
        if fault == Fault::FailsSome {
            table.row(
                "… far zone meanwhile, %",
                2,
                results.cells(|outcome| outcome.far(&script.fault)),
            );
        }
        if fault == Fault::FailsAfterPoison {
            table.row(
                "… ejections in the far zone",
                0,
                results.greatest(|outcome| f64::from(outcome.ejections)),
            );
            for_both(&mut table, || Goal::AtMost(0.0));
        }
        if fault == Fault::Fails {
            plot = Some(success(&results, &script));
        }
    }
    table.repeats(|seed| {
        let script = Script {
            poison: 0..0,
            fault: 2..5,
            after: 5..7,
            long_after: 7..8,
        };
        episode(seed, Fault::Fails, &script, VARIANTS[3].1).log
    });
    let report = Report::new("X13 a zone is lost", vec![table]);
    match (form, plot) {
        (Form::Full, Some(plot)) => report.plot(plot),
        _ => report,
    }
}

/// The seed that succeeds least.
fn worst(
    form: Form,
    table: &mut Table,
    results: &Results<Outcomes>,
    during: &Range<u64>,
    least: f64,
) {
    if let Form::Full = form {
        let success = results.least(|outcome| outcome.success(during));
        table.row("… … the worst seed, %", 2, success);
        for_both(table, || Goal::AtLeast(least));
    }
}

/// A goal with and without a health check.
fn for_both(table: &mut Table, goal: impl Fn() -> Goal) {
    for variant in [OURS, CHECKED] {
        table.goal(variant, goal());
    }
}

/// The mean of all runs, second by second.
fn success(results: &Results<Outcomes>, script: &Script) -> Plot {
    let end = script.fault.end + 30;
    let line = |((name, _), runs): (&Variant<Protect>, &Vec<Outcomes>)| {
        let mean = |second: u64| {
            let second = second..second + 1;
            runs.iter().map(|run| run.success(&second)).sum::<f64>() / runs.len() as f64
        };
        Line::seconds(*name, (0..end).map(mean))
    };
    let fault = script.fault.start as f64..script.fault.end as f64;
    Plot {
        file: "x13_success",
        title: "Six near endpoints fail for a minute, six far ones work",
        x: Axis::linear("time of arrival, s", 0.0..end as f64),
        y: Axis::linear("calls that succeed, %", 0.0..140.0),
        lines: VARIANTS.iter().zip(results.runs()).map(line).collect(),
        spans: vec![(fault, "near zone fails")],
    }
}

struct Outcomes {
    seconds: Vec<Second>,
    ejections: u32,
}

#[derive(Clone, Default)]
struct Second {
    /// Calls that arrive in this second and could succeed, and how many of them do.
    calls: u32,
    good: u32,
    /// Attempts that arrive at each zone.
    attempts: [u32; 2],
}

impl Outcomes {
    fn sum(&self, during: &Range<u64>, number: impl Fn(&Second) -> u32) -> f64 {
        let seconds = &self.seconds[during.start as usize..during.end as usize];
        f64::from(seconds.iter().map(number).sum::<u32>())
    }

    fn success(&self, during: &Range<u64>) -> f64 {
        100.0 * self.sum(during, |second| second.good) / self.sum(during, |second| second.calls)
    }

    fn attempts(&self, during: &Range<u64>) -> f64 {
        self.sum(during, |second| second.attempts.iter().sum())
    }

    fn far(&self, during: &Range<u64>) -> f64 {
        100.0 * self.sum(during, |second| second.attempts[1]) / self.attempts(during)
    }

    fn load(&self, during: &Range<u64>) -> f64 {
        self.attempts(during) / self.sum(during, |second| second.calls)
    }
}

tokio::task_local! {
    static REQUEST: Request;
}

/// The request of a task.
struct Request {
    /// It fails everywhere.
    is_poison: bool,
    has_attempts: Cell<bool>,
}

fn episode(seed: u64, fault: Fault, script: &Script, protect: Protect) -> Run<Outcomes> {
    simulate(1, seed, async |world| {
        let end = script.long_after.end;
        let history = Arc::new(Mutex::new(vec![Second::default(); end as usize + 10]));
        let backend = |number| backend(world, number, fault, script, &history);
        let protected = protect(world, (0..2 * fault.endpoints()).map(backend).collect());
        let (mut random, mut ejections, mut last) = (world.random(), 0, 0);
        for at in poisson(world.random(), RATE, Duration::from_secs(end)) {
            world.sleep_until(at).await;
            let second = at.as_secs();
            if second != last {
                ejections += protected.ejections();
                last = second;
            }
            let is_poison = script.poison.contains(&second) && random.random::<f64>() < POISON;
            lock(&history)[second as usize].calls += u32::from(!is_poison);
            let log = Arc::clone(&history);
            let done = move |answer: Result<(), BoxError>| {
                lock(&log)[second as usize].good += u32::from(answer.is_ok());
            };
            let call = protected.client.clone().oneshot(());
            let request = Request {
                is_poison,
                has_attempts: Cell::new(false),
            };
            let call = REQUEST.scope(request, call);
            world.begin_call(call, done).await;
        }
        world.sleep(2 * DEADLINE).await;
        let seconds = lock(&history).clone();
        Outcomes { seconds, ejections }
    })
}

fn backend(
    world: &World,
    number: usize,
    fault: Fault,
    script: &Script,
    history: &Arc<Mutex<Vec<Second>>>,
) -> Backend {
    let (world, script, history) = (world.clone(), script.clone(), Arc::clone(history));
    let random = Arc::new(Mutex::new(world.random()));
    let is_far = number >= fault.endpoints();
    Backend::new(service_fn(move |()| {
        let (now, world) = (world.now().as_secs(), world.clone());
        // Probes of the health check belong to no call.
        let request =
            REQUEST.try_with(|request| (request.is_poison, !request.has_attempts.replace(true)));
        let (is_poison, is_first) = request.unwrap_or((false, false));
        // Where there are two endpoints, a third attempt finds none that was not tried.
        if is_first || request.is_ok() && fault != Fault::FailsByChance {
            world.record(&Event::Attempt);
            lock(&history)[now as usize].attempts[usize::from(is_far)] += 1;
        }
        let is_hit = script.fault.contains(&now) && (!is_far || fault == Fault::BothFail);
        let draw = lock(&random).random::<f64>();
        async move {
            match fault {
                _ if is_poison => {}
                Fault::Fails | Fault::FailsAfterPoison | Fault::BothFail if is_hit => {}
                Fault::FailsSome if is_hit && draw < 0.3 => {}
                Fault::FailsByChance if request.is_ok() && draw < 0.1 => {}
                Fault::Hangs if is_hit => std::future::pending().await,
                Fault::HalfHangs if is_hit && number % 2 == 0 => std::future::pending().await,
                Fault::Refuses if is_hit && draw < 0.7 => {
                    world.sleep(FAST).await;
                    return Err(BoxError::from(Busy));
                }
                _ => {
                    world.sleep(if is_far { FAR } else { NEAR }).await;
                    return Ok(());
                }
            }
            world.sleep(FAST).await;
            Err(BoxError::from("the endpoint fails"))
        }
    }))
}
