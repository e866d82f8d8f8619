//! A whole client for [reqwest] in one expression: its methods and responses, with the standard stack and all layers
//! for HTTP.
//!
//! # When to use it
//!
//! Use it first, for every dependency that you call with reqwest. Use [`http::standard`](crate::http::standard) and an
//! [`Adapter`] if you need layers of your own between the standard stack and the client.
//!
//! # How it works
//!
//! ```text
//!  web.get(url).send() ─▶ standard stack ─▶ BodyTimeoutLayer ─▶ PropagateDeadlineLayer ────────────────▶ reqwest
//!                                      ╰──▶ balancer ─▶ for each replica: the two layers ─▶ its origin ─▶ reqwest
//! ```
//!
//! A [`Client`] has the methods of [`reqwest::Client`], such as `get` and `post`. Its [`RequestBuilder`] has the most
//! used methods of reqwest's builder, and [`with`](RequestBuilder::with) calls all others. The response is a
//! [`reqwest::Response`]. Its URL, remote address, version, headers, cookies and extensions come from the last attempt.
//!
//! It has the settings of the [standard stack](crate::stack) and of the layers inside it, as in
//! [`http::client`](mod@crate::http::client). The last method makes the client:
//!
//! | method | requests go | proof that a request was not sent |
//! |---|---|---|
//! | [`build`](Config::build) | to the server in their URL, through a client that a `ClientBuilder` makes | yes, for requests that were not redirected |
//! | [`wrap`](Config::wrap) | the same, through a finished client | no, because a finished client does not show whether it follows redirects |
//! | [`replicas`](Config::replicas) | to one of a list of [replicas](Replica) | as with `build`, if the [`Adapter`] was built |
//! | [`discover`](Config::discover) | to one of the replicas that a [source](crate::discover) finds | the same |
//!
//! All four return the same type, which has no parameters.
//!
//! ## Which requests are sent again
//!
//! The rules are those of [`http`](crate::http). A request is sent again if it has an idempotent method, an
//! `Idempotency-Key` or [`CallOptions::idempotent`](crate::CallOptions::idempotent) in an
//! [`extension`](RequestBuilder::extension), or if it was provably not sent. reqwest follows redirects inside an
//! attempt. The service may have acted on a redirected request, so there is no proof for it.
//!
//! A whole body is cloned for each attempt, without a copy of its bytes. Up to 64 KiB of a streamed body are kept while
//! it is sent; a request with a longer stream is sent once. A `multipart` form is a streamed body.
//!
//! ## Times
//!
//! | set with | covers |
//! |---|---|
//! | [`timeout`](crate::stack::Standard::timeout) of the client | one attempt, until the head of its answer |
//! | [`response_timeout`](crate::stack::Standard::response_timeout) of the client | all attempts, until the head of the answer |
//! | [`deadline`](crate::stack::Standard::deadline) of the client | the whole answer, including the body; the time is sent to the service |
//! | [`timeout`](RequestBuilder::timeout) of a request | the same for this request: as in reqwest the whole answer, but over all attempts |
//! | [`body_timeout`](Config::body_timeout) of the client | the longest silence of a body |
//!
//! Do not set `timeout` and `read_timeout` of a `ClientBuilder`: they end single attempts, which then count as failures
//! of the service. `connect_timeout` is useful.
//!
//! # Replicas
//!
//! A replica is an origin, which replaces the origin in the URL. For replicas that share the certificate of the
//! service, a replica is a separate client: see [`Replica`]. One more line adds health checks:
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
//! The defaults of [`http::client`](mod@crate::http::client#defaults), and:
//!
//! | setting | default |
//! |---|---|
//! | [`redirects`](Config::redirects) | up to 10, as in reqwest; a finished client keeps its own policy |
//!
//! # Promises
//!
//! - The promises of the [standard stack](crate::stack) and of [HTTP](crate::http).
//! - A response keeps all parts that reqwest gives it.
//! - A request that was redirected or went through a finished client is sent again only if it is idempotent.
//! - A request that cannot be built, or whose URL is not an HTTP URL, counts neither as a call nor as a failure.
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
//! The cost of the layers, and of the conversions between the types of reqwest and `http`: each attempt parses the URL
//! once more, and the response body has three more boxes. A GET with a deadline allocates 22 times, in addition to the
//! 40 times of reqwest itself.
//!
//! # Errors
//!
//! [`Error`](crate::Error). [`downcast_ref`](crate::Cause::downcast_ref) finds the [`reqwest::Error`] in it. Methods of
//! a response, such as `text`, fail with a `reqwest::Error`. If a layer has ended the body,
//! [`Error::find`](crate::Error::find) finds the reason in this error.
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
