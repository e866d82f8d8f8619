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
//! use buttress::{CircuitBreakerLayer, DeadlineLayer, MeasureLayer, RetryLayer, TimeoutLayer};
//! use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let client = service_fn(|item: &'static str| async move {
//!     Ok::<_, BoxError>(format!("12 of {item}"))
//! });
//! let inventory = ServiceBuilder::new()
//!     .layer(MeasureLayer::operation("inventory"))
//!     .layer(DeadlineLayer::new("inventory", Duration::from_secs(2)))
//!     .layer(RetryLayer::new("inventory"))
//!     .layer(CircuitBreakerLayer::new("inventory"))
//!     .layer(TimeoutLayer::new("inventory", Duration::from_millis(300)))
//!     .layer(MeasureLayer::attempt("inventory"))
//!     .service(client);
//! assert_eq!(inventory.oneshot("bolts").await?, "12 of bolts");
//! # Ok(())
//! # }
//! ```
//!
//! # Layers
//!
//! | layer | page | in short |
//! |---|---|---|
//! | [`TimeoutLayer`] | [`timeout`] | ends one attempt that takes too long |
//! | [`DeadlineLayer`] | [`timeout`] | ends the whole operation |
//! | [`RetryLayer`] | [`retry`] | tries again what failed, within a [`budget`] |
//! | [`HedgeLayer`] | [`hedge`] | sends a copy of what takes too long |
//! | [`CircuitBreakerLayer`] | [`circuit_breaker`] | rejects calls to a service that is down |
//! | [`MeasureLayer`] | [`measure`] | counts and times what passes |
//!
//! # Order of layers
//!
//! From the outside: measure (operations), deadline, retry, circuit breaker, timeout, measure (attempts), client.
//!
//! - The deadline is outside retry, so that it covers all attempts and the waits between them.
//! - The circuit breaker is inside retry, so that it counts attempts and ends a retry when it opens, and
//!   outside the timeout, so that calls which took too long count as failures.
//!
//! # What all layers have in common
//!
//! - A *configuration* is the recipe, made by `XLayer::config(name)`; its `build` checks every value and makes
//!   the *layer*, which owns the state. All services made by one layer value, or by its clones, share that
//!   state. Build twice for two of them.
//! - `poll_ready` is always ready. An inner service that is not ready is waited for inside the call, under
//!   the timeout; an idle handle holds nothing of this crate's. An error from the inner `poll_ready` is the outcome of a call.
//! - `type Error = `[`BoxError`]. Errors of the inner service come out untouched; [`Error::find`] finds those
//!   of a layer.
//! - Time is tokio's: with `start_paused` every layer runs in virtual time, and with a seed a run repeats
//!   exactly.
//! - What a layer takes for the time of an event was read in the same poll. If the inner service blocks
//!   the thread for long, windows and limits see its end that much too early. What is measured is not
//!   affected.
//! - Names are metrics labels: they are kept for the life of the process and should come from a closed set.

mod availability;
mod backoff;
pub mod balance;
pub mod budget;
pub mod circuit_breaker;
mod completion;
mod context;
mod deadline;
pub mod discover;
mod error;
mod forget;
pub mod hedge;
mod lane;
mod latency;
pub mod measure;
mod mode;
mod outcome;
mod random;
mod ready;
mod replay;
pub mod retry;
mod sync;
mod telemetry;
pub mod timeout;
mod timer;
mod window;

pub use tower::BoxError;

pub use crate::availability::Availability;
pub use crate::backoff::{Backoff, Delays, Jitter};
pub use crate::budget::Budget;
pub use crate::circuit_breaker::{CircuitBreaker, CircuitBreakerLayer};
pub use crate::completion::{AtResponse, Completion, Token};
pub use crate::deadline::{Attempt, Deadline, DeadlineScope};
pub use crate::error::{ConfigError, Error, ErrorKind};
pub use crate::forget::Forget;
pub use crate::hedge::{Hedge, HedgeLayer};
pub use crate::measure::{Measure, MeasureLayer};
pub use crate::mode::Mode;
pub use crate::outcome::{Classify, ErrorsAreFailures, Hint, Outcome, classify_fn};
pub use crate::ready::Wrappable;
pub use crate::replay::{ByClone, Once, Replay};
pub use crate::retry::{Retry, RetryLayer};
pub use crate::timeout::{DeadlineLayer, DeadlineService, Timeout, TimeoutLayer};

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
