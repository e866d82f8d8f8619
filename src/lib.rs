//! Composable [Tower](tower) layers that keep a service up when what it calls is slow, flaky,
//! overloaded or gone.
//!
//! They wrap any `tower::Service` that is `Clone` and report through the [`metrics`] facade.
//!
//! # Quick start
//!
//! ```
//! use std::time::Duration;
//!
//! use tower::{BoxError, service_fn};
//!
//! /// Any service that is `Clone`: an HTTP client, a gRPC channel, a function.
//! async fn ask(item: &'static str) -> Result<String, BoxError> {
//!     Ok(format!("12 of {item}"))
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let inventory = buttress::standard("inventory")
//!     .timeout(Duration::from_millis(300)) // one attempt
//!     .deadline(Duration::from_secs(2)) // the whole answer
//!     .concurrency_limit(50) // or `.unlimited()`
//!     .build()?
//!     .wrap(service_fn(ask));
//! assert_eq!(inventory.send("bolts").await?, "12 of bolts");
//! # Ok(())
//! # }
//! ```
//!
//! That is the [standard stack](stack): retry with a budget, circuit breaker, timeouts and metrics, with
//! hedging and a rate limit for the asking. Its parts are layers that can be used by themselves:
//!
//! ```
//! use std::time::Duration;
//!
//! use buttress::{CircuitBreakerLayer, RetryLayer, TimeoutLayer};
//! use tower::ServiceBuilder;
//! # use tower::{BoxError, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! # let client = service_fn(|item: &'static str| async move { Ok::<_, BoxError>(item) });
//! let inventory = ServiceBuilder::new()
//!     .layer(RetryLayer::new("inventory"))
//!     .layer(CircuitBreakerLayer::new("inventory"))
//!     .layer(TimeoutLayer::new("inventory", Duration::from_millis(300)))
//!     .service(client);
//! # drop(inventory.send("bolts").await);
//! # }
//! ```
//!
//! # Layers
//!
//! | layer | module | in short |
//! |---|---|---|
//! | [`standard`] | [`stack`] | all that one dependency needs, in the right order |
//! | [`TimeoutLayer`] | [`timeout`] | ends one attempt that takes too long |
//! | [`DeadlineLayer`] | [`timeout`] | ends the whole operation |
//! | [`RetryLayer`] | [`retry`] | tries again what failed, within a [`budget`] |
//! | [`HedgeLayer`] | [`hedge`] | sends a copy of what takes too long |
//! | [`CircuitBreakerLayer`] | [`circuit_breaker`] | rejects calls to a service that is down |
//! | [`Balance`] | [`balance`] | spreads calls over endpoints, away from those that are slow or failing |
//! | [`RateLimitLayer`] | [`rate_limit`] | keeps to a number of calls per time |
//! | [`BulkheadLayer`] | [`bulkhead`] | bounds the calls in flight |
//! | [`FallbackLayer`] | [`fallback`] | answers in place of a call that failed |
//! | [`KeyedLayer`] | [`keyed`] | gives each key, a host or a tenant, layers of its own |
//! | [`MeasureLayer`] | [`measure`] | counts and times what passes |
//!
//! With the feature `http`:
//!
//! | layer | module | in short |
//! |---|---|---|
//! | `http::standard`, `http::grpc::standard` | `http`, `http::grpc` | the standard stack for HTTP and gRPC |
//! | `http::ReplayBodyLayer` | `http::replay_body` | lets streamed bodies be sent again |
//! | `http::AddOriginLayer` | `http::add_origin` | sends requests to one replica, with a client that is bound to none |
//! | `http::BodyTimeoutLayer` | `http::body_timeout` | ends response bodies that stall or take too long |
//! | `http::PropagateDeadlineLayer`, `http::InheritDeadlineLayer` | `http::deadline` | carry deadlines from one service to the next |
//! | `http::RespondLayer` | `http::respond` | answers in HTTP or gRPC where a layer has refused |
//!
//! # HTTP and gRPC
//!
//! The feature `http` knows what a status means, which requests may be sent again, and that a call is over at the end of
//! its response body. It depends on the crates `http`, `http-body` and `http-body-util`, not on a client: those of
//! hyper-util, tonic and reqwest, and servers under axum and tonic, fit. Begin with `buttress::http::standard(name)` in place of [`standard`].
//!
//! # Order of layers
//!
//! From the outside: measure (operations), deadline, retry, hedge, circuit breaker, rate limit, bulkhead, timeout,
//! measure (attempts), balancer, client. The [guide] says why, and how to get from a service level to numbers.
//!
//! - A fallback is outside all of them but a measure, so that it acts on what they have given up.
//! - Layers of each key's own stand where one for all would stand.
//!
//! # A layer of your own
//!
//! An admission of your own, such as a limit on bytes in flight, is a [part]: two functions, one that admits an attempt
//! and one that learns how it ended. It becomes a layer that keeps the promises of all others. The page on
//! [architecture] shows the way of a request through the crate.
//!
//! # What all layers have in common
//!
//! - A *configuration* is the recipe, made by `XLayer::config(name)`; its `build` checks every value and makes
//!   the *layer*, which owns the state. All services made by one layer value, or by its clones, share that
//!   state. Build twice for two of them.
//! - `poll_ready` is always ready. An inner service that is not ready is waited for inside the call, under
//!   the timeout; an idle handle holds nothing of this crate's. An error from the inner `poll_ready` is the outcome of a call.
//! - Time is tokio's: with `start_paused` every layer runs in virtual time, and with a seed a run repeats
//!   exactly. The [guide](guide#in-your-tests) shows it.
//! - A layer reads the clock when a call begins, and when it ends, after the inner service has returned. The parts of a
//!   standard stack share these readings.
//! - Names are metrics labels: they are kept for the life of the process and should come from a closed set.
//!
//! # Calls
//!
//! Every service has the method `send(request)`, which takes `&self` and needs no `poll_ready`. Its future is `Send` by its
//! declaration, so that it can be awaited in a task of `tokio::spawn`, in a handler of axum, and behind a field:
//!
//! ```
//! use buttress::{BoxError, Error, Outcome, RetryLayer, classify_fn};
//! use tower::service_fn;
//! use tower::util::BoxCloneSyncService;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let classify = classify_fn(|result: Result<&u16, &Error>| match result {
//!     Ok(200..500) => Outcome::Success,
//!     _ => Outcome::Failure,
//! });
//! let client = service_fn(|_item: &'static str| async { Ok::<u16, BoxError>(200) });
//! let retry = RetryLayer::config("stock").classify(classify).build()?;
//! let stock = retry.wrap(BoxCloneSyncService::new(client));
//! let task = tokio::spawn(async move { stock.send("bolts").await });
//! assert_eq!(task.await??, 200);
//! # Ok(())
//! # }
//! ```
//!
//! The services are `tower::Service`s, too, for clients and servers that take one. `ServiceExt::oneshot` of tower works where the
//! compiler can see that its future is `Send`. In an `async` block it often cannot (*implementation of `FnOnce` is not general
//! enough*), because it forgets that a `BoxError` or a `&'static str` in the type of a closure or of a box is `'static`.
//!
//! # Errors
//!
//! `type Error = `[`Error`] for every service and every body. The kind is [`ErrorKind::Service`] for an error of the inner service,
//! which is inside as it was; otherwise a layer has ended the call. [`Cause`] has the facts: kind, name, attempts, why there was no
//! further attempt ([`GaveUp`]), whether the request was sent, and after which time to try again. Layers inside each other do not
//! wrap the error again.
//!
//! `?` converts it into `anyhow::Error`, `eyre::Report`, an enum of `thiserror` and `Box<dyn Error + Send + Sync>`, and
//! [`Error::find`] finds it again in all of them.

