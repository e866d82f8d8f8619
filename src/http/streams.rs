//! The calls whose answers are streams.

use std::sync::Arc;

use ::http::Request;

use crate::callback::Callback;
use crate::stack::Streams;

/// Extension of a request that marks whether its answer is a stream, which may go on after the deadline of a stack.
///
/// It wins over the declaration in [`streaming`](crate::stack::Standard::streaming). It is read by [`HttpReplay`](super::HttpReplay), which `http::standard` and `grpc::standard` have. A stack with another `.replay`,
/// as [`Never`](crate::Never), reads it with `.streaming(HttpStreams::new())`. See [streams](crate::stack#streams).
///
/// # Examples
///
/// ```
/// use buttress::http::Streamed;
/// use http::Request;
///
/// let events = Request::get("/events").extension(Streamed(true)).body("")?;
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streamed(pub bool);

impl Streamed {
    /// Returns the mark of a request, if it has one.
    #[inline]
    pub(super) fn of<B>(request: &Request<B>) -> Option<bool> {
        let mark = request.extensions().get();
        mark.map(|Self(is_stream)| *is_stream)
    }
}

type OfPath = dyn Fn(&str) -> bool + Send + Sync;

/// Declares the HTTP and gRPC requests that ask for streams: requests with the mark [`Streamed`], and requests that you
/// name here. See [streams](crate::stack#streams).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use buttress::http::{HttpStreams, grpc};
///
/// let stack = grpc::standard("health")
///     .deadline(Duration::from_secs(2)) // of the other methods
///     .streaming(HttpStreams::new().paths(|path| path == "/grpc.health.v1.Health/Watch"))
///     .concurrency_limit(50)
///     .build()?;
/// # Ok::<(), buttress::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpStreams {
    all: bool,
    paths: Option<Callback<OfPath>>,
}

impl HttpStreams {
    /// Declares only requests with the mark [`Streamed`] as streams.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares all requests as streams that are not marked otherwise.
    #[must_use]
    pub fn all(mut self) -> Self {
        self.all = true;
        self
    }

    /// Declares requests to some paths as streams. The path of a gRPC call is `/package.Service/Method`.
    #[must_use]
    pub fn paths<F>(mut self, are_streams: F) -> Self
    where
        F: Fn(&str) -> bool + Send + Sync + 'static,
    {
        self.paths = Some(Callback(Arc::new(are_streams)));
        self
    }

    #[inline]
    fn are_streams(&self, path: &str) -> bool {
        self.all || self.paths.as_ref().is_some_and(|are| (are.0)(path))
    }
}

impl<B> Streams<Request<B>> for HttpStreams {
    #[inline]
    fn is_stream(&self, request: &Request<B>) -> bool {
        Streamed::of(request).unwrap_or_else(|| self.are_streams(request.uri().path()))
    }
}
