//! Answers of a fallback.

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
/// The values that [`value`], [`from_failure`], [`from_request`] and [`service`] return implement it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not answer requests of type `{Req}` with `{Res}`",
    label = "this is not the answer of a fallback",
    note = "write `fallback::value(answer)` for an answer that is `Clone` and of the service's own response type, or `fallback::from_failure`, `fallback::from_request`, `fallback::from_request_async` or `fallback::service`"
)]
pub trait Answer<Req, Res, R> {
    /// The copy of the request that is kept while the primary works.
    type Captured;

    /// Future of an answer that takes time.
    type Future: Future<Output = Result<Res, Error>> + Unpin;

    /// Future that looks for an answer, and ends in `None` if there is none.
    type Lookup: Future<Output = Option<Res>> + Unpin;

    /// Copies the data that the answer will need.
    fn keep(&self, replay: &R, request: &Req) -> Self::Captured;

    /// Answers in place of a call that failed.
    ///
    /// # Errors
    ///
    /// Returns the reason for no answer. The caller then gets the failure.
    fn answer(
        &self,
        replay: &R,
        kept: Self::Captured,
        failed: Failed<'_, Res>,
    ) -> Result<Reply<Res, Self::Future, Self::Lookup>, NoAnswer>;
}

/// An answer in place of a failed call.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reply<Res, F, L> {
    /// The answer is known.
    Answered(Res),
    /// The answer takes time. The response of the failed call is dropped first.
    Later(F),
    /// There may be an answer. If there is none, the caller gets the failure.
    Lookup(L),
}

/// Reason for no answer of a fallback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoAnswer {
    /// The function returned `None`.
    None,
    /// There was no copy of the request.
    NotCopyable,
    /// The request must not act twice, and the service may have acted on it.
    NotIdempotent,
    /// The deadline had passed.
    Deadline,
}

/// The value of the label `result` for a failed call that got an answer.
pub(super) const ANSWERED: &str = "answered";

impl NoAnswer {
    /// Returns the value of the label `result`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::None => "no_answer",
            Self::NotCopyable => "not_copyable",
            Self::NotIdempotent => "not_idempotent",
            Self::Deadline => "deadline",
        }
    }
}

/// Always answers with the same value, of the service's response type.
pub fn value<Res: Clone>(value: Res) -> Value<Res> {
    Value(value)
}

