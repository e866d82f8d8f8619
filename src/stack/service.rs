//! The service of the standard stack.

use std::fmt;
use std::task::{self, Poll};

use tower::Service;

use crate::rate_limit::One;
use crate::send::send_method;
use crate::{
    Bulkhead, ByClone, CircuitBreaker, CompleteOnResponse, DeadlineService, Error,
    ErrorsAreFailures, Hedge, Measure, RateLimit, Retry, Timeout,
};

/// A service behind the standard stack. Made by [`StandardLayer`](super::StandardLayer).
///
/// `Clone`, and `Send` and `Sync` if the inner service is. The type can be written in a field:
///
#[cfg_attr(not(doctest), doc = include_str!("../snippets/standard_service.md"))]
#[derive(Clone)]
pub struct StandardService<S, R = ByClone, K = ErrorsAreFailures, C = CompleteOnResponse> {
    pub(super) inner: Inner<S, R, K, C>,
}

/// The layers round `S`, from the outside.
pub(super) type Inner<S, R, K, C> =
    Measure<DeadlineService<Retry<Hedge<Attempts<S, K, C>, R, K>, R, K>>, K, C>;

/// Those that each attempt passes.
type Attempts<S, K, C> =
    CircuitBreaker<RateLimit<Bulkhead<Timeout<Measure<S, K, C>>, K, C>, One, K>, K, C>;

send_method!(StandardService<S, R, K, C>);

impl<S, R, K, C, Req> Service<Req> for StandardService<S, R, K, C>
where
    Inner<S, R, K, C>: Service<Req, Error = Error>,
{
    type Response = <Inner<S, R, K, C> as Service<Req>>::Response;
    type Error = Error;
    type Future = <Inner<S, R, K, C> as Service<Req>>::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        self.inner.call(request)
    }
}

impl<S: fmt::Debug, R, K, C> fmt::Debug for StandardService<S, R, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandardService")
            .field("inner", &self.inner)
            .finish()
    }
}
