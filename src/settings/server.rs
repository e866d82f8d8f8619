//! The overlay of a server.

use std::time::Duration;

use super::Bulkhead;
use super::overlay::overlay;
use crate::http::server;

overlay! {
    /// Settings of a [server](mod@crate::http::server) that replace those of the code.
    [K, T] Server for server::Config<K, T> {
        /// See [`deadline`](server::Config::deadline).
        #[cfg_attr(feature = "serde", serde(with = "crate::duration_text::optional"))]
        deadline: Duration,
        /// The settings of the concurrency limit. `build` returns an error if no limit was set before.
        bulkhead: Bulkhead => |config: Self, settings: Bulkhead| config.bulkhead_settings(&settings),
    }
}
