//! Several layers round one service.

use ::tower::limit::GlobalConcurrencyLimitLayer;
use ::tower::retry::RetryLayer;
use ::tower::timeout::TimeoutLayer;
use buttress::stack::Standard;
use layered::Layer;

use super::{ROUNDS, unit};
use crate::check::Duty;
use crate::measure::Native;
use crate::rivals::governor::{self, GovernorLayer};
use crate::rivals::recloser::{self, RecloserLayer};
use crate::rivals::tower::Retries;
use crate::rivals::{LIMIT, ours, resilience, seatbelt, tower};
use crate::row::{Section, native, row};
use crate::services::AtOnce;

pub(super) fn section() -> Section {
    Section {
        title: "Stacks",
        note: "Six layers are a limit for the whole operation, retry with a budget, circuit breaker, rate limit, bulkhead \
               and a timeout for each attempt; four are the same without rate limit and bulkhead, which seatbelt \
               does not have. The standard stack also measures operations and attempts. Without a recorder, \
               tower-resilience still makes the labels of its metrics; its feature `metrics` is on.",
        rounds: ROUNDS,
        rows: vec![
            unit(),
            row("buttress", "six layers", &ours::six_layers())
                .does(Duty::Retries, ours::six_layers())
                .does(Duty::Trips, ours::six_layers()),
            row("buttress", "six layers, no recorder", &ours::six_layers()).without_recorder(),
            row("tower", "six layers with governor and recloser", &mixed())
                .does(Duty::Retries, mixed())
                .does(Duty::Trips, mixed()),
            row("tower-resilience", "six layers", &resilience::six_layers())
                .does(Duty::Retries, resilience::six_layers())
                .does(Duty::Trips, resilience::six_layers()),
            row(
                "tower-resilience",
                "six layers, no recorder",
                &resilience::six_layers(),
            )
            .without_recorder(),
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
            row(
                "buttress",
                "standard stack",
                &ours::standard(|config| config),
            )
            .does(Duty::Retries, ours::standard(|config| config))
            .does(Duty::Trips, ours::standard(|config| config)),
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
        ],
    }
}

pub(super) type Mixed = (
    TimeoutLayer,
    RetryLayer<Retries>,
    RecloserLayer,
    GovernorLayer,
    GlobalConcurrencyLimitLayer,
    TimeoutLayer,
);

/// What there was before: tower, and what fits into it. Without metrics.
pub(super) fn mixed() -> Mixed {
    (
        tower::timeout(10 * LIMIT),
        tower::retry(),
        recloser::breaker(),
        governor::rate_limit(),
        tower::bulkhead(),
        tower::timeout(LIMIT),
    )
}
