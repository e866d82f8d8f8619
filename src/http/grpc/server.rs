//! The gRPC server.

use super::Classifier;
use crate::http::server::{Config, of};

/// Begins to configure a gRPC server, such as a tonic server. See [`http::server`](mod@crate::http::server).
///
/// `name` is a label of the metrics. No client in the same process may have this name.
pub fn server(name: impl Into<String>) -> Config<Classifier> {
    of(name.into(), Classifier::new())
}
