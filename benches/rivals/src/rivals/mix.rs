//! The layers of tower, governor and recloser that together do what six of ours do. Without metrics.

use ::tower::limit::GlobalConcurrencyLimitLayer;
use ::tower::retry::RetryLayer;
use ::tower::timeout::TimeoutLayer;

use super::LIMIT;
use super::governor::{self, GovernorLayer};
use super::recloser::{self, RecloserLayer};
use super::tower::{self, Retries};

pub(crate) type Six = (
    TimeoutLayer,
    RetryLayer<Retries>,
    RecloserLayer,
    GovernorLayer,
    GlobalConcurrencyLimitLayer,
    TimeoutLayer,
);

pub(crate) fn six_layers() -> Six {
    (
        tower::timeout(10 * LIMIT),
        tower::retry(),
        recloser::breaker(),
        governor::rate_limit(),
        tower::bulkhead(),
        tower::timeout(LIMIT),
    )
}
