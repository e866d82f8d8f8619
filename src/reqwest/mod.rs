//! A whole client for [reqwest]: its methods and responses, over the standard stack and all that belongs to HTTP.
//!
//! # When to use it
//!
//! For every dependency that is called with reqwest. [`client`] makes it in one expression. For layers of your own between the
//! standard stack and the client, use [`http::standard`](crate::http::standard) and an [`Adapter`].
//!
//! # How it works
//!
//! ```text
//!  web.get(url).send() ─▶ standard stack ─▶ BodyTimeoutLayer ─▶ PropagateDeadlineLayer ────────────────▶ reqwest
//!                                      ╰──▶ balancer ─▶ for each replica: the two layers ─▶ its origin ─▶ reqwest
//! ```
//!
//! A [`Client`] has the methods of [`reqwest::Client`], such as `get` and `post`, and its [`RequestBuilder`] those
//! of reqwest's that are used most. [`with`](RequestBuilder::with) has all others. The response is a
//! [`reqwest::Response`]: its URL, remote address, version, headers, cookies and extensions are those of
//! the last attempt.
//!
//! The settings are those of the [standard stack](crate::stack), and of the layers under it, as in [`http::client`](mod@crate::http::client).
//! A last method makes the client:
//!
//! | method | requests go | proof that a request was not sent |
//! |---|---|---|
//! | [`build`](Config::build) | where their URL says, through a client that a `ClientBuilder` makes | yes, for requests that were not redirected |
//! | [`wrap`](Config::wrap) | the same, through a client that is finished | no: nobody can see whether it follows redirects |
//! | [`replicas`](Config::replicas) | to one of a list of [replicas](Replica) | with an [`Adapter`] that was built, as with `build` |
//! | [`discover`](Config::discover) | to one of the replicas that a [source](crate::discover) finds | the same |
//!
//! All of them return the same type, which has no parameters.
//!
//! ## Which requests are sent again
//!
//! As in [`http`](crate::http): requests with an idempotent method or an `Idempotency-Key`, those that are marked with
//! [`CallOptions::idempotent`](crate::CallOptions::idempotent) in an [`extension`](RequestBuilder::extension), and all that were provably not sent. reqwest follows redirects inside an
//! attempt. A redirected request may have acted, so there is no proof for it.
//!
//! A body that is whole is copied for each attempt, without copying its bytes. A body that is streamed is kept while it is sent,
//! up to 64 KiB; a request with a longer one is sent once. This includes forms of `multipart`.
//!
//! ## Times
//!
//! | set with | covers |
//! |---|---|
//! | [`timeout`](crate::stack::Standard::timeout) of the client | one attempt, until the head of its answer |
//! | [`response_timeout`](crate::stack::Standard::response_timeout) of the client | all attempts, until the head of the answer |
//! | [`deadline`](crate::stack::Standard::deadline) of the client | the whole answer, body included; the service is told |
//! | [`timeout`](RequestBuilder::timeout) of a request | the same, for this request; as the time of reqwest has it, over all attempts |
//! | [`body_timeout`](Config::body_timeout) of the client | the longest silence of a body |
//!
//! Leave `timeout` and `read_timeout` of a `ClientBuilder` unset: they end single attempts, and the ends count as failures of the
//! service. `connect_timeout` is useful.
//!
//! # Replicas
//!
//! A replica is an origin, which takes the place of that in the URL, or a client of its own, for replicas that share the
//! certificate of the service: see [`Replica`]. One more line adds health checks:
//!
//! ```
//! use buttress::balance::Endpoint;
//! use buttress::reqwest::{Adapter, health_check};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), buttress::BoxError> {
//! let search = buttress::reqwest::client("search")
//!     .concurrency_limit(50)
//!     .replicas(Adapter::build(reqwest::Client::builder())?, [
//!         Endpoint::from("http://10.0.0.1:80"),
//!         Endpoint::from("http://10.0.0.2:80"),
//!         Endpoint::from("http://10.1.0.1:80").priority(1), // gets calls while the others are not well
//!     ])?
//!     .check_health(health_check("http://search/health"))?;
//!
//! let request = search.get("http://search/stock"); // `search` stands for the replica
//! # drop(request);
//! # Ok(())
//! # }
//! ```
//!
//! # Defaults
//!
//! Those of [`http::client`](mod@crate::http::client#defaults), and:
//!
//! | setting | default |
//! |---|---|
//! | [`redirects`](Config::redirects) | up to 10, as in reqwest; a finished client follows those that it was told to |
//!
//! # Promises
//!
//! - Those of the [standard stack](crate::stack) and of [HTTP](crate::http).
//! - A response keeps all that reqwest puts into it.
//! - A request that was redirected, or was sent through a finished client, is sent again only if it is idempotent.
//! - A request that cannot be built, or has a URL that is not one of HTTP, counts for nothing: neither as a call nor as a failure.
//!
//! # Cancellation
//!
//! Dropping the future of a call, or the body of its response, gives back all that the call holds.
//!
//! # What clones share
//!
//! All state, and the connections. Make a second client for a second dependency.
//!
//! # Cost
//!
//! That of the layers, and the conversions between the types of reqwest and those of `http`: for each attempt a URL is parsed once
//! more, and the body of the response has three more boxes. A GET with a deadline allocates 22 times, beside the 40 times of reqwest
//! itself.
//!
//! # Errors
//!
//! [`Error`](crate::Error). [`downcast_ref`](crate::Cause::downcast_ref) finds the [`reqwest::Error`] in it. The
//! methods of a response, such as `text`, fail with a `reqwest::Error`, in which [`Error::find`](crate::Error::find) finds the reason
//! if a layer has ended the body.
//!
//! # Metrics
//!
//! Those of the layers, with the name of the client.
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//!
//! use buttress::Attempts;
//!
//! # use std::io::ErrorKind;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), buttress::BoxError> {
//! # let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let url = format!("http://{}/bolts", server.local_addr()?);
//! # tokio::spawn(async move {
//! #     for answer in ["503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", "200 OK\r\ncontent-length: 8\r\n\r\n12 bolts"] {
//! #         let (socket, _) = server.accept().await.unwrap();
//! #         while socket.try_read(&mut [0; 4096]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
//! #             socket.readable().await.unwrap();
//! #         }
//! #         let answer = format!("HTTP/1.1 {answer}");
//! #         socket.writable().await.unwrap();
//! #         assert_eq!(socket.try_write(answer.as_bytes()).unwrap(), answer.len());
//! #     }
//! # });
//! let inventory: buttress::reqwest::Client = buttress::reqwest::client("inventory")
//!     .deadline(Duration::from_secs(5))
//!     .concurrency_limit(50)
//!     .build(reqwest::Client::builder().no_proxy())?;
//!
//! // The first attempt is answered with 503.
//! let response = inventory.get(url).bearer_auth("t0ken").send().await?;
//! let attempts: Option<&Attempts> = response.extensions().get();
//! assert_eq!(attempts.map(|attempts| attempts.made), Some(2));
//! assert_eq!(response.text().await?, "12 bolts");
//! # Ok(())
//! # }
//! ```

mod adapter;
mod body;
mod client;
mod config;
mod replica;
mod request;

pub use self::adapter::{Adapter, OfClient, ResponseFuture};
pub use self::body::RequestBody;
pub use self::client::Client;
pub use self::config::{Config, Redirects, client, health_check};
pub use self::replica::{HttpAdapter, Replica};
pub use self::request::RequestBuilder;
