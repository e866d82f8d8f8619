//! Metrics of a budget.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::table::{BUDGET_CAPACITY, BUDGET_TOKENS};
use crate::telemetry::{Gauges, Handles, Instruments};

/// The tokens and the capacity of all budgets of one name.
#[derive(Debug, Default)]
pub(super) struct BudgetMetrics([AtomicU64; 2]);

/// Returns the word of a budget for its gauges.
pub(super) fn word(tokens: u32, capacity: u32) -> u64 {
    u64::from(tokens) << u32::BITS | u64::from(capacity)
}

impl Instruments for BudgetMetrics {
    fn publish(&self, handles: &mut Handles) {
        let [tokens, capacity] = &self.0;
        let level = |level: &AtomicU64| level.load(Ordering::SeqCst) as f64;
        handles.set(&BUDGET_TOKENS, &[], level(tokens));
        handles.set(&BUDGET_CAPACITY, &[], level(capacity));
    }
}

impl Gauges<2> for BudgetMetrics {
    const FOLLOWED: usize = 0;

    fn sums(&self) -> &[AtomicU64; 2] {
        &self.0
    }

    fn parts(word: u64) -> [u64; 2] {
        [word >> u32::BITS, word & u64::from(u32::MAX)]
    }
}
