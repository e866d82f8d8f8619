//! The standard stack for HTTP.

use super::{Classifier, CompleteOnBodyEnd, HttpReplay};
use crate::balance::{self, PowerOfChoices};
use crate::stack::{self, NoStreams};

/// The settings of a standard stack for HTTP. Made by [`standard`].
pub type HttpStandard<D = NoStreams> =
    stack::Standard<HttpReplay, Classifier, CompleteOnBodyEnd, D>;

/// The layer of a standard stack for HTTP.
pub type HttpStandardLayer<D = NoStreams> =
    stack::StandardLayer<HttpReplay, Classifier, CompleteOnBodyEnd, D>;

/// An HTTP client behind a standard stack, as a type for a field. See [`standard`].
pub type HttpStandardService<S, D = NoStreams> =
    stack::StandardService<S, HttpReplay, Classifier, CompleteOnBodyEnd, D>;

/// A balancer over HTTP clients, as a type for a field. See [`balance()`].
pub type HttpBalance<S> = crate::Balance<S, PowerOfChoices, Classifier, CompleteOnBodyEnd>;

/// Begins to configure a [balancer](crate::balance) over HTTP clients.
///
/// Calls are classified by [`Classifier`], so that a server which answers 500 counts as failing, and are over at the
/// end of the body.
///
/// # Examples
///
/// ```
/// use buttress::balance::Endpoint;
/// use buttress::http::HttpBalance;
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower::{BoxError, service_fn};
///
/// # fn main() -> Result<(), buttress::ConfigError> {
/// let replica = |_: Request<Full<Bytes>>| async { Ok::<_, BoxError>(Response::new(Full::<Bytes>::default())) };
/// let replicas: HttpBalance<_> = buttress::http::balance("search").build([
///     Endpoint::new("10.0.0.1", service_fn(replica)),
///     Endpoint::new("10.0.0.2", service_fn(replica)),
/// ])?;
/// let stack = buttress::http::standard("search").no_circuit_breaker().concurrency_limit(50);
/// let search = stack.build()?.wrap::<Request<Full<Bytes>>, _>(replicas);
/// # drop(search);
/// # Ok(())
/// # }
/// ```
pub fn balance(
    name: impl Into<String>,
) -> balance::Config<PowerOfChoices, Classifier, CompleteOnBodyEnd> {
    crate::Balance::config(name)
        .classify(Classifier::new())
        .completion(CompleteOnBodyEnd)
}

/// Begins to configure the [standard stack](crate::stack) for the HTTP calls to one dependency.
///
/// Calls are classified by [`Classifier`] and are over at the end of the body. Idempotent requests are sent again, see
/// [`HttpReplay`]. Their bodies must be [`TryCopyBody`](super::TryCopyBody), such as `http_body_util`'s `Full` and
/// `Empty`; for streamed bodies put a [`ReplayBodyLayer`](super::ReplayBodyLayer) around the stack.
///
/// A body ends at the [deadline](stack::Standard::deadline), if there is one: a waiting reader gets an error, and the
/// permit of the call is free. A body that stalls before the deadline holds its permit while its reader waits. Put a
/// [`BodyTimeoutLayer`](super::BodyTimeoutLayer) between the stack and the client: it ends a body that is silent for 30
/// s. For answers that go on after the deadline, see [streams](crate::stack#streams).
///
/// # Examples
///
/// ```
/// use buttress::http::{BodyTimeout, BodyTimeoutLayer, HttpStandardService};
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::client::legacy::Client;
/// use hyper_util::client::legacy::connect::HttpConnector;
/// use hyper_util::rt::TokioExecutor;
/// use tower::Layer;
///
/// struct Search {
///     client: HttpStandardService<BodyTimeout<Client<HttpConnector, Full<Bytes>>>>,
/// }
///
/// let client = Client::builder(TokioExecutor::new()).build_http();
/// let client = BodyTimeoutLayer::new("search").layer(client);
/// let search = Search {
///     client: buttress::http::standard("search").concurrency_limit(50).build()?.wrap(client),
/// };
/// # Ok::<(), buttress::ConfigError>(())
/// ```
pub fn standard(name: impl Into<String>) -> HttpStandard {
    crate::standard(name)
        .replay(HttpReplay::new())
        .classify(Classifier::new())
        .completion(CompleteOnBodyEnd)
}
