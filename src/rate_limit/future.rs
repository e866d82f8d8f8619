//! The response future of the rate limit.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::shared::Shared;
use super::turn::Turn;
use crate::outcome::classify_result;
use crate::ready::Call;
use crate::{BoxError, Classify, Error};

pin_project! {
    /// The response future of [`RateLimit`](super::RateLimit).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, K>
    where
        S: Service<Req>,
    {
        #[pin]
        call: Call<S, Req>,
        // What the call waits for.
        turn: Option<Pin<Box<Turn>>>,
        // Who wants to hear what the service says about staying away.
        hears: Option<Arc<Shared>>,
        classify: K,
    }
}

impl<S, Req, K> ResponseFuture<S, Req, K>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn new(
        call: Call<S, Req>,
        turn: Option<Pin<Box<Turn>>>,
        hears: Option<Arc<Shared>>,
        classify: K,
    ) -> Self {
        Self {
            call,
            turn,
            hears,
            classify,
        }
    }
}

impl<S, Req, K> Future for ResponseFuture<S, Req, K>
where
    S: Service<Req, Error: Into<BoxError> + 'static>,
    K: Classify<S::Response>,
{
    type Output = Result<S::Response, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(turn) = this.turn {
            let went = ready!(turn.as_mut().poll(cx));
            *this.turn = None;
            if let Err(refused) = went {
                this.call.set(Call::Done);
                return Poll::Ready(Err(refused));
            }
        }
        let result = ready!(this.call.poll(cx, || {
            this.hears.as_ref().map_or("", |shared| shared.name())
        }));
        if let Some(shared) = this.hears.take() {
            if let Some(retry_after) = classify_result(this.classify, &result).retry_after() {
                shared.hinted(retry_after);
            }
        }
        Poll::Ready(result)
    }
}

impl<S, Req, K> fmt::Debug for ResponseFuture<S, Req, K>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("call", &self.call)
            .field("waits_for_tokens", &self.turn.is_some())
            .finish_non_exhaustive()
    }
}
