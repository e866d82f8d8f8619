//! The two bounds of a call: the time of an attempt, and the deadline of an operation.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::config::{Fixed, TimeoutFor};
use crate::chassis::Span;
use crate::nanos::saturating_add;
use crate::timer::Timer;
use crate::{Error, ErrorKind};

/// The bound of a [`TimeoutLayer`](super::TimeoutLayer): `D` gives the time of an attempt.
#[derive(Clone, Copy, Debug)]
pub struct PerAttempt<D = Fixed>(pub(super) D);

/// The bound of a [`DeadlineLayer`](super::DeadlineLayer): the time of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Total(pub(crate) Duration);

/// Bounds the calls with requests of type `Req`.
pub trait Bound<Req> {
    /// The bound of one call.
    #[doc(hidden)]
    type Of: BoundOfCall;

    /// Begins a call. If there is no time left, the error is the present time.
    #[doc(hidden)]
    fn begin(&self, request: &Req) -> Result<Self::Of, Instant>;
}

/// The bound of one call.
pub trait BoundOfCall: Default + fmt::Debug {
    /// Returns the deadline that the inner service sees when it is called or polled now.
    #[doc(hidden)]
    fn deadline(&mut self) -> Option<Instant>;

    /// Waits for the end of the time.
    #[doc(hidden)]
    fn poll_end(&self, timer: Pin<&mut Timer>, cx: &mut task::Context<'_>) -> Poll<()>;

    /// Returns the timeout of the attempt, or `None` for a deadline.
    #[doc(hidden)]
    fn timeout(&self) -> Option<Duration>;

    /// Returns the error of a call whose time is over.
    #[doc(hidden)]
    fn error(&self, name: &'static str) -> Error;
}

impl<D: TimeoutFor<Req>, Req> Bound<Req> for PerAttempt<D> {
    type Of = Duration;

    #[inline]
    fn begin(&self, request: &Req) -> Result<Duration, Instant> {
        Ok(self.0.timeout_for(request))
    }
}

impl BoundOfCall for Duration {
    #[inline]
    fn deadline(&mut self) -> Option<Instant> {
        None
    }

    #[inline]
    fn poll_end(&self, timer: Pin<&mut Timer>, cx: &mut task::Context<'_>) -> Poll<()> {
        match *self {
            Self::MAX => Poll::Pending,
            Self::ZERO => Poll::Ready(()),
            timeout => timer.poll(|| saturating_add(Instant::now(), timeout), cx),
        }
    }

    #[inline]
    fn timeout(&self) -> Option<Duration> {
        Some(*self)
    }

    #[cold]
    fn error(&self, name: &'static str) -> Error {
        Error::timed_out(ErrorKind::Timeout, name, *self)
    }
}

impl<Req> Bound<Req> for Total {
    type Of = Span;

    #[inline]
    fn begin(&self, _: &Req) -> Result<Span, Instant> {
        let mut span = Span::default();
        span.begin(self.0, Instant::now).map(|()| span)
    }
}

impl BoundOfCall for Span {
    #[inline]
    fn deadline(&mut self) -> Option<Instant> {
        self.renew();
        self.deadline
    }

    #[inline]
    fn poll_end(&self, timer: Pin<&mut Timer>, cx: &mut task::Context<'_>) -> Poll<()> {
        match self.deadline {
            Some(deadline) => timer.poll_at(deadline, cx),
            None => Poll::Pending,
        }
    }

    #[inline]
    fn timeout(&self) -> Option<Duration> {
        None
    }

    #[cold]
    fn error(&self, name: &'static str) -> Error {
        Self::error(self, name)
    }
}
