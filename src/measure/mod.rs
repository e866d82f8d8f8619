//! Measure: rate, errors and duration of calls.
//!
//! # When to use it
//!
//! The outermost layer of a stack counts operations, as the caller sees them
//! ([`MeasureLayer::operation`]); the innermost layer counts attempts, as the service sees them
//! ([`MeasureLayer::attempt`]). The difference between the two is the effect of the layers between them.
//! The other layers record no durations, so that their calls read no clock and write no histogram for them.
//!
//! # How it works
//!
//! ```text
//!  caller ─▶ measure(operation) ─▶ retry, hedge … ─▶ measure(attempt) ─▶ client
//!            1 operation, 320 ms                     3 attempts, 100 ms each
//! ```
//!
//! The clock is read when the call is made and when its answer is classified. A call that is dropped before that is
//! counted as `cancelled`, with the time it took until then. In the [standard stack](crate::stack) an attempt begins
//! when it has passed the queues of the stack.
//!
//! With `http::CompleteOnBodyEnd` of the feature `http` a call ends with its body.
//!
//! # Promises
//!
//! - Every call is counted once, whatever becomes of it: answered, failed, refused, dropped, or ended by a panic.
//! - The duration is the time between two readings of the clock: one before the inner service is called, one after it
//!   has returned.
//! - The counters of `success`, `failure`, `overload`, `timeout` and `rejected` exist with the value 0 from the start.
//!   The counter of another outcome appears with its first call.
//!
//! # Cancellation
//!
//! Dropping the future records the call as `cancelled`.
//!
//! # What clones share
//!
//! The metrics, which are shared by all layers of the same name and stage.
//!
//! # Cost
//!
//! Two readings of the clock, which the parts of a standard stack share, a counter and a histogram. Nothing is
//! allocated here; an exporter may allocate for its histograms.
//!
//! # Errors
//!
//! None of its own.
//!
//! # Metrics
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `buttress_calls_total` | counter | name; stage = operation, attempt; outcome |
//! | `buttress_call_duration_seconds` | histogram | name, stage, outcome |
//!
//! The layer that ends an attempt after a time counts it in `buttress_timeouts_total`. This layer counts it as follows:
//!
//! | ended by | in the standard stack | inside a [`TimeoutLayer`](crate::TimeoutLayer) or [`DeadlineLayer`](crate::DeadlineLayer) of your own |
//! |---|---|---|
//! | the timeout of the attempt | `timeout` | `cancelled`: the layer sees that its call is dropped |
//! | the deadline of the operation, or the response timeout of the stack | `timeout` | `cancelled` |
//!
//! `outcome` is `success`, `failure`, `overload`, `throttled`, `ignored`, `cancelled`, `timeout` for a call whose time
//! was over, or `rejected` for a call that an inner layer of this crate refused.
//!
//! # Defaults
//!
//! Errors are failures; a call is over when its response is there.
//!
//! # Examples
//!
//! ```
//! use buttress::{BoxError, MeasureLayer};
//! use tower::{Service, ServiceBuilder, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let mut client = ServiceBuilder::new()
//!     .layer(MeasureLayer::operation("inventory"))
//!     .service(service_fn(|n: u32| async move { Ok::<_, BoxError>(n + 1) }));
//! # std::future::poll_fn(|cx| client.poll_ready(cx)).await?;
//! assert_eq!(client.call(1).await?, 2);
//! # Ok(())
//! # }
//! ```

mod layer;

pub(crate) use self::layer::{ATTEMPT, OPERATION};
pub use self::layer::{Measure, MeasureLayer, Measured, Meter};
