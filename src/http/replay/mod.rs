//! Which HTTP requests may be sent again, how they are copied, and what is written on them.
//!
//! # When to use it
//!
//! [`HttpReplay`] is a [`Replay`](crate::Replay) policy: give it to [retry](crate::retry), [hedge](crate::hedge) or the
//! [standard stack](crate::stack) of an HTTP or gRPC client. Without it every request that can be copied is taken for one
//! that may be acted on twice.
//!
//! # How it works
//!
//! ```text
//!  request ──▶ mark? method? key? path? ── safe ────▶ copied; sent again after a failure
//!                                       ╰─ unsafe ──▶ copied; sent again if it was not sent
//! ```
//!
//! A request may be acted on twice if (the first that applies decides)
//!
//! 1. it has an extension [`CallOptions`](crate::CallOptions), which says so or denies it;
//! 2. the policy is [`all_idempotent`](HttpReplay::all_idempotent);
//! 3. its method is GET, HEAD, PUT, DELETE, OPTIONS or TRACE (RFC 9110, section 9.2.2);
//! 4. it has an `Idempotency-Key`, by which the server knows it again;
//! 5. its path is one of the [`idempotent_paths`](HttpReplay::idempotent_paths), as for methods of gRPC, which are all POST.
//!
//! A write with a condition (`If-Match`, `If-None-Match` and the like) may not, unless 1 or 2 applies: the first attempt changes
//! the state that the second one asks for, and the caller would get 412 for a write that was done.
//!
//! Any other is sent again only if it is proved that it was not sent: a layer of the same operation refused it, or the client
//! says so. An error does not say so by itself: a connection that was refused may have been the second one, after a redirect.
//! So the client is asked by an adapter that sits directly around it: `buttress::hyper::Client`, `buttress::tonic::Client` or
//! `buttress::reqwest::Client` (features `hyper`, `tonic` and `reqwest`). They prove that no connection was made, that HTTP/2
//! refused the stream, that a graceful `GOAWAY` excluded it, or that the client dropped the request before it wrote any of it.
//!
//! Hedges send two requests at once, and writes may then collide. So only GET, HEAD and OPTIONS are hedged, and what 1, 2 or
//! [`hedge_if`](HttpReplay::hedge_if) allow.
//!
//! An attempt that may have acted leaves a trace. The answer to a later attempt of the same operation may be due to it:
//!
//! | request | answer to a later attempt | the operation |
//! |---|---|---|
//! | with an `Idempotency-Key` | 409: the first attempt is in progress | waits for it, by further attempts; if it stays 409, the caller gets it with the extension [`ResultUnknown`](crate::http::ResultUnknown) |
//! | `DELETE` | 404 or 410 | ends; the caller gets it with [`ResultUnknown`](crate::http::ResultUnknown) |
//!
//! Each response that is not the success of a first attempt has the extension [`Attempts`](crate::Attempts): how many were made,
//! and why there was no further one.
//!
//! A copy has the method, URI, version, headers, extensions and body of the request. How the body is copied is up to its type, by
//! [`TryCopyBody`]:
//!
//! | body | its copy |
//! |---|---|
//! | `String`, `Vec<u8>`, `Bytes`, `()` …, `http_body_util::Full`, `Empty` | is cloned |
//! | streamed | a [`ReplayBodyLayer`](crate::http::ReplayBodyLayer) around the layer makes a [`ReplayBody`](crate::http::ReplayBody) of it, which keeps what was read |
//! | of your own | implements [`TryCopyBody`] |
//!
//! Attempts are marked with their number: further ones by an extension, [`AttemptNumber`], and all of them in a header, where
//! [one](HttpReplay::attempt_header) is wanted. [gRPC's](HttpReplay::grpc_previous_attempts) is for further attempts only.
//! A policy that [trusts them](HttpReplay::trust_upstream_attempts) does not copy what was tried before by somebody further
//! out, so that 3 attempts at each of two hops are not 9.
//!
//! # Promises
//!
//! - A POST without a key or mark that may have been seen is not sent again, and neither is a conditional write.
//! - No answer of a server that is due to an earlier attempt is given out as that to the request without a mark.
//! - A mark that came with the request is either obeyed and kept, or overwritten; never mixed with our own.
//! - A copy that has been lost since is not sent: retry counts it as `not_copyable`.
//!
//! # What clones share
//!
//! Nothing: the policy has no state.
//!
//! # Cost
//!
//! The copy of each request that may be tried again, with its headers and extensions. A request without either that is
//! marked in no header is copied without an allocation, apart from its body.
//!
//! # Examples
//!
//! ```
//! use buttress::RetryLayer;
//! use buttress::http::HttpReplay;
//! use bytes::Bytes;
//! use http::{HeaderName, Request};
//! use http_body_util::Full;
//! use hyper_util::client::legacy::Client;
//! use hyper_util::rt::TokioExecutor;
//!
//! let replay = HttpReplay::new().attempt_header(HeaderName::from_static("x-attempt"));
//! let retry = RetryLayer::config("orders").replay(replay).build()?;
//! let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
//! let client = retry.wrap::<Request<Full<Bytes>>, _>(client);
//! # drop(client);
//! # Ok::<(), buttress::ConfigError>(())
//! ```
//!
//! `reqwest::Request` is a type of its own. A closure, `reqwest::Request::try_clone`, copies it, and takes all requests for
//! idempotent; a policy of your own decides otherwise:
//!
#![cfg_attr(not(doctest), doc = include_str!("../../snippets/reqwest_replay.md"))]

mod copy;
mod policy;

pub use self::copy::TryCopyBody;
pub use self::policy::{AttemptNumber, HttpReplay, IDEMPOTENCY_KEY, is_idempotent};
