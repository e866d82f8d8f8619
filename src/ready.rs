//! Readiness of the inner service, waited for inside the call.
//!
//! In Tower, the wait is in `poll_ready`, outside the call: a reservation there belongs to a handle that may never be
//! called, no timeout covers the wait, and an error from `poll_ready` ends the stack. All layers of this crate use
//! [`Ready`] instead. It polls the inner service once, stores the answer and never waits. If the inner service is not
//! ready, the response future waits for its readiness.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use crate::{BoxError, Error, context};

/// A service that the layers of this crate can wrap.
///
/// It is implemented for every `tower::Service` that is `Clone` and whose error is `'static` and converts into
/// [`BoxError`]. You never implement it by hand.
///
/// # Examples
///
/// A bound for code that puts layers around any client:
///
/// ```
/// use buttress::stack::StandardService;
/// use buttress::{ConfigError, CloneService, standard};
///
/// fn inventory<S: CloneService<String>>(client: S) -> Result<StandardService<S>, ConfigError> {
///     Ok(standard("inventory").concurrency_limit(50).build()?.wrap(client))
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be wrapped for requests of type `{Req}`",
    label = "needs `Service<{Req}> + Clone`, with an error that is `Into<BoxError> + 'static`",
    note = "an async function becomes a service by `tower::service_fn(function)`",
    note = "an error converts into `BoxError` if it implements `std::error::Error` and is `Send + Sync + 'static`; `service.map_err(...)` (`tower::ServiceExt`) makes another error of it",
    note = "a service that is not `Clone` can be shared through `tower::buffer::Buffer::new(service, 64)`; `BoxService` has a cloneable form, `tower::util::BoxCloneSyncService`"
)]
pub trait CloneService<Req>: Service<Req, Error: Into<BoxError> + 'static> + Clone {}

#[diagnostic::do_not_recommend]
impl<Req, S> CloneService<Req> for S where S: Service<Req, Error: Into<BoxError> + 'static> + Clone {}

/// An inner service, together with its last answer to `poll_ready`.
pub(crate) struct Ready<S> {
    inner: S,
    gate: Gate,
}

enum Gate {
    /// Not polled since the last call.
    Unknown,
    /// Polled and not ready; the handle may have a place in an inner queue.
    Waiting,
    Ready,
    Failed(Error),
}

impl<S> Ready<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            gate: Gate::Unknown,
        }
    }

    /// Polls the readiness of the inner service, unless its last answer has not been used yet. Never waits.
    #[inline]
    pub(crate) fn poll<Req>(&mut self, cx: &mut task::Context<'_>)
    where
        S: Service<Req, Error: Into<BoxError> + 'static>,
    {
        if let Gate::Unknown | Gate::Waiting = self.gate {
            self.gate = match self.inner.poll_ready(cx) {
                Poll::Ready(Ok(())) => Gate::Ready,
                Poll::Ready(Err(error)) => Gate::Failed(Error::of_service(error, || "")),
                Poll::Pending => Gate::Waiting,
            };
        }
    }

    /// Returns whether a call reaches the inner service at once.
    #[inline]
    #[cfg(feature = "http")]
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.gate, Gate::Ready)
    }

    /// Calls the inner service, at once or as soon as it is ready. Makes a `future` of the call and of the resources in
    /// `held`.
    ///
    /// If `future` only puts values side by side, the inner service writes its future directly to its final place.
    /// Otherwise each layer of a stack would copy it. The compiler can avoid the copy if a panic has nothing to clean
    /// up, and if no value is read that the inner service could have written. A layer that holds resources during the
    /// call therefore makes it in a function of its own, with its resources as parameters.
    #[inline]
    pub(crate) fn call_as<Req, H, F>(
        &mut self,
        request: Req,
        held: &mut H,
        future: impl FnOnce(Call<S, Req>, &mut H) -> F,
    ) -> F
    where
        S: Service<Req> + Clone,
    {
        /// The number of bytes whose copy costs no more than a function of its own.
        const SMALL: usize = 64;
        if let Gate::Ready = self.gate {
            self.gate = Gate::Unknown;
            if size_of::<S::Future>() > SMALL {
                self.call_in_place(request, held, future)
            } else {
                future(Call::running(self.inner.call(request)), held)
            }
        } else {
            future(self.call_unready(request), held)
        }
    }

    /// Makes the call without a branch and in a function of its own, for the reasons above.
    #[inline(never)]
    fn call_in_place<Req, H, F>(
        &mut self,
        request: Req,
        held: &mut H,
        future: impl FnOnce(Call<S, Req>, &mut H) -> F,
    ) -> F
    where
        S: Service<Req>,
    {
        future(Call::running(call_alone(&mut self.inner, request)), held)
    }

    #[cold]
    #[inline(never)]
    fn call_unready<Req>(&mut self, request: Req) -> Call<S, Req>
    where
        S: Service<Req> + Clone,
    {
        match mem::replace(&mut self.gate, Gate::Unknown) {
            Gate::Failed(error) => Call::failed(error),
            _ => Call::waiting(self.take_polled(), request),
        }
    }

    /// Returns a refused call if `admitted` is an error. Otherwise returns a call that is made when the inner service
    /// is ready again, on a handle without a reservation.
    #[cold]
    pub(crate) fn call_later<Req>(
        &mut self,
        request: Req,
        admitted: Result<(), Error>,
    ) -> Call<S, Req>
    where
        S: Service<Req> + Clone,
    {
        self.release();
        Call::of(admitted, || self.take_polled(), request)
    }

    /// Gives up what the inner service has reserved for this handle, or this handle's place in its queue.
    pub(crate) fn release(&mut self)
    where
        S: Clone,
    {
        if let Gate::Ready | Gate::Waiting = mem::replace(&mut self.gate, Gate::Unknown) {
            drop(self.take_polled());
        }
    }

    /// Takes the handle that has been polled and leaves a clone of it behind.
    ///
    /// It does not take the clone, because the polled handle has the place in the inner queue: the clone would wait for
    /// a permit that the polled handle keeps.
    #[cold]
    fn take_polled(&mut self) -> S
    where
        S: Clone,
    {
        let clone = self.inner.clone();
        mem::replace(&mut self.inner, clone)
    }
}

