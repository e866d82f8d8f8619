//! The thinnest layer round something that is not made for Tower. Errors are boxed, as Tower's own layers do;
//! a rejection has no fields, so that its box takes no memory.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::BoxError;

/// The call was not let through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rejected;

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rejected")
    }
}

impl std::error::Error for Rejected {}

pin_project! {
    /// A call whose errors are told apart and boxed.
    pub(crate) struct Guarded<F> {
        #[pin]
        future: F,
    }
}

impl<F> Guarded<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future }
    }
}

/// An error of a breaker: its own, or that of the call.
pub(crate) trait Split {
    fn into_box(self) -> BoxError;
}

impl<E: Into<BoxError>> Split for failsafe::Error<E> {
    fn into_box(self) -> BoxError {
        match self {
            Self::Inner(error) => error.into(),
            Self::Rejected => Rejected.into(),
        }
    }
}

impl<E: Into<BoxError>> Split for recloser::Error<E> {
    fn into_box(self) -> BoxError {
        match self {
            Self::Inner(error) => error.into(),
            Self::Rejected => Rejected.into(),
        }
    }
}

impl<F, T, E> Future for Guarded<F>
where
    F: Future<Output = Result<T, E>>,
    E: Split,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.project().future.poll(context));
        Poll::Ready(result.map_err(Split::into_box))
    }
}
