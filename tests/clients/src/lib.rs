//! Tests over real clients and servers, and the examples of the README and the guide.

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// Examples on the pages of the documentation that need more than the crate's dev-dependencies. A test of the crate's own
/// documentation leaves them out.
#[cfg(doctest)]
#[doc = include_str!("../../../src/guide/http.md")]
#[doc = include_str!("../../../src/guide/metrics.md")]
#[doc = include_str!("../../../src/snippets/grpc_standard.md")]
#[doc = include_str!("../../../src/snippets/reqwest_replay.md")]
#[doc = include_str!("../../../src/snippets/standard_service.md")]
#[doc = include_str!("../../../src/snippets/tonic_replay_body.md")]
struct Pages;

#[cfg(test)]
#[allow(dead_code, reason = "each test uses a part of it")]
#[allow(clippy::unwrap_used, reason = "helpers of tests are tests")]
#[path = "../../hostile/callers.rs"]
mod callers;
#[cfg(test)]
#[path = "../../common/debugging.rs"]
mod debugging;
#[cfg(test)]
#[path = "../../feed/mod.rs"]
mod feed;
#[cfg(test)]
#[path = "../../stack/mod.rs"]
mod stack;

#[cfg(test)]
mod clients;
#[cfg(test)]
mod early_trailers;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod http_add_origin;
#[cfg(test)]
mod http_deadline;
#[cfg(test)]
mod http_replay;
#[cfg(test)]
mod http_respond;
#[cfg(test)]
mod http_streams;
#[cfg(test)]
mod http_wire;
#[cfg(test)]
mod not_sent;
#[cfg(test)]
mod readme;
#[cfg(test)]
mod recipes;
#[cfg(test)]
mod server;
#[cfg(test)]
mod spawn;
#[cfg(test)]
mod whole;
#[cfg(test)]
mod whole_reqwest;
