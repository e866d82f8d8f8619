//! The service that retries, and what its calls share.

use std::fmt;
use std::sync::Arc;
use std::task::{self, Poll};

use tokio::time::Instant;
use tower::Service;

use super::future::ResponseFuture;
use super::metrics::RetryMetrics;
use super::state::Settings;
use crate::budget::Gain;
use crate::context::{self, AttemptScope, ClockScope, Tried, TriedScope};
use crate::random::Random;
use crate::ready::{Call, Ready};
use crate::send::send_method;
use crate::telemetry::Series;
use crate::template::InnerTemplate;
use crate::{
    Budget, ByClone, Classify, CloneService, Error, ErrorKind, ErrorsAreFailures, Mode, Replay,
};

/// A service whose failed calls are tried again. Made by [`RetryLayer`](super::RetryLayer).
pub struct Retry<S, R = ByClone, K = ErrorsAreFailures> {
    inner: Ready<S>,
    /// `None` for a service that does not retry.
    shared: Option<Arc<Shared<S, R, K>>>,
}

/// What all services of one layer value share.
pub(super) struct Policy<R, K> {
    pub(super) settings: Settings,
    pub(super) budget: Option<Budget>,
    pub(super) replay: R,
    pub(super) classify: K,
    pub(super) random: Random,
    pub(super) metrics: &'static Series<RetryMetrics>,
}

/// What all clones of one service share.
pub(super) type Shared<S, R, K> = InnerTemplate<S, Policy<R, K>>;

impl<S: Clone, R, K> Retry<S, R, K> {
    pub(super) fn new(inner: S, policy: Arc<Policy<R, K>>) -> Self {
        let shared = InnerTemplate::new(inner.clone(), policy);
        Self {
            inner: Ready::new(inner),
            shared: Some(Arc::new(shared)),
        }
    }
}

impl<S, R, K> Retry<S, R, K> {
    /// A service that does not retry.
    pub(crate) fn off(inner: S) -> Self {
        Self {
            inner: Ready::new(inner),
            shared: None,
        }
    }
}

send_method!(Retry<S, R, K>);

impl<S, R, K, Req> Service<Req> for Retry<S, R, K>
where
    S: CloneService<Req>,
    R: Replay<Req>,
    K: Classify<S::Response>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S, Req, R, K>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll(cx);
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let Self { inner, shared } = self;
        match shared {
            Some(shared) => begin(inner, shared, request),
            None => inner.call_as(request, &mut (), |call, ()| ResponseFuture::passing(call)),
        }
    }
}

/// Makes the first attempt.
#[inline]
fn begin<S, R, K, Req>(
    inner: &mut Ready<S>,
    shared: &Arc<Shared<S, R, K>>,
    mut request: Req,
) -> ResponseFuture<S, Req, R, K>
where
    S: CloneService<Req>,
    R: Replay<Req>,
{
    let Policy {
        settings,
        replay,
        metrics,
        ..
    } = shared.policy();
    if shared.policy().is_nested() {
        // The attempts are those of the outer retry; its mark stays.
        let mut operation = Some(Operation::nested(shared));
        return inner.call_as(request, &mut operation, |call, operation| {
            ResponseFuture::new(operation.take(), call, None, Tried::default())
        });
    }
    let operation = Some(Operation::begin(shared));
    let mut tried = Tried::default();
    let _scopes = (
        ClockScope::call(),
        AttemptScope::enter(1, shared.policy().budget_id()),
    );
    let _scope = TriedScope::enter(&mut tried);
    if let Some(deadline) = context::deadline() {
        let now = context::now();
        if deadline <= now {
            let kind = ErrorKind::DeadlineExceeded;
            metrics.rejected(kind, Mode::Enforce, now);
            inner.release();
            let error = Error::rejected(kind, metrics.name(), None);
            return ResponseFuture::new(operation, Call::failed(error), None, Tried::default());
        }
    }
    let may_repeat = settings.max_attempts > 1;
    let copy = may_repeat.then(|| replay.copy(&request)).flatten();
    replay.set_attempt(&mut request, 1);
    let mut held = (operation, copy);
    inner.call_as(request, &mut held, |call, (operation, copy)| {
        ResponseFuture::new(operation.take(), call, copy.take(), context::tried())
    })
}

impl<R, K> Policy<R, K> {
    /// What attempts are paid from, for inner layers that could pay as well.
    #[inline]
    pub(super) fn budget_id(&self) -> usize {
        self.budget.as_ref().map_or(0, Budget::id)
    }

    /// Says whether the attempts are made by an outer retry.
    #[inline]
    pub(super) fn is_nested(&self) -> bool {
        context::attempt() > 0 && !self.settings.retry_nested
    }
}

/// The permit of one operation: its place in the budget, and what it has paid.
pub(super) struct Operation<S, R, K> {
    pub(super) shared: Arc<Shared<S, R, K>>,
    pub(super) is_nested: bool,
    pub(super) attempt: u32,
    /// Tokens paid for retries.
    paid: u32,
    /// What the operation brings when it ends.
    gain: Gain,
}

impl<S, R, K> Operation<S, R, K> {
    #[inline]
    fn begin(shared: &Arc<Shared<S, R, K>>) -> Self {
        if let Some(budget) = &shared.policy().budget {
            budget.enter();
        }
        Self::new(shared, false)
    }

    /// An operation that is an attempt of an outer one: it neither pays nor brings anything.
    #[inline]
    fn nested(shared: &Arc<Shared<S, R, K>>) -> Self {
        Self::new(shared, true)
    }

    #[inline]
    fn new(shared: &Arc<Shared<S, R, K>>, is_nested: bool) -> Self {
        Self {
            shared: Arc::clone(shared),
            is_nested,
            attempt: 1,
            paid: 0,
            gain: Gain::Nothing,
        }
    }

    /// Becomes an attempt of an outer operation, and gives up its place in the budget.
    #[cold]
    pub(super) fn become_nested(&mut self) {
        self.leave();
        self.is_nested = true;
    }

    /// Sets the attempt for what is called or polled.
    #[inline]
    pub(super) fn scope(&self) -> AttemptScope {
        AttemptScope::enter(self.attempt, self.shared.policy().budget_id())
    }

    #[inline]
    fn leave(&self) {
        match &self.shared.policy().budget {
            Some(budget) if !self.is_nested => budget.leave(self.gain),
            _ => {}
        }
    }

    /// Pays for a retry, if the budget allows it.
    pub(super) fn pay(&mut self, cost: u32, now: Instant) -> bool {
        let Some(budget) = &self.shared.policy().budget else {
            return true;
        };
        let allowed = budget.withdraw(cost, now);
        if allowed {
            self.paid = self.paid.saturating_add(cost);
        }
        allowed
    }

    /// The operation has succeeded: at the first attempt it brings new tokens, later what it has paid.
    #[inline]
    pub(super) fn succeeded(&mut self) {
        self.gain = if self.attempt == 1 {
            Gain::FirstTry
        } else {
            Gain::Refund(self.paid)
        };
    }
}

impl<S, R, K> Drop for Operation<S, R, K> {
    #[inline]
    fn drop(&mut self) {
        self.leave();
    }
}

impl<S: Clone, R, K> Clone for Retry<S, R, K> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl<R, K> fmt::Debug for Policy<R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("settings", &self.settings)
            .field("budget", &self.budget)
            .field("metrics", &self.metrics)
            .finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, R, K> fmt::Debug for Retry<S, R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("inner", &self.inner)
            .field(
                "policy",
                &self.shared.as_ref().map(|shared| shared.policy()),
            )
            .finish()
    }
}
