//! Two threads that share one state.

use layered::Layer;

use super::balance;
use crate::measure::Native;
use crate::rivals::{LIMIT, failsafe, governor, ours, recloser, resilience, seatbelt, tower};
use crate::row::{Kind, Section, threads, threads_with};
use crate::services::AtOnce;

/// Each takes longer.
const ROUNDS: usize = 41;

pub(super) fn section() -> Section {
    let breaker = seatbelt::breaker().layer(AtOnce);
    Section {
        title: "Two threads",
        kind: Kind::Shared,
        note: "Each has a clone of the same service; ns for each call on each thread. A call that has to wait for the other thread \
               is polled again at once, without going to sleep. Turns in which the threads did not run at the same time are made again.",
        rounds: ROUNDS,
        rows: vec![
            threads("tower", "timeout (the unit)", &tower::timeout(LIMIT)),
            threads("buttress", "timeout", &ours::timeout(LIMIT)),
            threads("buttress", "retry", &ours::retry()),
            threads("tower", "retry", &tower::retry()),
            threads("tower-resilience", "retry", &resilience::retry()),
            threads("buttress", "circuit breaker, 10 s", &ours::breaker()),
            threads(
                "recloser",
                "circuit breaker, 100 calls",
                &recloser::breaker(),
            ),
            threads(
                "failsafe",
                "circuit breaker, 30 s or 5 in a row",
                &failsafe::breaker(),
            ),
            threads(
                "failsafe",
                "circuit breaker, 5 in a row",
                &failsafe::in_a_row(),
            ),
            threads("seatbelt", "circuit breaker, 10 s", &seatbelt::breaker()),
            threads_with(
                "seatbelt",
                "circuit breaker, 10 s, native form",
                move || Native(breaker.clone()),
            ),
            threads(
                "tower-resilience",
                "circuit breaker, 100 calls",
                &resilience::breaker(),
            ),
            threads("buttress", "bulkhead", &ours::bulkhead()),
            threads("tower", "concurrency limit", &tower::bulkhead()),
            threads("tower-resilience", "bulkhead", &resilience::bulkhead()),
            threads("buttress", "rate limit", &ours::rate_limit()),
            threads("governor", "rate limit", &governor::rate_limit()),
            threads("tower-resilience", "rate limit", &resilience::rate_limit()),
            threads("buttress", "hedge, percentile", &ours::hedge()).learns(),
            threads("seatbelt", "hedge, fixed delay", &seatbelt::hedge()),
            threads(
                "tower-resilience",
                "hedge, fixed delay",
                &resilience::hedge(),
            ),
            balance::on_threads("balance, 10", 10),
            balance::on_threads("balance, 1,000", 1_000),
            threads("buttress", "four layers", &ours::four_layers()),
            threads("seatbelt", "four layers", &seatbelt::four_layers()),
        ],
    }
}
