//! Rate limit: bounds the rate of calls.
//!
//! # When to use it
//!
//! In front of a service that allows a certain rate and answers 429 above it, or that bills by the call. Put
//! the limit inside retry, so that it sees every attempt, and outside the timeout, so that a wait for a turn is not
//! taken for a slow answer.
//!
//! Do not use it against overload: a rate that suits a healthy service is too high for a slow one. Use a
//! [bulkhead](crate::bulkhead) there. Each process has its own limit.
//!
//! # How it works
//!
//! The algorithm is the generic cell rate algorithm (ITU-T I.371), a token bucket without a timer. Tokens come at the
//! rate, evenly spaced, up to the burst. A call takes one token, or its [`cost`](Config::cost). One atomic word holds
//! the time at which the bucket will be full:
//!
//! ```text
//! full at = max(full at, now) + cost × interval      if that is at most now + burst × interval
//! ```
//!
//! **Calls above the rate** are rejected at once, with the exact time after which a call would pass. With
//! [`max_wait`](Config::max_wait) they wait instead, in the order in which they came. Only the first call of the queue
//! waits for tokens; it wakes the next call when it leaves. A call whose turn cannot come within `max_wait`, or before
//! its [deadline](crate::Deadline), is rejected at once. A call takes its place when it is first polled.
//!
//! **Pauses.** A [classifier](Config::classify) can find the time for which the service asks callers to stay away. The
//! limit then admits no call for that time, and afterwards one call after the other at the rate. Two answers ask for a
//! pause:
//!
//! - The service is overloaded ([`Outcome::Overload`](crate::Outcome::Overload), such as a 503 with `Retry-After`). If
//!   the limit is inside a standard stack, a retry or a hedge, and a balancer below it has other endpoints that take
//!   calls, the limit does not pause: the balancer avoids the overloaded endpoint alone. A limit outside of these
//!   layers does not know of the balancer, and pauses.
//! - The caller has used up its quota ([`Outcome::Throttled`](crate::Outcome::Throttled), such as a 429), if
//!   [`one_quota`](Config::one_quota) says that all calls of the layer share a quota. Without this setting, the answer
//!   concerns only its own request: a tenant that uses up its quota does not stop other tenants.
//!
//! # Promises
//!
//! - In every window of time `T`, wherever it begins, calls take at most `burst + ⌊rate × T⌋` tokens, also
//!   after any idle time and whatever the clock does.
//! - Under saturation the rate is exact to 0.002 %, from one call in 365 days to 1,000,000,000 per second. The clock
//!   counts in nanoseconds: the error is greater for a burst that comes within a few nanoseconds.
//! - A rejected call takes no token, and neither does a call that is dropped while it waits: the calls behind it move
//!   up.
//! - No call overtakes a waiting call. No call waits for longer than `max_wait` or beyond its deadline by more
//!   than a tick of tokio's timer (1 ms).
//! - While a call waits or is rejected, nothing of the inner service is held.
//! - A call that passes at once takes no lock and allocates nothing. (Once in minutes to months, the higher the
//!   rate the more often, one call takes a short lock to count from a later origin.)
//!
//! # Cancellation
//!
//! Dropping the future of a waiting call gives up its place. A call that has taken a token does not give it back,
//! because the service may have seen the call.
//!
//! If the first waiting future is no longer polled, but not dropped either, the calls behind it wait until they are
//! rejected.
//!
//! # What clones share
//!
//! Everything: all services made by one layer value, or by its clones, are one limit, with one queue.
//! [`RateLimitLayer::handle`] reads it, changes rate and burst, pauses it and resets it. Build a second layer for a
//! second limit.
//!
//! # Cost
//!
//! A call that passes reads the clock once, exchanges one atomic word, and counts one reference. A call
//! that waits takes three boxes and its place in the queue, a short lock and a timer.
//!
//! # Waiting at high rates
//!
//! Tokio's timers tick in milliseconds. Where calls wait, a burst of less than a millisecond's tokens loses tokens
//! between two ticks. The default burst is a hundred times larger. The queue needs no bound of its length:
//! calls wait for at most the tokens of `max_wait`.
//!
//! # Errors
//!
//! [`ErrorKind::RateLimited`](crate::ErrorKind::RateLimited), with the time until a call would pass at once as
//! [`retry_after`](crate::Cause::retry_after): exact to the nanosecond if no other call comes first, and never zero.
//! [`ErrorKind::TooCostly`](crate::ErrorKind::TooCostly) for a call that costs more than the burst; trying again is of
//! no use. [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded) for a call that would pass within
//! `max_wait`, but not before its deadline.
//!
//! In all of these cases the inner service was not called.
//!
//! # Metrics
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `buttress_rejections_total` | counter | name, layer = `rate_limit`, reason = `rate_limited`, `too_costly`, `deadline_exceeded`; mode |
//! | `buttress_queue_wait_seconds` | histogram, of calls that had to wait | name, layer = `rate_limit`, result = `admitted`, `rejected`, `cancelled` |
//! | `buttress_queue_depth` | gauge, if calls may wait | name, layer = `rate_limit` |
//! | `buttress_rate_limit_per_second` | gauge: the rate in force, in tokens per second | name |
//! | `buttress_rate_limit_burst` | gauge: the burst in force, in tokens | name |
//! | `buttress_rate_limit_tokens` | gauge: the tokens that the last calls left | name |
//!
//! The gauges are sums over the limits of one name. Calls that know the time publish them every 100 ms. The depth of
//! the queue is published at once in two cases: no call waits any more, or the number of waiting calls is at least
//! twice or at most half of the shown number and differs by 8 or more.
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | rate | none | depends on the service |
//! | [`burst`](Config::burst) | a tenth of a second's tokens, at least 1 | evens out arrivals, and keeps any second within 1.1 × the rate; a burst of a whole second would let 2 × through |
//! | [`max_wait`](Config::max_wait) | off | a caller that is rejected at once can do something else |
//! | [`cost`](Config::cost) | 1 | |
//! | [`classify`](Config::classify) | none | the form of a pushback depends on the service |
//! | [`max_retry_after`](Config::max_retry_after) | 60 s | the windows of most services are shorter; one wrong answer must not stop a client for hours |
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//! use buttress::{BoxError, Error, ErrorKind, Rate, RateLimitLayer};
//! use tower::{Service, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let layer = RateLimitLayer::config("search", Rate::per_second(100)).burst(2).build()?;
//! let mut client = layer.wrap(service_fn(|word: &'static str| async move {
//!     Ok::<_, BoxError>(word.len())
//! }));
//! # std::future::poll_fn(|cx| client.poll_ready(cx)).await?;
//! for _ in 0..2 {
//!     client.call("bolts").await?;
//! }
//! let error = client.call("bolts").await.unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::RateLimited);
//! assert_eq!(error.retry_after(), Some(Duration::from_millis(10)));
//!
//! // Calls wait, and a long word costs more.
//! let layer = RateLimitLayer::config("search", Rate::per_second(100))
//!     .max_wait(Duration::from_secs(1))
//!     .cost(|word: &&'static str| if word.len() > 4 { 5 } else { 1 })
//!     .build()?;
//! let mut client = layer.wrap(service_fn(|word: &'static str| async move {
//!     Ok::<_, BoxError>(word.len())
//! }));
//! # std::future::poll_fn(|cx| client.poll_ready(cx)).await?;
//! let start = tokio::time::Instant::now();
//! for _ in 0..4 {
//!     client.call("bolts").await?;
//! }
//! assert_eq!(start.elapsed(), Duration::from_millis(100));
//! # Ok(())
//! # }
//! ```

mod bucket;
mod config;
mod layer;
mod metrics;
mod part;
mod queue;
mod shared;

pub use self::config::{Config, Cost, One, Settings};
pub use self::layer::{RateLimit, RateLimitLayer};
pub use self::part::{Handle, RateLimitPermit};
pub use crate::algorithm::rate::Rate;
