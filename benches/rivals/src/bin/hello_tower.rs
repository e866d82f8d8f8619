//! Hello through tower's own layers.

#[path = "../hello.rs"]
mod hello;

use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use tower::BoxError;
use tower::limit::ConcurrencyLimitLayer;
use tower::retry::budget::{Budget, TpsBudget};
use tower::retry::{Policy, RetryLayer};
use tower::timeout::TimeoutLayer;

#[derive(Clone, Debug)]
struct Retries(Arc<TpsBudget>);

impl Policy<u64, u64, BoxError> for Retries {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut u64, result: &mut Result<u64, BoxError>) -> Option<Ready<()>> {
        if result.is_ok() {
            self.0.deposit();
            return None;
        }
        self.0.withdraw().then(|| ready(()))
    }

    fn clone_request(&mut self, request: &u64) -> Option<u64> {
        Some(*request)
    }
}

fn main() {
    let layers = (
        TimeoutLayer::new(Duration::from_secs(10)),
        RetryLayer::new(Retries(Arc::default())),
        ConcurrencyLimitLayer::new(100),
        TimeoutLayer::new(Duration::from_secs(1)),
    );
    hello::say(&layers, 1_u64, 2_u64);
}
