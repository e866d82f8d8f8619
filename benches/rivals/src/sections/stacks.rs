//! Several layers round one service.

use buttress::stack::Standard;
use layered::Layer;
use tower::Layer as TowerLayer;

use super::{ROUNDS, unit};
use crate::check::Duty;
use crate::measure::{Bench, Native};
use crate::rivals::{mix, ours, resilience, seatbelt};
use crate::row::{Kind, Row, Section, native, row, tasks, threads};
use crate::services::AtOnce;

/// Each takes longer.
const ROUNDS_OF_SHARED: usize = 61;

pub(super) fn sections() -> Vec<Section> {
    vec![
        Section {
            title: "Stacks",
            kind: Kind::Alone,
            note: "Four layers are a limit for the whole operation, retry with a budget, circuit breaker and a timeout for each \
                   attempt. The standard stack also has a bulkhead, and measures operations and attempts.",
            rounds: ROUNDS,
            rows: stacks(),
        },
        Section {
            title: "Six layers",
            kind: Kind::Alone,
            note: "A limit for the whole operation, retry with a budget, circuit breaker, rate limit, bulkhead and a timeout for each \
                   attempt. The unit is the mix of tower, governor and recloser. Without a recorder, tower-resilience still makes \
                   the labels of its metrics; its feature `metrics` is on.",
            rounds: 3 * ROUNDS,
            rows: six(&Alone),
        },
        Section {
            title: "Six layers, two threads",
            kind: Kind::Shared,
            note: "Each has a clone of the same service; ns for each call on each thread. The unit is the mix.",
            rounds: ROUNDS_OF_SHARED,
            rows: six(&Threads),
        },
        Section {
            title: "Six layers, 64 tasks on 2 workers",
            kind: Kind::Shared,
            note: "Each task has a clone of the same service and makes 16 calls before it is the next one's turn, which is a part of \
                   the time; ns for each call on each worker. The unit is the mix.",
            rounds: ROUNDS_OF_SHARED,
            rows: six(&Tasks),
        },
    ]
}

fn stacks() -> Vec<Row> {
    vec![
        unit(),
        row("buttress", "four layers", &ours::four_layers())
            .does(Duty::Retries, ours::four_layers())
            .does(Duty::Trips, ours::four_layers()),
        row("seatbelt", "four layers", &seatbelt::four_layers())
            .does(Duty::Retries, seatbelt::four_layers())
            .does(Duty::Trips, seatbelt::four_layers()),
        native(
            "four layers, native form",
            seatbelt::four_layers().layer(AtOnce),
        )
        .does_with(Duty::Retries, |script| {
            Native(seatbelt::four_layers().layer(script))
        }),
        row("buttress", "six layers", &ours::six_layers()),
        row(
            "buttress",
            "six parts in one stack",
            &ours::standard(ours::six_parts),
        ),
        row("buttress", "standard stack", &ours::standard(|it| it))
            .does(Duty::Retries, ours::standard(|it| it))
            .does(Duty::Trips, ours::standard(|it| it)),
        row(
            "buttress",
            "standard stack without measures",
            &ours::standard(Standard::no_measure),
        ),
        row(
            "buttress",
            "standard stack with hedge and rate limit",
            &ours::standard(ours::all_parts),
        )
        .learns(),
        row(
            "tower",
            "six layers with governor and recloser",
            &mix::six_layers(),
        ),
    ]
}

/// Where the calls are made.
trait Place {
    fn row<L>(&self, by: &'static str, name: &'static str, layer: &L) -> Row
    where
        L: TowerLayer<AtOnce, Service: Bench + Clone>;
}

struct Alone;
struct Threads;
struct Tasks;

impl Place for Alone {
    fn row<L>(&self, by: &'static str, name: &'static str, layer: &L) -> Row
    where
        L: TowerLayer<AtOnce, Service: Bench + Clone>,
    {
        row(by, name, layer)
    }
}

impl Place for Threads {
    fn row<L>(&self, by: &'static str, name: &'static str, layer: &L) -> Row
    where
        L: TowerLayer<AtOnce, Service: Bench + Clone>,
    {
        threads(by, name, layer)
    }
}

impl Place for Tasks {
    fn row<L>(&self, by: &'static str, name: &'static str, layer: &L) -> Row
    where
        L: TowerLayer<AtOnce, Service: Bench + Clone>,
    {
        tasks(by, name, layer)
    }
}

fn six(place: &impl Place) -> Vec<Row> {
    let parts = || ours::standard(ours::six_parts);
    let theirs = resilience::six_layers;
    vec![
        place
            .row(
                "tower",
                "with governor and recloser (the unit)",
                &mix::six_layers(),
            )
            .does(Duty::Retries, mix::six_layers())
            .does(Duty::Trips, mix::six_layers()),
        place
            .row("buttress", "nested by hand", &ours::six_layers())
            .does(Duty::Retries, ours::six_layers())
            .does(Duty::Trips, ours::six_layers()),
        place
            .row("buttress", "in one standard stack", &parts())
            .does(Duty::Retries, parts())
            .does(Duty::Trips, parts()),
        place.row(
            "buttress",
            "standard stack with measures, without rate limit",
            &ours::standard(|it| it),
        ),
        place
            .row("tower-resilience", "nested by hand", &theirs())
            .does(Duty::Retries, theirs())
            .does(Duty::Trips, theirs()),
        place
            .row("tower-resilience", "nested by hand, no recorder", &theirs())
            .without_recorder(),
    ]
}
