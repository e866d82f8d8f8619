//! Fallback: another answer in place of a failed one.
//!
//! # When to use it
//!
//! Where an answer of less worth is better than none: the last known stock, an empty list of recommendations,
//! a second service. It stands outside the other layers, with only a measure of operations outside it: a
//! fallback is what remains when retries, circuit breaker and deadline have given up. To count the failures that
//! it covers up, put one more [`MeasureLayer`](crate::MeasureLayer) of another name inside it.
//!
//! Not where callers must know that something failed: an order that was not placed has no other answer. Not to
//! spread load: a second service that is asked only while the first one is down gets the whole load at once,
//! with cold caches; it needs its own limits. A fallback hides outages from callers, so watch its counter.
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
//! The result is classified by the [classifier](Config::classify), as in every layer, and so is that of a second
//! service. The fallback acts on failures, on overloads and on rejections by inner layers of this crate;
//! [`when`](Config::when) chooses otherwise, by outcome or by [kind of error](Failed::kind). It answers with
//!
//! | what | needs a copy of the request |
//! |---|---|
//! | [`value`]: always the same | no |
//! | [`from_failure`]: a function of the failure | no |
//! | [`from_request`]: a function of the request and the failure | yes |
//! | [`service`]: another service, called with the request | yes |
//!
//! The copy is made before the call by [`Replay`](crate::Replay), as in a retry. A request that it does not copy
//! cannot be answered by the last two. Before another service is called, the primary's future and its response are
//! dropped, so that a connection or a permit that they hold is free.
//!
//! # Promises
//!
//! - A call that succeeds takes no lock and allocates nothing but the copy of the request, if one is needed.
//! - Layers inner have seen the failure: a circuit breaker counts it, whatever the caller gets.
//! - A result that is classified a success or [`Cancelled`](crate::Outcome::Cancelled) is never replaced.
//!
//! # Deadline
//!
//! A value or a function answers also when the deadline has passed: it takes no time, and the caller that gets
//! it would have got the error of the deadline at the same moment. Another service is not asked then: it could
//! not be done in time. The deadline that counts is the one outside the fallback; an inner one has no say any
//! more, so give the second service a timeout of its own.
//!
//! # Cancellation
//!
//! Dropping the future drops the call to the primary or to the second service. Nothing else is held. A function
//! that panics ends the call with its panic.
//!
//! # What clones share
//!
//! The settings and the metrics. There is no state; a second service shares what its clones share.
//!
//! # Cost
//!
//! One reference taken and given back, the classification of the result, and the copy of the request where it is
//! needed. Only a call to another service is boxed.
//!
//! # Errors
//!
//! None of its own. If the second service fails, its own error comes back: it says what stands
//! between the caller and an answer now, and the primary's failure has been reported by the layers that saw it.
//! There is one exception: an error that proves that the second service was not reached would also say, to an outer
//! retry, that nobody has acted on the request. If the primary ended in an error, that one comes back instead. If it ended in a
//! response, the second service's error comes back, and [`was_sent`](crate::Cause::was_sent) is `true`.
//!
//! # Metrics
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `buttress_fallbacks_total` | counter | name; result |
//!
//! | `result` | means |
//! |---|---|
//! | `answered` | the caller got the fallback's answer |
//! | `failed` | the second service failed, or answered with a failure |
//! | `no_answer` | the function had none |
//! | `not_copyable` | there was no copy of the request |
//! | `not_idempotent` | acting twice does harm, and the service may have acted: the second one was not asked |
//! | `deadline` | the deadline had passed, so the second service was not asked |
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | [`when`](Config::when) | failures, overloads, rejections | the caller's own mistake is better told |
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
    Answer, FromFailure, FromRequest, FromService, NoAnswer, Reply, ServiceFuture, Value,
    from_failure, from_request, service, value,
};
pub use self::config::{Config, Settings};
pub use self::failed::{Failed, Failures, ShouldHandle};
pub use self::future::ResponseFuture;
pub use self::layer::{Fallback, FallbackLayer};
