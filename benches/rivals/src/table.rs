//! The tables of the README and of the guide's page on cost, from the results that were written last.

use serde_json::Value;

use crate::profile::PROFILES;
use crate::report::{fixed, list, number, read};

/// A cell: crate and name of its row, and words that go before the number.
type Cell = &'static [(&'static str, &'static str, &'static str)];

struct Line {
    label: &'static str,
    section: &'static str,
    ours: &'static str,
    /// Those of tower, tower-resilience, seatbelt and others.
    theirs: [Cell; 4],
}

#[rustfmt::skip]
const LINES: &[Line] = &[
    Line { label: "timeout", section: "Timeout", ours: "timeout", theirs: [
        &[("tower", "timeout (the unit)", "")],
        &[("tower-resilience", "timeout", "")],
        &[("seatbelt", "timeout, native form", "")],
        &[],
    ] },
    Line { label: "timeout, answer not there at once, × tower's in the same case",
        section: "Timeout, inner service pending once", ours: "timeout", theirs: [
        &[("tower", "timeout (the unit)", "")],
        &[("tower-resilience", "timeout", "")],
        &[("seatbelt", "timeout, native form", "")],
        &[],
    ] },
    Line { label: "retry with a budget (seatbelt: without)", section: "Retry with a budget", ours: "retry", theirs: [
        &[("tower", "retry", "")],
        &[("tower-resilience", "retry", "")],
        &[("seatbelt", "retry, no budget, native form", "")],
        &[],
    ] },
    Line { label: "circuit breaker", section: "Circuit breaker", ours: "circuit breaker, 10 s", theirs: [
        &[],
        &[("tower-resilience", "circuit breaker, 100 calls", "")],
        &[("seatbelt", "circuit breaker, 10 s, native form", "")],
        &[("recloser", "circuit breaker, 100 calls", "recloser "), ("failsafe", "circuit breaker, 30 s or 5 in a row", "failsafe ")],
    ] },
    Line { label: "bulkhead", section: "Bulkhead", ours: "bulkhead", theirs: [
        &[("tower", "concurrency limit", "")],
        &[("tower-resilience", "bulkhead", "")],
        &[],
        &[],
    ] },
    Line { label: "rate limit", section: "Rate limit", ours: "rate limit", theirs: [
        &[("tower", "rate limit, not cloneable", "")],
        &[("tower-resilience", "rate limit", "")],
        &[],
        &[("governor", "rate limit", "governor ")],
    ] },
    Line { label: "hedge, not fired", section: "Hedge, not fired", ours: "hedge, percentile", theirs: [
        &[("tower", "hedge, percentile, not cloneable", "")],
        &[("tower-resilience", "hedge, fixed delay", "")],
        &[("seatbelt", "hedge, fixed delay, native form", "")],
        &[],
    ] },
    Line { label: "balancer, 10 endpoints, cloneable", section: "Balance, peak EWMA", ours: "balance, 10", theirs: [
        &[("tower", "buffer and balance, 10", "")],
        &[],
        &[],
        &[],
    ] },
    Line { label: "… 1,000 endpoints", section: "Balance, peak EWMA", ours: "balance, 1,000", theirs: [
        &[("tower", "buffer and balance, 1,000", "")],
        &[],
        &[],
        &[],
    ] },
    Line { label: "deadline, retry, breaker, timeout", section: "Stacks", ours: "four layers", theirs: [
        &[],
        &[],
        &[("seatbelt", "four layers, native form", "")],
        &[],
    ] },
    Line { label: "… with rate limit and bulkhead, nested by hand", section: "Stacks", ours: "six layers", theirs: [
        &[],
        &[],
        &[],
        &[("tower", "six layers with governor and recloser", "tower, governor and recloser ")],
    ] },
    Line { label: "… in one standard stack", section: "Stacks", ours: "six parts in one stack", theirs: [&[]; 4] },
    Line { label: "standard stack, measured", section: "Stacks", ours: "standard stack", theirs: [&[]; 4] },
    Line { label: "refused by an open breaker", section: "Rejections", ours: "circuit breaker, open", theirs: [
        &[],
        &[("tower-resilience", "circuit breaker, open", "")],
        &[("seatbelt", "circuit breaker, open, native form", "")],
        &[("recloser", "circuit breaker, open", "recloser "), ("failsafe", "circuit breaker, open", "failsafe ")],
    ] },
];

