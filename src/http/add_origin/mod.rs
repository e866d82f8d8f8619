//! Sends requests to one origin: a scheme, a host and a port.
//!
//! # When to use it
//!
//! Use it with a client that takes the server from the URI of each request, as the client of hyper-util does. A
//! [balancer](crate::balance) needs one `AddOriginLayer` for each replica:
//!
//! ```
//! use std::net::SocketAddr;
//!
//! use buttress::ConfigError;
//! use buttress::balance::Endpoint;
//! use buttress::http::{AddOriginLayer, balance};
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use hyper_util::client::legacy::Client;
//! use hyper_util::rt::TokioExecutor;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), ConfigError> {
//! let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
//! let replicas = ["10.0.0.1:8080", "10.0.0.2:8080"].map(|address| address.parse::<SocketAddr>().expect("is valid"));
//! let search = balance("search").build(replicas.map(|replica| {
//!     Endpoint::new(replica, AddOriginLayer::http(replica).wrap(client.clone()))
//! }))?;
//! # drop(search);
//! # Ok(())
//! # }
//! ```
//!
//! Do not use it with tonic's `Channel` or another client that is bound to one server.
//!
//! # How it works
//!
//! ```text
//!  GET /stock?item=bolts             ──▶  GET http://10.0.0.1:8080/stock?item=bolts
//!  GET http://search/stock           ──▶  GET http://10.0.0.1:8080/stock
//! ```
//!
//! The URI gets the scheme and authority of the origin; path, query, headers, version, extensions and body stay. A
//! CONNECT request passes unchanged, because its URI names the target of the tunnel and not the server that makes it.
//!
//! Over HTTP/1.1, hyper-util's client takes the header `Host` from the URI if the request has none. A `Host` that the
//! request has stays. If the servers distinguish hosts by name, set the header in an outer layer. Over HTTP/2 the
//! origin is the `:authority`.
//!
//! # Promises
//!
//! A request with a URI has a valid URI afterwards. Nothing else in the request changes.
//!
//! # Cancellation
//!
//! Dropping the future drops the call.
//!
//! # What clones share
//!
//! The text of the origin. There is no state.
//!
//! # Cost
//!
//! If the scheme is http or https: one reference, and no allocation.
//!
//! # Errors
//!
//! None of its own.
//!
//! # Metrics
//!
//! None.
//!
//! # Defaults
//!
//! The origin is the only setting.
//!
//! # Examples
//!
//! ```
//! use buttress::BoxError;
//! use buttress::http::AddOriginLayer;
//! use http::Request;
//! use tower::service_fn;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let client = service_fn(|request: Request<()>| async move { Ok::<_, BoxError>(request.uri().to_string()) });
//! let replica = AddOriginLayer::new("https://search-1.internal")?.wrap(client);
//!
//! let asked = replica.send(Request::get("/stock?item=bolts").body(())?).await?;
//! assert_eq!(asked, "https://search-1.internal/stock?item=bolts");
//! # Ok(())
//! # }
//! ```

mod layer;

pub use self::layer::{AddOrigin, AddOriginLayer, ResponseFuture};
