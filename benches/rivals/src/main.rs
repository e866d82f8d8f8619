//! What a call costs through `buttress`, and through tower, tower-resilience, seatbelt, governor, failsafe
//! and recloser in the same run.
//!
//! `cargo run --release --manifest-path benches/rivals/Cargo.toml` builds and measures everything with thin LTO and
//! as a plain release, which is what most users build, prints tables in Markdown, and writes `results.md` and
//! `results.json` beside its manifest. It takes about five minutes. `-- --table` prints the tables of the README and
//! the guide from these results. `-- breaker` runs the sections with that word in their title, and `-- --quick` takes fewer rounds and counts
//! no instructions. Neither writes files.
//!
//! How to read it:
//!
//! - *ns* is the time of one call, the median over all rounds. *× unit* is the median of its ratio to the first row of
//!   the table that was measured in the same round. That row is a call through tower's `TimeoutLayer`, if nothing else
//!   is said. Times depend on the machine, ratios hardly.
//! - *instructions* are those of one call with thin LTO, counted by callgrind; left out if there is no valgrind. *Atomic*
//!   are those among them that read and write memory in one step, on lines that threads share and on lines of each thread.
//! - *allocations* and *bytes* are those of one call. Time is taken while they are not counted.
//! - *future* is the size of the future of a call, without that of the inner service.
//! - *lost* is the share of the time in which the threads were ready to run and other processes ran. A row that lost a
//!   tenth or more does not count. Below the table stands the share that the hypervisor took from the machine.
//! - *CPU ns* is the CPU time of the client's thread for a request. *Added* is the median of the difference to the client
//!   alone in the same round.
//!
//! Each answer is compared with what the inner service would say, and before anything is measured each layer
//! has to show that it does what it is for: that a breaker trips, a retry retries, a limit rejects.

#![allow(clippy::disallowed_methods, reason = "this measures real time")]

mod check;
mod instructions;
mod measure;
mod profile;
mod report;
mod rivals;
mod row;
mod sections;
mod services;
mod shared;
mod table;

use std::process::ExitCode;

use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};

use measure::RUNTIME;
use row::{Kind, Section};
use sections::sizes;

/// What one asks for.
#[derive(Debug, Default)]
struct Arguments {
    is_quick: bool,
    /// Whether instructions are counted as well, when this process measures.
    counts: bool,
    /// Words of titles; all sections if there are none.
    wanted: Vec<String>,
    action: Action,
}

#[derive(Debug, Default)]
enum Action {
    /// Have each profile measured, and report.
    #[default]
    Report,
    /// Measure in this process, and print JSON.
    Measure,
    /// Make so many calls through one row: this process is watched.
    Call(String, u32),
    /// Print the tables of the README and the guide.
    Table,
}

impl Arguments {
    fn read() -> Option<Self> {
        let mut read = Self::default();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => read.is_quick = true,
                "--count" => read.counts = true,
                "--measure" => read.action = Action::Measure,
                "--table" => read.action = Action::Table,
                "--call" => {
                    let key = arguments.next()?;
                    read.action = Action::Call(key, arguments.next()?.parse().ok()?);
                }
                unknown if unknown.starts_with('-') => return None,
                _ => read.wanted.push(argument.to_lowercase()),
            }
        }
        Some(read)
    }

    fn wants(&self, title: &str) -> bool {
        let title = title.to_lowercase();
        self.wanted.is_empty() || self.wanted.iter().any(|word| title.contains(word))
    }

    fn wants_all(&self) -> bool {
        self.wanted.is_empty() && !self.is_quick
    }

    fn rounds(&self, section: &Section) -> usize {
        if self.is_quick {
            section.rounds / 20 + 1
        } else {
            section.rounds
        }
    }
}

fn main() -> ExitCode {
    let Some(arguments) = Arguments::read() else {
        eprintln!("usage: rivals [--quick] [WORD OF A TITLE]…, or rivals --table");
        return ExitCode::FAILURE;
    };
    match &arguments.action {
        Action::Report => report::report(&arguments),
        Action::Measure => println!("{}", measure_all(&arguments)),
        Action::Call(key, calls) => return call(key, *calls),
        Action::Table => table::print(),
    }
    ExitCode::SUCCESS
}

fn measure_all(arguments: &Arguments) -> Value {
    let recorder = PrometheusBuilder::new()
        .install_recorder()
        .expect("nothing else installs a recorder");
    let _context = RUNTIME.enter();
    let counts = arguments.counts && instructions::can_be_counted();
    let sections = sections::all()
        .into_iter()
        .chain(sections::http::sections());
    let measure = |section: &Section| {
        eprintln!("{}", section.title);
        for check in section.rows.iter().flat_map(|row| &row.checks) {
            check();
        }
        let before = measure::machine_time();
        let costs = measure::measure(section, arguments.rounds(section), &recorder);
        let stolen = measure::machine_time().stolen_since(before);
        let is_counted = counts && section.kind == Kind::Alone;
        let counts = section
            .rows
            .iter()
            .map(|row| is_counted.then(|| instructions::count(&instructions::key(section, row))));
        report::section(section, &costs, &counts.collect::<Vec<_>>(), stolen)
    };
    let sections: Vec<_> = sections
        .filter(|section| arguments.wants(section.title))
        .map(|section| measure(&section))
        .collect();
    json!({
        "sections": sections,
        "sizes": if arguments.wants(sizes::TITLE) { report::sizes(&sizes::all()) } else { Vec::new() },
    })
}

fn call(wanted: &str, calls: u32) -> ExitCode {
    let recorder = PrometheusBuilder::new().install_recorder();
    drop(recorder.expect("nothing else installs a recorder"));
    let _context = RUNTIME.enter();
    for section in sections::all() {
        for row in &section.rows {
            if instructions::key(&section, row) == wanted {
                measure::without_counting(|| (row.run)(calls));
                return ExitCode::SUCCESS;
            }
        }
    }
    eprintln!("there is no row {wanted:?}");
    ExitCode::FAILURE
}
