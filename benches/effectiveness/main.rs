//! Published results about resilience, rebuilt as deterministic simulations that run the crate's
//! real layers.
//!
//! `cargo bench --package effectiveness` runs every experiment, prints a table for each, and exits non-zero if a goal
//! is missed. It writes the tables and plots to `benches/plots`. `cargo bench --package effectiveness -- x7 x9` runs
//! only these experiments. `tests/effectiveness` runs the same experiments in a short form.

mod draw;
mod experiments;
mod harness;

use std::{env, fs, path::Path, process::ExitCode};

use experiments::EXPERIMENTS;
use harness::Form;
use tokio::time::Instant;

/// Where the tables and the plots go.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../plots");

fn main() -> ExitCode {
    // Cargo passes flags of its own, such as `--bench`.
    let wanted: Vec<String> = env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    if let Some(unknown) = wanted.iter().find(|name| {
        EXPERIMENTS
            .iter()
            .all(|experiment| experiment.name != **name)
    }) {
        let names: Vec<&str> = EXPERIMENTS
            .iter()
            .map(|experiment| experiment.name)
            .collect();
        eprintln!("no experiment {unknown:?}, there are: {}", names.join(" "));
        return ExitCode::FAILURE;
    }

    let mut missed = 0;
    for experiment in EXPERIMENTS {
        if wanted.is_empty() || wanted.iter().any(|name| name == experiment.name) {
            let started = Instant::now();
            let report = (experiment.run)(Form::Full);
            println!("{report}({:.1} s)\n", started.elapsed().as_secs_f64());
            missed += report.missed();
            for plot in report.plots() {
                draw::draw(plot, Path::new(FOLDER)).expect("the plots can be written");
            }
            let table = Path::new(FOLDER)
                .join(experiment.name)
                .with_extension("txt");
            fs::write(table, report.to_string()).expect("the tables can be written");
        }
    }
    if missed == 0 {
        ExitCode::SUCCESS
    } else {
        println!("{missed} goals missed");
        ExitCode::FAILURE
    }
}
