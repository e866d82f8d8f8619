//! A whole server in one expression: all layers for an HTTP or gRPC server, in the right order.
//!
//! # When to use it
//!
//! Use it around every server under axum or tonic, and around any other service of `http::Request`. Begin with
//! [`server`] for HTTP, or with `grpc::server` for gRPC. `build` makes one layer:
//!
//! ```text
//! Router::new().route(…).layer(protect)                                 axum
//! tonic::transport::Server::builder().layer(protect).add_service(…)     tonic
//! ```
//!
//! Use the single layers if you need another order, or other layers between them.
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
//! | [`RespondLayer`](crate::http::RespondLayer) | answers each refusal in the protocol of the request | [`respond`](Config::respond) |
//! | [`MeasureLayer`](crate::MeasureLayer) | counts and times all calls, including refused calls | – |
//! | [drain](crate::drain) | refuses new calls and waits for the calls in flight | [`Handle::run_until`], [`Handle::drain`] |
//! | [`InheritDeadlineLayer`](crate::http::InheritDeadlineLayer) | gives the handler the time for which its caller waits, up to a maximum | [`deadline`](Config::deadline) |
//! | [`KeyedLayer`](crate::KeyedLayer) | gives each tenant its own limits | [`keyed`](Config::keyed) |
//! | [`BulkheadLayer`](crate::BulkheadLayer) | refuses calls beyond a number of calls in flight, or lets them queue | [`concurrency_limit`](Config::concurrency_limit), [`bulkhead`](Config::bulkhead) |
//! | bodies | end request bodies and response bodies that do not arrive in time | [`request_body`](Config::request_body), [`response_body`](Config::response_body) |
//!
//! A call is in flight until the connection has taken its whole response body, or the body has failed or been dropped.
//! Until then the call holds its permit, and a drain waits for it.
//!
//! ## Answers
//!
//! | reason | HTTP | gRPC |
//! |---|---|---|
//! | the concurrency limit is reached, or the wait in its queue is over | 503, `Retry-After` | `UNAVAILABLE`, pushback |
//! | the rate limit of its key is reached | 429, `Retry-After` | `RESOURCE_EXHAUSTED`, pushback |
//! | its deadline has passed, possibly before the call began | 504 | `DEADLINE_EXCEEDED` |
//! | the request body did not arrive in time | 408, `Connection: close` | `CANCELLED` |
//! | the server is draining | 503, `Connection: close` | `UNAVAILABLE` |
//!
//! Only answers over HTTP/1 have `Connection: close`. An answer during a drain has no `Retry-After`, because the client
//! should call another server at once, and not this server later. See [`respond`](crate::http::respond) for all other
//! answers.
//!
//! ## Deadline
//!
//! The deadline covers the whole call, from its head to the end of the response body. It is the time that the caller
//! sends in `grpc-timeout` or `x-request-timeout-ms`, but at most [`deadline`](Config::deadline), 60 s by default. If
//! the caller sends no time, the call has this maximum. A handler reads the deadline with
//! [`Deadline::current`](crate::Deadline::current). Clients of this crate in the handler send the remaining time with
//! their requests.
//!
//! Declare streams with [`streaming`](Config::streaming): server-sent events, long polls, and gRPC methods such as
//! `Watch`. A stream has only the deadline of its caller, and may be silent. It holds its permit until it ends. Send
//! keep-alive pings from the server, so that the streams of lost clients end.
//!
//! ## Slow bodies
//!
//! A handler that reads a request body waits at most 30 s for the next part, and the body ends at the deadline of its
//! call. In both cases the body ends in an error. The extractors of axum and the generated code of tonic then answer
//! with an error. The server replaces such an answer by 408 or `CANCELLED`. It sends an answer without an error
//! unchanged.
//!
//! - `.request_body(|body| body.idle(…).total(…))` sets the longest silence and the longest time of a body.
//! - The silence counts only while the handler waits. The time that a handler takes between two reads is not time of
//!   the sender.
//! - In a gRPC request, the longest silence applies before the first message. Set `stream_idle` for later messages.
//! - A body that no handler reads holds only its connection.
//! - A slow request has the outcome `ignored`: it counts neither for the server nor against it, and does not change an
//!   adaptive limit.
//!
//! The connection reads the head of a request before it calls a service. Bound this time in the server, for example
//! with `header_read_timeout` of hyper.
//!
//! ## Drain
//!
//! [`Handle::run_until`] runs a server until a signal comes. From then on the server is not [ready](Handle::is_ready)
//! and refuses new calls. The calls in flight go on, including their bodies. When the last call has ended,
//! [`Handle::drained`] completes, and axum or tonic closes its connections and ends. A server that has not ended in the
//! given time is dropped.
//!
//! ```text
//! let server = axum::serve(listener, app).with_graceful_shutdown(handle.drained());
//! handle.run_until(sigterm, Duration::from_secs(20), server).await;
//! ```
//!
//! - Put the route of the readiness check outside the layer, so that it answers during the drain.
//! - The listener stays open until all calls have ended. A load balancer that still sends calls gets an answer that
//!   tells it to try another server. If your load balancer does not retry, let the readiness check fail for some
//!   seconds before the signal.
//! - Axum and tonic run each connection in its own task. The tasks end with the runtime, so return from `main`.
//! - A drain does not wait for upgraded connections, such as WebSockets.
//!
//! # Promises
//!
//! - Every request is answered: the error of the service is `Infallible`.
//! - Each call counts once and gives back all that it holds once, whether it is answered, refused, dropped or panics.
//! - A drain that returns 0 has waited for all admitted calls. A refused call never reaches the handler.
//! - A tenant beyond its own limit takes no permit of the common limit. The number and the bytes of the keys are
//!   bounded.
//! - No header and no request body holds a permit for longer than the deadline, unless the request is declared a
//!   stream. There is one exception: a client that does not read its answer, see
//!   [`body_timeout`](crate::http::body_timeout#limits).
//!
//! # Cancellation
//!
//! Dropping the future of a call, or the body of its response, ends the call.
//!
//! # What clones share
//!
//! All services made by one layer value, or by its clones, share its limits, its keys and its drain. This includes the
//! services of all routes under axum, and of all connections under tonic. Build a second layer for a second limit.
//!
//! # Cost
//!
//! The cost of the layers. The drain costs two atomic additions to a word of the thread. A request with a body
//! allocates a few words, in which the body notes that it was late. A body allocates a timer if its reader has to wait.
//!
//! # Errors
//!
//! The service has no errors. The extensions of an answer contain its error as an
//! [`AnsweredError`](crate::http::respond::AnsweredError). The error of a drain has the kind
//! [`Draining`](crate::ErrorKind::Draining). The error of a slow request has the [stage](crate::Cause::stage)
//! [`Request`](crate::Stage::Request).
//!
//! # Metrics
//!
//! The metrics of the layers, with the name of the server:
//!
//! | metric | labels |
//! |---|---|
//! | `buttress_calls_total`, `buttress_call_duration_seconds` | name; stage = operation; outcome |
//! | `buttress_rejections_total` | name; layer = `drain`, `inherit_deadline`, `bulkhead`, and the limits for keys; reason; mode |
//! | `buttress_timeouts_total` | name; layer = `inherit_deadline`, `request_body`, `body` |
//! | `buttress_in_flight`, `buttress_limit`, `buttress_queue_depth`, `buttress_queue_wait_seconds` | name; layer = `bulkhead` |
//! | `buttress_keys`, `buttress_key_events_total` | name |
//!
//! Give the server a name that no client in the process has. Otherwise the calls of both count under the same label.
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | concurrency limit | none, must be set | depends on the server |
//! | [`deadline`](Config::deadline) | 60 s | longer than most handlers work, and a bound for hostile callers |
//! | [`deadline_header`](Config::deadline_header) | `x-request-timeout-ms`, and `grpc-timeout` | see [`deadline`](crate::http::deadline) |
//! | [`keyed`](Config::keyed) | no limits for keys | depends on the callers |
//! | [`request_body`](Config::request_body) | 30 s of silence, and the deadline | a healthy sender is not silent for so long |
//! | [`response_body`](Config::response_body) | 30 s of silence, and the deadline | no healthy handler is silent for so long |
//! | [`streaming`](Config::streaming) | no requests | streams have no bound but their caller's deadline |
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
mod handle;
mod keyed;
mod layer;

pub use self::bodies::{BodiesLayer, BodiesOfCall, RequestBody};
pub(in crate::http) use self::config::of;
pub use self::config::{Config, Settings, server};
pub use self::handle::Handle;
pub use self::keyed::{Given, KeyLimits, NotKeyed, PerKey};
pub use self::layer::{Limited, Server, ServerLayer};
