//! Timeout of one attempt, and deadline of a whole operation.
//!
//! # When to use it
//!
//! Always, both. A [`TimeoutLayer`] sits under retry, next to the client, and ends one attempt: set it
//! to a little more than the slowest answer that is still worth having (the 99.9th percentile of a
//! healthy service). A [`DeadlineLayer`] sits outside retry and ends the operation, all attempts and
//! waits included: set it to what the caller is willing to wait.
//!
//! # How it works
//!
//! ```text
//! DeadlineLayer  |------------------ 2 s ------------------|
//! RetryLayer        attempt 1   wait   attempt 2   (no wait that reaches past the deadline)
//! TimeoutLayer     |- 300 ms -|       |- 300 ms -|
//! ```
//!
//! The timeout is measured from the first poll of the call that finds the answer not there yet; the
//! deadline from the call. Both cover the time that the inner service takes to become ready. The inner future is polled first: if
//! the answer and the timeout are due in one poll, the answer wins. When time is up the inner future
//! is dropped first, so that whatever it held is free when the caller sees the error.
//!
//! In a [standard stack](crate::stack) the timeout is the time for the answer: while the client takes the body of the request,
//! each part that it takes begins the time anew, and while the client waits for the body no time runs. That needs a body that
//! tells its [progress](crate::Upload): a `ReplayBody` of the feature `http`, or one of your own. With another body, and in a
//! [`TimeoutLayer`], the time begins with the attempt. Deadline and `response_timeout` cover the upload, too.
//!
//! The deadline is carried with the task (see [`Deadline`](crate::Deadline)); of an inherited one and
//! the layer's own, the sooner one counts. If it has passed already, the inner service is not asked.
//!
//! Both layers are done when the inner service has returned its response. In the [standard stack](crate::stack#the-three-times) the
//! deadline covers the body of an answer as well, and a `response_timeout` all attempts up to its head; in a stack built by
//! hand a `BodyTimeoutLayer` of the feature `http` ends the body at the deadline.
//!
//! # Promises
//!
//! - A call ends at most one tick of tokio's timer (1 ms) after its time is up, also when the inner
//!   future uses up the task's cooperative budget in each poll.
//! - A call whose answer is there at the first poll makes no timer; the timeout does not read the clock.
//!
//! # Cancellation
//!
//! Dropping the future drops the inner future and its timer. Nothing else is held.
//!
//! # What clones share
//!
//! The settings and the metrics. There is no state.
//!
//! # Cost
//!
//! For a call whose answer is there at the first poll, a comparison (timeout) or a reading of the clock (deadline). For
//! others a timer, which is a part of the future.
//!
//! # Errors
//!
//! [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) (the inner service may have acted on the request) and
//! [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded)
//! ([`was_sent`](crate::Cause::was_sent) is `false` only if the inner service was surely not asked).
//!
//! # Metrics
//!
//! | metric | labels |
//! |---|---|
//! | `buttress_timeouts_total` | name, layer = timeout, deadline |
//! | `buttress_rejections_total` | name, layer = deadline, retry; reason = `deadline_exceeded`; mode = enforce |
//!
//! # Defaults
//!
//! None: there is no duration that suits most services.
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
