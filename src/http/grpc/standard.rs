//! The standard stack for gRPC.

use super::Classifier;
// Until there is a replay for HTTP.
use crate::ByClone as HttpReplay;
use crate::http::AtEndOfBody;
use crate::stack;

/// The settings of a standard stack for gRPC. Made by [`standard`].
pub type Standard = stack::Standard<HttpReplay, Classifier, AtEndOfBody>;

/// The layer of a standard stack for gRPC.
pub type StandardLayer = stack::StandardLayer<HttpReplay, Classifier, AtEndOfBody>;

/// A gRPC channel behind a standard stack, as it can be written in a field. See [`standard`].
pub type StandardService<S> = stack::StandardService<S, HttpReplay, Classifier, AtEndOfBody>;

/// Begins to configure the [standard stack](crate::stack) for the gRPC calls to one dependency.
///
/// Calls are judged by [`Classifier`] and are over when the trailers have been read.
pub fn standard(name: impl Into<String>) -> Standard {
    crate::standard(name)
        .replay(HttpReplay)
        .classify(Classifier::new())
        .completion(AtEndOfBody)
}
