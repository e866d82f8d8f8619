//! The HTTP requests that may be sent again, their copies, and the marks of attempts.
//!
//! # When to use it
//!
//! [`HttpReplay`] is a [`Replay`](crate::Replay) policy: give it to [retry](crate::retry), [hedge](crate::hedge) or the
//! [standard stack](crate::stack) of an HTTP or gRPC client. Without it, every request that can be copied counts as
//! idempotent.
//!
//! # How it works
//!
//! ```text
//!  request ──▶ mark? method? key? path? ── safe ────▶ copied; sent again after a failure
//!                                       ╰─ unsafe ──▶ copied; sent again if it was not sent
//! ```
//!
//! A request is idempotent, so that the service may act on it twice, by these rules. The first rule that applies
//! decides:
//!
//! 1. it has the extension [`CallOptions`](crate::CallOptions) with [`idempotent`](crate::CallOptions::idempotent);
//! 2. the policy is [`all_idempotent`](HttpReplay::all_idempotent);
//! 3. its method is GET, HEAD, PUT, DELETE, OPTIONS or TRACE (RFC 9110, section 9.2.2);
//! 4. it has an `Idempotency-Key`, by which the server recognizes it;
//! 5. its path is one of the [`idempotent_paths`](HttpReplay::idempotent_paths), which you need for gRPC, whose methods
//!    are all POST.
//!
//! A write with a condition (`If-Match`, `If-None-Match` and the like) is not idempotent, unless rule 1 or 2 applies:
//! the first attempt changes the state in the condition, and the caller would get 412 for a write that was done.
//!
//! Any other request is sent again only with a proof that it was not sent: a layer of the same operation refused it, or
//! the client proves it. An error alone is no proof: a refused connection may be the second one, after a redirect. The
//! proof comes from an adapter directly around the client: `buttress::hyper::Client`, `buttress::tonic::Client` or
//! `buttress::reqwest::Adapter` (features `hyper`, `tonic` and `reqwest`). The adapters prove that no connection was
//! made, that HTTP/2 refused the stream, that a graceful `GOAWAY` excluded it, or that the client dropped the request
//! before it wrote any of it.
//!
//! A hedge sends two requests at once, and two writes may collide. Therefore only GET, HEAD and OPTIONS are hedged, and
//! requests that rule 1, rule 2 or [`hedge_if`](HttpReplay::hedge_if) permits.
//!
//! An attempt that may have acted leaves a trace, which may change the answer to a later attempt of the same operation:
//!
//! | request | answer to a later attempt | the operation |
//! |---|---|---|
//! | with an `Idempotency-Key` | 409: the first attempt is in progress | makes further attempts; if the answer stays 409, the caller gets it with the extension [`ResultUnknown`](crate::http::ResultUnknown) |
//! | `DELETE` | 404 or 410 | ends; the caller gets it with [`ResultUnknown`](crate::http::ResultUnknown) |
//!
//! Each response that is not the success of a first attempt has the extension [`Attempts`](crate::Attempts): their
//! number, and the reason for making no further one.
//!
//! A copy has the method, URI, version, headers, extensions and body of the request. The type of the body determines
//! its copy, by [`TryCopyBody`]:
//!
//! | body | its copy |
//! |---|---|
//! | `String`, `Vec<u8>`, `Bytes`, `()` …, `http_body_util::Full`, `Empty` | is cloned |
//! | streamed | a [`ReplayBodyLayer`](crate::http::ReplayBodyLayer) around the layer makes a [`ReplayBody`](crate::http::ReplayBody) of it, which keeps the data |
//! | of your own | implements [`TryCopyBody`] |
//!
//! Further attempts are marked with their number by an extension, [`AttemptNumber`]. If you set a
//! [header](HttpReplay::attempt_header), all attempts have their number in it. The header of
//! [gRPC](HttpReplay::grpc_previous_attempts) is for further attempts only. A policy that [trusts these
//! marks](HttpReplay::trust_upstream_attempts) does not copy a request that an outer layer has tried before, so that 3
//! attempts at each of two hops do not become 9.
//!
//! # Promises
//!
//! - A POST without a key or mark is not sent again if the service may have seen it, and neither is a conditional
//!   write.
//! - An answer that may be the effect of an earlier attempt always has a mark.
//! - A mark that arrived with the request is either obeyed and kept, or overwritten; it is never mixed with the
//!   policy's own marks.
//! - A copy that has been lost is not sent: retry counts it as `not_copyable`.
//!
//! # What clones share
//!
//! Nothing, because the policy has no state.
//!
//! # Cost
//!
//! The copy of each request that may be tried again, with its headers and extensions. Without headers and extensions,
//! and without a header for the attempt, only the body may cost an allocation.
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
//! `buttress::reqwest::client` uses this policy. In a stack of your own, the policy does not apply to
//! `reqwest::Request`, which is a different type. The closure `reqwest::Request::try_clone` copies it, but then all
//! requests count as idempotent. A policy of your own can distinguish them:
//!
#![cfg_attr(not(doctest), doc = include_str!("../../snippets/reqwest_replay.md"))]

mod copy;
mod policy;

pub use self::copy::TryCopyBody;
pub use self::policy::{AttemptNumber, HttpReplay, IDEMPOTENCY_KEY, is_idempotent};
