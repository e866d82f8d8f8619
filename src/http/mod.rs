//! HTTP and gRPC: what a status means, when a call is over, what may be sent again, and how to say no.
//!
//! # When to use it
//!
//! With a client of HTTP whose responses are `http::Response`: one of hyper-util, a tonic `Channel`, or a
//! service of your own. [`client()`] makes a whole client in one expression, with all parts of this page in their order; the
//! module `grpc` of the feature `tonic` does it for gRPC. [`standard`] and [`grpc::standard`] are the stack alone, for an order of
//! your own. The parts can be given to any layer: `.classify(Classifier::new())`, `.completion(CompleteOnBodyEnd)`.
//!
//! With reqwest, convert its response first: `client.map_response(http::Response::<reqwest::Body>::from)`, with the
//! `ServiceExt` of tower.
//!
//! # How it works
//!
//! ## What a status means
//!
//! [`Classifier`] looks at the status, and for some of them at `Retry-After`:
//!
//! | answer | [outcome](crate::Outcome) | another attempt | because |
//! |---|---|---|---|
//! | 1xx, 2xx, 3xx, 4xx | success | no, but for a [conflict](crate::http::replay) with an earlier attempt | the service did its work; a request that makes no sense is not its fault |
//! | 401 | success; with [`retry_unauthorized`](Classifier::retry_unauthorized) ignored | no; with it once, at once | something inside may renew the token |
//! | 408, 425 | ignored | after the backoff | the request came too slowly or too early, which is not the service's fault |
//! | 429 | throttled | after the time it asks for, or the backoff after overload | a word about the caller, which has used up its quota |
//! | 503 with a `Retry-After` | overload | after that time; over a balancer after the backoff, at another endpoint | a word about the service, and for how long |
//! | 503 without | overload | after the backoff | a word about the service; it does not open the circuit breaker while [others are answered](crate::circuit_breaker#overload) |
//! | 501, 505 | ignored | no | the service never does that: another attempt gets the same answer, other requests are served |
//! | other 5xx, from 600 | failure | after the backoff | |
//! | error | failure | after the backoff | there is no answer |
//! | the request's own [`ReplayBody`] failed | ignored | no | its sender has gone away, or this copy was too far behind: that is not the service's fault |
//! | this side has reset the stream of HTTP/2 | ignored | no | hyper does so when the body of the request has failed, and says no more |
//!
//! [`status`](Classifier::status) and [`statuses`](Classifier::statuses) say otherwise for some of them.
//!
//! `Retry-After` is read by [`retry_after`]: seconds, or a date. It is the overload's time to stay away, which the
//! circuit breaker and the rate limit obey, and retry's and hedge's pushback after any answer that deserves another attempt. Each
//! of these has a limit of its own: beyond it, circuit breaker and rate limit act on a part of the time, and retry and hedge make
//! no further attempt.
//!
//! A 429 stops nobody but the request that got it, because the next one may be for another tenant. If all calls of a stack share
//! one quota, as with the key of a third party, say [`one_quota`](crate::stack::Standard::one_quota): then it pauses the rate limit
//! and shrinks an adaptive concurrency limit. It never counts for the circuit breaker.
//!
//! For gRPC see [`grpc`].
//!
//! ## When a call is over
//!
//! With [`CompleteOnBodyEnd`], when its response body is. Until then it is in flight: the permit of the bulkhead is held, the
//! balancer counts it on its endpoint, and what measure records is the time of the whole answer, a slow reader's time
//! included. To the balancer, the circuit breaker and a bulkhead that adapts, a call took what its head took: a long download
//! is not slow.
//!
//! | the body | the call is |
//! |---|---|
//! | ends, with or without trailers | what its head was, unless the end is classified otherwise ([`ClassifyEos`]) |
//! | ends in an error | a failure, or ignored, as an error in place of a head; one of this crate's own timeouts is a timeout |
//! | was not read in time, although it was there | cancelled: see [`body_timeout`] |
//! | is not over at the deadline, by this side's clock | cancelled |
//! | ends with the word of the service that the deadline has passed | cancelled if the deadline was sooner than the timeout of the attempt, or has nearly come, else a failure; to [measure](crate::measure) a failure, as with such a head |
//! | is read on after the deadline of a standard stack | cancelled |
//! | was declared a stream, and is ended for time | cancelled |
//! | is dropped before its end | cancelled |
//! | is dropped after its last byte | the same as if it had been asked for its end |
//! | belongs to a head that was a failure | that failure, whatever becomes of the body |
//! | is empty, as that of a `HEAD`, 204 or 304 | over at the head |
//! | belongs to another protocol: 101, and the answer to `CONNECT` | over at the head |
//!
//! Retry, hedge and rate limit judge the head: when it has come, the caller has the response. Timeout and
//! response timeout end there, too; the [deadline](crate::stack#the-three-times) of a standard stack is that of the body as well.
//!
//! A caller that keeps a body without reading it keeps the permit. One that needs several bodies at once needs as
//! many permits, or waits for itself.
//!
//! Declare streams that are meant to last (watches, long polls) with [`streaming`](crate::stack::Standard::streaming), so that the
//! deadline does not end them. They hold their permits for as long as they last: call them through a stack of their own, or
//! with [`CompleteOnResponse`](crate::CompleteOnResponse), which gives the permits back at the head and does not see the body. The
//! circuit breaker does not wait for their end: a head that is a success counts as one, until the body fails.
//!
//! On the side of the server a call is over when the answer has been handed over to the connection. Answers to `HEAD` whose
//! body something outer takes off are cancelled.
//!
//! ## Which requests are sent again
//!
//! [`HttpReplay`] tells by the method, an `Idempotency-Key`, the path or a mark; a request that was provably not sent may
//! always be: put the client into an adapter (features `hyper`, `tonic`, `reqwest`), which asks it. Bodies that are whole are copied
//! as they are; one that is streamed is kept while it is sent, up to 64 KiB,
//! by a [`ReplayBodyLayer`] round the stack. See [`replay`] and [`replay_body`].
//!
//! ## Timeouts of bodies
//!
//! A standard stack ends a body at the deadline. [`BodyTimeoutLayer`] ends a body that is silent for 30 s, or that takes longer in
//! all than a limit that can be set; without a standard stack also one that is not over at the deadline. An answer of gRPC may be
//! silent after its first message unless `stream_idle` is set, and upgraded connections have no limits. A slow reader is never taken for a slow server. See
//! [`body_timeout`].
//!
//! Answers that are meant to outlast the deadline are declared: for one request with the extension [`Streamed`], for some
//! paths or all of a stack with [`HttpStreams`]. They may be silent at any time, unless
//! [`stream_idle`](body_timeout::Config::stream_idle) is set. See [streams](crate::stack#streams).
//!
//! ## Uploads
//!
//! The timeout of a standard stack is the time for the answer, where the body of the request tells how far the client has taken
//! it. Then it begins at the end of the upload, and before that it bounds each stretch in which the client takes nothing.
//!
//! | body of the request | the timeout begins |
//! |---|---|
//! | [`ReplayBody`], also inside a body of tonic's | when the client has taken the last part |
//! | your own, with [`TryCopyBody::upload`] | when the client has taken the last part |
//! | whole (`Full`, texts, bytes), or with `.replay(Never)` | with the attempt: the client takes all of it at once |
//! | of `reqwest::Request` | with the attempt |
//!
//! A part counts as sent when the client has taken it. The buffers of the client and of the system, a few megabytes at most, may
//! still hold it. The deadline and the response timeout (10 s) include the upload, so that a stack for longer uploads has to set
//! [`response_timeout`](crate::stack::Standard::response_timeout).
//!
//! ## Dead connections
//!
//! A connection can die without a word, for example when a firewall forgets it. A request of HTTP/1 then times out and
//! takes its connection with it. An HTTP/2 connection carries all requests and outlives their timeouts, so every call
//! fails until the system gives the connection up, which takes a quarter of an hour. Let the client send keep-alive pings,
//! also while it is idle. With hyper-util and reqwest that is `http2_keep_alive_interval`, `http2_keep_alive_timeout` and
//! `http2_keep_alive_while_idle` (hyper-util also needs a `timer`); with tonic `Endpoint::http2_keep_alive_interval`,
//! `keep_alive_timeout` and `keep_alive_while_idle`. An interval of 10 s and a timeout of 2 s find a dead connection within
//! 12 s. gRPC servers in Go and C++ close connections on which pings come more often than every 5 minutes, or without a
//! call, unless they are configured to permit it.
//!
//! ## Deadlines across hops
//!
//! [`PropagateDeadlineLayer`], next to the client, writes the time that is left into `grpc-timeout` or another header;
//! [`InheritDeadlineLayer`], outermost in a server, makes it the deadline of the task, and so of the calls that a handler
//! makes, but grants no caller more than 60 s or another maximum. See [`deadline`].
//!
//! ## Saying no
//!
//! [`RespondLayer`] makes a response of what a layer of this crate refused or ended: 503, 429 or 504 with `Retry-After`,
//! or the status of gRPC. See [`respond`].
//!
//! ## The order
//!
//! ```text
//!  client                                   server
//!    │                                        │
//!  RespondLayer, for clients                RespondLayer, for servers
//!    │                                        │
//!  ReplayBodyLayer                          InheritDeadlineLayer
//!    │                                        │
//!  standard stack                           rate limit, bulkhead, …
//!    │                                        │
//!  BodyTimeoutLayer                         BodyTimeoutLayer
//!    │                                        │
//!  PropagateDeadlineLayer                   handler, whose clients have the deadline
//!    │
//!  AddOriginLayer, with hyper-util
//!    │
//!  hyper-util, tonic, reqwest
//! ```
//!
//! A balancer stands under the stack; the layers under it are those of each replica. [`AddOriginLayer`] says there which
//! replica it is, to a client that is bound to none. See [`add_origin`].
//!
//! # Promises
//!
//! - No header makes anything panic, overflow, or wait for ever.
//! - The permit of a call ends once, however its body ends: read, torn, dropped at any point, on any thread, or by a panic.
//! - Data, trailers, size hints and extensions of a response pass as they are, so that upgrades work.
//! - Errors of a body keep their chain of sources.
//!
//! # Cancellation
//!
//! Dropping a body gives back all that its call holds, after what the body itself holds. It counts as
//! cancelled: neither for the service nor against it, and the place of a probe is free again. The facts that the balancer and the
//! circuit breaker know from the head stay.
//!
//! # What clones share
//!
//! A classifier's rules are shared until one of its clones is changed.
//!
//! # Cost
//!
//! A call that succeeds allocates nothing up to its head, if its body is not a [`ReplayBody`]: that one allocates its state, and
//! its progress for each attempt with a timeout. A reader that has to wait for a body with a deadline allocates one timer. A
//! body is larger by the permits of its call. Each frame that is read passes one check for a standard stack, and one for each layer
//! with a completion in a stack that is built by hand; where there is a deadline, the check reads the clock.
//!
//! # Errors
//!
//! None of its own. Bodies have the error of services, [`Error`](crate::Error): its kind tells those of this crate's layers from
//! those of the client, and `downcast_ref` finds the latter.
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
pub use self::replay::{AttemptNumber, HttpReplay, Idempotent, TryCopyBody, is_idempotent};
pub use self::replay_body::{ReplayBody, ReplayBodyLayer};
pub use self::respond::RespondLayer;
pub use self::retry_after::retry_after;
pub use self::standard::{
    HttpBalance, HttpStandard, HttpStandardLayer, HttpStandardService, balance, standard,
};
pub use self::streams::{HttpStreams, Streamed};
pub use self::transport::Transport;
