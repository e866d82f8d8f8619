//! What a call costs through `buttress`, and through tower, tower-resilience, seatbelt, governor, failsafe
//! and recloser in the same run.
//!
//! `cargo run --release --manifest-path benches/rivals/Cargo.toml` prints tables in Markdown, and writes
//! `results.md` and `results.json` beside its manifest. `-- breaker` runs the sections with that word in their
//! title. `-- --quick` takes fewer rounds and counts no instructions. Neither writes files.
//!
//! How to read it:
//!
//! - *ns* is the time of one call, the median over all rounds. *× unit* is the median of its ratio to a call through
//!   tower's `TimeoutLayer` that was measured in the same round. Times depend on the machine, ratios hardly.
//! - *instructions* are those of one call, counted by callgrind; left out if there is no valgrind.
//! - *allocations* and *bytes* are those of one call. Time is taken while they are not counted.
//! - *future* is the size of the future of a call, without that of the inner service.
//! - *metrics* says which rows report to the Prometheus recorder, which is installed.
//!
//! Each answer is compared with what the inner service would say, and before anything is measured each layer
//! has to show that it does what it is for: that a breaker trips, a retry retries, a limit rejects.

#![allow(clippy::disallowed_methods, reason = "this measures real time")]

mod check;
mod instructions;
mod measure;
mod report;
mod rivals;
mod row;
mod sections;
mod services;

use std::process::ExitCode;

use metrics_exporter_prometheus::PrometheusBuilder;

use measure::RUNTIME;
use report::Report;
use row::Section;
use sections::sizes;

/// What one asks for.
#[derive(Debug, Default)]
struct Arguments {
    is_quick: bool,
    /// Words of titles; all sections if there are none.
    wanted: Vec<String>,
    /// Make so many calls through one row: this process is the one that is being watched.
    call: Option<(String, u32)>,
}

impl Arguments {
    fn read() -> Option<Self> {
        let mut read = Self::default();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => read.is_quick = true,
                "--call" => {
                    let key = arguments.next()?;
                    read.call = Some((key, arguments.next()?.parse().ok()?));
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
        eprintln!("usage: rivals [--quick] [WORD OF A TITLE]…");
        return ExitCode::FAILURE;
    };
    let recorder = PrometheusBuilder::new()
        .install_recorder()
        .expect("nothing else installs a recorder");
    let _context = RUNTIME.enter();

    let sections = sections::all();
    if let Some((key, calls)) = arguments.call {
        return call(&sections, &key, calls);
    }
    let counts = !arguments.is_quick && instructions::can_be_counted();
    let mut report = Report::new(counts);
    for section in sections.iter().filter(|it| arguments.wants(it.title)) {
        for check in section.rows.iter().flat_map(|row| &row.checks) {
            check();
        }
        let costs = measure::measure(section, arguments.rounds(section), &recorder);
        let count = |row: &row::Row| {
            (counts && row.is_exact).then(|| instructions::count(&instructions::key(section, row)))
        };
        let counts: Vec<_> = section.rows.iter().map(count).collect();
        report.section(section, &costs, &counts);
    }
    if arguments.wants(sizes::TITLE) {
        report.sizes(&sizes::all());
    }
    if arguments.wanted.is_empty() && !arguments.is_quick {
        report.write();
    }
    ExitCode::SUCCESS
}

fn call(sections: &[Section], wanted: &str, calls: u32) -> ExitCode {
    for section in sections {
        for row in &section.rows {
            if instructions::key(section, row) == wanted {
                measure::without_counting(|| (row.run)(calls));
                return ExitCode::SUCCESS;
            }
        }
    }
    eprintln!("there is no row {wanted:?}");
    ExitCode::FAILURE
}
