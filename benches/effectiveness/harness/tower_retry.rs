//! The rival: tower's retry layer with tower's budget.

use std::{
    future::{Ready, ready},
    sync::Arc,
};

use tower::{
    BoxError,
    retry::{
        Policy,
        budget::{Budget, TpsBudget},
    },
};

/// Retries at once, as the documentation of tower's budget shows it.
#[derive(Clone)]
pub(crate) struct TowerRetry {
    retries: u32,
    budget: Option<Arc<TpsBudget>>,
}

impl TowerRetry {
    pub(crate) fn without_budget(retries: u32) -> Self {
        Self {
            retries,
            budget: None,
        }
    }

    /// With tower's default budget: 10 retries per second and 20 % of the calls, over 10 s.
    pub(crate) fn with_budget(retries: u32) -> Self {
        Self {
            retries,
            budget: Some(Arc::default()),
        }
    }
}

impl Policy<(), (), BoxError> for TowerRetry {
    type Future = Ready<()>;

    fn retry(&mut self, (): &mut (), result: &mut Result<(), BoxError>) -> Option<Ready<()>> {
        if result.is_ok() {
            if let Some(budget) = &self.budget {
                budget.deposit();
            }
            return None;
        }
        self.retries = self.retries.checked_sub(1)?;
        self.budget
            .as_ref()
            .is_none_or(|budget| budget.withdraw())
            .then(|| ready(()))
    }

    fn clone_request(&mut self, (): &()) -> Option<()> {
        Some(())
    }
}
