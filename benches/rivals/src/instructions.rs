//! Counts the instructions of a call, which no noise of the machine changes.

use std::process::{Child, Command, Stdio};

use crate::row::{Row, Section};

/// Enough for what is done once in a while to be a part of each call.
const CALLS: u32 = 2_000;

/// Whether there is something to count with.
pub(crate) fn can_be_counted() -> bool {
    let valgrind = Command::new("valgrind").arg("--version").output();
    valgrind.is_ok_and(|output| output.status.success())
}

/// The name by which a watched process finds its row.
pub(crate) fn key(section: &Section, row: &Row) -> String {
    format!("{}: {} {}", section.title, row.by, row.name)
}

/// The instructions of one call: those of many calls less those of fewer, so that what only the first one does
/// does not count.
pub(crate) fn count(key: &str) -> f64 {
    let (many, few) = (watch(key, 3 * CALLS), watch(key, CALLS));
    (collected(key, many) - collected(key, few)) / f64::from(2 * CALLS)
}

/// Lets this program make so many calls through a row, and has it watched.
fn watch(key: &str, calls: u32) -> Child {
    let program = std::env::current_exe().expect("a program knows where it is");
    Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        // What goes before the calls depends on random seeds.
        .arg("--toggle-collect=rivals::measure::timed*")
        .arg(program)
        .args(["--call", key, &calls.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("valgrind is installed")
}

fn collected(key: &str, watched: Child) -> f64 {
    let output = watched.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{key}: {text}");
    let collected = text.lines().find_map(|line| {
        let (_, count) = line.split_once("Collected : ")?;
        count.trim().parse().ok()
    });
    collected.unwrap_or_else(|| panic!("{key}: no count in {text}"))
}
