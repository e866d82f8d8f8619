//! Bodies that are streamed and can still be sent again.
//!
//! # When to use it
//!
//! Around retry or hedge, where requests come with bodies that can be read once only: `hyper::body::Incoming` in a proxy,
//! `tonic::body::Body`, uploads. Together with [`HttpReplay`](crate::http::HttpReplay), which copies such requests. A
//! body that is in memory as a whole, such as `http_body_util::Full`, does not need it.
//!
//! # How it works
//!
//! ```text
//!                     ┌─ ReplayBody of attempt 1    (reads from the source)
//! body ──▶ what is ───┤
//!          kept       └─ ReplayBody of attempt 2    (reads what is kept, then from the source)
//! ```
//!
//! The first attempt sends the body while it comes: nothing is collected beforehand. The data that it reads is kept as long
//! as there is a copy of the request which has not read it. A copy begins with the data that is kept and goes on with the
//! source, whichever attempt read that last: the first attempt may have been dropped half-way, or still be reading. Trailers
//! are kept like data.
//!
//! The memory is bounded, by default for 64 KiB of each request. The data is copied for it. A frame itself is never kept:
//! it is often a few bytes of a large buffer that it was read into, and would keep the whole buffer alive. When there is more data than the limit, the oldest is dropped, and with it the
//! copies that have not read it: the request goes on, and is not sent again (retry counts it as `not_copyable`). Nothing is
//! kept of a body that announces a greater length: it is sent again only if none of it was read, as when the connection was
//! refused. Of two attempts in flight, as with a hedge, that one fails which is further behind the other than the limit.
//!
//! A client may go on to send the body of an attempt that has been answered. When retry makes another attempt, that ends: what
//! the former one would read further fails, its connection or stream with it, and nobody reads away what the next one needs.
//!
//! The body tells the [standard stack](crate::stack) its progress. The timeout of an attempt is then the time for the answer: it
//! begins when the client has taken the whole body, and before that it bounds each stretch in which the client takes nothing
//! although there is more. So an upload may take longer than the timeout, and a service that accepts a request without reading
//! it is given up. See [`Upload`](crate::Upload). A limit of 0 does this without keeping anything.
//!
//! # Promises
//!
//! - Every reader gets the whole body, in order, or an error; never a part of it that looks like the whole.
//! - The reader that is furthest never fails because of the limit, or because another reader failed, stalled or was dropped;
//!   unless its attempt is over.
//! - A body holds at most its limit and 2 KiB in memory, whatever the sizes of its frames, and nothing when no
//!   other copy is left that could use it. A short body holds at most twice its length. There is no limit for all requests
//!   of the process together: bound the number of calls in flight with a [bulkhead](crate::bulkhead).
//! - The first reader gets the frames of the body as they are. A copy gets the same data in other frames: small ones are
//!   joined and large ones are divided. No more of a body than the limit is copied to be kept.
//! - `size_hint` and `is_end_stream` say of each copy what it has still to read. A copy of a body that did not know its length
//!   does not know it either, so that a client sends both in the same way: with trailers, over HTTP/1.
//! - The body inside is polled by one reader at a time, without a lock held, and not after its end.
//!
//! # Cancellation
//!
//! Dropping a reader gives up what was kept for it. The body inside is dropped when it has ended, or with its last reader.
//!
//! # What clones share
//!
//! Nothing but the limit; each request has its own memory.
//!
//! # Cost
//!
//! A request without a body costs nothing. A body costs a few allocations, the copying of the data that is kept, and for
//! each frame a lock that nobody else takes, unless two attempts are in flight. Each further attempt copies the kept data
//! once more.
//!
//! # Errors
//!
//! [`ReplayBodyError`](crate::ReplayBodyError), as the source of the client's error: the body itself failed (a retry would fail as well, and is not
//! made), the copy was too far behind, or its attempt is over. Over HTTP/1 a hyper client has it in the chain of its own
//! error. Over HTTP/2 it resets the stream and says no more than that, which the classifiers of this crate understand. Over
//! HTTP/1, when the head of the answer has come, it reports a broken connection: that is a failure of the service.
//!
//! # Metrics
//!
//! None.
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | [`limit`](ReplayBodyLayer::limit) | 64 KiB | longer than nearly every request, and little for each call in flight |
//!
//! # Examples
//!
//! A hyper client takes the body as it is:
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
//! For a tonic channel it is made a body of tonic's again, under retry:
//!
#![cfg_attr(not(doctest), doc = include_str!("../../snippets/tonic_replay_body.md"))]

mod body;
mod layer;
mod source;
mod state;

pub use self::body::ReplayBody;
pub use self::layer::{ReplayBodyLayer, ReplayBodyService, ResponseFuture};
