//! Refusals: errors as responses of HTTP and gRPC.
//!
//! # When to use it
//!
//! In a server, put it outside the other layers: axum and tonic require a service that answers every request, and a
//! client needs to know whether and when to try again. With [`RespondLayer::for_servers`] every error becomes a
//! response, and the service has the error `Infallible`.
//!
//! In a gRPC client, put it outside the other layers: a tonic client reports an error that is not its own as `Unknown`.
//! With [`RespondLayer::for_clients`] the errors of this crate's layers become responses, and callers see
//! `Unavailable`, `ResourceExhausted` or `DeadlineExceeded`. Errors of the inner client, such as a refused connection,
//! pass unchanged.
//!
//! Do not put it between other layers of a client: an outer retry or circuit breaker would take the response for a
//! response of the server. To give another answer of the same type, use a [`FallbackLayer`](crate::FallbackLayer).
//!
//! # How it works
//!
//! ```text
//!  request ──▶ respond ──▶ rate limit, bulkhead … ──▶ handler
//!                 │                │ error                │ error
//!  429, 503, 504 ◀┴────────────────╯                      │
//!  500 (servers), or the error itself (clients) ◀─────────╯
//! ```
//!
//! | error | HTTP | gRPC |
//! |---|---|---|
//! | [`CircuitOpen`](crate::ErrorKind::CircuitOpen), [`NoEndpoints`](crate::ErrorKind::NoEndpoints), [`DiscoveryStopped`](crate::ErrorKind::DiscoveryStopped), [`Refused`](crate::ErrorKind::Refused) | 503 | `UNAVAILABLE` |
//! | [`BulkheadFull`](crate::ErrorKind::BulkheadFull), [`QueueTimeout`](crate::ErrorKind::QueueTimeout) | 503 with `Retry-After`, 1 s if the time is not known | `UNAVAILABLE`, with a pushback of the same time |
//! | [`RateLimited`](crate::ErrorKind::RateLimited) | 429 | `RESOURCE_EXHAUSTED` |
//! | [`TooCostly`](crate::ErrorKind::TooCostly) | 413 | `RESOURCE_EXHAUSTED`, with a pushback of -1: do not try again |
//! | [`Timeout`](crate::ErrorKind::Timeout), [`DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded) | 504 | `DEADLINE_EXCEEDED` |
//! | the same, of the body of a [request](crate::Stage::Request) | 408, over HTTP/1 with `Connection: close` | `CANCELLED` |
//! | [`Draining`](crate::ErrorKind::Draining) | 503, over HTTP/1 with `Connection: close` | `UNAVAILABLE` |
//! | any other, for servers only | 500 | `INTERNAL` |
//!
//! A handler's own call to a dependency may be refused. The answer is then 503 or `UNAVAILABLE` without a
//! `Retry-After`, whatever the kind of the refusal, because it is not the fault of this caller. A refusal is one of
//! this server if the `RespondLayer` calls the refusing layer directly, or through layers and services that pass the
//! call on at once. Put the layers into one `ServiceBuilder`, because axum does not pass a call on at once between two
//! calls of `Router::layer`.
//!
//! An answer in HTTP has an empty body. If the error contains a time for the next try, it is in `Retry-After`, in whole
//! seconds, rounded up and at least 1. A bulkhead does not know the time. Its answer has 1 s, which distinguishes an
//! overloaded server from a broken one, also for [`Classifier`](super::Classifier): clients then slow down.
//!
//! An answer in gRPC consists of trailers only: status 200, `content-type: application/grpc`, `grpc-status`,
//! `grpc-message`, and `grpc-retry-pushback-ms` if the time is known. The `content-type` of the request decides between
//! HTTP and gRPC, unless you set the [`protocol`](RespondLayer::protocol).
//!
//! If the body of a gRPC answer ends in an error of this crate (a [body timeout](super::body_timeout)), its trailers
//! have the status. HTTP has no place for the status, so the reader gets the error.
//!
//! The layer recognizes an error of this crate anywhere in the chain of sources. The extensions of the response contain
//! the error as an [`AnsweredError`], for logs and for outer metrics.
//!
//! A function writes other answers, such as problem documents in JSON: see [`RespondLayer::respond`].
//!
//! # Promises
//!
//! - A server never shows the text of an error or the name of a layer. A client has both in `grpc-message`, because
//!   they stay in its process.
//! - A response of the inner service passes unchanged, and [`AnswerBody`] reports the size and end of its body. The
//!   only requirement for the body is an error that can be boxed; it needs no `Default`.
//!
//! # Cancellation
//!
//! Dropping the future drops the inner future. A panic passes.
//!
//! # What clones share
//!
//! The settings. There is no state.
//!
//! # Cost
//!
//! For an answer of the inner service, the layer reads the `content-type` and allocates nothing. A function needs
//! method and URI of the request, whose clones are counted references. An answer of the layer allocates its headers and
//! its cause.
//!
//! # Errors
//!
//! None for servers. For clients the errors of the inner client, with the kind [`Service`](crate::ErrorKind::Service).
//!
//! # Metrics
//!
//! None: the layers that ended the call have reported it.
//!
//! # Examples
//!
//! ```
//! use buttress::http::RespondLayer;
//! use buttress::http::respond::Refusal;
//! use buttress::{BoxError, Rate, RateLimitLayer};
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, service_fn};
//! # type Body = http_body_util::Full<bytes::Bytes>;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let handler = service_fn(async |_request: Request<()>| Ok::<_, BoxError>(Response::new(Body::from("12 bolts"))));
//! let limit = RateLimitLayer::config("shop", Rate::per_minute(20)).burst(1).build()?;
//! let server = ServiceBuilder::new()
//!     .layer(RespondLayer::for_servers())
//!     .layer(limit.clone())
//!     .service(handler);
//! let Ok(response) = server.send(Request::new(())).await;
//! assert_eq!(response.status(), StatusCode::OK);
//! let Ok(response) = server.send(Request::new(())).await;
//! assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
//! assert_eq!(response.headers()["retry-after"], "3");
//!
//! // The whole answer from a function.
//! let server = ServiceBuilder::new()
//!     .layer(RespondLayer::for_servers().respond(|refusal: Refusal<'_>| {
//!         let problem = format!(r#"{{"title":"{}","status":{}}}"#, refusal.message(), refusal.status().as_u16());
//!         refusal.response().map(|_empty| problem.into())
//!     }))
//!     .layer(limit)
//!     .service(handler);
//! let Ok(response) = server.send(Request::new(())).await;
//! assert_eq!(response.headers()["retry-after"], "3");
//! # Ok(())
//! # }
//! ```

mod answer;
mod body;
mod layer;
mod refusal;

pub use self::answer::{AnsweredError, ForClients, ForServers, Side};
pub use self::body::AnswerBody;
pub use self::layer::{Respond, RespondLayer, ResponseFuture};
pub use self::refusal::Refusal;
#[cfg(feature = "tonic")]
pub(crate) use self::refusal::trailers as grpc_trailers;
