//! Rate, errors and duration of the calls that pass.
//!
//! # When to use it
//!
//! Outermost in a stack it counts operations, as the caller sees them
//! ([`MeasureLayer::operation`]); innermost it counts attempts, as the service sees them
//! ([`MeasureLayer::attempt`]). The difference between the two is what the layers between them did.
//! The other layers record no durations, so that their calls stay free of clocks and histograms.
//!
//! # How it works
//!
//! ```text
//!  caller ─▶ measure(operation) ─▶ retry, hedge … ─▶ measure(attempt) ─▶ client
//!            1 operation, 320 ms                     3 attempts, 100 ms each
//! ```
//!
//! The clock is read when the call is made and when its answer is classified. A call that is dropped
//! before that is counted as `cancelled`, with the time it took until then.
//!
//! With `http::CompleteOnBodyEnd` of the feature `http` a call ends with its body.
//!
//! # Promises
//!
//! - Every call is counted once, whatever becomes of it: answered, failed, refused, dropped, or ended by a panic.
//! - The duration is between two real readings of the clock, never one that other layers share.
//! - Series of one outcome are made when that outcome is first seen.
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
//! Two readings of the clock, a counter and a histogram; that is why no other layer does it. Nothing is allocated here; an
//! exporter may allocate for its histograms.
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
//! An attempt that a timeout outer gives up is `cancelled` here: that is what the service saw. The
//! timeout counts it in `buttress_timeouts_total`.
//!
//! `outcome` is `success`, `failure`, `overload`, `ignored`, `cancelled`, or `rejected` for a call that a
//! layer of this crate inner refused.
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
mod metrics;

pub use self::layer::{Measure, MeasureLayer, Measured, Meter};
