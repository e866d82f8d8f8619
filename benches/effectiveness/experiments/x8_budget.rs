//! X8: the retries that a budget permits.
//!
//! A service fails each attempt with probability p, independently, and the callers retry at once. Without a budget the
//! load is 1 + p + p² and the final success 1 - p³, so that a dead service gets three times its load. A budget has to
//! prevent this load, and deny hardly any retry while failures are rare, for one busy client and for a thousand small
//! ones.
//!
//! Not scaled: both budgets measure their rates per second of tokio's clock.

use std::{
    future::ready,
    mem::take,
    sync::{Arc, Mutex},
    time::Duration,
};

use buttress::{Backoff, Budget, RetryLayer, retry::Config};
use rand::RngExt;
use tower::{BoxError, Layer, retry, service_fn};

use crate::harness::{
    Axis, Client, Event, Form, Goal, Line, Plot, Report, Results, Run, Table, TowerRetry, Variant,
    World, boxed, lock, poisson, simulate,
};

const RETRIES: u32 = 2;

const NO_BUDGET: &str = "no budget";
const PER_CLIENT: &str = "buttress, one per client";
const SHARED: &str = "buttress, one for all";
/// How each column makes its clients. The short form runs the last two.
const VARIANTS: [Variant<NewClients>; 4] = [
    ("tower, TpsBudget", |_, service| {
        Box::new(move || {
            let retry = retry::RetryLayer::new(TowerRetry::with_budget(RETRIES));
            boxed(retry.layer(service.clone()))
        })
    }),
    (NO_BUDGET, |world, service| {
        let world = world.clone();
        Box::new(move || ours(&world, &service, Config::no_budget))
    }),
    (PER_CLIENT, |world, service| {
        let world = world.clone();
        Box::new(move || ours(&world, &service, |config| config))
    }),
    (SHARED, |world, service| {
        let (world, budget) = (world.clone(), Budget::new("service"));
        Box::new(move || ours(&world, &service, |config| config.budget(&budget)))
    }),
];

/// Makes one client of a service after the other.
type NewClients = fn(&World, Client) -> Box<dyn FnMut() -> Client>;

#[derive(Clone, Copy)]
struct Scenario {
    clients: u32,
    /// Calls per second of each client.
    rate: f64,
    /// The probability that an attempt fails.
    failing: f64,
    /// After this long, each client is replaced by a new one.
    life: Duration,
    /// How long it goes on before it is measured.
    warm_up: Duration,
    measured: Duration,
}

impl Scenario {
    /// Clients that have been at it for a while.
    fn warm((clients, rate): (u32, f64), failing: f64) -> Self {
        Self {
            clients,
            rate,
            failing,
            life: Duration::MAX,
            warm_up: Duration::from_secs(100),
            measured: Duration::from_secs(100),
        }
    }

    /// Clients that live for so long, each with a budget of its own, while the service is dead.
    fn short_lived(shape: (u32, f64), life: Duration) -> Self {
        Self {
            life,
            ..Self::warm(shape, 1.0)
        }
    }

    fn run(self, form: Form) -> Results<Outcome> {
        Results::new(variants(form), form.pick(3, 5), |new_clients, seed| {
            measure(&self, seed, *new_clients).outcome
        })
    }

    fn text(&self) -> String {
        format!("{} × {}/s, p = {}", self.clients, self.rate, self.failing)
    }
}

fn variants(form: Form) -> &'static [Variant<NewClients>] {
    &VARIANTS[form.pick(2, 0)..]
}

/// As many calls from one client, from several and from many; a 20th of them in the short form.
fn shapes(form: Form) -> [(u32, f64); 3] {
    form.pick(
        [(1, 50.0), (5, 10.0), (50, 1.0)],
        [(1, 1000.0), (100, 10.0), (1000, 1.0)],
    )
}

pub(crate) fn run(form: Form) -> Report {
    const TITLE: &str = "X8 retry budgets";
    let goals = held_to_goals(form);
    match form {
        Form::Short => Report::new(TITLE, vec![goals]),
        Form::Full => {
            let (curve, plot) = curve(form);
            Report::new(TITLE, vec![goals, beginnings(form), curve]).plot(plot)
        }
    }
}

fn held_to_goals(form: Form) -> Table {
    let mut table = Table::new(form, variants(form));
    for shape in shapes(form) {
        let [dead, healthy, flaky] = [1.0, 0.05, 0.3].map(|p| Scenario::warm(shape, p));
        table
            .row(
                format!("{}: load, ×", dead.text()),
                4,
                dead.run(form).cells(Outcome::load),
            )
            .reference("1 + p + p² = 3; success-funded bucket 1.004")
            .goal(PER_CLIENT, Goal::AtMost(1.001))
            .goal(SHARED, Goal::AtMost(1.001))
            .row(
                format!("{}: success, %", healthy.text()),
                4,
                healthy.run(form).cells(|outcome| 100.0 - outcome.errors()),
            )
            .reference("1 - p³ = 99.9875; success-funded bucket 99.97")
            .goal(PER_CLIENT, Goal::AtLeast(99.98))
            .goal(SHARED, Goal::AtLeast(99.98))
            .row(
                format!("{}: errors, %", flaky.text()),
                3,
                flaky.run(form).cells(Outcome::errors),
            )
            .reference("p³ = 2.7")
            .goal(PER_CLIENT, Goal::AtMost(4.2))
            .goal(SHARED, Goal::AtMost(4.2));
    }
    // A budget holds 40 tokens at the start, which are four retries.
    let [.., idle] = shapes(form);
    for (life, life_of, most) in [
        (Duration::ZERO, "one call", 3.0),
        (Duration::from_secs(10), "10 s", 1.4),
    ] {
        let scenario = Scenario::short_lived(idle, life);
        table
            .row(
                format!("{}: load if clients live {life_of}, ×", scenario.text()),
                4,
                scenario.run(form).cells(Outcome::load),
            )
            .goal(PER_CLIENT, Goal::AtMost(most))
            .goal(SHARED, Goal::AtMost(1.001));
    }
    let repeated = Scenario {
        warm_up: Duration::ZERO,
        ..Scenario::warm((10, 1.0), 0.3)
    };
    table.repeats(|seed| measure(&repeated, seed, VARIANTS[2].1).log);
    table
}

