//! Metrics of a budget.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::telemetry::table::{BUDGET_CAPACITY, BUDGET_TOKENS};
use crate::telemetry::{Handles, Instruments};

/// Values of the gauges. If several budgets have one name, the gauges show the last used budget.
#[derive(Debug, Default)]
pub(super) struct BudgetMetrics {
    tokens: AtomicU32,
    capacity: AtomicU32,
}

impl BudgetMetrics {
    pub(super) fn set(&self, tokens: u32, capacity: u32) {
        self.tokens.store(tokens, Ordering::Relaxed);
        self.capacity.store(capacity, Ordering::Relaxed);
    }
}

impl Instruments for BudgetMetrics {
    fn publish(&self, handles: &mut Handles) {
        let level = |level: &AtomicU32| f64::from(level.load(Ordering::Relaxed));
        handles.set(&BUDGET_TOKENS, &[], level(&self.tokens));
        handles.set(&BUDGET_CAPACITY, &[], level(&self.capacity));
    }
}
