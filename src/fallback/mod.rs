//! Fallback: another answer in place of a failed call.
//!
//! # When to use it
//!
//! Use it where a worse answer is better than no answer: the last known stock, an empty list of recommendations, a
//! second service. Put it outside all other layers except a measure of operations, so that it acts when retries,
//! circuit breaker and deadline have given up. To count the failures that it hides, put another
//! [`MeasureLayer`](crate::MeasureLayer) with a different name inside it.
//!
//! Do not use it if callers must know about the failure: an order that was not placed has no other answer. Do not use
//! it to spread load: a second service that is called only while the first one is down gets the whole load at once,
//! with cold caches, and needs its own limits. A fallback hides outages from callers, so watch its counter.
//!
//! # How it works
//!
//! ```text
//!             ┌─────────┐ success, cancelled, or not chosen
//!  call ─────▶│ Primary │───────────────────────────────▶ the result, as it came
//!             └─────────┘
//!                  │ a failure, an overload, a rejection
//!                  ▼
//!             ┌──────────┐ an answer
//!             │ Fallback │──────────────────────────────▶ the answer
//!             └──────────┘ none
//!                  └────────────────────────────────────▶ the failure, as it came
//! ```
//!
//! The [classifier](Config::classify) classifies the result, as in every layer, and the result of a second service. The
//! fallback acts on failures, on overloads and on rejections by inner layers of this crate; [`when`](Config::when)
//! chooses otherwise, by outcome or by [kind of error](Failed::kind). It answers with one of these:
//!
//! | answer | needs a copy of the request |
//! |---|---|
//! | [`value`]: the same value always | no |
//! | [`from_failure`]: a function of the failure | no |
//! | [`from_request`]: a function of the request and the failure | yes |
//! | [`from_request_async`]: an async function of the request and the failure | yes |
//! | [`service`]: another service, called with the request | yes |
//!
//! [`Replay`](crate::Replay) makes the copy before the call, as in a retry. Without a copy, the last three have no
//! answer. Before the fallback calls another service, it drops the primary's future and response, which frees their
//! connection or permit. Before an async function it keeps the response, because the caller gets it if the function has
//! no answer.
//!
//! # Promises
//!
//! - A call that succeeds takes no lock and allocates nothing but the copy of the request, if one is needed.
//! - Inner layers have seen the failure: a circuit breaker counts it, whatever the caller gets.
//! - A result that is classified a success or [`Cancelled`](crate::Outcome::Cancelled) is never replaced.
//!
//! # Deadline
//!
//! A value or a function also answers after the deadline: it takes no time, and the caller would otherwise get the
//! error of the deadline at the same moment. An async function or another service is not called after the deadline,
//! because it could not answer in time. Only a deadline outside the fallback bounds the second service or the async
//! function. An inner deadline does not bound it, so give it its own timeout.
//!
//! # Cancellation
//!
//! Dropping the future drops the call to the primary, to the second service or to the async function. Nothing else is
//! held. A function that panics ends the call with its panic.
//!
//! # What clones share
//!
//! The settings and the metrics. There is no state; a second service shares what its clones share.
//!
//! # Cost
//!
//! One reference count, the classification of the result, and the copy of the request if the answer needs it. Only a
//! call to another service or to an async function is boxed.
//!
//! # Errors
//!
//! It has no errors of its own. If the second service fails, the caller gets its error; the inner layers have reported
//! the primary's failure. There is one exception: if the error proves that the second service was not reached, an outer
//! retry would conclude that no service has acted on the request. If the primary ended in an error, the caller
//! therefore gets the primary's error. If it ended in a response, the caller gets the second service's error, with
//! [`was_sent`](crate::Cause::was_sent) `true`.
//!
//! # Metrics
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `buttress_fallbacks_total` | counter | name; result |
//!
//! | `result` | meaning |
//! |---|---|
//! | `answered` | the caller got the fallback's answer |
//! | `failed` | the second service failed, or answered with a failure |
//! | `no_answer` | the function had no answer |
//! | `not_copyable` | there was no copy of the request |
//! | `not_idempotent` | the request must not act twice, and the service may have acted: the second one was not called |
//! | `deadline` | the deadline had passed, so the second service or the async function was not asked |
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | [`when`](Config::when) | failures, overloads, rejections | a caller should learn of its own mistake |
//! | [`classify`](Config::classify) | errors are failures | as in every layer |
//! | [`replay`](Config::replay) | `Clone` | as in a retry |
//!
//! # Examples
//!
//! ```
//! use buttress::fallback::{self, Failed};
//! use buttress::{BoxError, CircuitBreakerLayer, ErrorKind, FallbackLayer};
//! use tower::{ServiceBuilder, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let breaker = CircuitBreakerLayer::new("inventory");
//! breaker.handle().force_open();
//! let client = ServiceBuilder::new()
//!     .layer(FallbackLayer::new("inventory", fallback::value("unknown")))
//!     .layer(breaker)
//!     .service(service_fn(|_item: &str| async { Ok::<_, BoxError>("12 bolts") }));
//! assert_eq!(client.send("bolts").await?, "unknown");
//!
//! // Another service, and only while the circuit breaker is open.
//! let replica = service_fn(|_item: &'static str| async { Ok::<_, BoxError>("10 bolts, yesterday") });
//! let layer = FallbackLayer::config("inventory", fallback::service(replica))
//!     .when(|failed: Failed<'_, &str>| failed.kind() == Some(ErrorKind::CircuitOpen))
//!     .build()?;
//! let client = layer.wrap(service_fn(|_item| async { Err::<&str, BoxError>("reset".into()) }));
//! let error = client.send("bolts").await.unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Service);
//! # Ok(())
//! # }
//! ```

mod answer;
mod config;
mod failed;
mod future;
mod layer;

pub use self::answer::{
    Answer, FromFailure, FromRequest, FromRequestAsync, FromService, NoAnswer, Reply,
    ServiceFuture, Value, from_failure, from_request, from_request_async, service, value,
};
pub use self::config::{Config, Settings};
pub use self::failed::{Failed, Failures, ShouldHandle};
pub use self::future::ResponseFuture;
pub use self::layer::{Fallback, FallbackLayer};
