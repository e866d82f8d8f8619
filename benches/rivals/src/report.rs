//! The tables, for people and for programs.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::Arguments;
use crate::instructions::Counts;
use crate::measure::Cost;
use crate::profile::{self, PROFILES};
use crate::row::{Kind, Row, Section};
use crate::sections::sizes::{self, Size};
use crate::services::BULK;

const COMMAND: &str = "cargo run --release --manifest-path benches/rivals/Cargo.toml";
const LOCK: &str = include_str!("../Cargo.lock");
const FOLDER: &str = env!("CARGO_MANIFEST_DIR");
/// The crates whose versions matter.
const CRATES: [&str; 12] = [
    "buttress",
    "tower",
    "tower-resilience",
    "seatbelt",
    "governor",
    "failsafe",
    "recloser",
    "tokio",
    "hyper",
    "hyper-util",
    "metrics",
    "metrics-exporter-prometheus",
];

/// Measures in both profiles (in one, if it is to be quick), prints the tables, and writes them if nothing was left out.
pub(crate) fn report(arguments: &Arguments) {
    let environment = environment();
    let profiles = PROFILES.iter().skip(usize::from(arguments.is_quick));
    let profiles: Vec<_> = profiles
        .map(|(profile, name)| (*name, profile::measure(profile, arguments)))
        .collect();
    let hello: Vec<_> = if arguments.wants_all() || arguments.wants(HELLO) {
        profile::hello_sizes()
            .into_iter()
            .map(|(name, size)| json!({ "name": name, "size": size }))
            .collect()
    } else {
        Vec::new()
    };
    let text = text(&environment, &profiles, &hello);
    print!("{text}");
    if arguments.wants_all() {
        let sizes = profiles[0].1["sizes"].clone();
        let sections = profiles
            .into_iter()
            .map(|(name, mut measured)| (name.to_string(), measured["sections"].take()));
        let json = json!({
            "command": COMMAND,
            "environment": environment,
            "profiles": sections.collect::<serde_json::Map<_, _>>(),
            "sizes": { "inner_future": BULK, "rows": sizes },
            "hello": hello,
        });
        let json = serde_json::to_string_pretty(&json).expect("a value is JSON");
        for (name, text) in [("results.md", text), ("results.json", json + "\n")] {
            std::fs::write(format!("{FOLDER}/{name}"), text).expect("the folder can be written");
        }
    }
}

/// The results that were written last.
pub(crate) fn read() -> Value {
    let text = std::fs::read_to_string(format!("{FOLDER}/results.json"));
    serde_json::from_str(&text.expect("there are results")).expect("they are JSON")
}

fn environment() -> Value {
    let versions: serde_json::Map<_, _> = CRATES
        .into_iter()
        .map(|name| (name.to_string(), json!(version(name))))
        .collect();
    json!({
        "rustc": rustc(),
        "cpu": cpu(),
        "load": load(),
        "versions": versions,
    })
}

/// What one process measured of a section.
pub(crate) fn section(
    section: &Section,
    costs: &[Cost],
    counts: &[Option<Counts>],
    stolen: f64,
) -> Value {
    let rows = section.rows.iter().zip(costs).zip(counts);
    let rows: Vec<_> = rows
        .map(|((row, cost), counts)| row_json(section.kind, row, cost, *counts))
        .collect();
    json!({
        "title": section.title,
        "kind": section.kind.name(),
        "note": section.note,
        "stolen": rounded(stolen, 3),
        "rows": rows,
    })
}

fn row_json(kind: Kind, row: &Row, cost: &Cost, counts: Option<Counts>) -> Value {
    let is_counted = kind != Kind::Shared;
    json!({
        "crate": row.by,
        "name": row.name,
        "ns": rounded(cost.nanos, 1),
        "ratio": rounded(cost.ratio, 3),
        "added": rounded(cost.added, 1),
        "lost": (kind == Kind::Shared).then(|| rounded(cost.lost, 3)),
        "instructions": counts.map(|counts| rounded(counts.instructions, 1)),
        "atomics": counts.map(|counts| rounded(counts.atomics, 2)),
        "allocations": is_counted.then(|| rounded(cost.allocations, 3)),
        "bytes": is_counted.then(|| rounded(cost.bytes, 1)),
        "future": row.future,
    })
}

pub(crate) fn sizes(all: &[Size]) -> Vec<Value> {
    let json = |size: &Size| {
        json!({
            "crate": size.by,
            "name": size.name,
            "future": size.future,
            "allocated": size.heap,
            "beyond": size.beyond(),
        })
    };
    all.iter().map(json).collect()
}

fn text(environment: &Value, profiles: &[(&str, Value)], hello: &[Value]) -> String {
    let versions = CRATES.map(|name| format!("{name} {}", version(name)));
    let mut text = format!(
        "# What a call costs, beside rivals\n\n\
         `{COMMAND}`; how to read it is written in `src/main.rs`.\n\n\
         {}, {}, load at the start {}. {}. A Prometheus recorder is installed, to which buttress and tower-resilience report. tokio \
         has the features `net`, `rt-multi-thread`, `sync` and `time`, without `test-util`. \"Thin LTO\" is the profile `release` with \
         `lto = \"thin\"`, \"plain\" is `release` as it is.\n",
        cell(&environment["rustc"]),
        cell(&environment["cpu"]),
        cell(&environment["load"]),
        versions.join(", "),
    );
    for (place, section) in list(&profiles[0].1["sections"]).iter().enumerate() {
        let of_profiles: Vec<_> = profiles
            .iter()
            .map(|(name, measured)| (*name, &measured["sections"][place]))
            .collect();
        write!(text, "\n## {}\n\n", cell(&section["title"])).expect("a text takes all");
        if section["note"] != "" {
            write!(text, "{}\n\n", cell(&section["note"])).expect("a text takes all");
        }
        table(&mut text, &of_profiles);
    }
    size_table(&mut text, list(&profiles[0].1["sizes"]));
    hello_table(&mut text, hello);
    text
}

