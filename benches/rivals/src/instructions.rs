//! Counts the instructions of a call, which no noise of the machine changes.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use crate::row::{Row, Section};

/// Enough for what is done once in a while to be a part of each call.
const CALLS: u32 = 2_000;

/// The counts of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) instructions: f64,
    /// Instructions that read and write memory in one step, seen by all threads.
    pub(crate) atomics: f64,
}

/// Whether there is something to count with.
pub(crate) fn can_be_counted() -> bool {
    ["valgrind", "objdump"].iter().all(|tool| {
        let output = Command::new(tool).arg("--version").output();
        output.is_ok_and(|output| output.status.success())
    })
}

/// The name by which a watched process finds its row.
pub(crate) fn key(section: &Section, row: &Row) -> String {
    format!("{}: {} {}", section.title, row.by, row.name)
}

/// The counts of one call: those of many calls less those of fewer, so that what only the first one does does
/// not count.
pub(crate) fn count(key: &str) -> Counts {
    let (many, few) = (watch(key, 3 * CALLS), watch(key, CALLS));
    let (many, few) = (collected(key, many), collected(key, few));
    let of_one = |count: fn(Counts) -> f64| (count(many) - count(few)) / f64::from(2 * CALLS);
    Counts {
        instructions: of_one(|counts| counts.instructions),
        atomics: of_one(|counts| counts.atomics),
    }
}

/// Lets this program make so many calls through a row, and has it watched.
fn watch(key: &str, calls: u32) -> Child {
    Command::new("valgrind")
        .args(["--tool=callgrind", "--dump-instr=yes"])
        .args(["--compress-pos=no", "--compress-strings=no"])
        .arg(format!("--callgrind-out-file={}", profile("%p").display()))
        // What goes before the calls depends on random seeds.
        .arg("--toggle-collect=rivals::measure::timed*")
        .arg(this_program())
        .args(["--call", key, &calls.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("valgrind is installed")
}

/// Where the watched process with this number leaves its counts.
fn profile(process: &str) -> PathBuf {
    std::env::temp_dir().join(format!("rivals.{process}.callgrind"))
}

fn this_program() -> PathBuf {
    std::env::current_exe().expect("a program knows where it is")
}

fn collected(key: &str, watched: Child) -> Counts {
    let profile = profile(&watched.id().to_string());
    let output = watched.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{key}: {text}");
    let counts = std::fs::read_to_string(&profile).expect("valgrind has written it");
    std::fs::remove_file(&profile).expect("it is there");
    read(&counts)
}

/// Adds up the lines of a profile: an address, a line of the source, and how often that instruction was executed.
fn read(profile: &str) -> Counts {
    let program = this_program().display().to_string();
    let (mut is_ours, mut is_of_callee) = (false, false);
    let mut counts = Counts {
        instructions: 0.0,
        atomics: 0.0,
    };
    for line in profile.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            is_ours = object == program;
        } else if line.starts_with("calls=") {
            // The next line repeats what is counted in the function that is called.
            is_of_callee = true;
        } else if let Some(line) = line.strip_prefix("0x") {
            if std::mem::take(&mut is_of_callee) {
                continue;
            }
            let (address, rest) = line.split_once(' ').expect("a place follows");
            let count = rest.split(' ').nth(1).and_then(|count| count.parse().ok());
            let count: f64 = count.expect("a count follows");
            counts.instructions += count;
            if is_ours && ATOMICS.contains(address) {
                counts.atomics += count;
            }
        }
    }
    counts
}

/// The addresses of such instructions in this program.
static ATOMICS: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let output = Command::new("objdump")
        .args(["-d", "--no-show-raw-insn"])
        .arg(this_program())
        .output()
        .expect("objdump is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text
        .lines()
        .filter_map(|line| line.trim().split_once(":\t"));
    lines
        // An exchange with memory needs no prefix.
        .filter(|(_, code)| {
            code.starts_with("lock ") || code.starts_with("xchg") && code.contains('(')
        })
        .map(|(address, _)| address.to_string())
        .collect()
});
