//! The service that hedges, and what its calls share.

use std::fmt;
use std::sync::Arc;
use std::task::{self, Poll};

use tower::Service;

use super::future::ResponseFuture;
use super::operation::{Operation, is_alone};
use super::shared::Shared;
use crate::context::{self, ClockScope, Tried, TriedScope};
use crate::ready::Ready;
use crate::send::send_method;
use crate::template::InnerTemplate;
use crate::{ByClone, Classify, CloneService, Error, ErrorsAreFailures, Replay};

/// A service whose slow calls are sent again. Made by [`HedgeLayer`](super::HedgeLayer).
pub struct Hedge<S, R = ByClone, K = ErrorsAreFailures> {
    inner: Ready<S>,
    /// `None` for a service that does not hedge.
    shared: Option<Arc<InnerTemplate<S, Policy<R, K>>>>,
}

/// What all services of one layer value share.
pub(super) struct Policy<R, K> {
    pub(super) shared: Arc<Shared>,
    pub(super) replay: R,
    pub(super) classify: K,
}

impl<S: Clone, R, K> Hedge<S, R, K> {
    pub(super) fn new(inner: S, policy: Arc<Policy<R, K>>) -> Self {
        let shared = InnerTemplate::new(inner.clone(), policy);
        Self {
            inner: Ready::new(inner),
            shared: Some(Arc::new(shared)),
        }
    }
}

impl<S, R, K> Hedge<S, R, K> {
    /// A service that does not hedge.
    pub(crate) fn off(inner: S) -> Self {
        Self {
            inner: Ready::new(inner),
            shared: None,
        }
    }
}

send_method!(Hedge<S, R, K>);

impl<S, R, K, Req> Service<Req> for Hedge<S, R, K>
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
            Some(template) => begin(inner, template, request),
            None => inner.call_as(request, &mut (), |call, ()| ResponseFuture::passing(call)),
        }
    }
}

/// Makes the first attempt.
#[inline]
fn begin<S, R, K, Req>(
    inner: &mut Ready<S>,
    template: &Arc<InnerTemplate<S, Policy<R, K>>>,
    request: Req,
) -> ResponseFuture<S, Req, R, K>
where
    S: CloneService<Req>,
    R: Replay<Req>,
{
    let Policy { shared, replay, .. } = template.policy();
    let _clock = ClockScope::call();
    let now = context::now();
    let operation = Some(Operation::begin(template, now));
    let delay = shared.delay(now);
    let may_repeat = (delay.is_some() || is_alone()) && replay.is_idempotent(&request);
    let copy = may_repeat.then(|| replay.copy(&request)).flatten();
    let mut tried = Tried::default();
    let _scope = TriedScope::enter(&mut tried);
    let mut held = (operation, copy);
    inner.call_as(request, &mut held, move |first, (operation, copy)| {
        ResponseFuture::new(
            first,
            operation.take(),
            copy.take(),
            delay,
            context::tried(),
        )
    })
}

impl<S: Clone, R, K> Clone for Hedge<S, R, K> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: self.shared.clone(),
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
        let policy = self.shared.as_ref().map(|shared| shared.policy());
        f.debug_struct("Hedge")
            .field("inner", &self.inner)
            .field("policy", &policy)
            .finish()
    }
}
