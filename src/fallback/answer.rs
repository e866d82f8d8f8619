//! What a fallback answers with.

use std::future::Pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{self, Poll};

use tokio::time::Instant;
use tower::Service;

use super::failed::Failed;
use crate::context::DirectCall;
use crate::ready::Call;
use crate::sync::lock;
use crate::{BoxError, CloneService, Error, Replay, context};

/// Gives the answers of a fallback.
///
/// Implemented for what [`value`], [`from_failure`], [`from_request`] and [`service`] return.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not answer requests of type `{Req}` with `{Res}`",
    label = "this is not the answer of a fallback",
    note = "write `fallback::value(answer)` for an answer that is `Clone` and of the service's own response type, or `fallback::from_failure`, `fallback::from_request` or `fallback::service`"
)]
pub trait Answer<Req, Res, R> {
    /// What is kept of the request while the primary works on it.
    type Captured;

    /// An answer that has to be waited for.
    type Future: Future<Output = Result<Res, Error>> + Unpin;

    /// Copies what the answer will need.
    fn keep(&self, replay: &R, request: &Req) -> Self::Captured;

    /// Answers in place of a call that failed.
    ///
    /// # Errors
    ///
    /// The reason why there is no answer: the failure comes back.
    fn answer(
        &self,
        replay: &R,
        kept: Self::Captured,
        failed: Failed<'_, Res>,
    ) -> Result<Reply<Res, Self::Future>, NoAnswer>;
}

/// An answer in place of a failed call.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reply<Res, F> {
    /// It is there.
    Answered(Res),
    /// It has to be waited for.
    Later(F),
}

/// Why a fallback had no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoAnswer {
    /// The function returned none.
    None,
    /// There was no copy of the request.
    NotCopyable,
    /// Acting twice on the request does harm, and the service may have acted on it.
    NotIdempotent,
    /// The deadline had passed.
    Deadline,
}

impl NoAnswer {
    /// The value of the label `result`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::None => "no_answer",
            Self::NotCopyable => "not_copyable",
            Self::NotIdempotent => "not_idempotent",
            Self::Deadline => "deadline",
        }
    }
}

/// The same answer always, of the service's response type.
pub fn value<Res: Clone>(value: Res) -> Value<Res> {
    Value(value)
}

/// The answer that a function gives to the failure; `None` if it has none.
pub fn from_failure<Res, F>(answer: F) -> FromFailure<F>
where
    F: Fn(Failed<'_, Res>) -> Option<Res>,
{
    FromFailure(answer)
}

/// The answer that a function gives to a copy of the request and the failure; `None` if it has none, as when
/// a cache does not know the request.
pub fn from_request<Req, Res, F>(answer: F) -> FromRequest<F>
where
    F: Fn(Req, Failed<'_, Res>) -> Option<Res>,
{
    FromRequest(answer)
}

/// The answer of another service to a copy of the request.
///
/// It is cloned for each call to it.
pub fn service<S: Clone>(service: S) -> FromService<S> {
    FromService(Arc::new(Mutex::new(service)))
}

/// Made by [`value`].
#[derive(Clone, Debug, PartialEq)]
pub struct Value<Res>(Res);

impl<Req, Res: Clone, R> Answer<Req, Res, R> for Value<Res> {
    type Captured = ();
    type Future = Pending<Result<Res, Error>>;

    #[inline]
    fn keep(&self, _replay: &R, _request: &Req) {}

    fn answer(
        &self,
        _replay: &R,
        (): (),
        _failed: Failed<'_, Res>,
    ) -> Result<Reply<Res, Self::Future>, NoAnswer> {
        Ok(Reply::Answered(self.0.clone()))
    }
}

/// Made by [`from_failure`].
#[derive(Clone, Debug, PartialEq)]
pub struct FromFailure<F>(F);

impl<Req, Res, R, F> Answer<Req, Res, R> for FromFailure<F>
where
    F: Fn(Failed<'_, Res>) -> Option<Res>,
{
    type Captured = ();
    type Future = Pending<Result<Res, Error>>;

    #[inline]
    fn keep(&self, _replay: &R, _request: &Req) {}

    fn answer(
        &self,
        _replay: &R,
        (): (),
        failed: Failed<'_, Res>,
    ) -> Result<Reply<Res, Self::Future>, NoAnswer> {
        let answer = (self.0)(failed).ok_or(NoAnswer::None)?;
        Ok(Reply::Answered(answer))
    }
}

/// Made by [`from_request`].
#[derive(Clone, Debug, PartialEq)]
pub struct FromRequest<F>(F);

impl<Req, Res, R, F> Answer<Req, Res, R> for FromRequest<F>
where
    F: Fn(Req, Failed<'_, Res>) -> Option<Res>,
    R: Replay<Req>,
{
    type Captured = Option<Req>;
    type Future = Pending<Result<Res, Error>>;

    #[inline]
    fn keep(&self, replay: &R, request: &Req) -> Option<Req> {
        replay.copy(request)
    }

    fn answer(
        &self,
        _replay: &R,
        kept: Option<Req>,
        failed: Failed<'_, Res>,
    ) -> Result<Reply<Res, Self::Future>, NoAnswer> {
        let request = kept.ok_or(NoAnswer::NotCopyable)?;
        let answer = (self.0)(request, failed).ok_or(NoAnswer::None)?;
        Ok(Reply::Answered(answer))
    }
}

/// Made by [`service`].
#[derive(Clone, Debug)]
pub struct FromService<S>(Arc<Mutex<S>>);

impl<S> PartialEq for FromService<S> {
    /// The same value, or a clone of it.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<Req, Res, R, S> Answer<Req, Res, R> for FromService<S>
where
    S: CloneService<Req> + Service<Req, Response = Res>,
    R: Replay<Req>,
{
    type Captured = Option<Req>;
    type Future = ServiceFuture<S, Req>;

    #[inline]
    fn keep(&self, replay: &R, request: &Req) -> Option<Req> {
        replay.copy(request)
    }

    fn answer(
        &self,
        replay: &R,
        kept: Option<Req>,
        failed: Failed<'_, Res>,
    ) -> Result<Reply<Res, Self::Future>, NoAnswer> {
        let request = kept.ok_or(NoAnswer::NotCopyable)?;
        let error = failed.result().err();
        let may_have_acted = error.is_none_or(|error| error.was_sent());
        if may_have_acted && !replay.is_idempotent(&request) {
            return Err(NoAnswer::NotIdempotent);
        }
        if context::deadline().is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(NoAnswer::Deadline);
        }
        let service = lock(&self.0).clone();
        let _direct = DirectCall::enter();
        let call = Box::pin(Call::waiting(service, request));
        Ok(Reply::Later(ServiceFuture { call }))
    }
}

/// A call to the second service.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct ServiceFuture<S, Req>
where
    S: Service<Req>,
{
    call: Pin<Box<Call<S, Req>>>,
}

impl<S, Req> Future for ServiceFuture<S, Req>
where
    S: Service<Req, Error: Into<BoxError> + 'static>,
{
    type Output = Result<S::Response, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        self.call.as_mut().poll(cx, || "")
    }
}
