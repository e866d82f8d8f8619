//! The service with a bulkhead.

use std::fmt;
use std::sync::Arc;
use std::task::{self, Poll};

use tower::Service;

use super::future::ResponseFuture;
use super::permit::BulkheadPermit;
use super::shared::{Admission, Shared};
use crate::context::ClockScope;
use crate::ready::{Call, Ready};
use crate::send::send_method;
use crate::{
    Classify, CloneService, CompleteOnResponse, Error, ErrorsAreFailures, TrackCompletion,
};

/// A service behind a bulkhead. Made by [`BulkheadLayer`](super::BulkheadLayer).
#[derive(Clone)]
pub struct Bulkhead<S, K = ErrorsAreFailures, C = CompleteOnResponse> {
    pub(super) inner: Ready<S>,
    /// `None` for a service without a limit.
    pub(super) shared: Option<Arc<Shared>>,
    pub(super) classify: K,
    pub(super) completion: C,
}

impl<S, K, C> Bulkhead<S, K, C> {
    /// A service without a limit.
    pub(crate) fn off(inner: S, classify: K, completion: C) -> Self {
        Self {
            inner: Ready::new(inner),
            shared: None,
            classify,
            completion,
        }
    }
}

send_method!(Bulkhead<S, K, C>);

impl<S, K, C, Req> Service<Req> for Bulkhead<S, K, C>
where
    S: CloneService<Req>,
    K: Classify<S::Response> + Clone,
    C: TrackCompletion<S::Response, K>,
{
    type Response = C::Response<BulkheadPermit>;
    type Error = Error;
    type Future = ResponseFuture<S, Req, K, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        // A full bulkhead leaves the inner service alone. Who waits for a permit becomes ready after it.
        let lets_pass = |shared: &Arc<Shared>| shared.lets_pass();
        if self.shared.as_ref().is_none_or(lets_pass) {
            self.inner.poll(cx);
        }
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let shared = self.shared.as_ref();
        let _clock = shared
            .is_some_and(|shared| shared.is_adaptive())
            .then(ClockScope::call);
        let permit = shared.map_or_else(|| Some(BulkheadPermit::none()), Shared::try_admit);
        let Some(permit) = permit else {
            return self.call_full(request);
        };
        self.call_with(request, Some(permit))
    }
}

impl<S, K: Clone, C: Clone> Bulkhead<S, K, C> {
    /// A call with its permit, or one that has to wait for it.
    #[inline]
    fn call_with<Req>(
        &mut self,
        request: Req,
        mut permit: Option<BulkheadPermit>,
    ) -> ResponseFuture<S, Req, K, C>
    where
        S: Service<Req> + Clone,
    {
        let (classify, completion) = (self.classify.clone(), self.completion.clone());
        self.inner
            .call_as(request, &mut permit, move |call, permit| {
                ResponseFuture::new(call, permit.take(), classify, completion)
            })
    }

    /// A call that has found no free permit.
    #[cold]
    fn call_full<Req>(&mut self, request: Req) -> ResponseFuture<S, Req, K, C>
    where
        S: Service<Req> + Clone,
    {
        let admission = match &self.shared {
            Some(shared) => shared.admit_to_full(),
            None => Admission::Admitted(BulkheadPermit::none()),
        };
        match admission {
            Admission::Admitted(permit) => self.call_with(request, Some(permit)),
            Admission::PutOff(waiter) => {
                // It may have become ready before nothing was free; nobody holds it while he waits.
                self.inner.release();
                self.call_with(request, None).after(Box::pin(waiter))
            }
            Admission::Refused(error) => {
                self.inner.release();
                let (classify, completion) = (self.classify.clone(), self.completion.clone());
                ResponseFuture::new(Call::failed(error), None, classify, completion)
            }
        }
    }
}

impl<S: fmt::Debug, K, C> fmt::Debug for Bulkhead<S, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkhead")
            .field("inner", &self.inner)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
