//! The response future of the fallback.

use std::mem;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

use super::answer::{ANSWERED, Answer, NoAnswer, Reply};
use super::failed::{Failed, ShouldHandle};
use super::layer::FallbackLayer;
use crate::debug::debug_fields;
use crate::outcome::classify_result;
use crate::ready::Call;
use crate::telemetry::table::FALLBACKS;
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
        step: StepOf<A, Req, S::Response, R>,
        layer: FallbackLayer<A, W, K, R>,
    }
}

type StepOf<A, Req, Res, R> = Step<
    <A as Answer<Req, Res, R>>::Captured,
    <A as Answer<Req, Res, R>>::Future,
    <A as Answer<Req, Res, R>>::Lookup,
    Res,
>;

enum Step<C, F, L, Res> {
    /// The primary works. The state holds the data of the request that the fallback will need.
    Primary {
        kept: C,
        is_direct: bool,
    },
    /// The answer takes time. `primary` is the error of the primary, if it ended in an error.
    Second {
        answer: F,
        primary: Option<Error>,
        is_direct: bool,
    },
    /// The lookup of an answer. If it finds none, the caller gets the result of the primary, which is boxed because it
    /// may be large.
    Lookup {
        answer: L,
        primary: Box<Result<Res, Error>>,
        is_direct: bool,
    },
    Over,
}

impl<S, Req, A, W, K, R> ResponseFuture<S, Req, A, W, K, R>
where
    S: Service<Req>,
    A: Answer<Req, S::Response, R>,
{
    #[inline]
    pub(super) fn new(
        call: Call<S, Req>,
        kept: A::Captured,
        is_direct: bool,
        layer: FallbackLayer<A, W, K, R>,
    ) -> Self {
        Self {
            call,
            step: Step::Primary { kept, is_direct },
            layer,
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
    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let is_direct = match self.step {
            Step::Primary { is_direct, .. }
            | Step::Second { is_direct, .. }
            | Step::Lookup { is_direct, .. } => is_direct,
            Step::Over => false,
        };
        let mut result = ready!(self.as_mut().poll_both(cx));
        if let Err(error) = &mut result {
            error.leave(self.layer.policy.metrics.name(), is_direct);
        }
        Poll::Ready(result)
    }
}

impl<S, Req, A, W, K, R> ResponseFuture<S, Req, A, W, K, R>
where
    S: Service<Req, Error: Into<BoxError> + 'static>,
    A: Answer<Req, S::Response, R>,
    W: ShouldHandle<S::Response>,
    K: Classify<S::Response>,
{
    /// Polls the primary, and then the answer in its place.
    #[inline]
    fn poll_both(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Result<S::Response, Error>> {
        let mut this = self.project();
        let layer = &*this.layer;
        let (config, name) = (&layer.policy.config, || layer.policy.metrics.name());
        if let Step::Primary { is_direct, .. } = *this.step {
            let result = ready!(this.call.as_mut().poll(cx, name));
            let outcome = classify_result(&config.classify, &result);
            let failed = Failed::new(outcome, &result);
            if matches!(outcome, Outcome::Success | Outcome::Cancelled)
                || !config.settings.when.should_handle(failed)
            {
                return Poll::Ready(result);
            }
            let Step::Primary { kept, .. } = mem::replace(this.step, Step::Over) else {
                return Poll::Ready(result);
            };
            // The primary gives back its resources before the fallback is asked.
            this.call.set(Call::Done);
            match layer.reply(kept, is_direct, outcome, result) {
                Ok(step) => *this.step = step,
                Err(result) => return Poll::Ready(result),
            }
        }
        let result = match this.step {
            Step::Second {
                answer, primary, ..
            } => ready!(Pin::new(answer).poll(cx)).map_err(|own| {
                let mut own = Error::of_service(own, name);
                // The operation must not appear as if no service had seen the request.
                match primary.take() {
                    Some(primary) if !own.was_sent() => return primary,
                    Some(_) => {}
                    None => own.set_sent(),
                }
                own
            }),
            Step::Lookup { answer, .. } => match ready!(Pin::new(answer).poll(cx)) {
                Some(answer) => Ok(answer),
                None => match mem::replace(this.step, Step::Over) {
                    Step::Lookup { primary, .. } => {
                        layer.report(NoAnswer::None.label());
                        return Poll::Ready(*primary);
                    }
                    _ => return Poll::Pending,
                },
            },
            Step::Primary { .. } | Step::Over => return Poll::Pending,
        };
        *this.step = Step::Over;
        let has_failed =
            result.is_err() || classify_result(&config.classify, &result).is_declined();
        layer.report(if has_failed { "failed" } else { "answered" });
        Poll::Ready(result)
    }
}

impl<A, W, K, R> FallbackLayer<A, W, K, R> {
    /// Answers at once, or returns the step that waits for the answer.
    #[cold]
    fn reply<Req, Res>(
        &self,
        kept: A::Captured,
        is_direct: bool,
        outcome: Outcome,
        result: Result<Res, Error>,
    ) -> Result<StepOf<A, Req, Res, R>, Result<Res, Error>>
    where
        A: Answer<Req, Res, R>,
    {
        let failed = Failed::new(outcome, &result);
        let config = &self.policy.config;
        match config.settings.answer.answer(&config.request, kept, failed) {
            Ok(Reply::Later(answer)) => Ok(Step::Second {
                answer,
                // A response is dropped here, before the call: it may hold a connection.
                primary: result.err(),
                is_direct,
            }),
            Ok(Reply::Lookup(answer)) => Ok(Step::Lookup {
                answer,
                primary: Box::new(result),
                is_direct,
            }),
            Ok(Reply::Answered(answer)) => {
                self.report(ANSWERED);
                Err(Ok(answer))
            }
            Err(why) => {
                self.report(why.label());
                Err(result)
            }
        }
    }

    /// Counts a failed call that the fallback acted on.
    fn report(&self, result: &'static str) {
        let metrics = self.policy.metrics;
        metrics.report(Instant::now(), |handles| {
            handles.count(&FALLBACKS, &[result]);
        });
    }
}

debug_fields!(
    [S: Service<Req>, Req, A: Answer<Req, S::Response, R>, W, K, R]
    ResponseFuture<S, Req, A, W, K, R> { call }
);
