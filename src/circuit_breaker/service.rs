//! The service with a circuit breaker.

use std::fmt;
use std::sync::Arc;
use std::task::{self, Poll};

use tower::Service;

use super::future::ResponseFuture;
use super::permit::Permit;
use super::shared::Shared;
use crate::completion::Tracked;
use crate::ready::{Call, Ready};
use crate::{AtResponse, BoxError, Classify, Completion, ErrorsAreFailures, Wrappable};

/// A service behind a circuit breaker. Made by [`CircuitBreakerLayer`](super::CircuitBreakerLayer).
#[derive(Clone)]
pub struct CircuitBreaker<S, K = ErrorsAreFailures, C = AtResponse> {
    pub(super) inner: Ready<S>,
    pub(super) shared: Arc<Shared>,
    pub(super) classify: K,
    pub(super) completion: C,
}

impl<S, K, C, Req> Service<Req> for CircuitBreaker<S, K, C>
where
    S: Wrappable<Req>,
    K: Classify<S::Response> + Clone,
    C: Completion<S::Response, K>,
{
    type Response = C::Response<Permit>;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req, K, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), BoxError>> {
        // An open breaker leaves the inner service alone. A probe waits for readiness in its future.
        if self.shared.is_closed() {
            self.inner.poll(cx);
        }
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let (call, permit) = match self.shared.admit() {
            Ok(permit) => (self.inner.call(request), Some(permit)),
            Err(rejected) => {
                // It may have become ready before the breaker opened.
                self.inner.release();
                (Call::failed(rejected.error(self.shared.name())), None)
            }
        };
        let (classify, completion) = (self.classify.clone(), self.completion.clone());
        ResponseFuture {
            tracked: Tracked::new(call, permit, classify, completion),
        }
    }
}

impl<S: fmt::Debug, K, C> fmt::Debug for CircuitBreaker<S, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("inner", &self.inner)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
