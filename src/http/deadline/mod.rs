//! Deadlines across hops: the time that is left travels with the request.
//!
//! # When to use it
//!
//! Wherever one service calls another. Without it a server works on for a caller that has given up, and that work is
//! in the way of requests which are still waited for. A client that has a deadline tells it with a
//! [`PropagateDeadlineLayer`]; a server takes it over with an [`InheritDeadlineLayer`], and the clients that
//! its handlers use tell what is left of it.
//!
//! Not to hand a deadline to strangers, who need not know what you wait for: leave the layer out of clients of other
//! parties. A deadline that arrives is the caller's wish, and a server grants it up to its own
//! [`max`](InheritDeadlineConfig::max), 60 s by default. A request without a deadline has that time as well.
//!
//! # How it works
//!
//! ```text
//!  DeadlineLayer (2 s) ─▶ RetryLayer ─▶ PropagateDeadlineLayer ─▶ HTTP client
//!                                        x-request-timeout-ms: 2000, at the second attempt 1650
//!                                                │
//!                                                ▼
//!  RespondLayer ─▶ InheritDeadlineLayer (at most 10 s) ─▶ handler: Deadline::current(), 1650 ms from now
//!                                                          └─▶ PropagateDeadlineLayer ─▶ HTTP client
//!                                                               x-request-timeout-ms: 1640
//! ```
//!
//! The client's layer is the innermost one, next to the client: under retry and hedge, so that each attempt carries
//! what is left when it is sent. That is the time up to the [`Deadline`](crate::Deadline) of the task, less the
//! [`slack`](PropagateDeadlineConfig::slack); the clock is read when the client is called, after it has become ready. Where
//! there is no deadline, nothing is written: the `response_timeout` of a standard stack is no deadline, and the
//! `deadline` of a stack is none of a [stream](crate::stack#streams). A smaller value that the request carries already is kept.
//!
//! Such a value, as that of tonic's `Request::set_timeout`, is the time of each attempt. An [`InheritDeadlineLayer`] outside
//! the client's stack makes it that of all attempts together.
//!
//! Some clients obey the header themselves: a tonic `Channel` ends the call when that time is over, in an error that its
//! callers see as `Cancelled`. So where there is a deadline, an error that comes after the time which the request carries becomes
//! [`DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded), whichever timer was first. One that proves that the request was
//! not sent, as an adapter around the client proves, stays what it is.
//!
//! | request | header | value |
//! |---|---|---|
//! | gRPC, by its `content-type` | `grpc-timeout` | up to 8 digits and a unit, as gRPC has it |
//! | other | `x-request-timeout-ms`, or [another one](PropagateDeadlineConfig::header) | milliseconds, up to 10 digits |
//!
//! HTTP has no header of its own for this. This one has the unit in its name, as those of Connect and of
//! Envoy do, and a duration needs no clocks that agree. For these two write `connect-timeout-ms` or
//! `x-envoy-expected-rq-timeout-ms`.
//!
//! The server's layer reads both headers, and the smallest value counts. The deadline of the inner call is the soonest
//! of that, of the configured maximum, and of the one in force. It is a [`DeadlineLayer`](crate::DeadlineLayer)
//! in all other respects: it ends the call when the time is over, and drops the handler.
//!
//! # Promises
//!
//! - What arrives is never longer than what was left, nor shorter by more than a millisecond or a hundred-thousandth.
//! - With less than one millisecond left, a request is not sent.
//! - A server does not begin to work on a request that comes without time.
//! - A value that is not a timeout (not digits, negative, too many digits, no or another unit) is as if it were not
//!   there. It is not counted, and nothing panics.
//!
//! # Limits
//!
//! The way of the request is not known, and not taken off. A handler that spawns a task passes the deadline on itself, with
//! [`Deadline::scope`](crate::Deadline::scope). The client's layer takes the deadline in force when it is called: a `scope`
//! must be round the call, not only round its future.
//!
//! A server that keeps to the deadline ends the whole answer then, as a standard stack does on this side. The server's layer here is done
//! when the response is there. A
//! [`BodyTimeoutLayer`](crate::http::BodyTimeoutLayer) inside it ends the response body at the same deadline. The request
//! body needs no layer as long as the handler reads it before it answers, because the deadline drops the handler and the
//! body with it. A client that does not read its answer is ended by neither: see the limits of
//! [`body_timeout`](crate::http::body_timeout).
//!
//! # Cancellation
//!
//! Dropping the future drops the inner future. Nothing else is held.
//!
//! # What clones share
//!
//! The settings and the metrics. There is no state.
//!
//! # Cost
//!
//! With a deadline one reading of the clock and one header, whose value is allocated. Without one nothing. The server
//! looks for two headers, and a deadline costs it what that of a `DeadlineLayer` does.
//!
//! # Errors
//!
//! [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded): from the client's layer a rejection, or what takes
//! the place of an error that came too late; from the server's layer a rejection when no time was left from the
//! beginning. A [`RespondLayer`](crate::http::RespondLayer) outside makes it a status 504.
//!
//! # Metrics
//!
//! | metric | labels |
//! |---|---|
//! | `buttress_rejections_total` | name, layer = `propagate_deadline`, `inherit_deadline`; reason = `deadline_exceeded`; mode = enforce |
//! | `buttress_timeouts_total` | name, layer = `inherit_deadline`, or `propagate_deadline` for an error that came too late |
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | [`slack`](PropagateDeadlineConfig::slack) | 0 s | depends on the network between the two |
//! | [`timeout`](PropagateDeadlineConfig::timeout) | none | belongs to the stack outside |
//! | `header` | `x-request-timeout-ms` | see above |
//! | [`protocol`](PropagateDeadlineConfig::protocol) | by `content-type` | gRPC requires one |
//! | [`max`](InheritDeadlineConfig::max) | 60 s | no caller holds a permit for longer, whatever its header says |
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//! use buttress::http::{InheritDeadlineLayer, PropagateDeadlineLayer};
//! use buttress::{BoxError, Deadline, DeadlineLayer};
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let server = ServiceBuilder::new()
//!     .layer(InheritDeadlineLayer::config("warehouse").max(Duration::from_secs(10)).build()?)
//!     .service(service_fn(async |_request: Request<String>| {
//!         let left = Deadline::current().expect("inherited, or the maximum").remaining();
//!         Ok::<_, BoxError>(Response::new(left))
//!     }));
//! // In place of an HTTP client that calls it.
//! let client = ServiceBuilder::new()
//!     .layer(DeadlineLayer::new("warehouse", Duration::from_secs(2)))
//!     .layer(PropagateDeadlineLayer::config("warehouse").slack(Duration::from_millis(20)).build()?)
//!     .service(server);
//! let response = client.send(Request::new(String::new())).await?;
//! assert_eq!(response.into_body(), Duration::from_millis(1_980));
//! # Ok(())
//! # }
//! ```

mod config;
mod headers;
mod layer;
mod stamp;
mod value;

pub use self::config::{InheritDeadlineConfig, PropagateDeadlineConfig};
pub use self::headers::{Headers, HttpHeaders};
pub use self::layer::{
    InheritDeadline, InheritDeadlineLayer, Inherited, PropagateDeadline, PropagateDeadlineLayer,
    ResponseFuture,
};
