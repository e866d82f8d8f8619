//! HTTP and gRPC: the meaning of each status, the end of a call, the requests that may be sent again, and refusals as
//! responses.
//!
//! # When to use it
//!
//! Use it with an HTTP client whose responses are `http::Response`: a client of hyper-util, a tonic `Channel`, or a
//! service of your own. [`client()`] makes a whole client in one expression, with all parts of this page in the right
//! order; the module `grpc` of the feature `tonic` does the same for gRPC. [`standard`] and [`grpc::standard`] make the
//! stack alone, for an order of your own. [`server()`] makes the layers of a server. Any layer takes the parts by
//! themselves: `.classify(Classifier::new())`, `.completion(CompleteOnBodyEnd)`.
//!
//! For reqwest, `buttress::reqwest::client` makes a whole client. In a stack of your own, convert its response first:
//! `client.map_response(http::Response::<reqwest::Body>::from)`, with the `ServiceExt` of tower.
//!
//! # How it works
//!
//! ## The meaning of each status
//!
//! [`Classifier`] reads the status, and for some statuses also `Retry-After`:
//!
//! | answer | [outcome](crate::Outcome) | another attempt | because |
//! |---|---|---|---|
//! | 1xx, 2xx, 3xx, 4xx | success | no, except after a [conflict](crate::http::replay) with an earlier attempt | the service did its work; a malformed request is not its fault |
//! | 401 | success; ignored with [`retry_unauthorized`](Classifier::retry_unauthorized) | no; with `retry_unauthorized` one, at once | an inner layer may renew the token |
//! | 408, 425 | ignored | after the backoff | the request arrived too slowly or too early, which is not the service's fault |
//! | 429 | throttled | after the time in `Retry-After`, or the backoff after overload | the caller has used up its quota; other callers may be served |
//! | 503 with a `Retry-After` | overload | after that time; over a balancer after the backoff, at another endpoint | the service says for how long it is overloaded |
//! | 503 without `Retry-After` | overload | after the backoff | the service is overloaded; it does not open the circuit breaker while [other calls succeed](crate::circuit_breaker#overload) |
//! | 501, 505 | ignored | no | the service never serves this request: another attempt gets the same answer, other requests are served |
//! | other 5xx, from 600 | failure | after the backoff | |
//! | error | failure | after the backoff | there is no answer |
//! | the request's own [`ReplayBody`] failed | ignored | no | the sender of the body has gone away, or this copy was too far behind, which is not the service's fault |
//! | this side has reset the HTTP/2 stream | ignored | no | hyper resets the stream when the body of the request has failed, and reports no more |
//!
//! [`status`](Classifier::status) and [`statuses`](Classifier::statuses) change the rule for a status or a range of
//! them.
//!
//! [`retry_after`] reads `Retry-After` as seconds or as a date. After an overload, the circuit breaker and the rate
//! limit obey this time. After any answer that deserves another attempt, it is the pushback for retry and hedge. Each
//! of these layers has a maximum of its own. For a longer time, the circuit breaker and the rate limit act for their
//! maximum only, and retry and hedge make no further attempt.
//!
//! A 429 concerns only the request that got it, because the next request may be for another tenant. If all calls of a
//! stack share one quota, as with the API key of a third party, set [`one_quota`](crate::stack::Standard::one_quota): a
//! 429 then pauses the rate limit and shrinks an adaptive concurrency limit. A 429 never counts for the circuit
//! breaker.
//!
//! For gRPC see [`grpc`].
//!
//! ## The end of a call
//!
//! With [`CompleteOnBodyEnd`], a call ends with its response body. Until then it is in flight: it holds its permit of
//! the bulkhead, the balancer counts it on its endpoint, and the measured duration is that of the whole answer, the
//! time of a slow reader included. The balancer, the circuit breaker and an adaptive bulkhead use the time to the head
//! as the duration of the call, so a long download is not slow.
//!
//! | the body | the call is |
//! |---|---|
//! | ends, with or without trailers | classified like its head, unless [`ClassifyEos`] classifies the end otherwise |
//! | ends in an error | a failure or ignored, by the rule for an error in place of a head; a timeout of this crate is a timeout |
//! | was not read in time, although it had arrived | cancelled: see [`body_timeout`] |
//! | is not over at the deadline, by this side's clock | cancelled |
//! | ends with a status of the service that says that the deadline has passed | cancelled if the deadline was sooner than the timeout of the attempt, or is very near, else a failure; [measure](crate::measure) counts a failure, as for a head with such a status |
//! | is still read after the deadline of a standard stack | cancelled |
//! | was declared a stream, and is ended by a timeout | cancelled |
//! | is dropped before its end | cancelled |
//! | is dropped after its last byte | classified as if it had been read to its end |
//! | belongs to a head that was a failure | that failure, whatever happens to the body |
//! | is empty, as after a `HEAD`, 204 or 304 | over at the head |
//! | belongs to another protocol: 101, and the answer to `CONNECT` | over at the head |
//!
//! Retry, hedge and rate limit classify the head, because the caller then has the response. The timeout and the
//! response timeout end at the head, too; the [deadline](crate::stack#the-three-times) of a standard stack covers the
//! body as well.
//!
//! A caller that keeps a body without reading it keeps the permit. A caller that needs several bodies at once needs as
//! many permits; with fewer, it waits for itself.
//!
//! Declare long streams (watches, long polls) with [`streaming`](crate::stack::Standard::streaming), so that the
//! deadline does not end them. A stream holds its permit until it ends. Call streams through a stack of their own, or
//! with [`CompleteOnResponse`](crate::CompleteOnResponse), which gives the permit back at the head and does not see the
//! body. The circuit breaker does not wait for the end of a stream: it counts a successful head as a success, until the
//! body fails.
//!
//! In a server, a call is over when the connection has taken the whole answer. If an outer layer removes the body of
//! the answer to a `HEAD`, the call counts as cancelled.
//!
//! ## Requests that are sent again
//!
//! [`HttpReplay`] decides by the method, an `Idempotency-Key`, the path or a mark. A request that was provably not sent
//! may always be sent again; to get this proof, wrap the client in an adapter (features `hyper`, `tonic`, `reqwest`). A
//! body that is whole in memory is copied. A streamed body needs a [`ReplayBodyLayer`] around the stack, which keeps up
//! to 64 KiB while the body is sent. See [`replay`] and [`replay_body`].
//!
//! ## Timeouts of bodies
//!
//! A standard stack ends a body at the deadline. [`BodyTimeoutLayer`] ends a body that is silent for 30 s, or that
//! takes longer in total than `total`, if you set it. Without a standard stack, it also ends a body at the deadline. A
//! gRPC answer may be silent after its first message unless `stream_idle` is set, and upgraded connections have no
//! limits. A slow reader is never taken for a slow server. See [`body_timeout`].
//!
//! Declare answers that may go on after the deadline: one request with the extension
//! [`CallOptions`](crate::CallOptions), some paths or all requests of a stack with [`HttpStreams`]. These answers may
//! be silent at any time, unless [`stream_idle`](body_timeout::Config::stream_idle) is set. See
//! [streams](crate::stack#streams).
//!
//! ## Uploads
//!
//! The timeout of a standard stack is the time for the answer if the body of the request reports the progress of its
//! upload. It then begins at the end of the upload. Before that, it bounds each pause in which the client takes
//! nothing.
//!
//! | body of the request | the timeout begins |
//! |---|---|
//! | [`ReplayBody`], also inside a tonic body, and a stream through `reqwest::client` | when the client has taken the last part |
//! | your own, with [`TryCopyBody::upload`] | when the client has taken the last part |
//! | whole (`Full`, texts, bytes), or with `.replay(Never)` | with the attempt: the client takes all of it at once |
//! | of `reqwest::Request`, in a stack of your own | with the attempt |
//!
//! A part counts as sent when the client has taken it. It may still be in the buffers of the client and of the system,
//! a few megabytes at most. The deadline and the response timeout (10 s) include the upload, so a stack for longer
//! uploads has to set [`response_timeout`](crate::stack::Standard::response_timeout).
//!
//! ## Dead connections
//!
//! A connection can die silently, for example when a firewall forgets it. An HTTP/1 request then times out, which
//! closes its connection. An HTTP/2 connection carries all requests and outlives their timeouts, so every call fails
//! until the system gives the connection up after a quarter of an hour. Let the client send keep-alive pings, also
//! while it is idle. With hyper-util and reqwest that is `http2_keep_alive_interval`, `http2_keep_alive_timeout` and
//! `http2_keep_alive_while_idle` (hyper-util also needs a `timer`); with tonic `Endpoint::http2_keep_alive_interval`,
//! `keep_alive_timeout` and `keep_alive_while_idle`. An interval of 10 s and a timeout of 2 s find a dead connection
//! within 12 s. gRPC servers in Go and C++ close a connection that gets pings more often than every 5 minutes, or
//! without a call, unless they are configured to permit it.
//!
//! A client of hyper-util 0.1.21 leaves about one in 100,000 requests that it sends while an HTTP/2 connection ends
//! without an answer and without an error. The timeout of the attempt ends such a request, so do not switch it off.
//!
//! ## Deadlines across hops
//!
//! [`PropagateDeadlineLayer`], next to the client, writes the remaining time into `grpc-timeout` or another header.
//! [`InheritDeadlineLayer`], outermost in a server, makes this time the deadline of the handler's task, and so of the
//! calls that the handler makes. It grants a caller at most 60 s, or a maximum that you set. See [`deadline`].
//!
//! ## Refusals as responses
//!
//! [`RespondLayer`] makes a response of an error of this crate: 503, 429 or 504 with `Retry-After`, or a gRPC status.
//! See [`respond`].
//!
//! ## Servers
//!
//! [`server()`] makes the layers of a server in one expression, for axum and tonic: answers, measurement, drain,
//! deadline, limits for each tenant, a concurrency limit, and bounds for slow bodies. See [`server`](mod@server).
//!
//! ## The order
//!
//! ```text
//!  client                                   server
//!    │                                        │
//!  RespondLayer, for clients                RespondLayer, for servers        ╮
//!    │                                        │                                │
//!  ReplayBodyLayer                          InheritDeadlineLayer               │
//!    │                                        │                                ├ http::server
//!  standard stack                           rate limit, bulkhead, …            │
//!    │                                        │                                │
//!  BodyTimeoutLayer                         BodyTimeoutLayer                   ╯
//!    │                                        │
//!  PropagateDeadlineLayer                   handler, whose clients have the deadline
//!    │
//!  AddOriginLayer, with hyper-util
//!    │
//!  hyper-util, tonic, reqwest
//! ```
//!
//! A balancer is inside the stack, and each replica has the layers inside the balancer for itself. There,
//! [`AddOriginLayer`] adds the origin of the replica to each request, for a client that takes the server from the URI.
//! See [`add_origin`].
//!
//! # Promises
//!
//! - No header makes anything panic, overflow, or wait for ever.
//! - The permit of a call is released once, however its body ends: read to its end, broken off, dropped at any point,
//!   on any thread, or by a panic.
//! - Data, trailers, size hints and extensions of a response pass unchanged, so that upgrades work.
//! - Errors of a body keep their chain of sources.
//!
//! # Cancellation
//!
//! Dropping a body drops the inner body first, and then gives back all that its call holds. The call counts as
//! cancelled: neither for the service nor against it, and a probe's place is free again. The balancer and the circuit
//! breaker keep the facts that they know from the head.
//!
//! # What clones share
//!
//! Clones of a classifier share its rules until one of them is changed.
//!
//! # Cost
//!
//! A successful call allocates nothing up to its head, unless its body is a [`ReplayBody`], which allocates its state,
//! and its progress for each attempt with a timeout. A reader that has to wait for a body with a deadline allocates one
//! timer. A body is larger by the permits of its call. Each frame passes one check in a standard stack, and one check
//! for each layer with a completion in a stack that is built by hand. With a deadline, the check reads the clock.
//!
//! # Errors
//!
//! None of its own. Bodies have the same error type as services, [`Error`](crate::Error). Its kind distinguishes errors
//! of this crate's layers from errors of the client, and `downcast_ref` finds an error of the client.
//!
//! # Metrics
//!
//! None of its own.
//!
//! # Examples
//!
//! ```
//! use buttress::BoxError;
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::service_fn;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! // Or a client of hyper-util.
//! let client = service_fn(|_: Request<Full<Bytes>>| async {
//!     Ok::<_, BoxError>(Response::new(Full::<Bytes>::from("12 bolts")))
//! });
//! let stack = buttress::http::standard("inventory").concurrency_limit(50).build()?;
//! let handle = stack.handle();
//! let bulkhead = handle.bulkhead().expect("has a limit");
//!
//! let response = stack.wrap(client).send(Request::default()).await?;
//! assert_eq!(bulkhead.in_flight(), 1);
//! assert_eq!(response.into_body().collect().await?.to_bytes(), "12 bolts");
//! assert_eq!(bulkhead.in_flight(), 0);
//! # Ok(())
//! # }
//! ```

