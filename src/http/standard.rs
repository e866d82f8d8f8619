//! The standard stack for HTTP.

use super::{AtEndOfBody, Classifier, HttpReplay};
use crate::{ByClone, stack};

/// The settings of a standard stack for HTTP. Made by [`standard`].
pub type Standard = stack::Standard<HttpReplay<ByClone>, Classifier, AtEndOfBody>;

/// The layer of a standard stack for HTTP.
pub type StandardLayer = stack::StandardLayer<HttpReplay<ByClone>, Classifier, AtEndOfBody>;

/// An HTTP client behind a standard stack, as it can be written in a field. See [`standard`].
pub type StandardService<S> =
    stack::StandardService<S, HttpReplay<ByClone>, Classifier, AtEndOfBody>;

/// Begins to configure the [standard stack](crate::stack) for the HTTP calls to one dependency.
///
/// Calls are judged by [`Classifier`] and are over at the end of the body. Requests that may be acted on twice are sent
/// again, see [`HttpReplay`]. Their bodies must be `Clone`, as those of `http_body_util`'s `Full` and `Empty`; for those that are
/// streamed put a [`ReplayBodyLayer`](super::ReplayBodyLayer) round the stack and say `.replay(HttpReplay::new())`.
///
/// Timeout and deadline end with the head. A body that stalls holds its permit as long as its reader waits: put a
/// [`BodyTimeoutLayer`](super::BodyTimeoutLayer) between the stack and the client.
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
        .replay(HttpReplay::by_clone())
        .classify(Classifier::new())
        .completion(AtEndOfBody)
}
