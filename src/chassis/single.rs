//! A layer by itself: one part, or a tuple of parts, around a service.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::held::{Core, Held, InFlight, Owner, Permits};
use super::part::{Part, PartFor};
use super::record::{EndedBy, of_error};
use crate::debug::debug_fields;
use crate::ready::{Call, Ready};
use crate::send::send_method;
use crate::{
    BoxError, Classify, CloneService, CompleteOnResponse, Error, ErrorsAreFailures, Evictable,
    Outcome, Reattempt, TrackCompletion,
};

/// The layer of a [`Part`].
///
/// All services made by one layer value, or by its clones, share the part.
pub struct PartLayer<P, K = ErrorsAreFailures, C = CompleteOnResponse> {
    core: Arc<Core<(), P>>,
    classify: K,
    completion: C,
}

/// A service behind a [`Part`]. Made by [`PartLayer`].
///
/// It is `Clone`, `Send` and `Sync` if the inner service is.
pub struct PartService<S, P, K = ErrorsAreFailures, C = CompleteOnResponse> {
    inner: Ready<S>,
    layer: PartLayer<P, K, C>,
}

impl<P: Part> PartLayer<P> {
    /// Makes a layer of `part`. Its calls are classified by [`ErrorsAreFailures`] and are over when the response has
    /// arrived.
    #[must_use]
    pub fn of(name: &'static str, part: P) -> Self {
        Self::with(
            name,
            Instant::now(),
            part,
            ErrorsAreFailures,
            CompleteOnResponse,
        )
    }
}

impl<P: Part, K, C> PartLayer<P, K, C> {
    /// Makes a layer whose part counts time from `origin`.
    pub(crate) fn with(
        name: &'static str,
        origin: Instant,
        part: P,
        classify: K,
        completion: C,
    ) -> Self {
        Self {
            core: Core::new(name, origin, (), part),
            classify,
            completion,
        }
    }

    /// Returns the part.
    pub fn part(&self) -> &P {
        &self.core.attempt
    }

    /// Wraps `service`. The compiler checks that it can serve requests of type `Req`.
    pub fn wrap<Req, S>(&self, service: S) -> PartService<S, P, K, C>
    where
        S: CloneService<Req>,
        P: PartFor<Req>,
        K: Classify<S::Response> + Clone,
        C: TrackCompletion<S::Response, K>,
    {
        self.layer(service)
    }

    /// Sets the classifier of calls. By default errors are failures.
    #[must_use]
    pub fn classify<K2>(self, classify: K2) -> PartLayer<P, K2, C> {
        PartLayer {
            core: self.core,
            classify,
            completion: self.completion,
        }
    }

    /// Sets the end of a call. By default a call ends when the inner service has returned its response.
    #[must_use]
    pub fn completion<C2>(self, completion: C2) -> PartLayer<P, K, C2> {
        PartLayer {
            core: self.core,
            classify: self.classify,
            completion,
        }
    }
}

impl<S, P, K: Clone, C: Clone> Layer<S> for PartLayer<P, K, C> {
    type Service = PartService<S, P, K, C>;

    fn layer(&self, inner: S) -> Self::Service {
        PartService {
            inner: Ready::new(inner),
            layer: self.clone(),
        }
    }
}

impl<P: Part, K, C> Evictable for PartLayer<P, K, C> {
    fn is_evictable(&self, now: Instant) -> bool {
        self.core.attempt.is_evictable(now)
    }
}

impl<P, K: Clone, C: Clone> Clone for PartLayer<P, K, C> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            classify: self.classify.clone(),
            completion: self.completion.clone(),
        }
    }
}

debug_fields!([P: fmt::Debug, K, C] PartLayer<P, K, C> { core.attempt });

impl<S: Clone, P, K: Clone, C: Clone> Clone for PartService<S, P, K, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            layer: self.layer.clone(),
        }
    }
}

debug_fields!(
    [S: fmt::Debug, P: fmt::Debug, K, C] PartService<S, P, K, C>
    { layer.core.attempt, inner }
);

send_method!(PartService<S, P, K, C>);

impl<S, P, K, C, Req> Service<Req> for PartService<S, P, K, C>
where
    S: CloneService<Req>,
    P: PartFor<Req>,
    K: Classify<S::Response> + Clone,
    C: TrackCompletion<S::Response, K>,
{
    type Response = C::Response<InFlight<(), P>>;
    type Error = Error;
    type Future = ResponseFuture<S, Req, P, K, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        if self.layer.core.attempt.is_open() {
            self.inner.poll(cx);
        }
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let PartLayer {
            core,
            classify,
            completion,
        } = self.layer.clone();
        // In one place from the beginning, which the future takes over unchanged.
        let mut place = Some(Held::new(core));
        let Some(held) = &mut place else {
            unreachable!("it was put there");
        };
        let at = held.owner.at();
        let admitted = held.admit(&request, &at);
        if admitted.is_err() || !held.is_sent() {
            return self.call_later(request, admitted, place);
        }
        self.inner
            .call_as(request, &mut place, move |call, held| ResponseFuture {
                call,
                held: held.take(),
                classify,
                completion,
            })
    }
}

impl<S, P: Part, K: Clone, C: Clone> PartService<S, P, K, C> {
    /// Makes a call that was refused or has to wait for its part. It holds nothing of the inner service.
    #[cold]
    #[inline(never)]
    fn call_later<Req>(
        &mut self,
        request: Req,
        admitted: Result<(), Error>,
        mut held: Option<Held<Arc<Core<(), P>>>>,
    ) -> ResponseFuture<S, Req, P, K, C>
    where
        S: Service<Req> + Clone,
    {
        if let Some(mut refused) = held.take_if(|_| admitted.is_err()) {
            refused.close();
        }
        ResponseFuture {
            call: self.inner.call_later(request, admitted),
            held,
            classify: self.layer.classify.clone(),
            completion: self.layer.completion.clone(),
        }
    }
}