/// What clients add to the load of a dead service before they have learnt that it is dead.
fn beginnings(form: Form) -> Table {
    let mut table = Table::new(form, variants(form));
    for shape in shapes(form) {
        let warm = Scenario::warm(shape, 1.0);
        let cold = Scenario {
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(10),
            ..warm
        };
        table.row(
            format!("{}: load in the first 10 s, ×", warm.text()),
            4,
            cold.run(form).cells(Outcome::load),
        );
        for seconds in [1, 10] {
            let replaced = Scenario::short_lived(shape, Duration::from_secs(seconds));
            table.row(
                format!("{}: load if clients live {seconds} s, ×", warm.text()),
                4,
                replaced.run(form).cells(Outcome::load),
            );
        }
    }
    table
}

fn curve(form: Form) -> (Table, Plot) {
    let mut table = Table::new(form, variants(form));
    let mut lines: Vec<_> = variants(form)
        .iter()
        .map(|(name, _)| Line::new(*name, vec![(0.0, 1.0)]))
        .collect();
    for p in [0.1, 0.2, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8, 1.0] {
        let scenario = Scenario::warm((100, 10.0), p);
        let results = scenario.run(form);
        let unlimited = 1.0 + p + p * p;
        for (line, load) in lines.iter_mut().zip(results.cells(Outcome::load)) {
            line.points.push((p, load.mean()));
        }
        table
            .row(
                format!("{}: load, ×", scenario.text()),
                3,
                results.cells(Outcome::load),
            )
            .reference(format!("1 + p + p² = {unlimited:.3}"))
            .goal(NO_BUDGET, Goal::Within(unlimited, 0.01))
            .row(
                format!("{}: errors, %", scenario.text()),
                2,
                results.cells(Outcome::errors),
            )
            .reference(format!("p³ = {:.2}", 100.0 * p.powi(3)));
    }
    let plot = Plot {
        file: "x8_attempts",
        title: "Attempts for a call, with up to two retries and different budgets",
        x: Axis::linear("probability that an attempt fails", 0.0..1.0),
        y: Axis::linear("attempts for a call", 0.9..3.6),
        lines,
        spans: Vec::new(),
    };
    (table, plot)
}

/// Counts, as numbers to calculate with.
#[derive(Default)]
struct Outcome {
    calls: f64,
    attempts: f64,
    failures: f64,
}

impl Outcome {
    fn load(&self) -> f64 {
        self.attempts / self.calls
    }

    /// Per cent.
    fn errors(&self) -> f64 {
        100.0 * self.failures / self.calls
    }
}

fn measure(scenario: &Scenario, seed: u64, new_clients: NewClients) -> Run<Outcome> {
    simulate(1, seed, async |world| {
        let tally = Arc::new(Mutex::new(Outcome::default()));
        let mut new_client =
            new_clients(world, service(world, Arc::clone(&tally), scenario.failing));
        let mut clients: Vec<_> = (0..scenario.clients)
            .map(|_| (new_client(), Duration::ZERO))
            .collect();
        let mut random = world.random();

        let end = scenario.warm_up + scenario.measured;
        let mut arrivals = poisson(
            world.random(),
            f64::from(scenario.clients) * scenario.rate,
            end,
        )
        .peekable();
        for until in [scenario.warm_up, end] {
            take(&mut *lock(&tally));
            while let Some(at) = arrivals.next_if(|at| *at < until) {
                world.advance_to(at).await;
                let index = random.random_range(..clients.len());
                let (client, born) = &mut clients[index];
                if at.saturating_sub(*born) >= scenario.life {
                    (*client, *born) = (new_client(), at);
                }
                let tally = Arc::clone(&tally);
                let done = move |answer: Result<_, _>| {
                    let mut tally = lock(&tally);
                    tally.calls += 1.0;
                    tally.failures += if answer.is_err() { 1.0 } else { 0.0 };
                };
                world.begin(client, done).await;
            }
            // Nothing is under way any more when the counts are read: a retry takes a tick of the
            // clock.
            world.sleep(Duration::from_millis(10)).await;
        }
        take(&mut *lock(&tally))
    })
}

/// A service that fails its share of the attempts at once.
fn service(world: &World, tally: Arc<Mutex<Outcome>>, failing: f64) -> Client {
    let (world, random) = (world.clone(), Arc::new(Mutex::new(world.random())));
    boxed(service_fn(move |()| {
        lock(&tally).attempts += 1.0;
        world.record(&Event::Attempt);
        let fails = lock(&random).random_bool(failing);
        ready(if fails {
            Err(BoxError::from("bad luck"))
        } else {
            Ok(())
        })
    }))
}

fn ours(world: &World, service: &Client, budget: impl FnOnce(Config) -> Config) -> Client {
    // The shortest wait there is: one tick of the clock.
    let config = RetryLayer::config("service")
        .max_attempts(RETRIES + 1)
        .backoff(Backoff::constant(Duration::from_nanos(1)))
        .seed(world.seed());
    let retry = budget(config).build().expect("the configuration is valid");
    boxed(retry.layer(service.clone()))
}
