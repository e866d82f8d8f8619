//! One layer, on one thread, nothing goes wrong.

use std::time::Duration;

use layered::Layer;

use super::{ROUNDS, unit};
use crate::check::Duty;
use crate::measure::{Native, Tower};
use crate::rivals::{LIMIT, failsafe, governor, ours, recloser, resilience, seatbelt, tower};
use crate::row::{Kind, Row, Section, fresh, native, pending, row};
use crate::services::{AtOnce, PendingOnce};

/// Of the timeouts that have to show what they are for.
const SHORT: Duration = Duration::from_millis(5);

pub(super) fn sections() -> Vec<Section> {
    vec![
        section("Timeout", "", timeout()),
        section(
            "Timeout, inner service pending once",
            "Here a timer is needed. The unit is tower's timeout round the same service.",
            pending_once(),
        ),
        section("Retry with a budget", "seatbelt has no budget.", retry()),
        section("Circuit breaker", "", breaker()),
        section(
            "Bulkhead",
            "failsafe, recloser, governor and seatbelt have none.",
            bulkhead(),
        ),
        section(
            "Rate limit",
            "tower's cannot be cloned, and makes calls wait.",
            rate_limit(),
        ),
        section("Hedge, not fired", "", hedge()),
    ]
}

fn section(title: &'static str, note: &'static str, mut rows: Vec<Row>) -> Section {
    if !rows[0].name.contains("the unit") {
        rows.insert(0, unit());
    }
    Section {
        title,
        kind: Kind::Alone,
        note,
        rounds: ROUNDS,
        rows,
    }
}

fn timeout() -> Vec<Row> {
    vec![
        unit().does(Duty::TimesOut, tower::timeout(SHORT)),
        row("–", "no layer", &tower::nothing()),
        row("buttress", "timeout", &ours::timeout(LIMIT))
            .does(Duty::TimesOut, ours::timeout(SHORT)),
        row("seatbelt", "timeout", &seatbelt::timeout(LIMIT))
            .does(Duty::TimesOut, seatbelt::timeout(SHORT)),
        native(
            "timeout, native form",
            seatbelt::timeout(LIMIT).layer(AtOnce),
        )
        .does_with(Duty::TimesOut, |script| {
            Native(seatbelt::timeout(SHORT).layer(script))
        }),
        row("tower-resilience", "timeout", &resilience::timeout(LIMIT))
            .does(Duty::TimesOut, resilience::timeout(SHORT)),
    ]
}

fn pending_once() -> Vec<Row> {
    vec![
        pending("tower", "timeout (the unit)", &tower::timeout(LIMIT)),
        pending("–", "no layer", &tower::nothing()),
        pending("buttress", "timeout", &ours::timeout(LIMIT)),
        pending("seatbelt", "timeout", &seatbelt::timeout(LIMIT)),
        native(
            "timeout, native form",
            seatbelt::timeout(LIMIT).layer(PendingOnce),
        ),
        pending("tower-resilience", "timeout", &resilience::timeout(LIMIT)),
    ]
}

fn retry() -> Vec<Row> {
    vec![
        row("buttress", "retry", &ours::retry()).does(Duty::Retries, ours::retry()),
        row("tower", "retry", &tower::retry()).does(Duty::Retries, tower::retry()),
        row("seatbelt", "retry, no budget", &seatbelt::retry())
            .does(Duty::Retries, seatbelt::retry()),
        native(
            "retry, no budget, native form",
            seatbelt::retry().layer(AtOnce),
        )
        .does_with(Duty::Retries, |script| {
            Native(seatbelt::retry().layer(script))
        }),
        row("tower-resilience", "retry", &resilience::retry())
            .does(Duty::Retries, resilience::retry()),
    ]
}

fn breaker() -> Vec<Row> {
    vec![
        row("buttress", "circuit breaker, 10 s", &ours::breaker())
            .does(Duty::Trips, ours::breaker()),
        row(
            "recloser",
            "circuit breaker, 100 calls",
            &recloser::breaker(),
        )
        .does(Duty::Trips, recloser::breaker()),
        row(
            "failsafe",
            "circuit breaker, 30 s or 5 in a row",
            &failsafe::breaker(),
        )
        .does(Duty::Trips, failsafe::breaker()),
        row(
            "failsafe",
            "circuit breaker, 5 in a row",
            &failsafe::in_a_row(),
        )
        .does(Duty::Trips, failsafe::in_a_row()),
        row("seatbelt", "circuit breaker, 10 s", &seatbelt::breaker())
            .does(Duty::Trips, seatbelt::breaker()),
        native(
            "circuit breaker, 10 s, native form",
            seatbelt::breaker().layer(AtOnce),
        )
        .does_with(Duty::Trips, |script| {
            Native(seatbelt::breaker().layer(script))
        }),
        row(
            "tower-resilience",
            "circuit breaker, 100 calls",
            &resilience::breaker(),
        )
        .does(Duty::Trips, resilience::breaker()),
    ]
}

fn bulkhead() -> Vec<Row> {
    vec![
        row("buttress", "bulkhead", &ours::bulkhead()).does(Duty::Fills, ours::concurrency(1)),
        row("tower", "concurrency limit", &tower::bulkhead())
            .does(Duty::Fills, tower::shedding(tower::concurrency(1))),
        row(
            "tower",
            "concurrency limit and load shed",
            &tower::shedding(tower::bulkhead()),
        ),
        row("tower-resilience", "bulkhead", &resilience::bulkhead())
            .does(Duty::Fills, resilience::concurrency(1)),
    ]
}

fn rate_limit() -> Vec<Row> {
    let tower = || Tower(tower::rate_limit().layer(AtOnce));
    vec![
        row("buttress", "rate limit", &ours::rate_limit()).does(Duty::Limits, ours::one_a_day()),
        row("governor", "rate limit", &governor::rate_limit())
            .does(Duty::Limits, governor::one_a_day()),
        fresh("tower", "rate limit, not cloneable", tower)
            .does(Duty::Limits, tower::shedding(tower::one_a_day())),
        row("tower-resilience", "rate limit", &resilience::rate_limit())
            .does(Duty::Limits, resilience::one_a_day()),
    ]
}

fn hedge() -> Vec<Row> {
    let tower = || Tower(tower::HedgeLayer.layer(AtOnce));
    vec![
        row("buttress", "hedge, percentile", &ours::hedge())
            .learns()
            .does(Duty::Hedges, ours::hedge()),
        row("buttress", "hedge, fixed delay", &ours::fixed_hedge())
            .does(Duty::Hedges, ours::fixed_hedge()),
        fresh("tower", "hedge, percentile, not cloneable", tower)
            .does(Duty::Hedges, tower::HedgeLayer),
        row("seatbelt", "hedge, fixed delay", &seatbelt::hedge())
            .does(Duty::Hedges, seatbelt::hedge()),
        native(
            "hedge, fixed delay, native form",
            seatbelt::hedge().layer(AtOnce),
        )
        .does_with(Duty::Hedges, |script| {
            Native(seatbelt::hedge().layer(script))
        }),
        row(
            "tower-resilience",
            "hedge, fixed delay",
            &resilience::hedge(),
        )
        .does(Duty::Hedges, resilience::hedge()),
    ]
}
