//! The innermost part of the propagation, which writes the header when the request is sent.
//!
//! Between the call and the request, the inner service may take time to become ready. A header that was written at the
//! call would give this time to the server once more.

use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

use super::headers::{self, GRPC_TIMEOUT, Headers};
use super::layer::PropagateDeadlineLayer;
use crate::chassis::TimeoutMetrics;
use crate::http::Protocol;
use crate::ready::Call;
use crate::telemetry::Series;
use crate::{BoxError, CloneService, Error, ErrorKind, Mode, context};

/// The resolution of the timers on both sides.
const MIN_REMAINING: Duration = Duration::from_millis(1);

impl<H> PropagateDeadlineLayer<H> {
    /// Returns the time that the server may work on a request that is sent now, if it is limited.
    #[inline]
    fn left(&self) -> Result<Option<Left>, Error> {
        let settings = &self.config.settings;
        let deadline = context::deadline();
        // The timeout of an attempt does not bound a stream.
        let timeout = settings.timeout.filter(|_| !context::is_stream());
        if deadline.is_none() && timeout.is_none() {
            return Ok(None);
        }
        let now = Instant::now();
        let time = deadline.map(|deadline| deadline.saturating_duration_since(now));
        let time = time.into_iter().chain(timeout).min();
        match time.map(|time| time.saturating_sub(settings.slack)) {
            Some(time) if time < MIN_REMAINING => Err(self.refused(now)),
            time => Ok(time.map(|time| Left { time, now })),
        }
    }

    /// Refuses a request that is not worth sending now.
    #[inline]
    pub(super) fn check(&self) -> Result<(), Error> {
        self.left().map(|_| ())
    }

    /// Writes the remaining time, if it is limited.
    #[inline]
    fn stamp<Req>(&self, request: &mut Req) -> Result<Option<Told>, Error>
    where
        H: Headers<Req>,
    {
        let settings = &self.config.settings;
        let Some(Left { time, now }) = self.left()? else {
            return Ok(None);
        };
        let headers = self.config.headers.headers_mut(request);
        let protocol = settings.protocol.unwrap_or_else(|| Protocol::of(headers));
        let name = match protocol {
            Protocol::Http => &settings.header,
            Protocol::Grpc => &GRPC_TIMEOUT,
        };
        let allowed = headers::write(protocol, headers, name, time);
        // The request itself may have a shorter timeout.
        let allowed = allowed
            .filter(|&allowed| allowed >= MIN_REMAINING)
            .ok_or_else(|| self.refused(now))?;
        Ok(Some(Told {
            allowed,
            until: crate::nanos::saturating_add(now, allowed),
            metrics: self.metrics,
        }))
    }

    /// Returns the error of a request that is not sent.
    #[cold]
    fn refused(&self, now: Instant) -> Error {
        let kind = ErrorKind::DeadlineExceeded;
        self.metrics.rejected(kind, Mode::Enforce, now);
        Error::rejected(kind, self.metrics.name(), None)
    }
}

/// The remaining time at an instant.
struct Left {
    time: Duration,
    now: Instant,
}

/// Time that the server may work on a request that was sent.
#[derive(Clone, Copy, Debug)]
struct Told {
    allowed: Duration,
    until: Instant,
    metrics: &'static Series<TimeoutMetrics>,
}

impl Told {
    /// Converts an error. Some clients obey the header themselves, and end the call with an error of their own.
    /// Whichever timer fires first, the deadline has ended the call.
    #[cold]
    fn explain(&self, error: Error) -> Error {
        let now = Instant::now();
        if now < self.until || error.kind() != ErrorKind::Service || !error.was_sent() {
            return error;
        }
        self.metrics.timed_out(crate::Mode::Enforce, now);
        let (kind, name) = (ErrorKind::DeadlineExceeded, self.metrics.name());
        Error::timed_out(kind, name, self.allowed)
    }
}

/// A service whose requests get the time that remains when they are sent.
#[derive(Clone, Debug)]
pub struct Stamp<S, L> {
    pub(super) inner: S,
    pub(super) layer: L,
}

impl<S, H, Req> Service<Req> for Stamp<S, PropagateDeadlineLayer<H>>
where
    S: CloneService<Req>,
    H: Headers<Req>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = StampFuture<S, Req>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        let ready = ready!(self.inner.poll_ready(cx));
        Poll::Ready(ready.map_err(|error| Error::of_service(error, || self.layer.metrics.name())))
    }

    #[inline]
    fn call(&mut self, mut request: Req) -> Self::Future {
        match self.layer.stamp(&mut request) {
            Ok(told) => {
                let call = Call::running(self.inner.call(request));
                StampFuture { call, told }
            }
            Err(error) => {
                // Gives back the reservation of this handle in the inner service.
                self.inner = self.inner.clone();
                let call = Call::failed(error);
                StampFuture { call, told: None }
            }
        }
    }
}

pin_project! {
    pub struct StampFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        call: Call<S, Req>,
        told: Option<Told>,
    }
}

impl<S, Req> Future for StampFuture<S, Req>
where
    S: Service<Req, Error: Into<BoxError> + 'static>,
{
    type Output = Result<S::Response, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let told = this.told.as_ref();
        let name = || told.map_or("", |told| told.metrics.name());
        let result = ready!(this.call.poll(cx, name));
        Poll::Ready(result.map_err(|error| match told {
            Some(told) => told.explain(error),
            None => error,
        }))
    }
}
