//! Declaration of the calls whose answers are streams.

use std::sync::Arc;

use ::http::Request;

use crate::CallOptions;
use crate::callback::Callback;
use crate::stack::Streams;

type OfPath = dyn Fn(&str) -> bool + Send + Sync;

/// Declares the HTTP and gRPC requests whose answers are streams. [`CallOptions::stream`](crate::CallOptions::stream)
/// declares a single request. See [streams](crate::stack#streams).
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
    /// Declares no requests as streams.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares all requests as streams, unless the options of a call say otherwise.
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

    /// Returns whether requests to this path are declared streams.
    #[inline]
    fn are_streams(&self, path: &str) -> bool {
        self.all || self.paths.as_ref().is_some_and(|are| (are.0)(path))
    }

    /// Returns whether a request to a server is declared a stream, by its options or by its path. A standard stack has
    /// read the options by itself.
    #[inline]
    pub(super) fn are_declared_by<B>(&self, request: &Request<B>) -> bool {
        let options: Option<&CallOptions> = request.extensions().get();
        let marked = options.and_then(|options| options.stream);
        marked.unwrap_or_else(|| self.are_streams(request.uri().path()))
    }
}

impl<B> Streams<Request<B>> for HttpStreams {
    #[inline]
    fn is_stream(&self, request: &Request<B>) -> bool {
        self.are_streams(request.uri().path())
    }
}
