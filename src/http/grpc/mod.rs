//! gRPC: what a status means, and where it is.
//!
//! # When to use it
//!
//! With a gRPC client that is a `tower::Service` of `http::Request`, as tonic's `Channel`. Generated clients are
//! put round the stack: `HealthClient::new(stack.wrap(channel))`.
//!
//! # How it works
//!
//! ```text
//!  head (200) ── message ── message ── trailers: grpc-status: 14     classified at the end: a failure
//!  head (200), grpc-status: 14                                       classified at the head: may be retried
//!  head (200) ── no message ── trailers at once: grpc-status: 14     the same
//! ```
//!
//! Nearly every response of gRPC has the HTTP status 200. How the call ended is in `grpc-status`: in the head, if there is
//! no message, else in the trailers after the last one. [`Classifier`] classifies the one by `Classify`, the other by
//! [`ClassifyEos`](super::ClassifyEos), so it needs the completion [`CompleteOnBodyEnd`](super::CompleteOnBodyEnd); at the
//! head, a response without a status is a success.
//!
//! | status | outcome |
//! |---|---|
//! | `UNAVAILABLE`, `DEADLINE_EXCEEDED`, `INTERNAL`, `UNKNOWN`, `DATA_LOSS` | failure |
//! | `UNAVAILABLE` with a pushback | overload |
//! | `RESOURCE_EXHAUSTED`, and HTTP's 429 without a status | throttled: a word about the caller |
//! | `CANCELLED` | ignored |
//! | `UNAUTHENTICATED` with [`retry_unauthorized`](Classifier::retry_unauthorized) | ignored, and sent once more, at once |
//! | all others | success: the service did its work |
//! | not a number, or not a code | as `UNKNOWN` |
//! | none at the end | as `UNKNOWN` |
//! | none, and an HTTP status other than 200 | as [the standard says][mapping]: 400 `INTERNAL`, 401 `UNAUTHENTICATED`, 403 `PERMISSION_DENIED`, 404 `UNIMPLEMENTED`, 502, 503 and 504 `UNAVAILABLE`, others `UNKNOWN` |
//! | none, and the HTTP status 501 or 505 | ignored, unless [`code`](Classifier::code) says otherwise for `UNKNOWN` |
//! | error | failure |
//! | the request's own [`ReplayBody`](super::ReplayBody) failed, or this side has reset the stream | ignored |
//!
//! [`code`](Classifier::code) says otherwise for some of them.
//!
//! `grpc-retry-pushback-ms` says after how many milliseconds the service is to be tried again. It is the pushback of retry and
//! hedge, and an overload's time to stay away. A number below zero, one above 2³¹ − 1, what is no number, and more
//! than one of them ask for no further attempt. To an answer without a status, which is that of a proxy, `Retry-After` is the
//! pushback.
//!
//! A status in the trailers comes too late for retry and hedge: the caller has the response. Servers put that of
//! a call which failed without a message into the head. Some send a head without a status, perhaps one empty message, and the
//! trailers at once. `buttress::tonic::Client`, and [`PeekTrailers`] around any other client, look at these frames before they
//! return the response, and the failure counts, is retried and is hedged like one in the head. They look no further than the
//! first message that has content, and wait for nothing: only frames that have come already are seen. The caller gets all
//! of them. Streams that are declared as such are returned at once.
//!
//! [mapping]: https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
//!
//! # Promises, cancellation, cost, errors
//!
//! As for [HTTP](super). A stream that is dropped before its status has come is cancelled.
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
