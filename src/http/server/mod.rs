//! A whole server in one expression: all the layers that belong around a server of HTTP or gRPC, in their order.
//!
//! # When to use it
//!
//! Around every server under axum or tonic, and any other service of `http::Request`. [`server`] begins one of HTTP, and
//! `grpc::server` one of gRPC. `build` makes one layer:
//!
//! ```text
//! Router::new().route(…).layer(protect)                                 axum
//! tonic::transport::Server::builder().layer(protect).add_service(…)     tonic
//! ```
//!
//! Use the single layers if you need another order, or layers of your own between them.
//!
//! # How it works
//!
//! ```text
//!  request ─▶ respond ─▶ measure, drain ─▶ deadline ─▶ limits of the key ─▶ concurrency limit ─▶ bodies ─▶ handler
//!                 │             │ draining      │ too late    │ beyond its limit      │ full        │ slow sender
//!             answers ◀─────────┴───────────────┴─────────────┴───────────────────────┴─────────────╯
//! ```
//!
//! | part | effect | set by |
//! |---|---|---|
//! | [`RespondLayer`](crate::http::RespondLayer) | each refusal is an answer in the protocol of the request | [`respond`](Config::respond) |
//! | [`MeasureLayer`](crate::MeasureLayer) | counts and times all calls, refused ones included | – |
//! | drain | finishes the calls in flight and takes no new ones | [`Handle::run_until`], [`Handle::drain`] |
//! | [`InheritDeadlineLayer`](crate::http::InheritDeadlineLayer) | the handler has the time that its caller waits, up to a maximum | [`deadline`](Config::deadline) |
//! | [`KeyedLayer`](crate::KeyedLayer) | each tenant has limits of its own | [`keyed`](Config::keyed) |
//! | [`BulkheadLayer`](crate::BulkheadLayer) | sheds the load beyond a number of calls, or lets it queue | [`concurrency_limit`](Config::concurrency_limit), [`bulkhead`](Config::bulkhead) |
//! | bodies | end a request that its sender does not send in time, and a response that the handler does not finish in time | [`request_body`](Config::request_body), [`response_body`](Config::response_body) |
//!
//! A call is in flight until its response body has been handed over to the connection, has failed, or is dropped. Until then it
//! holds its permit, and a drain waits for it.
//!
//! ## Answers
//!
//! | a call is refused or ended because | HTTP | gRPC |
//! |---|---|---|
//! | the concurrency limit is reached, or the wait in its queue is over | 503, `Retry-After` | `UNAVAILABLE`, pushback |
//! | its key is beyond a rate limit | 429, `Retry-After` | `RESOURCE_EXHAUSTED`, pushback |
//! | its time is over, or was from the beginning | 504 | `DEADLINE_EXCEEDED` |
//! | the body of the request did not come in time | 408, `Connection: close` | `CANCELLED` |
//! | the server is draining | 503, `Connection: close` | `UNAVAILABLE` |
//!
//! `Connection: close` is part of answers over HTTP/1. There is no `Retry-After` during a drain: a client should call another server
//! at once, and not this one later. The other answers are those of [`respond`](crate::http::respond).
//!
//! ## Deadline
//!
//! The deadline covers the whole call, from its head to the end of the response body. It is the time that the caller sends in
//! `grpc-timeout` or `x-request-timeout-ms`, but at most [`deadline`](Config::deadline), 60 s by default. A caller that sends no
//! time has that maximum. [`Deadline::current`](crate::Deadline::current) has the deadline in the handler, and the clients of this crate
//! that the handler calls write the time that is left into their requests.
//!
//! Declare streams with [`streaming`](Config::streaming): server-sent events, long polls, and methods of gRPC such as `Watch`. A
//! stream has the deadline of its caller alone, and may be silent. It holds its permit for as long as it lasts. Send keep-alive pings
//! from the server, so that streams of clients that are gone come to an end.
//!
//! ## Slow bodies
//!
//! A handler that reads a request body waits at most 30 s for its next part, and the body ends at the deadline of its call. Both
//! ends are errors of the body. If the handler answers with an error then, as the extractors of axum and the generated code of
//! tonic do, its answer is replaced by 408 or `CANCELLED`. An answer without an error is sent as it is.
//!
//! - `.request_body(|body| body.idle(…).total(…))` sets the longest silence and the longest time of a body.
//! - The clock of the silence runs while the handler waits. A handler that does something else first is not taken for a slow sender.
//! - In a gRPC request the longest silence holds up to the first message. Set `stream_idle` for the messages after it.
//! - A body that nobody reads holds nothing but its connection.
//! - A slow request counts as `ignored`: neither for the server nor against it, also for an adaptive limit.
//!
//! The head of a request is read before a service is called. Its time is a setting of the server, such as `header_read_timeout` of
//! hyper.
//!
//! ## Drain
//!
//! [`Handle::run_until`] runs a server until a signal comes. Then the server is no longer [ready](Handle::is_ready), new calls are
//! refused, and the calls in flight go on, bodies included. When the last of them is over, [`Handle::drained`] lets axum or tonic close
//! its connections and end. A server that has not ended in the given time is dropped.
//!
//! ```text
//! let server = axum::serve(listener, app).with_graceful_shutdown(handle.drained());
//! handle.run_until(sigterm, Duration::from_secs(20), server).await;
//! ```
//!
//! - Put the route of the readiness check outside the layer, so that it answers during the drain.
//! - The listener stays open until the calls are over. A load balancer that has not noticed yet gets an answer, which tells it to try another
//!   server. If it does not try again by itself, let the readiness check fail for some seconds before the signal comes.
//! - Axum and tonic run each connection in a task of its own. The tasks end with their runtime: return from `main`.
//! - An upgraded connection, such as a WebSocket, is not waited for.
//!
//! # Promises
//!
//! - Every request is answered: the error of the service is `Infallible`.
//! - Each call is counted and gives back all that it holds once, however it ends: answered, refused, dropped, or by a panic.
//! - A drain that says that no call is left has waited for all calls that were admitted. A refused call does not begin.
//! - A tenant beyond its own limit takes no permit of the others. The keys are bounded in number and in bytes.
//! - No header and no body of a caller holds a permit for longer than the deadline, unless its request is declared a stream. A client that
//!   does not read its answer is the exception, see [`body_timeout`](crate::http::body_timeout#limits).
//!
//! # Cancellation
//!
//! Dropping the future of a call, or the body of its response, ends the call.
//!
//! # What clones share
//!
//! All services that one layer value makes, and those of its clones, share its limits, its keys and its drain. So do the services
//! of all routes under axum, and those of all connections under tonic. Build a second layer for a second limit.
//!
//! # Cost
//!
//! That of the layers. The drain adds two atomic additions on a word of the thread. A request with a body allocates a few words, which
//! tell the call that the body was late. A body allocates a timer if its reader has to wait.
//!
//! # Errors
//!
//! The service has none. The errors that the answers stand for are in their extensions, as
//! [`AnsweredError`](crate::http::respond::AnsweredError). Those of a drain have the kind [`Draining`](crate::ErrorKind::Draining),
//! those of a slow request the [stage](crate::Cause::stage) [`Request`](crate::Stage::Request).
//!
//! # Metrics
//!
//! Those of the layers, with the name of the server:
//!
//! | metric | labels |
//! |---|---|
//! | `buttress_calls_total`, `buttress_call_duration_seconds` | name; stage = operation; outcome |
//! | `buttress_rejections_total` | name; layer = `drain`, `inherit_deadline`, `bulkhead`, and those of the limits for keys; reason; mode |
//! | `buttress_timeouts_total` | name; layer = `inherit_deadline`, `request_body`, `body` |
//! | `buttress_in_flight`, `buttress_limit`, `buttress_queue_depth`, `buttress_queue_wait_seconds` | name; layer = `bulkhead` |
//! | `buttress_keys`, `buttress_key_events_total` | name |
//!
//! Give the server a name of its own, which no client in the process has: both would count under it.
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | concurrency limit | none, must be set | depends on the server |
//! | [`deadline`](Config::deadline) | 60 s | longer than most handlers work, and a bound for callers that mean harm |
//! | [`deadline_header`](Config::deadline_header) | `x-request-timeout-ms`, and `grpc-timeout` | see [`deadline`](crate::http::deadline) |
//! | [`keyed`](Config::keyed) | no limits for keys | depends on the callers |
//! | [`request_body`](Config::request_body) | 30 s of silence, and the deadline | a healthy sender is not silent for so long |
//! | [`response_body`](Config::response_body) | 30 s of silence, and the deadline | no healthy handler is silent for so long |
//! | [`streaming`](Config::streaming) | requests that are marked | |
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//!
//! use buttress::{BoxError, Rate, RateLimitLayer};
//! use bytes::Bytes;
//! use http::{Request, Response, StatusCode};
//! use http_body_util::Full;
//! use tower::{Layer, service_fn};
//!
//! type Body = Full<Bytes>;
//!
//! fn tenant(request: &Request<Body>) -> Option<http::HeaderValue> {
//!     request.headers().get("x-tenant").cloned()
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let protect = buttress::http::server("shop")
//!     .deadline(Duration::from_secs(10))
//!     .concurrency_limit(200)
//!     .keyed(tenant, RateLimitLayer::config("tenants", Rate::per_second(10)).burst(20))
//!     .build()?;
//! // Under axum `Router::layer` does it.
//! let shop = protect.layer(service_fn(async |_request: Request<_>| {
//!     Ok::<_, BoxError>(Response::new(Body::from("12 bolts")))
//! }));
//! let Ok(response) = shop.send(Request::new(Body::default())).await;
//! assert_eq!(response.status(), StatusCode::OK);
//! drop(response);
//!
//! assert_eq!(protect.handle().drain(Duration::from_secs(20)).await, 0);
//! let Ok(response) = shop.send(Request::new(Body::default())).await;
//! assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
//! # Ok(())
//! # }
//! ```

mod bodies;
mod config;
mod drain;
mod handle;
mod keyed;
mod layer;

pub use self::bodies::{BodiesLayer, BodiesOfCall, RequestBody};
pub(in crate::http) use self::config::of;
pub use self::config::{Config, Settings, server};
pub use self::drain::{Counted, Drain};
pub use self::handle::Handle;
pub use self::keyed::{Given, KeyLimits, NotKeyed, PerKey};
pub use self::layer::{Limited, Server, ServerLayer};
