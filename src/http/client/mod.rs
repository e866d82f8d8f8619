//! A whole HTTP client in one expression: the standard stack and all layers for HTTP, in the right order.
//!
//! # When to use it
//!
//! Use it first, for every dependency that you call over HTTP with a `tower::Service` of `http::Request`, such as the
//! client of hyper-util. Use [`standard`](crate::http::standard) and the single layers if you need another order, or
//! layers of your own between them. Layers around the whole client need neither: a [`Client`] is a `tower::Service`.
//!
//! # How it works
//!
//! ```text
//!  Client ─▶ standard stack ─▶ BodyTimeoutLayer ─▶ PropagateDeadlineLayer ─────────────────────▶ your client
//!                        ╰───▶ balancer ─▶ for each replica: the two layers ─▶ AddOriginLayer ─▶ your client
//! ```
//!
//! It has the settings of the [standard stack](crate::stack), and three more for the layers inside it. The last method
//! makes the client:
//!
//! | method | requests go |
//! |---|---|
//! | [`wrap`](Config::wrap) | to the server in their URI |
//! | [`replicas`](Config::replicas) | to one of a list of origins; the URI of the request needs a path only |
//! | [`discover`](Config::discover) | to one of the origins that a [source](crate::discover) finds |
//!
//! All three return the same type, so that a field or a function keeps its type when a second replica is added.
//!
//! Wrap the client of hyper-util in the adapter `buttress::hyper::Client`: the adapter proves that a request was not
//! sent, and without the proof a POST is never sent again. The adapter is not added automatically.
//!
//! The type of your client determines the body of requests. It must be [`TryCopyBody`](crate::http::TryCopyBody):
//! `Full<Bytes>` for texts and bytes, or [`ReplayBody<B>`](crate::http::ReplayBody) for streams of type `B`.
//! [`send`](Client::send) converts the body of a request into that type.
//!
//! # Replicas
//!
//! The [balancer](crate::balance) avoids a failing replica, and a retry goes to another one. There is therefore no
//! circuit breaker around all replicas, unless you set one. One more line adds health checks, and priorities give
//! failover:
//!
//! ```
//! use buttress::balance::Endpoint;
//! use buttress::http::client::health_check;
//! # use buttress::BoxError;
//! # use bytes::Bytes;
//! # use http::{Request, Response};
//! # use http_body_util::Full;
//! # use tower::service_fn;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! # let client = service_fn(|request: Request<Full<Bytes>>| async move {
//! #     Ok::<_, BoxError>(Response::new(Full::<Bytes>::from(request.uri().to_string())))
//! # });
//! let search = buttress::http::client("search")
//!     .concurrency_limit(50)
//!     .replicas(client, [
//!         Endpoint::from("http://10.0.0.1:80"),
//!         Endpoint::from("http://10.0.0.2:80"),
//!         Endpoint::from("http://10.1.0.1:80").priority(1), // gets calls while the others are not well
//!     ])?
//!     .check_health(health_check("/health"))?;
//!
//! let response = search.send(Request::get("/stock").body("")?).await?;
//! # let body = http_body_util::BodyExt::collect(response.into_body()).await?.to_bytes();
//! # assert!(body.starts_with(b"http://10.0.0."));
//! # Ok(())
//! # }
//! ```
//!
//! # Defaults
//!
//! The defaults of the [standard stack](crate::stack), and:
//!
//! | setting | default |
//! |---|---|
//! | [`body_timeout`](Config::body_timeout) | a body may be silent for 30 s; the stack ends it at the deadline |
//! | [`propagate_deadline`](Config::propagate_deadline) | the header `x-request-timeout-ms` |
//! | [`balance`](Config::balance) | the defaults of the [balancer](crate::balance), for replicas |
//! | [`replay`](Config::replay) | [`HttpReplay`](crate::http::HttpReplay): idempotent requests, and all requests that were provably not sent |
//! | [`classify`](Config::classify) | [`Classifier`](crate::http::Classifier), also for the balancer |
//! | [`streaming`](Config::streaming) | [`HttpStreams`](crate::http::HttpStreams): marked requests |
//!
//! # Promises
//!
//! The promises of the [standard stack](crate::stack) and of [HTTP](crate::http). The type has one parameter, your
//! client.
//!
//! # Cancellation
//!
//! Dropping the future of a call, or the body of its response, gives back all that the call holds.
//!
//! # What clones share
//!
//! All state. Make a second client for a second dependency.
//!
//! # Cost
//!
//! The cost of the layers. A successful call allocates nothing, except for the timer of a reader that has to wait for
//! the body.
//!
//! # Errors
//!
//! The errors of the layers, with the name of the client. [`kind`](crate::Cause::kind) distinguishes them.
//!
//! # Metrics
//!
//! The metrics of the layers, with the name of the client.
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//!
//! use buttress::BoxError;
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::service_fn;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! // Or `buttress::hyper::Client::new(client)` with a client of hyper-util.
//! let client = service_fn(|_: Request<Full<Bytes>>| async {
//!     Ok::<_, BoxError>(Response::new(Full::<Bytes>::from("12 bolts")))
//! });
//! let inventory = buttress::http::client("inventory")
//!     .deadline(Duration::from_secs(1))
//!     .concurrency_limit(50)
//!     .wrap(client)?;
//!
//! let response = inventory.send(Request::get("http://inventory/bolts").body("")?).await?;
//! assert_eq!(response.into_body().collect().await?.to_bytes(), "12 bolts");
//! # Ok(())
//! # }
//! ```

mod config;
mod health;
mod service;

pub use self::config::{Config, Replica, client};
pub use self::health::{HttpProbe, health_check};
pub use self::service::{Client, ResponseBody};
