//! Published results about resilience, rebuilt as deterministic simulations that run the crate's
//! real layers.
//!
//! `cargo bench --bench effectiveness` runs every experiment, prints a table for each, and exits
//! non-zero if a goal is missed; `cargo bench --bench effectiveness -- x7 x9` runs some of them.
//! `tests/effectiveness.rs` runs the same experiments in a short form.

mod experiments;
mod harness;

use std::{env, process::ExitCode};

use experiments::EXPERIMENTS;
use harness::Form;
use tokio::time::Instant;

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
        }
    }
    if missed == 0 {
        ExitCode::SUCCESS
    } else {
        println!("{missed} goals missed");
        ExitCode::FAILURE
    }
}
