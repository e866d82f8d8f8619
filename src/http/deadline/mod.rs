//! Deadlines across hops: each request carries its remaining time to the server.
//!
//! # When to use it
//!
//! Use it wherever one service calls another. Without it, a server continues to work for a caller that has given up,
//! and this work delays requests whose callers still wait. A client sends its deadline with a
//! [`PropagateDeadlineLayer`]. A server takes the deadline over with an [`InheritDeadlineLayer`], and the clients in
//! its handlers send the remaining time to the next servers.
//!
//! Leave the layer out of clients that call other parties, which need not know your deadlines. A server grants the
//! deadline of a request up to its own [`max`](InheritDeadlineConfig::max), 60 s by default. A request without a
//! deadline gets `max`.
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
//! The client's layer is innermost, next to the client and inside retry and hedge, so that each attempt carries the
//! time that remains when it is sent. This is the time up to the [`Deadline`](crate::Deadline) of the task, less the
//! [`slack`](PropagateDeadlineConfig::slack). The layer reads the clock when it calls the client, after the client has
//! become ready. Without a deadline it writes nothing: the `response_timeout` of a standard stack is no deadline, and
//! the `deadline` of a stack does not apply to a [stream](crate::stack#streams). If the request carries a smaller value
//! already, the layer keeps that value.
//!
//! A value that the request carries already, as from tonic's `Request::set_timeout`, bounds each attempt. An
//! [`InheritDeadlineLayer`] outside the client's stack makes it the bound of all attempts together.
//!
//! Some clients obey the header themselves: a tonic `Channel` ends the call when the time in the header is over, with
//! an error that its callers see as `Cancelled`. If there is a deadline, the layer therefore turns an error that
//! arrives after this time into [`DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded), whichever timer fired first.
//! An error stays unchanged if an adapter around the client proves that the request was not sent.
//!
//! | request | header | value |
//! |---|---|---|
//! | gRPC, by its `content-type` | `grpc-timeout` | up to 8 digits and a unit, as gRPC specifies |
//! | other | `x-request-timeout-ms`, or [another one](PropagateDeadlineConfig::header) | milliseconds, up to 10 digits |
//!
//! HTTP has no standard header for a deadline. The default header has the unit in its name, like the headers of Connect
//! and Envoy. It carries a duration, so the clocks of the two sides need not agree. For servers of Connect set
//! `connect-timeout-ms`, and for Envoy `x-envoy-expected-rq-timeout-ms`.
//!
//! The server's layer reads both headers, and the smallest value counts. The deadline of the inner call is the soonest
//! of this value, the configured maximum, and the deadline in force. In all other respects the layer is a
//! [`DeadlineLayer`](crate::DeadlineLayer): it ends the call at the deadline, and drops the handler.
//!
//! # Promises
//!
//! - The value that arrives is never longer than the remaining time, nor shorter by more than a millisecond or a
//!   hundred-thousandth.
//! - With less than one millisecond left, a request is not sent.
//! - A server does not begin to work on a request that arrives with no time left.
//! - A value that is not a timeout (not digits, negative, too many digits, no unit or an unknown one) is ignored. It is
//!   not counted, and nothing panics.
//!
//! # Limits
//!
//! The time that the request takes through the network is not known, and not subtracted. A handler that spawns a task
//! passes the deadline on itself, with [`Deadline::scope`](crate::Deadline::scope). The client's layer takes the
//! deadline that is in force when it is called: a `scope` must be around the call, not only around its future.
//!
//! A server that keeps to the deadline should end the whole answer at that time, as a standard stack does in the
//! client. The server's layer is done when the handler has returned the response. Put a
//! [`BodyTimeoutLayer`](crate::http::BodyTimeoutLayer) inside it to end the response body at the same deadline. The
//! request body needs no layer if the handler reads it before it answers, because the deadline drops the handler
//! together with the body. Neither layer ends a connection whose client does not read: see the limits of
//! [`body_timeout`](crate::http::body_timeout).
//!
//! # Cancellation
//!
//! Dropping the future drops the inner future. The layer holds nothing else.
//!
//! # What clones share
//!
//! The settings and the metrics. There is no state.
//!
//! # Cost
//!
//! In the client, a deadline costs one reading of the clock and one header, whose value is allocated. Without a
//! deadline there is no cost. The server looks for two headers, and a deadline costs the same as in a `DeadlineLayer`.
//!
//! # Errors
//!
//! [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded): from the client's layer a rejection, or in
//! place of an error that arrived too late; from the server's layer at the deadline, or as a rejection if the request
//! arrived with no time left. An outer [`RespondLayer`](crate::http::RespondLayer) answers it with the status 504.
//!
//! # Metrics
//!
//! | metric | labels |
//! |---|---|
//! | `buttress_rejections_total` | name, layer = `propagate_deadline`, `inherit_deadline`; reason = `deadline_exceeded`; mode = enforce |
//! | `buttress_timeouts_total` | name, layer = `inherit_deadline`, or `propagate_deadline` for an error that arrived too late |
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
