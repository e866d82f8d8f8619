//! The service with a fallback.

use std::fmt;
use std::sync::Arc;
use std::task::{self, Poll};

use tower::Service;

use super::answer::Answer;
use super::failed::{Failures, ShouldHandle};
use super::future::ResponseFuture;
use super::metrics::FallbackMetrics;
use crate::ready::Ready;
use crate::send::send_method;
use crate::telemetry::Series;
use crate::{ByClone, Classify, CloneService, Error, ErrorsAreFailures};

/// A service whose failed calls get another answer. Made by [`FallbackLayer`](super::FallbackLayer).
pub struct Fallback<S, A, W = Failures, K = ErrorsAreFailures, R = ByClone> {
    pub(super) inner: Ready<S>,
    pub(super) policy: Arc<Policy<A, W, K, R>>,
}

/// What all services of one layer value share.
pub(super) struct Policy<A, W, K, R> {
    pub(super) answer: A,
    pub(super) when: W,
    pub(super) classify: K,
    pub(super) replay: R,
    pub(super) metrics: &'static Series<FallbackMetrics>,
}

send_method!(Fallback<S, A, W, K, R>);

impl<S, A, W, K, R, Req> Service<Req> for Fallback<S, A, W, K, R>
where
    S: CloneService<Req>,
    A: Answer<Req, S::Response, R>,
    W: ShouldHandle<S::Response>,
    K: Classify<S::Response>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S, Req, A, W, K, R>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll(cx);
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let policy = Arc::clone(&self.policy);
        let mut kept = Some(policy.answer.keep(&policy.replay, &request));
        self.inner.call_as(request, &mut kept, move |call, kept| {
            ResponseFuture::new(call, kept.take(), policy)
        })
    }
}

impl<S: Clone, A, W, K, R> Clone for Fallback<S, A, W, K, R> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            policy: Arc::clone(&self.policy),
        }
    }
}

impl<S: fmt::Debug, A, W, K, R> fmt::Debug for Fallback<S, A, W, K, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback")
            .field("inner", &self.inner)
            .field("metrics", &self.policy.metrics)
            .finish_non_exhaustive()
    }
}
