//! The standard stack for gRPC.

use super::Classifier;
use crate::balance::{self, PowerOfChoices};
use crate::http::{CompleteOnBodyEnd, HttpReplay};
use crate::stack::{self, NoStreams};

/// The settings of a standard stack for gRPC. Made by [`standard`].
pub type GrpcStandard<D = NoStreams> =
    stack::Standard<HttpReplay, Classifier, CompleteOnBodyEnd, D>;

/// The layer of a standard stack for gRPC.
pub type GrpcStandardLayer<D = NoStreams> =
    stack::StandardLayer<HttpReplay, Classifier, CompleteOnBodyEnd, D>;

/// A gRPC channel behind a standard stack, as a type for a field. See [`standard`].
pub type GrpcStandardService<S, D = NoStreams> =
    stack::StandardService<S, HttpReplay, Classifier, CompleteOnBodyEnd, D>;

/// A balancer over gRPC channels, as a type for a field. See [`balance()`].
pub type GrpcBalance<S> = crate::Balance<S, PowerOfChoices, Classifier, CompleteOnBodyEnd>;

/// Begins to configure a [balancer](crate::balance) over gRPC channels.
///
/// Calls are classified by [`Classifier`], and are over when the trailers have been read.
pub fn balance(
    name: impl Into<String>,
) -> balance::Config<PowerOfChoices, Classifier, CompleteOnBodyEnd> {
    crate::Balance::config(name)
        .classify(Classifier::new())
        .completion(CompleteOnBodyEnd)
}

/// Begins to configure the [standard stack](crate::stack) for the gRPC calls to one dependency.
///
/// Calls are classified by [`Classifier`] and are over when the trailers have been read.
///
/// All methods of gRPC are POST, so a request is sent again only if it was provably not sent. Name the idempotent
/// methods: `.replay(HttpReplay::new().idempotent_paths(|path| path.ends_with("/Get")))`. The bodies of tonic cannot be
/// copied; put a [`ReplayBodyLayer`](crate::http::ReplayBodyLayer) around the stack. To switch retries off, set
/// `.replay(Never)`.
///
/// An answer ends at the [deadline](stack::Standard::deadline), if there is one. Declare the methods whose answers are
/// streams: `.streaming(HttpStreams::new().paths(|path| path.ends_with("/Watch")))`; see
/// [streams](crate::stack#streams). An answer that stalls holds its permit while its reader waits. Put a
/// [`BodyTimeoutLayer`](crate::http::BodyTimeoutLayer) between the stack and the channel: it ends an answer that is
/// silent for 30 s.
///
/// # Examples
///
#[cfg_attr(not(doctest), doc = include_str!("../../snippets/grpc_standard.md"))]
pub fn standard(name: impl Into<String>) -> GrpcStandard {
    crate::standard(name)
        .replay(HttpReplay::new().grpc_previous_attempts())
        .classify(Classifier::new())
        .completion(CompleteOnBodyEnd)
}
