//! Guide: the choice of layers, their order, their settings, their metrics, and tests.
//!
//! Begin with the [standard stack](crate::stack), which suits most dependencies. The pages of this guide answer these
//! questions:
//!
//! | page | question |
//! |---|---|
//! | [`http`] | How do I wrap a client of hyper, tonic or reqwest, several replicas, or a server? |
//! | [`outcomes`] | Which answers are failures, which requests are sent again, and what does an error say? |
//! | [`ordering`] | In which order do layers belong, and where does a deadline or a retry belong in a chain of services? |
//! | [`tuning`] | Which numbers follow from a service level? |
//! | [`metrics`] | Which metrics are there, and which alerts and panels use them? |
//! | [`testing`] | How do I test a service that uses this crate? |
//! | [`cost`] | What does a call cost, and where does this crate miss its goals? |
//!
//! # Layers by problem
//!
//! | problem | layer | limits |
//! |---|---|---|
//! | an answer never comes | [timeout](crate::timeout) for an attempt, deadline for the operation | the caller still waits until the timeout ends |
//! | a call fails now and then | [retry](crate::retry) with its [budget](crate::budget) | retries make an overload worse |
//! | an answer is slow now and then | [hedge](crate::hedge) | needs several servers, or slowness by chance |
//! | the service is down | [circuit breaker](crate::circuit_breaker) | opens after some failures, so retries must be bounded too |
//! | the service is overloaded | [bulkhead](crate::bulkhead), best with a limit that [adapts](crate::bulkhead::Aimd) | callers must handle a refusal |
//! | the service has a quota | [rate limit](crate::rate_limit) | does not bound the calls in flight |
//! | one replica is slow, failing or gone | [balance](crate::balance) | does not help when all replicas fail |
//! | one tenant takes everything | [keyed](crate::keyed) rate limit or bulkhead | the sum over all tenants has no limit |
//! | there is a better answer than an error | [fallback](crate::fallback) | hides faults: watch its counter |

//!
//! # Recipes
//!
//! The programs in `examples/` print the effect of the layers, and fail without it. `cargo run --example tenants` runs
//! a program with one file, and `cargo run --package example-hyper --bin token` a program in a package. The page on
//! [HTTP](http) lists the programs for each client.
//!
//! | recipe | program |
//! |---|---|
//! | queries to PostgreSQL while the server is killed and started again | `postgres` in `example-databases` |
//! | commands to Redis while the server is killed and started again | `redis` in `example-databases` |
//! | reads from replicas, writes to the primary, failover of the primary | `read_replicas` |
//! | several shards, each with a standard stack of its own | `shards` |
//! | a limit for each tenant, by its plan | `tenants` |
//! | a log of retries, refusals and state changes | `events` |
//! | an error type of your own | `own_error` |
//! | a cache in another process as fallback | `cached_answer` |
//! | a token that is renewed between attempts | `token` in `example-hyper` |
//! | pings that find a dead HTTP/2 connection | `keep_alive` in `example-tonic` |
//! | tests with injected faults, in virtual time | `fault_tests` |

#[doc = include_str!("cost.md")]
pub mod cost {}
// The package `tests/clients` runs the examples of these two pages, which need clients, servers and an exporter.
#[cfg_attr(not(doctest), doc = include_str!("http.md"))]
pub mod http {}
#[cfg_attr(not(doctest), doc = include_str!("metrics.md"))]
pub mod metrics {}
#[doc = include_str!("ordering.md")]
pub mod ordering {}
#[doc = include_str!("outcomes.md")]
pub mod outcomes {}
#[doc = include_str!("testing.md")]
pub mod testing {}
#[doc = include_str!("tuning.md")]
pub mod tuning {}