/// Answers with a function of the failure, which returns `None` if it has no answer.
pub fn from_failure<Res, F>(answer: F) -> FromFailure<F>
where
    F: Fn(Failed<'_, Res>) -> Option<Res>,
{
    FromFailure(answer)
}

/// Answers with a function of a copy of the request and the failure. It returns `None` if it has no answer, for example
/// because a cache does not contain the item.
pub fn from_request<Req, Res, F>(answer: F) -> FromRequest<F>
where
    F: Fn(Req, Failed<'_, Res>) -> Option<Res>,
{
    FromRequest(answer)
}

/// Answers with an async function of a copy of the request and the failure, such as one that reads a cache in another
/// process. It returns `None` if it has no answer.
///
/// The function is not called after the deadline. It is called even if the failed call may have acted on the request.
///
/// The future must not borrow the failure. Take the data that you need, such as [`Failed::kind`], before the async
/// block.
///
/// # Examples
///
/// ```
/// use buttress::fallback::{self, Failed};
/// use buttress::{BoxError, FallbackLayer};
/// # #[derive(Clone)]
/// # struct Cache;
/// # impl Cache {
/// #     async fn get(&self, item: &str) -> Option<String> { (item == "bolts").then(|| "12 bolts, yesterday".into()) }
/// # }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), BoxError> {
/// # let cache = Cache;
/// let cached = fallback::from_request_async(move |item: &'static str, _: Failed<'_, String>| {
///     let cache = cache.clone();
///     async move { cache.get(item).await }
/// });
/// let stock = tower::service_fn(async |_: &'static str| Err::<String, BoxError>("reset".into()));
/// let stock = FallbackLayer::new("stock", cached).wrap(stock);
/// assert_eq!(stock.send("bolts").await?, "12 bolts, yesterday");
/// assert!(stock.send("nuts").await.is_err());
/// # Ok(())
/// # }
/// ```
pub fn from_request_async<Req, Res, F, Fut>(answer: F) -> FromRequestAsync<F>
where
    F: Fn(Req, Failed<'_, Res>) -> Fut,
    Fut: Future<Output = Option<Res>>,
{
    FromRequestAsync(answer)
}

/// Answers with another service, called with a copy of the request.
///
/// The service is cloned for each call.
pub fn service<S: Clone>(service: S) -> FromService<S> {
    FromService(Arc::new(Mutex::new(service)))
}

/// Answer of a fallback, made by [`value`].
#[derive(Clone, Debug, PartialEq)]
pub struct Value<Res>(Res);

impl<Req, Res: Clone, R> Answer<Req, Res, R> for Value<Res> {
    type Captured = ();
    type Future = Pending<Result<Res, Error>>;
    type Lookup = Pending<Option<Res>>;

    #[inline]
    fn keep(&self, _replay: &R, _request: &Req) {}

    fn answer(
        &self,
        _replay: &R,
        (): (),
        _failed: Failed<'_, Res>,
    ) -> Result<Reply<Res, Self::Future, Self::Lookup>, NoAnswer> {
        Ok(Reply::Answered(self.0.clone()))
    }
}

/// Answer of a fallback, made by [`from_failure`].
#[derive(Clone, Debug, PartialEq)]
pub struct FromFailure<F>(F);

impl<Req, Res, R, F> Answer<Req, Res, R> for FromFailure<F>
where
    F: Fn(Failed<'_, Res>) -> Option<Res>,
{
    type Captured = ();
    type Future = Pending<Result<Res, Error>>;
    type Lookup = Pending<Option<Res>>;

    #[inline]
    fn keep(&self, _replay: &R, _request: &Req) {}

    fn answer(
        &self,
        _replay: &R,
        (): (),
        failed: Failed<'_, Res>,
    ) -> Result<Reply<Res, Self::Future, Self::Lookup>, NoAnswer> {
        let answer = (self.0)(failed).ok_or(NoAnswer::None)?;
        Ok(Reply::Answered(answer))
    }
}

/// Answer of a fallback, made by [`from_request`].
#[derive(Clone, Debug, PartialEq)]
pub struct FromRequest<F>(F);

impl<Req, Res, R, F> Answer<Req, Res, R> for FromRequest<F>
where
    F: Fn(Req, Failed<'_, Res>) -> Option<Res>,
    R: Replay<Req>,
{
    type Captured = Option<Req>;
    type Future = Pending<Result<Res, Error>>;
    type Lookup = Pending<Option<Res>>;

    #[inline]
    fn keep(&self, replay: &R, request: &Req) -> Option<Req> {
        replay.copy(request)
    }

    fn answer(
        &self,
        _replay: &R,
        kept: Option<Req>,
        failed: Failed<'_, Res>,
    ) -> Result<Reply<Res, Self::Future, Self::Lookup>, NoAnswer> {
        let request = kept.ok_or(NoAnswer::NotCopyable)?;
        let answer = (self.0)(request, failed).ok_or(NoAnswer::None)?;
        Ok(Reply::Answered(answer))
    }
}

/// Answer of a fallback, made by [`from_request_async`].
#[derive(Clone, Debug, PartialEq)]
pub struct FromRequestAsync<F>(F);

impl<Req, Res, R, F, Fut> Answer<Req, Res, R> for FromRequestAsync<F>
where
    F: Fn(Req, Failed<'_, Res>) -> Fut,
    Fut: Future<Output = Option<Res>>,
    R: Replay<Req>,
{
    type Captured = Option<Req>;
    type Future = Pending<Result<Res, Error>>;
    type Lookup = Pin<Box<Fut>>;

    #[inline]
    fn keep(&self, replay: &R, request: &Req) -> Option<Req> {
        replay.copy(request)
    }

    fn answer(
        &self,
        _replay: &R,
        kept: Option<Req>,
        failed: Failed<'_, Res>,
    ) -> Result<Reply<Res, Self::Future, Self::Lookup>, NoAnswer> {
        let request = kept.ok_or(NoAnswer::NotCopyable)?;
        check_deadline()?;
        Ok(Reply::Lookup(Box::pin((self.0)(request, failed))))
    }
}

/// Answer of a fallback, made by [`service`].
#[derive(Clone, Debug)]
pub struct FromService<S>(Arc<Mutex<S>>);

impl<S> PartialEq for FromService<S> {
    /// Returns the value, or a clone of it.
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
    type Lookup = Pending<Option<Res>>;

    #[inline]
    fn keep(&self, replay: &R, request: &Req) -> Option<Req> {
        replay.copy(request)
    }

    fn answer(
        &self,
        replay: &R,
        kept: Option<Req>,
        failed: Failed<'_, Res>,
    ) -> Result<Reply<Res, Self::Future, Self::Lookup>, NoAnswer> {
        let request = kept.ok_or(NoAnswer::NotCopyable)?;
        let error = failed.result().err();
        let may_have_acted = error.is_none_or(|error| error.was_sent());
        if may_have_acted && !replay.is_idempotent(&request) {
            return Err(NoAnswer::NotIdempotent);
        }
        check_deadline()?;
        let service = lock(&self.0).clone();
        let _direct = DirectCall::enter();
        let call = Box::pin(Call::waiting(service, request));
        Ok(Reply::Later(ServiceFuture { call }))
    }
}

/// Refuses an answer that would come after the deadline.
fn check_deadline() -> Result<(), NoAnswer> {
    match context::deadline() {
        Some(deadline) if deadline <= Instant::now() => Err(NoAnswer::Deadline),
        _ => Ok(()),
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