mod adapt;
pub mod add_origin;
mod body;
pub mod body_timeout;
mod classify;
pub mod client;
pub mod deadline;
mod error;
pub mod grpc;
mod key;
mod protocol;
pub mod replay;
pub mod replay_body;
pub mod respond;
mod retry_after;
mod rules;
pub mod server;
mod standard;
mod streams;
pub(crate) mod transport;

pub use self::add_origin::{AddOrigin, AddOriginLayer};
pub use self::body::{ClassifyEos, CompleteOnBodyEnd, TrackedBody};
pub use self::body_timeout::{BodyTimeout, BodyTimeoutLayer, TimeoutBody};
pub use self::classify::{Classifier, ResultUnknown};
pub use self::client::{Client, client};
pub use self::deadline::{InheritDeadlineLayer, PropagateDeadlineLayer};
pub use self::protocol::Protocol;
pub use self::replay::{AttemptNumber, HttpReplay, IDEMPOTENCY_KEY, TryCopyBody, is_idempotent};
pub use self::replay_body::{ReplayBody, ReplayBodyLayer};
pub use self::respond::RespondLayer;
pub use self::retry_after::retry_after;
pub use self::server::{Server, ServerLayer, server};
pub use self::standard::{
    HttpBalance, HttpStandard, HttpStandardLayer, HttpStandardService, balance, standard,
};
pub use self::streams::HttpStreams;
pub use self::transport::Transport;
