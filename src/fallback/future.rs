//! The response future of the fallback.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::answer::{Answer, Reply};
use super::failed::{Failed, ShouldHandle};
use super::metrics::Ended;
use super::service::Policy;
use crate::context;
use crate::outcome::classify_result;
use crate::ready::Call;
use crate::{BoxError, Classify, Error, Outcome};

pin_project! {
    /// The response future of [`Fallback`](super::Fallback).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, A, W, K, R>
    where
        S: Service<Req>,
        A: Answer<Req, S::Response, R>,
    {
        #[pin]
        call: Call<S, Req>,
        // What the fallback will need of the request.
        kept: Option<A::Captured>,
        // An answer that is waited for.
        later: Option<A::Future>,
        policy: Arc<Policy<A, W, K, R>>,
    }
}

impl<S, Req, A, W, K, R> ResponseFuture<S, Req, A, W, K, R>
where
    S: Service<Req>,
    A: Answer<Req, S::Response, R>,
{
    #[inline]
    pub(super) fn new(
        call: Call<S, Req>,
        kept: Option<A::Captured>,
        policy: Arc<Policy<A, W, K, R>>,
    ) -> Self {
        Self {
            call,
            kept,
            later: None,
            policy,
        }
    }
}

impl<S, Req, A, W, K, R> Future for ResponseFuture<S, Req, A, W, K, R>
where
    S: Service<Req, Error: Into<BoxError> + 'static>,
    A: Answer<Req, S::Response, R>,
    W: ShouldHandle<S::Response>,
    K: Classify<S::Response>,
{
    type Output = Result<S::Response, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.later.is_none() {
            let result = ready!(this.call.as_mut().poll(cx, || this.policy.metrics.name()));
            let outcome = classify_result(&this.policy.classify, &result);
            if matches!(outcome, Outcome::Success | Outcome::Cancelled) {
                return Poll::Ready(result);
            }
            let Some(kept) = this.kept.take() else {
                return Poll::Ready(result);
            };
            if !this
                .policy
                .when
                .should_handle(Failed::new(outcome, &result))
            {
                return Poll::Ready(result);
            }
            // What the primary holds is free before anything else is asked.
            this.call.set(Call::Done);
            match this.policy.reply(kept, outcome, result) {
                Ok(later) => *this.later = Some(later),
                Err(result) => return Poll::Ready(result),
            }
        }
        let Some(later) = this.later else {
            return Poll::Pending;
        };
        let result = ready!(Pin::new(later).poll(cx));
        let name = || this.policy.metrics.name();
        let result = result.map_err(|error| Error::of_service(error, name));
        *this.later = None;
        this.policy.answered(&result);
        Poll::Ready(result)
    }
}

impl<A, W, K, R> Policy<A, W, K, R> {
    /// Answers at once, or says what to wait for.
    #[cold]
    fn reply<Req, Res>(
        &self,
        kept: A::Captured,
        outcome: Outcome,
        failed: Result<Res, Error>,
    ) -> Result<A::Future, Result<Res, Error>>
    where
        A: Answer<Req, Res, R>,
    {
        // A function of the user's may take its time.
        let (ended, result) =
            match context::unclocked(|| self.answer.answer(&self.replay, kept, outcome, failed)) {
                Reply::Later(later) => return Ok(later),
                Reply::Answered(answer) => (Ended::Answered, Ok(answer)),
                Reply::None(why, failed) => (Ended::None(why), failed),
            };
        self.report(ended);
        Err(result)
    }

    /// The second service has answered.
    fn answered<Res>(&self, result: &Result<Res, Error>)
    where
        K: Classify<Res>,
    {
        let has_failed = result.is_err() || classify_result(&self.classify, result).is_failure();
        self.report(if has_failed {
            Ended::Failed
        } else {
            Ended::Answered
        });
    }

    fn report(&self, ended: Ended) {
        self.metrics.ended(ended, context::now());
    }
}

impl<S, Req, A, W, K, R> fmt::Debug for ResponseFuture<S, Req, A, W, K, R>
where
    S: Service<Req>,
    A: Answer<Req, S::Response, R>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("call", &self.call)
            .field("fell_back", &self.later.is_some())
            .finish_non_exhaustive()
    }
}