/// Calls the inner layer in a function of its own, so that the resources of the outer layer are not held in the
/// function that makes its future.
#[inline(never)]
fn call_alone<S, Req>(service: &mut S, request: Req) -> S::Future
where
    S: Service<Req>,
{
    service.call(request)
}

impl<S: Clone> Clone for Ready<S> {
    /// The clone has to poll for itself, because a reservation belongs to the handle that made it.
    fn clone(&self) -> Self {
        Self::new(self.inner.clone())
    }
}

impl<S: fmt::Debug> fmt::Debug for Ready<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// A call to a service whose readiness is not known.
pub(crate) struct Unready<S, Req> {
    service: S,
    request: Option<Req>,
    is_direct: bool,
}

pin_project! {
    /// A call to an inner service that may have to become ready first.
    #[project = CallProj]
    pub(crate) enum Call<S, Req>
    where
        S: Service<Req>,
    {
        Running { #[pin] future: S::Future },
        // Boxed, because it is rare and would make the future of every layer larger.
        Waiting { waiting: Box<Unready<S, Req>> },
        Failed { error: Option<Error> },
        Done,
    }
}

impl<S, Req> Call<S, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(crate) fn running(future: S::Future) -> Self {
        Self::Running { future }
    }

    /// Returns a call that has failed before it was made.
    pub(crate) fn failed(error: Error) -> Self {
        Self::Failed { error: Some(error) }
    }

    /// Returns a refused call if `admitted` is an error. Otherwise returns a call on a handle whose readiness is not
    /// known.
    pub(crate) fn of(
        admitted: Result<(), Error>,
        service: impl FnOnce() -> S,
        request: Req,
    ) -> Self {
        match admitted {
            Ok(()) => Self::waiting(service(), request),
            Err(error) => Self::failed(error),
        }
    }

    /// Returns whether the inner service has not been called yet.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting { .. })
    }

    /// Returns a call on a handle whose readiness is not known.
    #[cold]
    pub(crate) fn waiting(service: S, request: Req) -> Self {
        Self::Waiting {
            waiting: Box::new(Unready {
                service,
                request: Some(request),
                is_direct: context::take_direct(),
            }),
        }
    }
}

impl<S, Req> Call<S, Req>
where
    S: Service<Req, Error: Into<BoxError> + 'static>,
{
    /// Polls the call for a layer that is called `name`.
    #[inline]
    pub(crate) fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        name: impl FnOnce() -> &'static str,
    ) -> Poll<Result<S::Response, Error>> {
        loop {
            let future = match self.as_mut().project() {
                CallProj::Running { future } => {
                    let result = ready!(future.poll(cx));
                    return Poll::Ready(result.map_err(|error| Error::of_service(error, name)));
                }
                CallProj::Waiting { waiting } => {
                    let call = &mut **waiting;
                    if let Err(error) = ready!(call.service.poll_ready(cx)) {
                        return Poll::Ready(Err(Error::of_service(error, name)));
                    }
                    match call.request.take() {
                        Some(request) => {
                            context::as_direct(call.is_direct, || call.service.call(request))
                        }
                        None => return Poll::Pending,
                    }
                }
                CallProj::Failed { error } => {
                    return match error.take() {
                        Some(error) => Poll::Ready(Err(Error::of_service(error, name))),
                        None => Poll::Pending,
                    };
                }
                CallProj::Done => return Poll::Pending,
            };
            self.set(Self::Running { future });
        }
    }
}

impl<S, Req> fmt::Debug for Call<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running { .. } => "Running",
            Self::Waiting { .. } => "Waiting",
            Self::Failed { .. } => "Failed",
            Self::Done => "Done",
        })
    }
}
