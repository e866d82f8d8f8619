//! What a call through each layer costs when nothing goes wrong, beside tower's own layers.
//!
//! `cargo bench --package overhead`. The unit is a call through tower's `TimeoutLayer`, measured in the same
//! round as the row it is compared with; a row is the median over all rounds. A Prometheus recorder is
//! installed. `-- balance` runs the sections with that word in their title. Absolute times depend on the machine, ratios hardly.
//!
//! `-- --instructions` counts instructions instead of time, and compares them with `instructions.txt`.

#![allow(clippy::disallowed_methods, reason = "this measures real time")]

mod allocations;
mod balance;
mod http;
mod instructions;
mod rows;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rows::{Row, Section};

/// Enough for a median that two runs agree on to a few per cent.
const ROUNDS: usize = 301;

fn main() -> ExitCode {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    metrics::set_global_recorder(recorder).expect("nothing else installs a recorder");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime without input and output needs nothing");
    let _context = runtime.enter();

    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let sections = rows::sections()
        .into_iter()
        .chain([http::section()])
        .chain(balance::sections());
    if let Some(mode) = instructions::Mode::asked_for() {
        return mode.run(sections);
    }
    let is_wanted = |section: &Section| {
        wanted.is_empty() || wanted.iter().any(|text| section.title.contains(text))
    };
    for section in sections.filter(is_wanted) {
        print(&section, &measure(&section.rows));
    }
    ExitCode::SUCCESS
}

/// What one row was measured to be.
struct Cost {
    time: Duration,
    ratio: f64,
    allocations: f64,
}

/// Measures all rows in turn, round by round, so that a slow moment of the machine hits all of them. The
/// first row is the unit.
fn measure(rows: &[Row]) -> Vec<Cost> {
    for row in rows {
        (row.run)(row.calls);
    }
    let mut rounds: Vec<Vec<Duration>> = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let time = |row: &Row| (row.run)(row.calls) / row.calls;
        rounds.push(rows.iter().map(time).collect());
    }
    let cost = |(place, row): (usize, &Row)| {
        let mut times: Vec<_> = rounds.iter().map(|round| round[place]).collect();
        times.sort_unstable();
        let mut ratios: Vec<_> = rounds
            .iter()
            .map(|round| round[place].as_nanos() as f64 / round[0].as_nanos() as f64)
            .collect();
        ratios.sort_unstable_by(f64::total_cmp);
        let before = allocations::count();
        (row.run)(row.calls);
        Cost {
            time: times[ROUNDS / 2],
            ratio: ratios[ROUNDS / 2],
            allocations: (allocations::count() - before) as f64 / f64::from(row.calls),
        }
    };
    rows.iter().enumerate().map(cost).collect()
}

fn print(section: &Section, costs: &[Cost]) {
    println!("\n{}\n", section.title);
    println!("| call through | ns | × unit | allocations | target |");
    println!("|---|--:|--:|--:|--:|");
    for (row, cost) in section.rows.iter().zip(costs) {
        let Cost {
            time,
            ratio,
            allocations,
        } = cost;
        println!(
            "| {} | {} | {ratio:.2} | {allocations:.2} | {} |",
            row.name,
            time.as_nanos(),
            row.target,
        );
    }
}

/// The time that `calls` calls of `call` take. Is found by its name when instructions are counted.
#[inline(never)]
fn timed(calls: u32, mut call: impl FnMut(u64)) -> Duration {
    let start = Instant::now();
    for request in 0..calls {
        call(u64::from(request));
    }
    start.elapsed()
}
