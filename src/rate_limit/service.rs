//! The service with a rate limit.

use std::fmt;
use std::sync::Arc;
use std::task::{self, Poll};

use tower::Service;

use super::config::{Cost, One};
use super::future::ResponseFuture;
use super::shared::{Entry, Shared};
use crate::ready::{Call, Ready};
use crate::send::send_method;
use crate::{Classify, CloneService, Error, ErrorsAreFailures};

/// A service behind a rate limit. Made by [`RateLimitLayer`](super::RateLimitLayer).
#[derive(Clone)]
pub struct RateLimit<S, Q = One, K = ErrorsAreFailures> {
    pub(super) inner: Ready<S>,
    /// `None` for a service without a limit.
    pub(super) shared: Option<Arc<Shared>>,
    pub(super) cost: Q,
    pub(super) classify: K,
}

impl<S, K> RateLimit<S, One, K> {
    /// A service without a limit.
    pub(crate) fn off(inner: S, classify: K) -> Self {
        Self {
            inner: Ready::new(inner),
            shared: None,
            cost: One,
            classify,
        }
    }
}

send_method!(RateLimit<S, Q, K>);

impl<S, Q, K, Req> Service<Req> for RateLimit<S, Q, K>
where
    S: CloneService<Req>,
    Q: Cost<Req>,
    K: Classify<S::Response> + Clone,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S, Req, K>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        // Where calls wait, the next one will wait as well, and must not hold the inner service meanwhile.
        if self
            .shared
            .as_ref()
            .is_none_or(|shared| shared.queue.is_empty())
        {
            self.inner.poll(cx);
        }
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let classify = self.classify.clone();
        let mut turn = None;
        let mut hears = None;
        if let Some(shared) = &self.shared {
            match shared.enter(self.cost.cost(&request)) {
                Entry::Pass => {}
                Entry::Wait(queued) => {
                    self.inner.release();
                    turn = Some(queued);
                }
                Entry::Refused(error) => {
                    self.inner.release();
                    return ResponseFuture::new(Call::failed(error), None, None, classify);
                }
            }
            hears =
                (shared.settings.respects_retry_after == Some(true)).then(|| Arc::clone(shared));
        }
        let mut held = (turn, hears);
        self.inner
            .call_as(request, &mut held, move |call, (turn, hears)| {
                ResponseFuture::new(call, turn.take(), hears.take(), classify)
            })
    }
}

impl<S: fmt::Debug, Q, K> fmt::Debug for RateLimit<S, Q, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit")
            .field("inner", &self.inner)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
