//! gRPC: the meaning of each status, and its place in the response.
//!
//! # When to use it
//!
//! Use it with a gRPC client that is a `tower::Service` of `http::Request`, such as tonic's `Channel`. Wrap the stack
//! in the generated client: `HealthClient::new(stack.wrap(channel))`.
//!
//! # How it works
//!
//! ```text
//!  head (200) ── message ── message ── trailers: grpc-status: 14     classified at the end: a failure
//!  head (200), grpc-status: 14                                       classified at the head: may be retried
//!  head (200) ── no message ── trailers at once: grpc-status: 14     the same
//! ```
//!
//! Nearly every gRPC response has the HTTP status 200. The result of the call is in `grpc-status`: in the head if there
//! is no message, else in the trailers after the last message. [`Classifier`] classifies the head by `Classify` and the
//! trailers by [`ClassifyEos`](super::ClassifyEos), so it needs the completion
//! [`CompleteOnBodyEnd`](super::CompleteOnBodyEnd). A head without a status is a success.
//!
//! | status | outcome |
//! |---|---|
//! | `UNAVAILABLE`, `DEADLINE_EXCEEDED`, `INTERNAL`, `UNKNOWN`, `DATA_LOSS` | failure |
//! | `UNAVAILABLE` with a pushback | overload |
//! | `RESOURCE_EXHAUSTED`, and HTTP's 429 without a status | throttled: the caller has used up its quota |
//! | `CANCELLED` | ignored |
//! | `UNAUTHENTICATED` with [`retry_unauthorized`](Classifier::retry_unauthorized) | ignored, and retried once, at once |
//! | all others | success: the service did its work |
//! | not a number, or not a code | like `UNKNOWN` |
//! | none at the end | like `UNKNOWN` |
//! | none, and an HTTP status other than 200 | by [the gRPC standard][mapping]: 400 `INTERNAL`, 401 `UNAUTHENTICATED`, 403 `PERMISSION_DENIED`, 404 `UNIMPLEMENTED`, 502, 503 and 504 `UNAVAILABLE`, others `UNKNOWN` |
//! | none, and the HTTP status 501 or 505 | ignored, unless [`code`](Classifier::code) changes the rule for `UNKNOWN` |
//! | error | failure |
//! | the request's own [`ReplayBody`](super::ReplayBody) failed, or this side has reset the stream | ignored |
//!
//! [`code`](Classifier::code) changes the rule for a status.
//!
//! `grpc-retry-pushback-ms` is the number of milliseconds after which to try the service again. It is the pushback for
//! retry and hedge, and the time to stay away after an overload. A negative number, a number above 2³¹ − 1, a text that
//! is no number, and a repeated header ask for no further attempt. An answer without a status comes from a proxy: its
//! pushback is `Retry-After`.
//!
//! A status in the trailers comes too late for retry and hedge, because the caller has the response by then. If a call
//! fails without a message, most servers put the status into the head. Some servers send a head without a status,
//! perhaps one empty message, and then the trailers at once. `buttress::tonic::Client`, and [`PeekTrailers`] around any
//! other client, read these frames before they return the response: such a failure is counted, retried and hedged like
//! one in the head. They stop at the first message with content, and never wait: they see only frames that have arrived
//! already. The caller gets all frames. Declared streams are returned at once.
//!
//! [mapping]: https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
//!
//! # Promises, cancellation, cost, errors
//!
//! As for [HTTP](super). A stream that is dropped before its status has arrived is cancelled.
//!
//! # Examples
//!
//! ```
//! use buttress::BoxError;
//! use http::{Request, Response};
//! use http_body_util::Empty;
//! use bytes::Bytes;
//! use tower::service_fn;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let channel = service_fn(|_: Request<()>| async {
//!     let response = Response::builder().header("grpc-status", "14");
//!     Ok::<_, BoxError>(response.body(Empty::<Bytes>::new())?)
//! });
//! let stack = buttress::http::grpc::standard("ledger")
//!     .circuit_breaker(|breaker| breaker.consecutive_failures(3))
//!     .concurrency_limit(50)
//!     .build()?;
//! let ledger = stack.wrap(channel);
//! ledger.send(Request::new(())).await?;
//! let handle = stack.handle();
//! let breaker = handle.circuit_breaker().expect("is on by default");
//! assert_eq!(breaker.state(), buttress::circuit_breaker::State::Open);
//! # Ok(())
//! # }
//! ```

mod classify;
mod code;
mod peek;
mod server;
mod standard;

pub use self::classify::Classifier;
pub use self::code::Code;
pub(in crate::http) use self::code::{PUSHBACK, STATUS};
pub use self::peek::{PeekFuture, PeekTrailers, PeekedBody};
pub use self::server::server;
pub use self::standard::{
    GrpcBalance, GrpcStandard, GrpcStandardLayer, GrpcStandardService, balance, standard,
};
