//! The published benchmark on `BigTable`, which reads 1000 keys from 100 servers.
//!
//! The latency of a leaf is not published. Its distribution here is fitted to the published latencies of the roots
//! without hedging. The experiment therefore shows only that the two published rows are consistent, and that the delay
//! need not be known beforehand.

use std::time::Duration;

use super::{Client, NONE, OURS, TOWER, defaults, fan_out::Leaves, fixed, ours, quantile, tower};
use crate::harness::{Axis, Form, Goal, Line, Plot, Results, Run, Table, Variant, World, simulate};

const SCALE: u32 = 100;
const LEAVES: usize = 100;
/// Roots that come first, and are not counted: until latencies are known.
const WARM_UP: usize = 50;
/// The share of the leaves that take longer than so many milliseconds; between two points it is a
/// straight line if both axes are logarithmic.
const SLOWER: [(f64, f64); 6] = [
    (3.0, 1.0),
    (5.0, 0.3),
    (10.0, 0.02),
    (69.0, 3.2e-3),
    (1800.0, 1e-5),
    (5000.0, 1e-6),
];

const PUBLISHED: &str = "after 10 ms";
/// The client of each column. The short form runs the last two.
const VARIANTS: [Variant<Protect>; 4] = [
    (NONE, |_, leaf| leaf),
    (PUBLISHED, |world, leaf| {
        fixed(world.scaled(Duration::from_millis(10)), leaf)
    }),
    (TOWER, |world, leaf| {
        tower(world, Duration::from_secs(1), leaf)
    }),
    (OURS, |_, leaf| ours(defaults(SCALE), leaf)),
];

type Protect = fn(&World, Client) -> Client;

pub(super) fn table(form: Form) -> (Table, Plot) {
    let variants = &VARIANTS[form.pick(2, 0)..];
    let roots = form.pick(200, 30_000);
    let seeds = |name: &str| match name {
        // With 12 the mean of so rare an event is off by more than what matters.
        OURS => form.pick(1, 24),
        TOWER => 1,
        _ => form.pick(1, 2),
    };
    let results = Results::with_seeds(variants, seeds, |protect, seed| {
        replay(seed, WARM_UP, roots, *protect).outcome
    });
    let mut table = Table::new(form, variants);
    let rows = [
        (0.5, 1, "31 → 14"),
        (0.95, 1, "194 → 18"),
        (0.99, 1, "486 → 27"),
        (0.999, 1, "1777 → 77.6, published 1800 → 74"),
    ];
    for (share, digits, reference) in rows {
        table
            .row(
                format!("p{}, ms", 100.0 * share),
                digits,
                results.cells(|outcome| quantile(&outcome.latencies, share)),
            )
            .reference(reference);
    }
    table
        .goal(OURS, Goal::AtMost(form.pick(120.0, 75.0)))
        .row(
            "extra requests, %",
            3,
            results.cells(|outcome| 100.0 * outcome.extra),
        )
        .reference("2.00, published 2")
        .goal(OURS, Goal::AtMost(2.1))
        .repeats(|seed| replay(seed, 0, 20, VARIANTS[3].1).log);
    (table, slower(variants, &results))
}

/// The share of the roots that take longer than so long.
fn slower(variants: &[Variant<Protect>], results: &Results<Outcome>) -> Plot {
    let line = |((name, _), runs): (&Variant<Protect>, &Vec<Outcome>)| {
        let mut latencies: Vec<f64> = runs
            .iter()
            .flat_map(|run| &run.latencies)
            .copied()
            .collect();
        latencies.sort_by(f64::total_cmp);
        // As many points for each power of ten.
        let shares = (0..=80).map(|step| 10_f64.powf(-0.05 * f64::from(step)));
        let point = |share| (quantile(&latencies, 1.0 - share), share);
        Line::new(*name, shares.map(point).collect())
    };
    Plot {
        file: "x1_latency",
        title: "Reading from 100 servers at once: how many reads take longer",
        x: Axis::log("latency of a read, ms", 1.0..10_000.0),
        y: Axis::log("share of reads that take longer", 1e-4..1.0),
        lines: variants.iter().zip(results.runs()).map(line).collect(),
        spans: Vec::new(),
    }
}

struct Outcome {
    /// Of the roots, in milliseconds, in order.
    latencies: Vec<f64>,
    extra: f64,
}

fn replay(seed: u64, warm_up: usize, roots: usize, protect: Protect) -> Run<Outcome> {
    simulate(SCALE, seed, async |world| {
        let leaves = Leaves::new(world, latency);
        let client = protect(world, leaves.client());
        let roots = leaves.roots(client, LEAVES, warm_up, roots).await;
        let millis = |latency: &Duration| 1e3 * latency.as_secs_f64();
        let mut latencies: Vec<f64> = roots.latencies.iter().map(millis).collect();
        latencies.sort_by(f64::total_cmp);
        Outcome {
            latencies,
            extra: roots.extra,
        }
    })
}

/// How long a leaf takes that is faster than this share of all leaves.
fn latency(faster: f64) -> Duration {
    let beyond = SLOWER.iter().position(|(_, share)| *share < faster);
    let millis = match beyond {
        Some(0) => unreachable!("no share is above 1"),
        None => SLOWER[SLOWER.len() - 1].0,
        Some(next) => {
            let ((from, most), (to, least)) = (SLOWER[next - 1], SLOWER[next]);
            let way = (faster / most).ln() / (least / most).ln();
            from * (to / from).powf(way)
        }
    };
    Duration::from_secs_f64(1e-3 * millis)
}
