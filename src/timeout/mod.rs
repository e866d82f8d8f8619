//! Timeout of one attempt, and deadline of a whole operation.
//!
//! # When to use it
//!
//! Always use both. A [`TimeoutLayer`] is inside retry, next to the client, and ends one attempt: set it to a little
//! more than the slowest useful answer (the 99.9th percentile of a healthy service). A [`DeadlineLayer`] is outside
//! retry and ends the operation, with all attempts and waits: set it to the time that the caller is willing to wait.
//!
//! # How it works
//!
//! ```text
//! DeadlineLayer  |------------------ 2 s ------------------|
//! RetryLayer        attempt 1   wait   attempt 2   (no wait that reaches past the deadline)
//! TimeoutLayer     |- 300 ms -|       |- 300 ms -|
//! ```
//!
//! The timeout begins at the first poll of the call that finds no answer; the deadline begins with the call. Both cover
//! the time that the inner service takes to become ready. Each poll polls the inner future first: if the answer is
//! ready in the same poll in which the time is over, the caller gets the answer. When the time is over, the inner
//! future is dropped first, so that all that it held is free when the caller gets the error.
//!
//! In a [standard stack](crate::stack) the timeout is the time for the answer. While the client takes the body of the
//! request, each part that it takes restarts the time, and the time does not run while the client waits for the body.
//! This needs a body that reports its [progress](crate::Upload): a `ReplayBody` of the feature `http`, or one of your
//! own. With another body, and in a [`TimeoutLayer`], the time begins with the attempt. The deadline and the
//! `response_timeout` cover the upload, too.
//!
//! The task carries the deadline (see [`Deadline`](crate::Deadline)). If the call has inherited a deadline, the sooner
//! one counts. If it has passed already, the inner service is not called.
//!
//! Both layers are done when the inner service has returned its response. In the [standard
//! stack](crate::stack#the-three-times) the deadline also covers the body of the answer, and a `response_timeout`
//! covers all attempts up to the head. In a stack that is built by hand, a `BodyTimeoutLayer` of the feature `http`
//! ends the body at the deadline.
//!
//! # Promises
//!
//! - A call ends at most one tick of tokio's timer (1 ms) after its time, also when the inner future uses up the task's
//!   cooperative budget in each poll.
//! - A call whose answer is ready at the first poll makes no timer, and the timeout does not read the clock for it.
//!
//! # Cancellation
//!
//! Dropping the future drops the inner future and its timer. The layers hold nothing else.
//!
//! # What clones share
//!
//! The settings and the metrics. There is no state.
//!
//! # Cost
//!
//! For a call whose answer is ready at the first poll: a comparison (timeout) or a reading of the clock (deadline). For
//! other calls: a timer, which is a part of the future.
//!
//! # Errors
//!
//! [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) (the inner service may have acted on the request) and
//! [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded) ([`was_sent`](crate::Cause::was_sent) is `false`
//! only if the inner service was certainly not called).
//!
//! # Metrics
//!
//! | metric | labels |
//! |---|---|
//! | `buttress_timeouts_total` | name, layer = timeout, deadline; mode = enforce |
//! | `buttress_timeout_seconds`, a gauge: the time that is set | name, layer |
//! | `buttress_rejections_total` | name, layer = deadline, retry; reason = `deadline_exceeded`; mode = enforce |
//!
//! # Defaults
//!
//! None: no duration suits most services.
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//! use buttress::{BoxError, DeadlineLayer, Error, ErrorKind, RetryLayer, TimeoutLayer};
//! use tower::{Service, ServiceBuilder, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let mut client = ServiceBuilder::new()
//!     .layer(DeadlineLayer::new("inventory", Duration::from_secs(2)))
//!     .layer(RetryLayer::new("inventory"))
//!     .layer(TimeoutLayer::new("inventory", Duration::from_millis(300)))
//!     .service(service_fn(|item: &'static str| async move {
//!         if item == "lost" {
//!             std::future::pending::<()>().await;
//!         }
//!         Ok::<_, BoxError>(format!("12 of {item}"))
//!     }));
//! # std::future::poll_fn(|cx| client.poll_ready(cx)).await?;
//! assert_eq!(client.call("bolts").await?, "12 of bolts");
//!
//! let error = client.call("lost").await.unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Timeout);
//! # Ok(())
//! # }
//! ```

mod bound;
mod config;
mod future;
mod layer;
mod service;

pub use self::bound::{Bound, PerAttempt, Total};
pub use self::config::{DeadlineConfig, Fixed, PerRequest, TimeoutConfig, TimeoutFor};
pub use self::future::{BoundedFuture, DeadlineFuture, TimeoutFuture};
pub use self::layer::{BoundLayer, DeadlineLayer, TimeoutLayer};
pub use self::service::{Bounded, DeadlineService, Timeout};
