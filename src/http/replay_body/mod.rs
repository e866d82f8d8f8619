//! Streamed bodies that can be sent again.
//!
//! # When to use it
//!
//! Put it around retry or hedge if requests have bodies that can be read only once: `hyper::body::Incoming` in a proxy,
//! `tonic::body::Body`, uploads. Use it together with [`HttpReplay`](crate::http::HttpReplay), which copies such
//! requests. A body that is whole in memory, such as `http_body_util::Full`, does not need it.
//!
//! # How it works
//!
//! ```text
//!                     ┌─ ReplayBody of attempt 1    (reads from the source)
//! body ──▶ what is ───┤
//!          kept       └─ ReplayBody of attempt 2    (reads what is kept, then from the source)
//! ```
//!
//! The first attempt sends the body while it arrives, and does not collect it first. The data is kept as long as there
//! is a copy of the request that has not read it. A copy first reads the kept data and then the source, also if the
//! first attempt was dropped half-way or is still reading. Trailers are kept like data.
//!
//! The memory has a limit, by default 64 KiB for each request. The data is copied. A frame itself is never kept,
//! because it is often a few bytes of a large buffer, and would keep the whole buffer alive. When there is more data
//! than the limit, the oldest data is dropped, and copies that have not read it are lost. The request goes on, but is
//! not sent again (retry counts it as `not_copyable`). If a body announces a length above the limit, nothing is kept:
//! it is sent again only if none of it was read, as when the connection was refused. Of two attempts in flight, as with
//! a hedge, an attempt fails if it is further behind the other than the limit.
//!
//! A client may continue to send the body of an attempt after the answer. When retry makes another attempt, the body of
//! the former one fails at its next read, and its connection or stream with it, so that it does not consume data that
//! the next attempt needs.
//!
//! The body reports its progress to the [standard stack](crate::stack). The timeout of an attempt is then the time for
//! the answer: it begins when the client has taken the whole body. Before that, it bounds each pause in which the
//! client takes nothing although there is more. An upload may therefore take longer than the timeout, and a call to a
//! service that does not read the request ends. See [`Upload`](crate::Upload). With a limit of 0, the body reports its
//! progress and keeps nothing.
//!
//! # Promises
//!
//! - Every reader gets the whole body in order, or an error. A part of the body never looks like the whole.
//! - Unless its attempt is over, the foremost reader never fails because of the limit, nor because another reader
//!   failed, stalled or was dropped.
//! - A body keeps at most its limit and 2 KiB in memory, whatever the sizes of its frames, and nothing when no other
//!   copy could use it. A short body keeps at most twice its length. All requests of the process together have no
//!   limit: bound the number of calls in flight with a [bulkhead](crate::bulkhead).
//! - The first reader gets the frames of the body unchanged. A copy gets the same data in other frames: small ones are
//!   joined and large ones are divided. At most the limit of a body is copied.
//! - `size_hint` and `is_end_stream` of each copy describe its remaining data. If a body did not know its length, its
//!   copies do not know it either, so that a client sends both in the same way: over HTTP/1 with trailers.
//! - The inner body is polled by one reader at a time, without a lock, and not after its end.
//!
//! # Cancellation
//!
//! Dropping a reader drops the data that was kept for it. The inner body is dropped when it has ended, or with its last
//! reader.
//!
//! # What clones share
//!
//! The limit. Each request has its own memory.
//!
//! # Cost
//!
//! A request without a body costs nothing. A body costs a few allocations, the copy of the kept data, and a lock for
//! each frame, which is contended only if two attempts are in flight. Each further attempt copies the kept data once
//! more.
//!
//! # Errors
//!
//! [`ReplayBodyError`](crate::ReplayBodyError), as the source of the client's error: the body itself failed (no retry
//! is made, because it would fail as well), the copy was too far behind, or its attempt is over. Over HTTP/1, a hyper
//! client has this error in the chain of its own error. After the head of an answer over HTTP/1, it reports a broken
//! connection, which counts as a failure of the service. Over HTTP/2 it resets the stream and reports only the reset,
//! which the classifiers of this crate recognize.
//!
//! # Metrics
//!
//! None.
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | [`limit`](ReplayBodyLayer::limit) | 64 KiB | longer than nearly every request, and little memory for each call in flight |
//!
//! # Examples
//!
//! A hyper client takes the body directly:
//!
//! ```
//! use buttress::RetryLayer;
//! use buttress::http::{HttpReplay, ReplayBody, ReplayBodyLayer};
//! use hyper::body::Incoming;
//! use hyper_util::client::legacy::Client;
//! use hyper_util::rt::TokioExecutor;
//! use tower::{Service, ServiceBuilder};
//!
//! # fn proxy() -> Result<impl Service<http::Request<Incoming>> + Clone, buttress::ConfigError> {
//! let retry = RetryLayer::config("orders").replay(HttpReplay::new()).build()?;
//! let client = ServiceBuilder::new()
//!     .layer(ReplayBodyLayer::new())
//!     .layer(retry)
//!     .service(Client::builder(TokioExecutor::new()).build_http::<ReplayBody<Incoming>>());
//! # Ok::<_, buttress::ConfigError>(client)
//! # }
//! # proxy()?;
//! # Ok::<(), buttress::ConfigError>(())
//! ```
//!
//! For a tonic channel, turn it into a tonic body again, inside retry:
//!
#![cfg_attr(not(doctest), doc = include_str!("../../snippets/tonic_replay_body.md"))]

mod body;
mod layer;
mod source;
mod state;

pub use self::body::ReplayBody;
pub use self::layer::{ReplayBodyLayer, ReplayBodyService, ResponseFuture};
