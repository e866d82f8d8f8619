//! What a budget reports.

use std::sync::atomic::{AtomicU32, Ordering};

use metrics::{Gauge, describe_gauge, gauge};

use crate::telemetry::{Instruments, Labels};

pub(super) struct BudgetMetrics {
    tokens: Gauge,
    capacity: Gauge,
}

/// What the gauges show. Of several budgets with one name, the one that was used last.
#[derive(Debug, Default)]
pub(super) struct Levels {
    tokens: AtomicU32,
    capacity: AtomicU32,
}

impl Levels {
    pub(super) fn set(&self, tokens: u32, capacity: u32) {
        self.tokens.store(tokens, Ordering::Relaxed);
        self.capacity.store(capacity, Ordering::Relaxed);
    }
}

impl Instruments for BudgetMetrics {
    type Levels = Levels;

    fn bind(labels: Labels) -> Self {
        describe_gauge!(
            "buttress_budget_tokens",
            "Tokens in the retry budget; a retry costs 10"
        );
        describe_gauge!(
            "buttress_budget_capacity",
            "Tokens that the retry budget can hold at present"
        );
        Self {
            tokens: gauge!("buttress_budget_tokens", "name" => labels.name),
            capacity: gauge!("buttress_budget_capacity", "name" => labels.name),
        }
    }

    fn publish(&self, levels: &Levels) {
        self.tokens.set(levels.tokens.load(Ordering::Relaxed));
        self.capacity.set(levels.capacity.load(Ordering::Relaxed));
    }
}
