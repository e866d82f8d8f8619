//! What the clones of a service share that may call its inner service more than once.

use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// An inner service to be cloned for each further attempt, so that the first one, nearly always the last, costs
/// no clone; and the policy of the layer.
pub(crate) struct InnerTemplate<S, P> {
    service: Mutex<S>,
    policy: Arc<P>,
}

impl<S, P> InnerTemplate<S, P> {
    pub(crate) fn new(service: S, policy: Arc<P>) -> Self {
        Self {
            service: Mutex::new(service),
            policy,
        }
    }

    #[inline]
    pub(crate) fn policy(&self) -> &P {
        &self.policy
    }

    /// A service for a further attempt.
    pub(crate) fn service(&self) -> S
    where
        S: Clone,
    {
        lock(&self.service).clone()
    }
}