/// A column: its head, and the cell of a row, given the row and all rows of its section.
type Column = (&'static str, fn(&Value, &[Value]) -> String);

/// For each profile.
fn columns(kind: &str) -> &'static [Column] {
    const NANOS: Column = ("ns", |row, _| fixed(&row["ns"], 0));
    const RATIO: Column = ("× unit", |row, _| fixed(&row["ratio"], 2));
    match kind {
        "alone" => &[NANOS, RATIO],
        "shared" => &[NANOS, RATIO, ("lost", |row, _| percent(&row["lost"]))],
        _ => &[
            ("CPU ns", NANOS.1),
            ("added", |row, _| fixed(&row["added"], 0)),
            ("× the mix's", |row, rows| {
                let mix = rows.iter().find(|row| row["crate"] == "tower");
                let mix = mix.map_or(&Value::Null, |mix| &mix["added"]);
                fixed(&json!(number(&row["added"]) / number(mix)), 2)
            }),
        ],
    }
}

/// For all profiles together, as the first one has them.
fn common_columns(kind: &str) -> &'static [Column] {
    const FUTURE: Column = ("future", |row, _| cell(&row["future"]));
    match kind {
        "alone" => &[
            ("instructions", |row, _| fixed(&row["instructions"], 0)),
            ("atomic", |row, _| fixed(&row["atomics"], 1)),
            ("allocations", |row, _| fixed(&row["allocations"], 2)),
            ("bytes", |row, _| fixed(&row["bytes"], 0)),
            FUTURE,
        ],
        "shared" => &[FUTURE],
        _ => &[
            ("allocations added", |row, rows| {
                let added = number(&row["allocations"]) - number(&rows[0]["allocations"]);
                fixed(&json!(added), 1)
            }),
            ("future beyond inner, request and copy", |row, _| {
                // Else it is in a box, or that of the client alone.
                let is_told = number(&row["future"]) > 0.0;
                if is_told {
                    cell(&row["future"])
                } else {
                    "–".into()
                }
            }),
        ],
    }
}

fn table(text: &mut String, profiles: &[(&str, &Value)]) {
    let kind = cell(&profiles[0].1["kind"]);
    let (each, common) = (columns(&kind), common_columns(&kind));
    let mut heads = vec!["crate".into(), "call through".into()];
    for (name, _) in profiles {
        heads.extend(each.iter().map(|(head, _)| format!("{name}: {head}")));
    }
    heads.extend(common.iter().map(|(head, _)| (*head).into()));
    let numbers = "--:|".repeat(heads.len() - 2);
    writeln!(text, "| {} |\n|---|---|{numbers}", heads.join(" | ")).expect("a text takes all");
    for (place, row) in list(&profiles[0].1["rows"]).iter().enumerate() {
        let mut cells = vec![cell(&row["crate"]), cell(&row["name"])];
        let mut fill = |section: &Value, columns: &[Column]| {
            let rows = list(&section["rows"]);
            cells.extend(columns.iter().map(|(_, cell)| cell(&rows[place], rows)));
        };
        for (_, section) in profiles {
            fill(section, each);
        }
        fill(profiles[0].1, common);
        writeln!(text, "| {} |", cells.join(" | ")).expect("a text takes all");
    }
    if kind == "shared" {
        let stolen: Vec<_> = profiles
            .iter()
            .map(|(name, section)| format!("{} ({name})", percent(&section["stolen"])))
            .collect();
        write!(text, "\nTaken by the hypervisor: {}.\n", stolen.join(", "))
            .expect("a text takes all");
    }
}

fn size_table(text: &mut String, sizes: &[Value]) {
    if sizes.is_empty() {
        return;
    }
    write!(
        text,
        "\n## {}\n\nOf a call whose inner future has {BULK} bytes: in the future itself, in what the call allocates, and both \
         beyond that inner future. What a layer holds twice shows here. The request has 8 bytes. Labels of metrics \
         are among the allocations of tower-resilience.\n\n\
         | crate | call through | future | allocated | beyond the inner future |\n|---|---|--:|--:|--:|\n",
        sizes::TITLE,
    )
    .expect("a text takes all");
    for size in sizes {
        let cells = ["crate", "name", "future", "allocated", "beyond"].map(|key| cell(&size[key]));
        writeln!(text, "| {} |", cells.join(" | ")).expect("a text takes all");
    }
}

const HELLO: &str = "Hello world";

fn hello_table(text: &mut String, hello: &[Value]) {
    let Some(tower) = hello.first() else {
        return;
    };
    write!(
        text,
        "\n## {HELLO}\n\nA program that makes one call, as a stripped plain release. tower's has two timeouts, a retry with a \
         budget and a concurrency limit, ours a standard stack with all parts, and tower-resilience's six layers.\n\n\
         | program | kB | beyond tower's |\n|---|--:|--:|\n",
    )
    .expect("a text takes all");
    for program in hello {
        let size = number(&program["size"]) / 1_000.0;
        let beyond = size - number(&tower["size"]) / 1_000.0;
        writeln!(
            text,
            "| {} | {size:.0} | {beyond:.0} |",
            cell(&program["name"])
        )
        .expect("a text takes all");
    }
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// A text without its quotes.
fn cell(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), String::from)
}

pub(crate) fn fixed(value: &Value, digits: usize) -> String {
    let number = value.as_f64();
    number.map_or("–".into(), |number| format!("{number:.digits$}"))
}

fn percent(value: &Value) -> String {
    format!("{:.1} %", 100.0 * number(value))
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
