//! Composable [Tower](tower) layers that keep a service up when its dependencies are slow, flaky, overloaded or gone.
//!
//! The layers wrap any `tower::Service` that is `Clone` and report through the [`metrics`] facade. The [guide] leads
//! from a first stack to clients of HTTP and gRPC, settings, alerts and tests.
//!
//! # Quick start
//!
//! ```
//! use std::time::Duration;
//!
//! use tower::{BoxError, service_fn};
//!
//! /// Any service that is `Clone` fits: an HTTP client, a gRPC channel, a function.
//! async fn ask(item: &'static str) -> Result<String, BoxError> {
//!     Ok(format!("12 of {item}"))
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let inventory = buttress::standard("inventory")
//!     .timeout(Duration::from_millis(300)) // one attempt
//!     .deadline(Duration::from_secs(2)) // the whole answer, with all attempts
//!     .concurrency_limit(50) // or `.unlimited()`
//!     .build()?
//!     .wrap(service_fn(ask));
//! assert_eq!(inventory.send("bolts").await?, "12 of bolts");
//! # Ok(())
//! # }
//! ```
//!
//! This is the [standard stack](stack): retry with a budget, circuit breaker, timeouts and metrics. You can switch on
//! hedging and a rate limit. You can also use each part as a layer by itself:
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
//! | layer | module | effect |
//! |---|---|---|
//! | [`standard`] | [`stack`] | the layers that one dependency needs, in the right order |
//! | [`TimeoutLayer`] | [`timeout`] | ends one attempt that takes too long |
//! | [`DeadlineLayer`] | [`timeout`] | ends the whole operation |
//! | [`RetryLayer`] | [`retry`] | tries a failed call again, within a [`budget`] |
//! | [`HedgeLayer`] | [`hedge`] | sends a second copy of a slow request |
//! | [`CircuitBreakerLayer`] | [`circuit_breaker`] | rejects calls to a service that is down |
//! | [`Balance`] | [`balance`] | spreads calls over endpoints, away from slow or failing ones |
//! | [`RateLimitLayer`] | [`rate_limit`] | bounds the rate of calls |
//! | [`BulkheadLayer`] | [`bulkhead`] | bounds the calls in flight |
//! | [`FallbackLayer`] | [`fallback`] | answers in place of a call that failed |
//! | [`KeyedLayer`] | [`keyed`] | gives each key, a host or a tenant, layers of its own |
//! | [`MeasureLayer`] | [`measure`] | counts and times calls |
//!
//! With the feature `http`:
//!
//! | layer | module | effect |
//! |---|---|---|
//! | `http::client`, `grpc::client`, `reqwest::client` | `http::client`, `grpc`, `reqwest` | a whole client: the standard stack with all layers for HTTP, for gRPC over tonic, or for HTTP over reqwest |
//! | `http::server`, `grpc::server` | `http::server` | the layers of a server under axum or tonic: deadline, limits, slow bodies, answers, drain |
//! | `http::standard`, `http::grpc::standard` | `http`, `http::grpc` | the standard stack for HTTP and gRPC |
//! | `http::ReplayBodyLayer` | `http::replay_body` | keeps streamed bodies, so that they can be sent again |
//! | `http::AddOriginLayer` | `http::add_origin` | sends requests to one replica, through a client that takes the server from the URI |
//! | `http::BodyTimeoutLayer` | `http::body_timeout` | ends response bodies that stall or take too long |
//! | `http::PropagateDeadlineLayer`, `http::InheritDeadlineLayer` | `http::deadline` | carry deadlines from one service to the next |
//! | `http::RespondLayer` | `http::respond` | turns refusals by layers into responses of HTTP or gRPC |
//!
//! # HTTP and gRPC
//!
//! The feature `http` adds the rules of HTTP and gRPC: the meaning of each status, the requests that may be sent again,
//! and the end of a call at the end of its response body. It depends on the crates `http`, `http-body` and
//! `http-body-util` and on no client. It works with clients of hyper-util, tonic and reqwest, and with servers under
//! axum and tonic. Begin with `buttress::http::client(name)` in place of [`standard`], or with
//! `buttress::reqwest::client(name)`; the [recipes](guide::http) show the setup for each client. The features `hyper`,
//! `tonic` and `reqwest` add adapters that ask the client whether a request was sent. `reqwest-json`, `reqwest-query`
//! and `reqwest-form` add the methods `json`, `query` and `form` of its requests. `tracing` records the [events](event)
//! of all layers.
//!
//! # Settings in files
//!
//! The module [`settings`] has the settings as plain data, which replaces values of the code. The feature `serde` reads
//! it from TOML, YAML, JSON and other formats, and [`stack::Handle::apply`] changes a stack while it runs.
//!
//! # Order of layers
//!
//! From the outside: measure (operations), deadline, retry, hedge, circuit breaker, rate limit, bulkhead, timeout,
//! measure (attempts), balancer, client. The guide explains this [order](guide::ordering).
//!
//! - A fallback is outside all other layers except the measure, so that it acts when the other layers have given up.
//! - A keyed layer takes the position of the layer that it makes for each key.
//!
//! # A layer of your own
//!
//! Write an admission rule of your own, such as a limit on the bytes in flight, as a [part]: one function admits an
//! attempt, and a second one receives the result of the attempt. The crate makes a layer of the part, and the layer
//! keeps the promises below. The page on the [architecture] follows a request through the crate.
//!
//! # What all layers have in common
//!
//! - `XLayer::config(name)` makes a *configuration*. Its `build` checks every value and makes the *layer*, which owns
//!   the state. All services made by one layer value, or by its clones, share that state. Call `build` twice to get two
//!   separate states.
//! - **Nothing waits outside the call.** `poll_ready` is always ready. If the inner service is not ready, the call
//!   waits inside its future, under the timeout. An idle handle holds no permit, connection or place in a queue. An
//!   error from the inner `poll_ready` is the outcome of a call.
//! - **Nothing is lost.** A call that is dropped or that panics gives back everything that it held.
//! - **Nothing is allocated** by a successful call to a ready client, with a metrics recorder installed. There are two
//!   rare exceptions: a balancer looks for outliers every ten seconds, and layers renew their handles to metrics.
//! - **Retries do not overload a failing service.** In a total outage, its load falls to 1.00 times the calls, once
//!   each process has spent its initial [`budget`].
//! - All layers use tokio's clock: with `start_paused` every layer runs in virtual time, and a run with a seed repeats
//!   exactly. The [guide](guide::testing) has examples.
//! - A layer that needs the time reads the clock when a call begins, and again after the inner service has returned.
//!   The parts of a standard stack share these readings.
//! - The circuit breaker, rate limit, bulkhead and hedge can [observe](Mode::Observe) calls without acting on them.
//!   `handle()` of a layer returns a handle that reads and changes its state.
//! - Names are labels of metrics. A process keeps each name until it ends, so names should come from a closed set.
//!
//! # Calls
//!
//! Every service has the method `send(request)`, which takes `&self` and needs no `poll_ready`. Its future is declared
//! `Send`, so you can await it in a task of `tokio::spawn` or in a handler of axum, also when the service is a field of
//! a struct:
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
//! The services also implement `tower::Service`, for clients and servers that take one. `ServiceExt::oneshot` of tower
//! works where the compiler can see that its future is `Send`. In an `async` block the compiler often cannot see it
//! (*implementation of `FnOnce` is not general enough*): there it does not know that a `BoxError` or a `&'static str`
//! in the type of a closure or a box is `'static`.
//!
//! # Errors
//!
//! Every service and every body has `type Error = `[`Error`]. An error of the inner service has the kind
//! [`ErrorKind::Service`] and is contained unchanged. Any other kind means that a layer has ended the call. [`Cause`]
//! has the facts: the kind, the name of the layer, the number of attempts, the reason for making no further attempt
//! ([`GaveUp`]), whether the request was sent, and the time after which to try again. Nested layers do not wrap the
//! error again.
//!
//! `?` converts an [`Error`] into `anyhow::Error`, `eyre::Report`, an enum of `thiserror` and `Box<dyn Error + Send +
//! Sync>`. [`Error::find`] finds the error in all of these types. An enum of your own tells your callers what they need
//! to know, also from a spawned task:
//!
//! ```
//! use std::time::Duration;
//!
//! use buttress::{BoxError, Error, ErrorKind};
//! use tower::service_fn;
//!
//! #[derive(Debug)]
//! enum StockError {
//!     /// The stock was not asked. Try again later.
//!     Busy { retry_after: Option<Duration> },
//!     Failed(Error),
//! }
//!
//! impl From<Error> for StockError {
//!     fn from(error: Error) -> Self {
//!         match error.kind() {
//!             ErrorKind::CircuitOpen | ErrorKind::RateLimited | ErrorKind::BulkheadFull => Self::Busy {
//!                 retry_after: error.retry_after(),
//!             },
//!             _ => Self::Failed(error),
//!         }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let client = service_fn(|_item: &'static str| async { Err::<u32, BoxError>("no such item".into()) });
//! let stock = buttress::standard("stock").no_retry().unlimited().build()?.wrap(client);
//! let bolts = tokio::spawn(async move {
//!     let bolts = stock.send("bolts").await?;
//!     Ok::<u32, StockError>(bolts)
//! });
//! assert!(matches!(bolts.await?, Err(StockError::Failed(_))));
//! # Ok(())
//! # }
//! ```

mod algorithm;
#[doc = include_str!("ARCHITECTURE.md")]
pub mod architecture {}
mod availability;
pub mod balance;
pub mod budget;
pub mod bulkhead;
mod call_options;
mod callback;
mod chassis;
pub mod circuit_breaker;
pub mod client;
mod completion;
mod context;
mod deadline;
mod debug;
#[cfg(test)]
#[path = "../tests/common/debugging.rs"]
mod debugging;
pub mod discover;
pub mod drain;
#[cfg(feature = "serde")]
mod duration_text;
mod error;
pub mod event;
mod evictable;
pub mod fallback;
#[cfg(feature = "tonic")]
pub mod grpc;
pub mod guide;
pub mod hedge;
mod hints;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "hyper")]
pub mod hyper;
pub mod keyed;
mod live;
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
pub mod settings;
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
pub use crate::call_options::CallOptions;
pub use crate::circuit_breaker::{CircuitBreaker, CircuitBreakerLayer};
pub use crate::client::client;
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
pub use crate::telemetry::{MetricInfo, MetricKind, metrics_list};
pub use crate::timeout::{DeadlineLayer, DeadlineService, Timeout, TimeoutLayer};
