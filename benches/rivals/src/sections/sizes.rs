//! How large futures are.

use layered::Layer;

use crate::measure::{Bench, Callee, Native, Tower};
use crate::rivals::{LIMIT, failsafe, governor, mix, ours, recloser, resilience, seatbelt, tower};
use crate::services::{Answer, BULK, Bulky};

pub(crate) const TITLE: &str = "Future sizes";

/// The bytes of a call whose inner future has [`BULK`].
pub(crate) struct Size {
    pub(crate) by: &'static str,
    pub(crate) name: &'static str,
    /// In the future itself.
    pub(crate) future: usize,
    /// In what a call allocates.
    pub(crate) heap: usize,
}

impl Size {
    fn of(by: &'static str, name: &'static str, callee: &mut impl Callee) -> Self {
        const CALLS: usize = 100;
        // The first calls make what stays.
        for _ in 0..CALLS {
            callee.call(1);
        }
        let counted = allocation_counter::measure(|| {
            for _ in 0..CALLS {
                assert_eq!(callee.call(1), Some(2));
            }
        });
        Self {
            by,
            name,
            future: callee.future_size(),
            heap: counted.bytes_total as usize / CALLS,
        }
    }

    /// Both together, beyond the inner future.
    pub(crate) fn beyond(&self) -> usize {
        self.future + self.heap - BULK
    }
}

fn size<L>(by: &'static str, name: &'static str, layer: &L) -> Size
where
    L: Layer<Bulky, Service: Bench>,
{
    Size::of(by, name, &mut Tower(layer.layer(Bulky)))
}

fn native<S>(name: &'static str, service: S) -> Size
where
    S: layered::Service<u64, Out = Answer>,
{
    Size::of("seatbelt", name, &mut Native(service))
}

pub(crate) fn all() -> Vec<Size> {
    vec![
        size("tower", "timeout", &tower::timeout(LIMIT)),
        size("buttress", "timeout", &ours::timeout(LIMIT)),
        size("seatbelt", "timeout", &seatbelt::timeout(LIMIT)),
        native(
            "timeout, native form",
            seatbelt::timeout(LIMIT).layer(Bulky),
        ),
        size("tower-resilience", "timeout", &resilience::timeout(LIMIT)),
        size("buttress", "retry", &ours::retry()),
        size("tower", "retry", &tower::retry()),
        size("seatbelt", "retry, no budget", &seatbelt::retry()),
        native(
            "retry, no budget, native form",
            seatbelt::retry().layer(Bulky),
        ),
        size("tower-resilience", "retry", &resilience::retry()),
        size("buttress", "circuit breaker", &ours::breaker()),
        size("recloser", "circuit breaker", &recloser::breaker()),
        size("failsafe", "circuit breaker", &failsafe::breaker()),
        size("seatbelt", "circuit breaker", &seatbelt::breaker()),
        native(
            "circuit breaker, native form",
            seatbelt::breaker().layer(Bulky),
        ),
        size(
            "tower-resilience",
            "circuit breaker",
            &resilience::breaker(),
        ),
        size("buttress", "bulkhead", &ours::bulkhead()),
        size("tower", "concurrency limit", &tower::bulkhead()),
        size("tower-resilience", "bulkhead", &resilience::bulkhead()),
        size("buttress", "rate limit", &ours::rate_limit()),
        size("governor", "rate limit", &governor::rate_limit()),
        size("tower", "rate limit", &tower::rate_limit()),
        size("tower-resilience", "rate limit", &resilience::rate_limit()),
        size("buttress", "hedge, percentile", &ours::hedge()),
        size("tower", "hedge, percentile", &tower::HedgeLayer),
        size("seatbelt", "hedge, fixed delay", &seatbelt::hedge()),
        native(
            "hedge, fixed delay, native form",
            seatbelt::hedge().layer(Bulky),
        ),
        size(
            "tower-resilience",
            "hedge, fixed delay",
            &resilience::hedge(),
        ),
        balance(),
        tower_balance(),
        size("buttress", "six layers", &ours::six_layers()),
        size(
            "tower",
            "six layers with governor and recloser",
            &mix::six_layers(),
        ),
        size("tower-resilience", "six layers", &resilience::six_layers()),
        size(
            "buttress",
            "six parts in one stack",
            &ours::standard(ours::six_parts),
        ),
        size("buttress", "four layers", &ours::four_layers()),
        size("seatbelt", "four layers", &seatbelt::four_layers()),
        native(
            "four layers, native form",
            seatbelt::four_layers().layer(Bulky),
        ),
        size(
            "buttress",
            "standard stack",
            &ours::standard(|config| config),
        ),
        size(
            "buttress",
            "standard stack with hedge and rate limit",
            &ours::standard(ours::all_parts),
        ),
    ]
}

fn balance() -> Size {
    let service = ours::balance([Bulky; 10]);
    Size::of("buttress", "balance", &mut Tower(service))
}

fn tower_balance() -> Size {
    let service = tower::balance([Bulky; 10]);
    Size::of("tower", "balance", &mut Tower(service))
}