pin_project! {
    /// The response future of [`PartService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, P, K, C>
    where
        S: Service<Req>,
        P: Part,
    {
        // Declared before the permits, so that its resources are given back first when both are dropped.
        #[pin]
        call: Call<S, Req>,
        held: Option<Held<Arc<Core<(), P>>>>,
        classify: K,
        completion: C,
    }
}

impl<S, Req, P, K, C> Future for ResponseFuture<S, Req, P, K, C>
where
    S: Service<Req, Error: Into<BoxError> + 'static>,
    P: Part,
    K: Classify<S::Response>,
    C: TrackCompletion<S::Response, K>,
{
    type Output = Result<C::Response<InFlight<(), P>>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(held) = this.held.as_mut() else {
            return refused(this.call, cx);
        };
        let result = ready!(poll_attempt(this.call.as_mut(), held, cx));
        let verdict = judge(this.classify, &result);
        let Held { owner, permits } = held;
        Poll::Ready(complete(
            owner,
            permits,
            result,
            verdict,
            || None,
            this.classify,
            this.completion,
        ))
    }
}

debug_fields!([S: Service<Req>, Req, P: Part, K, C] ResponseFuture<S, Req, P, K, C> { call, held });

/// Polls a call that was refused.
#[cold]
fn refused<S, Req, Res>(
    call: Pin<&mut Call<S, Req>>,
    cx: &mut task::Context<'_>,
) -> Poll<Result<Res, Error>>
where
    S: Service<Req, Error: Into<BoxError> + 'static>,
{
    match ready!(call.poll(cx, || "")) {
        Err(error) => Poll::Ready(Err(error)),
        Ok(_) => Poll::Pending,
    }
}

/// Polls an attempt: first the waits for its parts, then the inner service.
#[inline(always)]
pub(super) fn poll_attempt<S, Req, W>(
    mut call: Pin<&mut Call<S, Req>>,
    held: &mut Held<W>,
    cx: &mut task::Context<'_>,
) -> Poll<Result<S::Response, Error>>
where
    S: Service<Req, Error: Into<BoxError> + 'static>,
    W: Owner,
{
    if !held.is_sent() {
        if let Err(error) = ready!(held.poll_wait(cx)) {
            // Frees the request.
            call.set(Call::Done);
            return Poll::Ready(Err(error));
        }
    }
    call.poll(cx, || held.core().name)
}

/// Classifies the result of an attempt.
#[inline(always)]
pub(super) fn judge<Res, K>(classify: &K, result: &Result<Res, Error>) -> (Outcome, EndedBy)
where
    K: Classify<Res>,
{
    match result {
        Ok(response) => match classify.classify(Ok(response)) {
            outcome @ (Outcome::Failure | Outcome::Overload { .. }) => {
                (outcome, end_of_failure(classify, response))
            }
            outcome => (outcome, EndedBy::Service),
        },
        Err(error) => judge_error(classify, error),
    }
}

#[cold]
#[inline(never)]
fn end_of_failure<Res, K>(classify: &K, response: &Res) -> EndedBy
where
    K: Classify<Res>,
{
    if classify.is_deadline_exceeded(response) {
        EndedBy::DeadlineAnswer
    } else {
        EndedBy::Service
    }
}

#[cold]
#[inline(never)]
fn judge_error<Res, K>(classify: &K, error: &Error) -> (Outcome, EndedBy)
where
    K: Classify<Res>,
{
    match of_error(error).0 {
        EndedBy::Refusal => (Outcome::Ignored, EndedBy::Refusal),
        ended_by => (classify.classify(Err(error)), ended_by),
    }
}

/// Returns whether another attempt may be of use, by the answer of the service. After a refusal by an inner layer it is
/// of no use.
#[cold]
#[inline(never)]
pub(super) fn reattempt<Res, K>(
    classify: &K,
    result: &Result<Res, Error>,
    (outcome, ended_by): (Outcome, EndedBy),
) -> Reattempt
where
    K: Classify<Res>,
{
    if outcome == Outcome::Success || ended_by == EndedBy::Refusal {
        return Reattempt::Never;
    }
    classify.reattempt(result.as_ref())
}

/// Ends a call with the classified result of its last attempt. It settles the permits, or moves them into the response,
/// which must be over by the deadline.
#[inline(always)]
pub(super) fn complete<Res, O, A, K, C>(
    core: &Arc<Core<O, A>>,
    permits: &mut Permits<O, A>,
    result: Result<Res, Error>,
    (outcome, ended_by): (Outcome, EndedBy),
    deadline: impl FnOnce() -> Option<Instant>,
    classify: &K,
    completion: &C,
) -> Result<C::Response<InFlight<O, A>>, Error>
where
    O: Part,
    A: Part,
    C: TrackCompletion<Res, K>,
{
    let at = core.at();
    match result {
        Ok(response) => {
            let Some(outcome) = completion.ended(&response, outcome, classify) else {
                let permit = InFlight::take(core, permits, ended_by, deadline());
                return Ok(completion.attach(response, outcome, classify, Some(permit)));
            };
            permits.settle(core, &permits.record(outcome, ended_by, &at));
            Ok(completion.attach(response, outcome, classify, None))
        }
        Err(error) => {
            let mut record = permits.record(outcome, ended_by, &at);
            record.sent = of_error(&error).1;
            permits.settle(core, &record);
            Err(error)
        }
    }
}
