//! Servers of gRPC.

use super::Classifier;
use crate::http::server::{Config, of};

/// Begins to configure a server of gRPC, such as one of tonic. See [`http::server`](mod@crate::http::server).
///
/// `name` is a label of the metrics. It must differ from the names of clients in the same process.
pub fn server(name: impl Into<String>) -> Config<Classifier> {
    of(name.into(), Classifier::new())
}
