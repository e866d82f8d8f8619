//! The response future of keyed.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use crate::{BoxError, Error, context};

pin_project! {
    /// The response future of [`Keyed`](super::Keyed).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<W, Req, L>
    where
        W: Service<Req>,
    {
        #[pin]
        step: Step<W, Req>,
        // Keeps the key in use. Last, so that what the call holds is given back first.
        layer: Arc<L>,
    }
}

pin_project! {
    /// A service of the key's layer, until it has been called.
    #[project = StepProj]
    enum Step<W, Req>
    where
        W: Service<Req>,
    {
        Ready { service: W, request: Option<Req>, is_direct: bool },
        Running { #[pin] future: W::Future },
    }
}

impl<W, Req, L> ResponseFuture<W, Req, L>
where
    W: Service<Req>,
{
    #[inline]
    pub(super) fn new(service: W, request: Req, layer: Arc<L>) -> Self {
        let request = Some(request);
        Self {
            step: Step::Ready {
                service,
                request,
                is_direct: context::take_direct(),
            },
            layer,
        }
    }
}

impl<W, Req, L> Future for ResponseFuture<W, Req, L>
where
    W: Service<Req, Error: Into<BoxError> + 'static>,
{
    type Output = Result<W::Response, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut step = self.project().step;
        loop {
            let future = match step.as_mut().project() {
                StepProj::Running { future } => {
                    let result = ready!(future.poll(cx));
                    return Poll::Ready(result.map_err(|error| Error::of_service(error, || "")));
                }
                StepProj::Ready {
                    service,
                    request,
                    is_direct,
                } => {
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        return Poll::Ready(Err(Error::of_service(error, || "")));
                    }
                    match request.take() {
                        Some(request) => context::as_direct(*is_direct, || service.call(request)),
                        // It panicked when it was called.
                        None => return Poll::Pending,
                    }
                }
            };
            step.set(Step::Running { future });
        }
    }
}

impl<W, Req, L> fmt::Debug for ResponseFuture<W, Req, L>
where
    W: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.step {
            Step::Ready { .. } => "Ready",
            Step::Running { .. } => "Running",
        })
    }
}
