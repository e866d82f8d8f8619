//! Saying no: errors as responses of HTTP and gRPC.
//!
//! # When to use it
//!
//! Outside the other layers of a server: axum and tonic want a service that answers every request, and a client
//! wants to know whether it is worth trying again, and when. With [`RespondLayer::for_servers`] every error
//! becomes a response, and the service has the error `Infallible`.
//!
//! Outside the other layers of a client that speaks gRPC: a tonic client makes `Unknown` of an error that is not
//! its own. With [`RespondLayer::for_clients`] the errors of this crate's layers become responses, and its callers
//! see `Unavailable`, `ResourceExhausted` or `DeadlineExceeded`. Errors of the inner client pass, so that a
//! refused connection stays what it is.
//!
//! Not between other layers of a client: a retry or a circuit breaker outside would take the response for one of the
//! other side. To give another answer of the same type, take a [`FallbackLayer`](crate::FallbackLayer).
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
//! | [`BulkheadFull`](crate::ErrorKind::BulkheadFull), [`QueueTimeout`](crate::ErrorKind::QueueTimeout) | 503 with `Retry-After`, of 1 s if nothing else is known | `UNAVAILABLE`, with a pushback of the same time |
//! | [`RateLimited`](crate::ErrorKind::RateLimited) | 429 | `RESOURCE_EXHAUSTED` |
//! | [`TooCostly`](crate::ErrorKind::TooCostly) | 413 | `RESOURCE_EXHAUSTED`, with a pushback of -1: do not try again |
//! | [`Timeout`](crate::ErrorKind::Timeout), [`DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded) | 504 | `DEADLINE_EXCEEDED` |
//! | the same, of the body of a [request](crate::Stage::Request) | 408, over HTTP/1 with `Connection: close` | `CANCELLED` |
//! | [`Draining`](crate::ErrorKind::Draining) | 503, over HTTP/1 with `Connection: close` | `UNAVAILABLE` |
//! | any other, for servers only | 500 | `INTERNAL` |
//!
//! The refusal of a dependency that the handler has called is answered with 503 or `UNAVAILABLE` and no `Retry-After`, whatever its
//! kind: this caller has not asked the dependency too often. A refusal is that of this server if the `RespondLayer` calls the
//! layer that refused directly, or through layers and services that pass the call on at once. So put the layers
//! into one `ServiceBuilder`: between two calls of axum's `Router::layer` a call is not passed on at once.
//!
//! An answer in HTTP has an empty body. Where the error knows when to come back, it says so in `Retry-After`, in whole seconds,
//! rounded up and at least 1. A bulkhead does not know; its answer says 1, because that tells a server that has too much to do
//! from one that is broken, to [`Classifier`](super::Classifier) as well: clients then slow down.
//!
//! An answer in gRPC consists of trailers only: status 200, `content-type: application/grpc`, `grpc-status`,
//! `grpc-message`, and `grpc-retry-pushback-ms` where that is known. The `content-type` of the request decides which
//! of the two it is, unless the [`protocol`](RespondLayer::protocol) is fixed.
//!
//! An answer of gRPC that had begun, whose body then ends in an error of this crate (a [body timeout](super::body_timeout)),
//! has that status in its trailers. In HTTP there is no place for it, and the error stays one.
//!
//! An error of this crate counts as one wherever it stands in the chain of sources. The error itself stays with the
//! response: [`AnsweredError`] in its extensions, for logs and for metrics outside.
//!
//! A function writes other answers, such as problem documents in JSON: see [`RespondLayer::respond`].
//!
//! # Promises
//!
//! - A server never shows the text of an error, nor the name of a layer. A client does tell them, in `grpc-message`:
//!   they stay in its process.
//! - A response of the inner service passes as it came, and [`AnswerBody`] says about its body what that says itself.
//!   Nothing is required of it but an error that can be boxed, not even `Default`.
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
//! For an answer of the inner service: a look at the `content-type`; nothing is allocated. A function needs method
//! and URI of the request, whose clones are counted references. A "no" allocates its headers and its cause.
//!
//! # Errors
//!
//! None for servers. For clients those of the inner client, with the kind [`Service`](crate::ErrorKind::Service).
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
