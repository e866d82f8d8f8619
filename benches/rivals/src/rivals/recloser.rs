//! recloser: a circuit breaker for futures, without a Tower layer. Its window is the last 100 calls.

use std::task::{Context, Poll};

use recloser::{AnyError, AsyncRecloser, Recloser, RecloserFuture};
use tower::{BoxError, Layer, Service};

use super::DAY;
use super::guard::Guarded;

#[derive(Clone, Debug)]
pub(crate) struct RecloserLayer {
    breaker: AsyncRecloser,
}

/// A breaker with the defaults: half of the last 100 calls, open for 30 s.
pub(crate) fn breaker() -> RecloserLayer {
    RecloserLayer {
        breaker: Recloser::default().into(),
    }
}

/// One that stays open while rejections are measured.
pub(crate) fn stays_open() -> RecloserLayer {
    RecloserLayer {
        breaker: Recloser::custom().open_wait(DAY).build().into(),
    }
}

impl<S> Layer<S> for RecloserLayer {
    type Service = Reclosed<S>;

    fn layer(&self, inner: S) -> Reclosed<S> {
        Reclosed {
            inner,
            breaker: self.breaker.clone(),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Reclosed<S> {
    inner: S,
    breaker: AsyncRecloser,
}

impl<S, Req> Service<Req> for Reclosed<S>
where
    S: Service<Req, Error: Into<BoxError>>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Guarded<RecloserFuture<S::Future, AnyError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    /// The breaker takes a future: that of the inner service is made, and not polled while the breaker is open.
    fn call(&mut self, request: Req) -> Self::Future {
        Guarded::new(self.breaker.call(self.inner.call(request)))
    }
}
