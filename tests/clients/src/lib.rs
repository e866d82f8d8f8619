//! Tests over real clients and servers, and the examples of the README.

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

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
mod http_add_origin;
#[cfg(test)]
mod http_deadline;
#[cfg(test)]
mod http_replay;
#[cfg(test)]
mod http_respond;
#[cfg(test)]
mod http_wire;
#[cfg(test)]
mod readme;
