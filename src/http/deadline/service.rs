//! The services of the deadlines across hops.

use std::fmt;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use ::http::{HeaderName, Request};
use tower::Service;

use super::future::ResponseFuture;
use super::headers::{self, GRPC_TIMEOUT, Headers, HttpHeaders};
use super::stamp::{Policy, Stamp};
use crate::context::{self, ClockScope};
use crate::http::Protocol;
use crate::ready::Ready;
use crate::send::send_method;
use crate::timeout::DeadlineFuture;
use crate::{CloneService, DeadlineService, Error};

/// A service that is told how much time is left. Made by
/// [`PropagateDeadlineLayer`](super::PropagateDeadlineLayer).
pub struct PropagateDeadline<S, H = HttpHeaders> {
    pub(super) inner: Ready<Stamp<S, H>>,
    pub(super) policy: Arc<Policy<H>>,
}

send_method!(PropagateDeadline<S, H>);

impl<S, H, Req> Service<Req> for PropagateDeadline<S, H>
where
    S: CloneService<Req>,
    H: Headers<Req>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S, H, Req>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll(cx);
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        // A request that is sent at once is checked twice by one reading of the clock, so that it cannot be refused
        // when the inner service has already reserved something for it.
        let _clock = ClockScope::call();
        if context::deadline().is_some() {
            context::fresh_now();
        }
        if self.policy.has_time() {
            self.inner
                .call_as(request, &mut (), |call, ()| ResponseFuture::new(call))
        } else {
            self.inner.release();
            ResponseFuture::refused(self.policy.refused())
        }
    }
}

impl<S: Clone, H> Clone for PropagateDeadline<S, H> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            policy: Arc::clone(&self.policy),
        }
    }
}

impl<S: fmt::Debug, H> fmt::Debug for PropagateDeadline<S, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PropagateDeadline")
            .field("inner", &self.inner)
            .field("policy", &self.policy)
            .finish()
    }
}

/// A service whose work ends with the deadline of its caller. Made by
/// [`InheritDeadlineLayer`](super::InheritDeadlineLayer).
#[derive(Clone, Debug)]
pub struct InheritDeadline<S> {
    pub(super) inner: DeadlineService<S>,
    pub(super) max: Duration,
    pub(super) header: HeaderName,
}

send_method!(InheritDeadline<S>);

impl<S, B> Service<Request<B>> for InheritDeadline<S>
where
    S: CloneService<Request<B>>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = DeadlineFuture<S, Request<B>>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        Service::<Request<B>>::poll_ready(&mut self.inner, cx)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let headers = request.headers();
        let both = [
            headers::least(Protocol::Grpc, headers, &GRPC_TIMEOUT),
            headers::least(Protocol::Http, headers, &self.header),
        ];
        let allowed = both.into_iter().flatten().min();
        let total = allowed.map_or(self.max, |allowed| allowed.min(self.max));
        self.inner.call_within(total, request)
    }
}
