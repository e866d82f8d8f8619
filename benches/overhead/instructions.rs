//! Counts the instructions of a call, which no noise of the machine changes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Command, ExitCode};

use crate::rows::{self, Row, Section};

/// A count that is off by more than this share of what was committed fails the comparison. Fewer
/// instructions fail it as well: a baseline that is too high would let the next regression pass.
const TOLERANCE: f64 = 0.03;
/// What was committed.
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");
/// Enough for what is done once in a while to be a part of each call.
const CALLS: u32 = 2_000;

/// What is to be done instead of taking the time.
pub(crate) enum Mode {
    /// Count all rows and compare them with what was committed.
    Compare,
    /// Count all rows and write them down.
    Update,
    /// Make so many calls through one row: this process is the one that is being watched.
    Call { row: String, calls: u32 },
}

impl Mode {
    /// Reads `--instructions`, `--instructions --update` or `--call ROW CALLS`.
    pub(crate) fn asked_for() -> Option<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let place = |name| arguments.iter().position(|argument| argument == name);
        if let Some(place) = place("--call") {
            let row = arguments.get(place + 1)?.clone();
            let calls = arguments.get(place + 2)?.parse().ok()?;
            return Some(Self::Call { row, calls });
        }
        place("--instructions")?;
        Some(place("--update").map_or(Self::Compare, |_| Self::Update))
    }

    pub(crate) fn run(self, sections: impl Iterator<Item = Section>) -> ExitCode {
        let rows: Vec<_> = sections
            // Tasks are not timed in one place, and a buffer works when it likes.
            .filter(|section| !section.title.contains("called by"))
            .flat_map(|section| {
                let rows = section.rows.into_iter().filter(is_counted);
                rows.map(move |row| (format!("{}: {}", section.title, row.name), row))
            })
            .collect();
        match self {
            Self::Call { row: wanted, calls } => {
                let Some((_, row)) = rows.iter().find(|(name, _)| *name == wanted) else {
                    eprintln!("there is no row {wanted:?}");
                    return ExitCode::FAILURE;
                };
                (row.run)(calls);
                ExitCode::SUCCESS
            }
            Self::Compare => compare(&count_all(rows.iter().map(|(name, _)| name))),
            Self::Update => {
                let counts = count_all(rows.iter().map(|(name, _)| name));
                let text = counts
                    .iter()
                    .fold(String::new(), |mut text, (name, count)| {
                        writeln!(text, "{count:>7.0}  {name}").expect("a text takes all");
                        text
                    });
                std::fs::write(BASELINE, text).expect("the baseline can be written");
                ExitCode::SUCCESS
            }
        }
    }
}

/// Those of ours on one thread: threads and tasks that wait for each other spend instructions as chance has it.
/// So do many keys, whose places follow from a hash with a random seed; the row with one key stands for them. What a
/// breaker that judges its calls spends depends on the number of cores, since it has counters for each.
fn is_counted(row: &Row) -> bool {
    let beside = ["tower ", "no layer", "one reading"];
    row.calls == rows::CALLS
        && !beside.iter().any(|name| row.name.starts_with(name))
        && !row.name.ends_with("1000 keys")
        && !row.name.ends_with("call fails")
}

fn count_all<'a>(names: impl Iterator<Item = &'a String>) -> Vec<(String, f64)> {
    names.map(|name| (name.clone(), count(name))).collect()
}

/// The instructions of one call: those of many calls less those of fewer, so that what only the first one does
/// does not count.
fn count(name: &str) -> f64 {
    let few = watched(name, CALLS);
    let many = watched(name, 3 * CALLS);
    (many - few) / f64::from(2 * CALLS)
}

/// The instructions of this program when it makes so many calls through a row.
fn watched(name: &str, calls: u32) -> f64 {
    let program = std::env::current_exe().expect("a program knows where it is");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        // What goes before the calls depends on random seeds.
        .arg("--toggle-collect=overhead::timed*")
        .arg(program)
        .args(["--call", name, &calls.to_string()])
        .output()
        .expect("valgrind is installed");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {text}");
    let collected = text.lines().find_map(|line| {
        let (_, count) = line.split_once("Collected : ")?;
        count.trim().parse().ok()
    });
    collected.unwrap_or_else(|| panic!("{name}: no count in {text}"))
}

fn compare(counts: &[(String, f64)]) -> ExitCode {
    let baseline = std::fs::read_to_string(BASELINE).expect("the baseline can be read");
    let mut baseline: BTreeMap<&str, f64> = baseline
        .lines()
        .filter_map(|line| line.trim().split_once("  "))
        .map(|(count, name)| (name, count.parse().expect("a count comes first")))
        .collect();
    println!("| call through | instructions | committed | |");
    println!("|---|--:|--:|---|");
    let mut is_kept = true;
    for (name, count) in counts {
        let committed = baseline.remove(name.as_str());
        let change = committed.map(|committed| count / committed - 1.0);
        let is_off = change.is_none_or(|change| change.abs() > TOLERANCE);
        is_kept &= !is_off;
        let committed = committed.map_or(String::from("–"), |count| format!("{count:.0}"));
        let change = change.map_or(String::new(), |change| format!("{:+.1} %", change * 100.0));
        let verdict = if is_off { " **off**" } else { "" };
        println!("| {name} | {count:.0} | {committed} | {change}{verdict} |");
    }
    for name in baseline.keys() {
        println!("| {name} | – | committed, but no longer a row | **off** |");
        is_kept = false;
    }
    if is_kept {
        return ExitCode::SUCCESS;
    }
    println!("\nIf that is meant: `cargo bench --package overhead -- --instructions --update`");
    ExitCode::FAILURE
}
