//! Calls as futures that are declared `Send`.
//!
//! The future of a service is `Send` if all types inside it are. Inside an `async` block the compiler checks this with
//! all lifetimes erased, and then does not know that a `BoxError` or a `&'static str` in one of these types is
//! `'static`: *implementation of `FnOnce` is not general enough*. The compiler does not look into a future that is
//! declared `Send`.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use crate::context;

pin_project! {
    /// A call to a service of this crate. The service is made ready at the first poll of the future.
    ///
    /// It is no `async` block, which would store the request and the future of the call side by side.
    #[project = OneCallProj]
    #[must_use = "futures do nothing unless polled"]
    pub(crate) enum OneCall<S, Req>
    where
        S: Service<Req>,
    {
        Ready { service: S, request: Option<Req>, is_direct: bool },
        Running { #[pin] future: S::Future },
    }
}

impl<S, Req> OneCall<S, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(crate) fn new(service: S, request: Req) -> Self {
        Self::begin(service, request, false)
    }

    /// Makes a call that is a [direct](context::DirectCall) one if `is_direct`, although it is made later.
    #[inline]
    pub(crate) fn begin(service: S, request: Req, is_direct: bool) -> Self {
        Self::Ready {
            service,
            request: Some(request),
            is_direct,
        }
    }
}

impl<S, Req> Future for OneCall<S, Req>
where
    S: Service<Req>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        loop {
            let future = match self.as_mut().project() {
                OneCallProj::Running { future } => return future.poll(cx),
                OneCallProj::Ready {
                    service,
                    request,
                    is_direct,
                } => {
                    ready!(service.poll_ready(cx))?;
                    match request.take() {
                        Some(request) => context::as_direct(*is_direct, || service.call(request)),
                        // The call has panicked.
                        None => return Poll::Pending,
                    }
                }
            };
            self.set(Self::Running { future });
        }
    }
}

impl<S, Req> fmt::Debug for OneCall<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready { .. } => "Ready",
            Self::Running { .. } => "Running",
        })
    }
}

/// Gives a service of this crate the method `send`.
macro_rules! send_method {
    ($service:ident<$($param:ident $(: $bound:path)?),*>) => {
        impl<$($param $(: $bound)?),*> $service<$($param),*> {
            /// Sends one request.
            ///
            /// The call is made on a clone, so you can share the service by reference and need no `poll_ready`. The
            /// future is `Send` and `'static` if the service and the request are: you can await it in a spawned task
            /// and in a handler of axum. There, with `ServiceExt::oneshot`, the compiler often rejects services with
            /// closures, boxes or `&'static str` (*implementation of `FnOnce` is not general enough*).
            ///
            /// Dropping the future cancels the call. Nothing happens before it is polled.
            ///
            /// # Errors
            ///
            /// Returns the errors of the service.
            pub fn send<Req>(
                &self,
                request: Req,
            ) -> impl Future<
                Output = Result<
                    <Self as tower::Service<Req>>::Response,
                    <Self as tower::Service<Req>>::Error,
                >,
            > + Send
            + use<$($param,)* Req>
            where
                Self: tower::Service<Req, Future: Send> + Clone + Send,
                Req: Send,
            {
                $crate::send::OneCall::new(self.clone(), request)
            }
        }
    };
}

pub(crate) use send_method;
