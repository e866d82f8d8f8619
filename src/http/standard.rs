//! The standard stack for HTTP.

use super::{AtEndOfBody, Classifier};
// Until there is a replay for HTTP.
use crate::ByClone as HttpReplay;
use crate::stack;

/// The settings of a standard stack for HTTP. Made by [`standard`].
pub type Standard = stack::Standard<HttpReplay, Classifier, AtEndOfBody>;

/// The layer of a standard stack for HTTP.
pub type StandardLayer = stack::StandardLayer<HttpReplay, Classifier, AtEndOfBody>;

/// An HTTP client behind a standard stack, as it can be written in a field. See [`standard`].
pub type StandardService<S> = stack::StandardService<S, HttpReplay, Classifier, AtEndOfBody>;

/// Begins to configure the [standard stack](crate::stack) for the HTTP calls to one dependency.
///
/// Calls are judged by [`Classifier`] and are over at the end of the body.
///
/// # Examples
///
/// ```
/// use buttress::http::StandardService;
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::client::legacy::Client;
/// use hyper_util::client::legacy::connect::HttpConnector;
/// use hyper_util::rt::TokioExecutor;
///
/// struct Search {
///     client: StandardService<Client<HttpConnector, Full<Bytes>>>,
/// }
///
/// let client = Client::builder(TokioExecutor::new()).build_http();
/// let search = Search {
///     client: buttress::http::standard("search").concurrency_limit(50).build()?.wrap(client),
/// };
/// # Ok::<(), buttress::ConfigError>(())
/// ```
pub fn standard(name: impl Into<String>) -> Standard {
    crate::standard(name)
        .replay(HttpReplay)
        .classify(Classifier::new())
        .completion(AtEndOfBody)
}
