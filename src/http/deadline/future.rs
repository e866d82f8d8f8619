//! The response future of the propagation.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll};

use pin_project_lite::pin_project;

use super::headers::Headers;
use super::stamp::Stamp;
use crate::ready::Call;
use crate::{CloneService, Error, context};

pin_project! {
    /// The response future of [`PropagateDeadline`](super::PropagateDeadline).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, H, Req>
    where
        S: CloneService<Req>,
        H: Headers<Req>,
    {
        #[pin]
        call: Call<Stamp<S, H>, Req>,
    }
}

impl<S, H, Req> ResponseFuture<S, H, Req>
where
    S: CloneService<Req>,
    H: Headers<Req>,
{
    #[inline]
    pub(super) fn new(call: Call<Stamp<S, H>, Req>) -> Self {
        Self { call }
    }

    /// The answer to a call that is made too late.
    pub(super) fn refused(error: Error) -> Self {
        Self::new(Call::failed(error))
    }
}

impl<S, H, Req> Future for ResponseFuture<S, H, Req>
where
    S: CloneService<Req>,
    H: Headers<Req>,
{
    type Output = Result<S::Response, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let call = self.project().call;
        if call.is_waiting() {
            // The request may be sent now, and what the header says is a duration that ends now.
            return context::unclocked(|| call.poll(cx, || ""));
        }
        call.poll(cx, || "")
    }
}

impl<S, H, Req> fmt::Debug for ResponseFuture<S, H, Req>
where
    S: CloneService<Req>,
    H: Headers<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("call", &self.call)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{Ready, ready};
    use std::pin::pin;
    use std::time::Duration;

    use ::http::{HeaderValue, Request};
    use tokio::time::{Instant, advance};
    use tower::Service;

    use crate::BoxError;
    use crate::context::{ClockScope, DeadlineScope};
    use crate::http::PropagateDeadlineLayer;

    /// Is ready when it is asked a second time, for which it takes a second without giving up the thread. Answers
    /// with the header.
    #[derive(Clone)]
    struct Blocks(u32);

    impl Service<Request<()>> for Blocks {
        type Response = HeaderValue;
        type Error = BoxError;
        type Future = Ready<Result<HeaderValue, BoxError>>;

        fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), BoxError>> {
            self.0 += 1;
            if self.0 == 1 {
                return Poll::Pending;
            }
            // Time has passed when this is polled once.
            let passes = pin!(advance(Duration::from_secs(1))).poll(cx);
            assert!(passes.is_pending());
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<()>) -> Self::Future {
            ready(Ok(request.headers()["x-request-timeout-ms"].clone()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_is_read_when_the_request_is_sent() {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut client = PropagateDeadlineLayer::new("inventory").wrap(Blocks(0));
        let mut cx = task::Context::from_waker(task::Waker::noop());
        assert!(client.poll_ready(&mut cx).is_ready());
        let _deadline = DeadlineScope::enter(deadline);
        let mut call = pin!(client.call(Request::new(())));
        // A layer outside has read the clock before.
        let _clock = ClockScope::poll();
        context::now();
        let Poll::Ready(answer) = call.as_mut().poll(&mut cx) else {
            panic!("it is ready");
        };
        assert_eq!(answer.expect("is sent"), "4000");
    }
}
