//! The layers of the deadlines across hops, and their services.

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderName, Request};
use tokio::time::Instant;
use tower::{Layer, Service};

use super::config::{InheritDeadlineConfig, PropagateDeadlineConfig};
use super::headers::{self, GRPC_TIMEOUT, Headers, HttpHeaders};
use super::stamp::Stamp;
use crate::chassis::Span;
use crate::chassis::TimeoutMetrics;
use crate::debug::debug_fields;
use crate::error::or_panic;
use crate::http::adapt::{self, Adapt, Adapted, Inner, Unchanged};
use crate::http::{HttpStreams, Protocol};
use crate::telemetry::Series;
use crate::timeout::{Bound, BoundLayer, Bounded, Total};
use crate::{CloneService, Evictable};

/// Sends the remaining time to the called service. See the [module documentation](crate::http::deadline).
pub struct PropagateDeadlineLayer<H = HttpHeaders> {
    pub(super) config: Arc<PropagateDeadlineConfig<H>>,
    pub(super) metrics: &'static Series<TimeoutMetrics>,
}

impl PropagateDeadlineLayer {
    /// Makes a layer with the default settings, for calls to `name`.
    ///
    /// # Panics
    ///
    /// If `name` is empty.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str) -> Self {
        or_panic(Self::config(name).build())
    }

    /// Begins to configure a layer.
    pub fn config(name: impl Into<String>) -> PropagateDeadlineConfig {
        PropagateDeadlineConfig::new(name.into())
    }
}

impl<H> PropagateDeadlineLayer<H> {
    /// Wraps `service`. The compiler checks that it can serve requests of type `Req` and that their headers are known.
    pub fn wrap<Req, S>(&self, service: S) -> PropagateDeadline<S, H>
    where
        S: CloneService<Req>,
        H: Headers<Req>,
    {
        self.layer(service)
    }
}

impl<S, H> Layer<S> for PropagateDeadlineLayer<H> {
    type Service = PropagateDeadline<S, H>;

    fn layer(&self, inner: S) -> PropagateDeadline<S, H> {
        let layer = self.clone();
        Adapted::new(Stamp { inner, layer }, self.clone())
    }
}

impl<H> Evictable for PropagateDeadlineLayer<H> {
    fn is_evictable(&self, _now: Instant) -> bool {
        true
    }
}

impl<H> Clone for PropagateDeadlineLayer<H> {
    fn clone(&self) -> Self {
        Self {
            config: Arc::clone(&self.config),
            metrics: self.metrics,
        }
    }
}

debug_fields!([H] PropagateDeadlineLayer<H> { config });

impl<H, Req> Adapt<Req> for PropagateDeadlineLayer<H> {
    type Request = Req;
    type Result = Unchanged;

    #[inline]
    fn adapt(&self, request: Req) -> (Req, Unchanged) {
        (request, Unchanged)
    }

    #[inline]
    fn call<S>(&self, inner: Inner<'_, S>, request: Req) -> adapt::ResponseFuture<S, Req>
    where
        S: Service<Req> + Clone,
    {
        // A request that is sent at once is checked by the stamp, which reads the clock.
        let checked = if inner.is_ready() {
            Ok(())
        } else {
            self.check()
        };
        match checked {
            Ok(()) => inner.call(request, Unchanged),
            Err(error) => inner.refuse(error, Unchanged),
        }
    }
}

/// A service whose requests carry the remaining time. Made by [`PropagateDeadlineLayer`].
pub type PropagateDeadline<S, H = HttpHeaders> =
    Adapted<Stamp<S, PropagateDeadlineLayer<H>>, PropagateDeadlineLayer<H>>;

/// The response future of [`PropagateDeadline`].
pub type ResponseFuture<S, H, Req> =
    adapt::ResponseFuture<Stamp<S, PropagateDeadlineLayer<H>>, Req>;

/// Takes over the deadline of the caller. See the [module documentation](crate::http::deadline).
pub type InheritDeadlineLayer = BoundLayer<Inherited>;

/// A service whose work ends with the deadline of its caller. Made by [`InheritDeadlineLayer`].
pub type InheritDeadline<S> = Bounded<S, Inherited>;

impl InheritDeadlineLayer {
    /// Makes a layer with the default settings, for the requests that arrive at `name`.
    ///
    /// # Panics
    ///
    /// If `name` is empty.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str) -> Self {
        or_panic(Self::config(name).build())
    }

    /// Begins to configure a layer.
    pub fn config(name: impl Into<String>) -> InheritDeadlineConfig {
        InheritDeadlineConfig::new(name.into())
    }
}

/// The bound of an [`InheritDeadlineLayer`]: the time that the headers of a request allow.
#[derive(Clone, Debug)]
pub struct Inherited {
    pub(super) max: Duration,
    pub(super) header: HeaderName,
    pub(super) streams: HttpStreams,
}

impl<B> Bound<Request<B>> for Inherited {
    type Of = Span;

    #[inline]
    fn begin(&self, request: &Request<B>) -> Result<Span, Instant> {
        let headers = request.headers();
        let both = [
            headers::least(Protocol::Grpc, headers, &GRPC_TIMEOUT),
            headers::least(Protocol::Http, headers, &self.header),
        ];
        let allowed = both.into_iter().flatten().min();
        let max = if self.streams.are_declared_by(request) {
            Duration::MAX
        } else {
            self.max
        };
        Total(allowed.map_or(max, |allowed| allowed.min(max))).begin(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{Ready, ready};
    use std::pin::pin;
    use std::task::{self, Poll};

    use ::http::HeaderValue;
    use tokio::time::advance;

    use crate::BoxError;
    use crate::context::DeadlineScope;

    /// A service that is ready at the second poll, which blocks the thread for a second. It answers with the header.
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
        let Poll::Ready(answer) = call.as_mut().poll(&mut cx) else {
            panic!("it is ready");
        };
        assert_eq!(answer.expect("is sent"), "4000");
    }
}