/// Prints it in Markdown: ours in both profiles, the others with thin LTO.
pub(crate) fn print() {
    let results = read();
    let [lto, plain] = PROFILES.map(|(_, name)| &results["profiles"][name]);
    println!(
        "| a call through | buttress | buttress, plain release | tower | tower-resilience | seatbelt, native form | others |"
    );
    println!("|---|--:|--:|--:|--:|--:|---|");
    for line in LINES {
        let (lto, plain) = (find(lto, line.section), find(plain, line.section));
        let ours = [lto, plain].map(|rows| ratio(rows, "buttress", line.ours));
        let theirs = line.theirs.iter().map(|cell| times(lto, cell));
        let cells: Vec<_> = ours.into_iter().chain(theirs).collect();
        println!("| {} | {} |", line.label, cells.join(" | "));
    }
    println!(
        "\n| beside each other in one run | buttress | plain release | mix of tower, governor and recloser | tower-resilience |"
    );
    println!("|---|--:|--:|--:|--:|");
    for (label, section) in [
        ("six layers, × the mix", "Six layers"),
        ("… on two threads", "Six layers, two threads"),
        (
            "… of 64 tasks on 2 workers",
            "Six layers, 64 tasks on 2 workers",
        ),
    ] {
        let rows = find(lto, section);
        let cell = |rows, by, name| ratio(rows, by, name);
        println!(
            "| {label} | {} | {} | 1.00 | {} |",
            cell(rows, "buttress", "in one standard stack"),
            cell(find(plain, section), "buttress", "in one standard stack"),
            cell(rows, "tower-resilience", "nested by hand"),
        );
    }
    for (label, section) in [
        ("HTTP request, CPU ns added", "HTTP, one request at a time"),
        ("… 64 at a time", "HTTP, 64 requests at a time"),
    ] {
        let rows = find(lto, section);
        println!(
            "| {label} | {} | {} | {} | {} |",
            added(rows, "buttress"),
            added(find(plain, section), "buttress"),
            added(rows, "tower"),
            added(rows, "tower-resilience"),
        );
    }
}

fn find<'a>(sections: &'a Value, title: &str) -> &'a [Value] {
    let section = list(sections)
        .iter()
        .find(|section| section["title"] == title);
    list(&section.unwrap_or_else(|| panic!("no section {title}"))["rows"])
}

fn row<'a>(rows: &'a [Value], by: &str, name: &str) -> &'a Value {
    let row = rows
        .iter()
        .find(|row| row["crate"] == by && row["name"] == name);
    row.unwrap_or_else(|| panic!("no row {by} {name}"))
}

/// The ratio to the unit, and allocations in brackets.
fn ratio(rows: &[Value], by: &str, name: &str) -> String {
    let row = row(rows, by, name);
    let ratio = fixed(&row["ratio"], 2);
    let allocations = number(&row["allocations"]);
    if allocations >= 0.5 {
        format!("{ratio} ({allocations:.0})")
    } else {
        ratio
    }
}

fn times(rows: &[Value], cell: Cell) -> String {
    let cells: Vec<_> = cell
        .iter()
        .map(|(by, name, words)| format!("{words}{}", ratio(rows, by, name)))
        .collect();
    if cells.is_empty() {
        "–".into()
    } else {
        cells.join(", ")
    }
}

/// Of the first row of a crate.
fn added(rows: &[Value], by: &str) -> String {
    let row = rows.iter().find(|row| row["crate"] == by);
    row.map_or("–".into(), |row| fixed(&row["added"], 0))
}
