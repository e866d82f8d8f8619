//! The body with a bounded time.

use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::config::Limits;
use super::layer::BodyTimeoutLayer;
use crate::chassis::TimeoutMetrics;
use crate::http::Protocol;
use crate::telemetry::Series;
use crate::timer::Timer;
use crate::{BoxError, Error, ErrorKind, Stage, context};

pin_project! {
    /// A body with a bounded time. Made by [`BodyTimeout`](super::BodyTimeout).
    ///
    /// It is `Unpin` if `B` is. A body that was made with `From` or `Default` has no limits.
    #[derive(Debug)]
    #[project = Parts]
    pub struct TimeoutBody<B> {
        // `None` after it has ended.
        #[pin]
        body: Option<B>,
        // Boxed, so that the body is `Unpin` if the inner body is, as readers expect. Made when a reader has to wait.
        timer: Option<Pin<Box<Timer>>>,
        idle: Option<Duration>,
        // The idle time after the first data.
        next_idle: Option<Duration>,
        // The time at which the body must be over.
        end: Option<End>,
        // The time since which the reader has been waiting for a frame.
        waits_since: Option<Instant>,
        is_stream: bool,
        metrics: Option<&'static Series<TimeoutMetrics>>,
    }
}

/// A time at which a body must be over, and the reason.
#[derive(Clone, Copy, Debug)]
struct End {
    at: Instant,
    kind: ErrorKind,
    allowed: Duration,
    stage: Stage,
}

impl End {
    /// Makes the end of a time that begins now.
    fn after(allowed: Duration, now: Instant, kind: ErrorKind, stage: Stage) -> Self {
        Self {
            at: crate::nanos::saturating_add(now, allowed),
            kind,
            allowed,
            stage,
        }
    }
}

impl<B> TimeoutBody<B> {
    /// Makes a body whose head has just arrived.
    #[inline]
    pub(in crate::http) fn new(
        body: B,
        layer: BodyTimeoutLayer,
        protocol: Protocol,
        is_stream: bool,
    ) -> Self {
        let Limits {
            stream_idle,
            idle,
            total,
            ..
        } = layer.limits;
        let (idle, next_idle, total) = match protocol {
            _ if is_stream => (stream_idle, stream_idle, None),
            Protocol::Grpc => (idle, stream_idle, total),
            Protocol::Http => (idle, idle, total),
        };
        let deadline = context::deadline().filter(|_| layer.limits.deadline);
        let ends = total.is_some() || deadline.is_some();
        let end = ends.then(Instant::now).and_then(|now| {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(now));
            let end = |kind| move |allowed| End::after(allowed, now, kind, Stage::WholeAnswer);
            let total = total.map(end(ErrorKind::Timeout));
            let deadline = left.map(end(ErrorKind::DeadlineExceeded));
            total.into_iter().chain(deadline).min_by_key(|end| end.at)
        });
        Self {
            idle,
            next_idle,
            end,
            is_stream,
            metrics: Some(layer.metrics),
            ..body.into()
        }
    }
}

impl<B> Parts<'_, B> {
    /// Returns the time at which a waiting reader gets an error, and the reason.
    fn next_end(&mut self) -> Option<End> {
        let idle = self.idle.map(|idle| {
            let since = *self.waits_since.get_or_insert_with(Instant::now);
            End::after(idle, since, ErrorKind::Timeout, Stage::NextPart)
        });
        idle.into_iter().chain(*self.end).min_by_key(|end| end.at)
    }

    /// Ends the body. The inner body is dropped first, so that its resources are free when the reader sees the error.
    #[cold]
    fn time_out(&mut self, end: End) -> Error {
        self.body.set(None);
        *self.timer = None;
        let name = self.metrics.map_or("", |metrics| {
            metrics.timed_out(crate::Mode::Enforce, Instant::now());
            metrics.name()
        });
        let mut error = Error::body_timed_out(end.kind, name, end.allowed, end.stage);
        error.0.is_of_stream = *self.is_stream;
        error
    }
}

impl<B> Body for TimeoutBody<B>
where
    B: Body<Error: Into<BoxError> + 'static>,
{
    type Data = B::Data;
    type Error = Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Error>>> {
        let mut this = self.project();
        let Some(mut body) = this.body.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(next) = body.as_mut().poll_frame(cx) {
            *this.waits_since = None;
            if let Some(Ok(frame)) = &next {
                if frame.data_ref().is_some_and(Buf::has_remaining) {
                    *this.idle = *this.next_idle;
                }
            }
            let is_over = match &next {
                // No frame comes after trailers, even if the body does not say so.
                Some(Ok(frame)) => frame.is_trailers() || body.is_end_stream(),
                _ => true,
            };
            if let Some(end) = this.end.filter(|end| !is_over && end.at < Instant::now()) {
                // A slow reader always finds a frame.
                let stage = Stage::Reader;
                return Poll::Ready(Some(Err(this.time_out(End { stage, ..end }))));
            }
            return Poll::Ready(next.map(|result| result.map_err(Error::of_body)));
        }
        let Some(end) = this.next_end() else {
            return Poll::Pending;
        };
        let timer = this.timer.get_or_insert_with(|| Box::pin(Timer::default()));
        ready!(timer.as_mut().poll_at(end.at, cx));
        Poll::Ready(Some(Err(this.time_out(end))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.body.as_ref();
        body.map_or(SizeHint::with_exact(0), B::size_hint)
    }
}

impl<B> From<B> for TimeoutBody<B> {
    fn from(body: B) -> Self {
        Self {
            body: Some(body),
            timer: None,
            idle: None,
            next_idle: None,
            end: None,
            waits_since: None,
            is_stream: false,
            metrics: None,
        }
    }
}

impl<B: Default> Default for TimeoutBody<B> {
    fn default() -> Self {
        B::default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{OperationScope, Tried};
    use crate::http::adapt::AdaptResult;
    use ::http::Response;
    use http_body_util::{BodyExt, StreamBody};

    /// The seconds until a body ends that is never sent, an hour at most.
    async fn ends(layer: BodyTimeoutLayer, is_stream: bool) -> u64 {
        let scope = OperationScope::enter(None, None, Tried::default(), Some(is_stream));
        let nothing = futures::stream::pending::<Result<Frame<&[u8]>, Error>>();
        let response = layer.adapt(Ok(Response::new(StreamBody::new(nothing))));
        drop(scope);
        let began = Instant::now();
        let body = response.unwrap().into_body().collect();
        let end = tokio::time::timeout(Duration::from_secs(3_600), body).await;
        assert!(end.is_err() || end.unwrap().is_err());
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_may_be_silent_unless_a_limit_is_set_for_streams() {
        let config = || {
            let config = BodyTimeoutLayer::config("events");
            config.total(Duration::from_secs(600))
        };
        let layer = config().build().unwrap();
        assert_eq!(ends(layer, true).await, 3_600);
        assert_eq!(ends(layer, false).await, 30);
        let layer = config().stream_idle(Duration::from_secs(50)).build();
        assert_eq!(ends(layer.unwrap(), true).await, 50);
    }
}
