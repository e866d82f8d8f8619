//! The service with a circuit breaker.

use std::fmt;
use std::sync::Arc;
use std::task::{self, Poll};

use tower::Service;

use super::future::ResponseFuture;
use super::permit::BreakerPermit;
use super::shared::Shared;
use crate::ready::{Call, Ready};
use crate::send::send_method;
use crate::{
    Classify, CloneService, CompleteOnResponse, Error, ErrorsAreFailures, TrackCompletion,
};

/// A service behind a circuit breaker. Made by [`CircuitBreakerLayer`](super::CircuitBreakerLayer).
#[derive(Clone)]
pub struct CircuitBreaker<S, K = ErrorsAreFailures, C = CompleteOnResponse> {
    pub(super) inner: Ready<S>,
    /// `None` for a service without a breaker.
    pub(super) shared: Option<Arc<Shared>>,
    pub(super) classify: K,
    pub(super) completion: C,
}

impl<S, K, C> CircuitBreaker<S, K, C> {
    /// A service without a breaker.
    pub(crate) fn off(inner: S, classify: K, completion: C) -> Self {
        Self {
            inner: Ready::new(inner),
            shared: None,
            classify,
            completion,
        }
    }
}

send_method!(CircuitBreaker<S, K, C>);

impl<S, K, C, Req> Service<Req> for CircuitBreaker<S, K, C>
where
    S: CloneService<Req>,
    K: Classify<S::Response> + Clone,
    C: TrackCompletion<S::Response, K>,
{
    type Response = C::Response<BreakerPermit>;
    type Error = Error;
    type Future = ResponseFuture<S, Req, K, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        // An open breaker leaves the inner service alone. A probe waits for readiness in its future.
        if self.shared.as_ref().is_none_or(|shared| shared.is_closed()) {
            self.inner.poll(cx);
        }
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let (classify, completion) = (self.classify.clone(), self.completion.clone());
        let permit = match &self.shared {
            Some(shared) => match shared.admit() {
                Ok(permit) => permit,
                Err(rejected) => {
                    // It may have become ready before the breaker opened.
                    self.inner.release();
                    let error = rejected.error(shared.name());
                    return ResponseFuture::new(Call::failed(error), None, classify, completion);
                }
            },
            None => BreakerPermit::none(),
        };
        let mut permit = Some(permit);
        self.inner
            .call_as(request, &mut permit, move |call, permit| {
                ResponseFuture::new(call, permit.take(), classify, completion)
            })
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
