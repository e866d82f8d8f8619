//! The service that hedges, and what its calls share.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::{self, Poll};

use tower::Service;

use super::future::ResponseFuture;
use super::operation::Operation;
use super::shared::Shared;
use crate::context::{self, ClockScope, Tried, TriedScope};
use crate::ready::Ready;
use crate::sync::lock;
use crate::{BoxError, ByClone, Classify, ErrorsAreFailures, Replay, Wrappable};

/// A service whose slow calls are sent again. Made by [`HedgeLayer`](super::HedgeLayer).
pub struct Hedge<S, R = ByClone, K = ErrorsAreFailures> {
    inner: Ready<S>,
    /// `None` for a service that does not hedge.
    pattern: Option<Arc<Pattern<S, R, K>>>,
}

/// What all services of one layer value share.
pub(super) struct Policy<R, K> {
    pub(super) shared: Arc<Shared>,
    pub(super) replay: R,
    pub(super) classify: K,
}

/// What all clones of one service share.
pub(super) struct Pattern<S, R, K> {
    /// Cloned for each hedge.
    prototype: Mutex<S>,
    policy: Arc<Policy<R, K>>,
}

impl<S: Clone, R, K> Hedge<S, R, K> {
    pub(super) fn new(inner: S, policy: Arc<Policy<R, K>>) -> Self {
        let pattern = Pattern {
            prototype: Mutex::new(inner.clone()),
            policy,
        };
        Self {
            inner: Ready::new(inner),
            pattern: Some(Arc::new(pattern)),
        }
    }
}

impl<S, R, K> Hedge<S, R, K> {
    /// A service that does not hedge.
    pub(crate) fn off(inner: S) -> Self {
        Self {
            inner: Ready::new(inner),
            pattern: None,
        }
    }
}

impl<S, R, K, Req> Service<Req> for Hedge<S, R, K>
where
    S: Wrappable<Req>,
    R: Replay<Req>,
    K: Classify<S::Response>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req, R, K>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll(cx);
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, mut request: Req) -> Self::Future {
        let Some(pattern) = &self.pattern else {
            return ResponseFuture::passing(self.inner.call(request));
        };
        let Policy { shared, replay, .. } = pattern.policy();
        let _clock = ClockScope::call();
        let now = context::now();
        let operation = Operation::begin(pattern, now);
        let is_alone = operation.is_alone();
        let delay = shared.delay(now);
        let may_repeat = (delay.is_some() || is_alone) && replay.is_idempotent(&request);
        let copy = may_repeat.then(|| replay.copy(&request)).flatten();
        if is_alone {
            replay.mark(&mut request, 1);
        }
        let mut tried = Tried::default();
        let scope = TriedScope::enter(&mut tried);
        let first = self.inner.call(request);
        drop(scope);
        ResponseFuture::new(first, operation, copy, delay, tried)
    }
}

impl<S, R, K> Pattern<S, R, K> {
    #[inline]
    pub(super) fn policy(&self) -> &Policy<R, K> {
        &self.policy
    }

    /// A service for a hedge.
    pub(super) fn service(&self) -> S
    where
        S: Clone,
    {
        lock(&self.prototype).clone()
    }
}

impl<S: Clone, R, K> Clone for Hedge<S, R, K> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            pattern: self.pattern.clone(),
        }
    }
}

impl<R, K> fmt::Debug for Policy<R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl<S: fmt::Debug, R, K> fmt::Debug for Hedge<S, R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = self.pattern.as_ref().map(|pattern| &pattern.policy);
        f.debug_struct("Hedge")
            .field("inner", &self.inner)
            .field("policy", &policy)
            .finish()
    }
}
