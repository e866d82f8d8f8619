//! A whole gRPC client in one expression: the standard stack and all layers for gRPC, in the right order.
//!
//! The module needs the feature `tonic`, and has types of tonic in its signatures.
//!
//! # When to use it
//!
//! Use it first, for every gRPC service that you call over a [`Channel`](::tonic::transport::Channel) of tonic. Make
//! the generated client from a [`Client`] in place of the channel: `LedgerClient::new(client)`, also under
//! `with_interceptor`. Use [`http::grpc::standard`](crate::http::grpc::standard) and the single layers if you need
//! another order, or layers of your own between them.
//!
//! ```
//! use std::time::Duration;
//!
//! use buttress::grpc;
//! use tonic::transport::Endpoint;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let channel = Endpoint::from_static("http://ledger:50051").connect_lazy();
//! let client: grpc::Client = grpc::client("ledger")
//!     .deadline(Duration::from_secs(1))
//!     .concurrency_limit(50)
//!     .wrap(channel)?;
//! // let ledger: LedgerClient<grpc::Client> = LedgerClient::new(client);
//! # drop(client);
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! ```text
//!  generated client ─▶ Client ─▶ ReplayBody ─▶ standard stack ─▶ BodyTimeoutLayer ─▶ PropagateDeadlineLayer ─▶ channel
//!                                                         ╰───▶ balancer ─▶ for each replica: the same ─────▶ channel
//! ```
//!
//! It has the settings of the [standard stack](crate::stack), and three more for the layers inside it. The last method
//! makes the client: [`wrap`](Config::wrap) for one channel, [`replicas`](Config::replicas) for several, and
//! [`discover`](Config::discover) for the channels of a [source](crate::discover). All three return the same type.
//!
//! An adapter around the channel proves that [a request was not sent](crate::tonic). The client keeps 64 KiB of the
//! messages of a request, so that the request can be sent again. All methods of gRPC are POST: a call is sent again
//! only if it was provably not sent, unless you name the idempotent methods:
//!
//! ```
//! use buttress::grpc;
//! use buttress::http::HttpReplay;
//!
//! let replay = HttpReplay::new()
//!     .idempotent_paths(|path| path == "/shop.Ledger/Get")
//!     .grpc_previous_attempts();
//! let ledger = grpc::client("ledger").replay(replay).concurrency_limit(50);
//! # drop(ledger);
//! ```
//!
//! # Replicas
//!
//! The [balancer](crate::balance) avoids a failing replica, and a retry goes to another one. There is therefore no
//! circuit breaker around all replicas, unless you set one. One more line adds health checks, and priorities give
//! failover:
//!
//! ```
//! use buttress::balance::Endpoint;
//! use buttress::grpc;
//! use tonic::transport;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let channel = |address| transport::Endpoint::from_static(address).connect_lazy();
//! let ledger = grpc::client("ledger")
//!     .concurrency_limit(50)
//!     .replicas([
//!         Endpoint::new("ledger-1", channel("http://10.0.0.1:50051")),
//!         Endpoint::new("backup", channel("http://10.1.0.1:50051")).priority(1),
//!     ])?
//!     .check_health(grpc::health_check("shop.Ledger"))?;
//! # drop(ledger);
//! # Ok(())
//! # }
//! ```
//!
//! # Defaults
//!
//! The defaults of [`http::grpc::standard`](crate::http::grpc::standard), and:
//!
//! | setting | default |
//! |---|---|
//! | [`body_timeout`](Config::body_timeout) | an answer may be silent for 30 s before its first message, and the stack ends it at the deadline; a declared stream has neither limit |
//! | [`propagate_deadline`](Config::propagate_deadline) | the header `grpc-timeout` |
//! | [`balance`](Config::balance) | the defaults of the [balancer](crate::balance), for replicas |
//!
//! # Promises
//!
//! The promises of the [standard stack](crate::stack) and of [HTTP](crate::http). The type has one parameter, the
//! channel, which has a default: `LedgerClient<grpc::Client>`.
//!
//! # Cancellation
//!
//! Dropping the future of a call, or its stream, gives back all that the call holds.
//!
//! # What clones share
//!
//! All state. Make a second client for a second dependency.
//!
//! # Cost
//!
//! The cost of the layers, with a few allocations for the kept messages of a request.
//!
//! # Errors
//!
//! Every error, also of a stream, is a [`Status`](::tonic::Status). If a layer has ended the call, the status has the
//! code in the table, and the error of this crate is its source: [`Error::find`](crate::Error::find) returns its
//! [`Cause`](crate::Cause). Errors of the channel have the code that tonic gives them.
//!
//! | the call | code |
//! |---|---|
//! | was refused by the circuit breaker, the bulkhead or a [drain](crate::drain), or found no replica | `Unavailable` |
//! | was refused by the rate limit | `ResourceExhausted` |
//! | took longer than its timeout or its deadline | `DeadlineExceeded` |
//!
//! # Metrics
//!
//! The metrics of the layers, with the name of the client.

mod config;
mod health;
mod service;

pub use self::config::{Config, Replica, client, health_check};
pub use self::health::GrpcProbe;
pub use self::service::{Client, IntoChannel, ResponseBody, ResponseFuture, StatusBody};
pub use crate::http::grpc::server;