mod algorithm;
#[doc = include_str!("ARCHITECTURE.md")]
pub mod architecture {}
mod availability;
pub mod balance;
pub mod budget;
pub mod bulkhead;
mod callback;
mod chassis;
pub mod circuit_breaker;
mod completion;
mod context;
mod deadline;
mod debug;
#[cfg(test)]
#[path = "../tests/common/debugging.rs"]
mod debugging;
pub mod discover;
mod error;
mod evictable;
pub mod fallback;
pub mod guide;
pub mod hedge;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "hyper")]
pub mod hyper;
pub mod keyed;
pub mod measure;
mod mode;
mod nanos;
mod origin;
mod outcome;
pub mod part;
mod random;
pub mod rate_limit;
mod ready;
mod replay;
#[cfg(feature = "reqwest")]
pub mod reqwest;
pub mod retry;
mod send;
mod shortage;
pub mod stack;
#[cfg(any(feature = "hyper", feature = "reqwest", feature = "tonic"))]
mod statement;
mod stripe;
mod sync;
mod telemetry;
pub mod timeout;
mod timer;
#[cfg(feature = "tonic")]
pub mod tonic;
#[doc = include_str!("TRUST.md")]
pub mod trust {}
mod wake;

pub use tower::BoxError;

pub use crate::algorithm::backoff::{Backoff, Delays, Jitter};
pub use crate::availability::Availability;
pub use crate::balance::Balance;
pub use crate::budget::Budget;
pub use crate::bulkhead::{Bulkhead, BulkheadLayer};
pub use crate::circuit_breaker::{CircuitBreaker, CircuitBreakerLayer};
pub use crate::completion::{CompleteOnResponse, Permit, TrackCompletion};
pub use crate::deadline::{Attempt, Deadline, DeadlineScope};
pub use crate::error::{Cause, ConfigError, Error, ErrorKind, GaveUp, Stage};
pub use crate::evictable::Evictable;
pub use crate::fallback::{Fallback, FallbackLayer};
pub use crate::hedge::{Hedge, HedgeLayer};
pub use crate::keyed::{Keyed, KeyedLayer};
pub use crate::measure::{Measure, MeasureLayer};
pub use crate::mode::Mode;
pub use crate::origin::EndsCalls;
pub use crate::outcome::{
    Attempts, Classify, ErrorsAreFailures, Outcome, Pushback, Reattempt, classify_fn,
};
pub use crate::rate_limit::{Rate, RateLimit, RateLimitLayer};
pub use crate::ready::CloneService;
pub use crate::replay::{ByClone, Conflict, Effect, Never, Replay, ReplayBodyError, Upload};
pub use crate::retry::{Retry, RetryLayer};
pub use crate::shortage::Shortage;
pub use crate::stack::standard;
pub use crate::timeout::{DeadlineLayer, DeadlineService, Timeout, TimeoutLayer};
