//! The tables, for people and for programs.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::measure::Cost;
use crate::row::{Row, Section};
use crate::sections::sizes::{self, Size};
use crate::services::{Answer, BULK};

const LOCK: &str = include_str!("../Cargo.lock");
const FOLDER: &str = env!("CARGO_MANIFEST_DIR");
/// The crates whose versions matter.
const CRATES: [&str; 10] = [
    "buttress",
    "tower",
    "tower-resilience",
    "seatbelt",
    "governor",
    "failsafe",
    "recloser",
    "tokio",
    "metrics",
    "metrics-exporter-prometheus",
];

pub(crate) struct Report {
    text: String,
    environment: Value,
    sections: Vec<Value>,
    sizes: Vec<Value>,
}

impl Report {
    pub(crate) fn new(counts_instructions: bool) -> Self {
        let versions: serde_json::Map<_, _> = CRATES
            .into_iter()
            .map(|name| (name.to_string(), json!(version(name))))
            .collect();
        let environment = json!({
            "rustc": rustc(),
            "cpu": cpu(),
            "load": load(),
            "instructions": counts_instructions,
            "versions": versions,
        });
        let mut report = Self {
            text: String::new(),
            environment,
            sections: Vec::new(),
            sizes: Vec::new(),
        };
        report.head(counts_instructions);
        report
    }

    fn head(&mut self, counts_instructions: bool) {
        let versions = CRATES.map(|name| format!("{name} {}", version(name)));
        let mut head = format!(
            "# What a call costs, beside rivals\n\n\
             `cargo run --release --manifest-path benches/rivals/Cargo.toml`; how to read it is written in `src/main.rs`.\n\n\
             {}, {}, load at the start {}. {}. A Prometheus recorder is installed; of the rivals tower-resilience reports \
             to it. tokio has the features `rt`, `sync` and `time`, without `test-util`.\n",
            rustc(),
            cpu(),
            load(),
            versions.join(", "),
        );
        if !counts_instructions {
            head.push_str("\nInstructions were not counted: that needs valgrind, and is left out by `--quick`.\n");
        }
        self.print(&head);
    }

    /// Prints now what is known, and keeps it.
    fn print(&mut self, text: &str) {
        print!("{text}");
        self.text.push_str(text);
    }

    pub(crate) fn section(&mut self, section: &Section, costs: &[Cost], counts: &[Option<f64>]) {
        let mut text = format!("\n## {}\n\n", section.title);
        if !section.note.is_empty() {
            text.push_str(section.note);
            text.push_str("\n\n");
        }
        text.push_str(
            "| crate | call through | ns | × unit | instructions | allocations | bytes | future | metrics |\n\
             |---|---|--:|--:|--:|--:|--:|--:|---|\n",
        );
        let mut rows = Vec::new();
        for ((row, cost), count) in section.rows.iter().zip(costs).zip(counts) {
            text.push_str(&line(row, cost, *count));
            rows.push(json!({
                "crate": row.by,
                "name": row.name,
                "ns": rounded(cost.nanos, 1),
                "ratio": rounded(cost.ratio, 3),
                "instructions": count.map(|count| rounded(count, 1)),
                "allocations": row.is_exact.then(|| rounded(cost.allocations, 3)),
                "bytes": row.is_exact.then(|| rounded(cost.bytes, 1)),
                "future": beyond(row),
                "metrics": row.has_metrics,
            }));
        }
        self.print(&text);
        self.sections.push(json!({
            "title": section.title,
            "note": section.note,
            "rows": rows,
        }));
    }

    pub(crate) fn sizes(&mut self, all: &[Size]) {
        let mut text = format!(
            "\n## {}\n\nOf a call whose inner future has {BULK} bytes: in the future itself, in what the call allocates, and both \
             beyond that inner future. What a layer holds twice shows here. The request has 8 bytes. Labels of metrics \
             are among the allocations of tower-resilience.\n\n\
             | crate | call through | future | allocated | beyond the inner future |\n|---|---|--:|--:|--:|\n",
            sizes::TITLE,
        );
        for size in all {
            let Size {
                by,
                name,
                future,
                heap,
            } = size;
            let beyond = size.beyond();
            writeln!(text, "| {by} | {name} | {future} | {heap} | {beyond} |")
                .expect("a text takes all");
            self.sizes.push(json!({
                "crate": by,
                "name": name,
                "future": future,
                "allocated": heap,
                "beyond": beyond,
            }));
        }
        self.print(&text);
    }

    pub(crate) fn write(self) {
        let json = json!({
            "environment": self.environment,
            "sections": self.sections,
            "sizes": { "inner_future": BULK, "rows": self.sizes },
        });
        let json = serde_json::to_string_pretty(&json).expect("a value is JSON");
        for (name, text) in [("results.md", self.text), ("results.json", json + "\n")] {
            std::fs::write(format!("{FOLDER}/{name}"), text).expect("the folder can be written");
        }
    }
}

fn line(row: &Row, cost: &Cost, count: Option<f64>) -> String {
    let exact = |text: String| if row.is_exact { text } else { "–".into() };
    format!(
        "| {} | {} | {:.0} | {:.2} | {} | {} | {} | {} | {} |\n",
        row.by,
        row.name,
        cost.nanos,
        cost.ratio,
        count.map_or("–".into(), |count| format!("{count:.0}")),
        exact(format!("{:.2}", cost.allocations)),
        exact(format!("{:.0}", cost.bytes)),
        beyond(row),
        if row.has_metrics { "yes" } else { "–" },
    )
}

/// The bytes that a layer adds to the inner future: less than nothing if that is in a box.
fn beyond(row: &Row) -> isize {
    row.future.cast_signed() - size_of::<std::future::Ready<Answer>>().cast_signed()
}

fn rounded(value: f64, digits: i32) -> f64 {
    let factor = 10_f64.powi(digits);
    (value * factor).round() / factor
}

/// As it stands in the lock file.
fn version(name: &str) -> &'static str {
    let start = format!("name = \"{name}\"\nversion = \"");
    let found = LOCK.split_once(&start);
    let version = found.and_then(|(_, rest)| rest.split_once('"'));
    version.map_or("unknown", |(version, _)| version)
}

fn rustc() -> String {
    let rustc = option_env!("RUSTC").unwrap_or("rustc");
    let output = Command::new(rustc).arg("--version").output();
    output.map_or("rustc unknown".into(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_string()
    })
}

fn cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map(|line| line.trim_start_matches([' ', '\t', ':']));
    let threads = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{} ({threads} threads)", model.unwrap_or("CPU unknown"))
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().filter(|first| !first.is_empty());
    first.unwrap_or("unknown").to_string()
}
