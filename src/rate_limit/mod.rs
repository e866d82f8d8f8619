//! A rate limit: keeps to a number of calls per time.
//!
//! # When to use it
//!
//! In front of a service that allows a certain rate and answers 429 above it, or that bills by the call. Put
//! it inside retry, so that it sees every attempt, and outside the timeout, so that a wait for its turn is not
//! taken for a slow answer.
//!
//! Not against overload: a limit that is right for a healthy service is too high for one that has become slow. That
//! is what a concurrency limit is for. And not for a limit that many processes share: each has one of its own.
//!
//! # How it works
//!
//! The generic cell rate algorithm (ITU-T I.371), which is a token bucket without a timer. Tokens come at the
//! rate, evenly spaced, up to the burst; a call takes one, or what [`cost`](Config::cost) says. One atomic word holds the
//! time at which the bucket will be full:
//!
//! ```text
//! full at = max(full at, now) + cost × interval      if that is at most now + burst × interval
//! ```
//!
//! **Calls above the rate** are rejected at once, with the exact time after which one would pass. With
//! [`max_wait`](Config::max_wait) they wait instead, in the order in which they came. The first one alone waits for
//! tokens, and wakes the next when it leaves. A call whose turn cannot come in time is rejected at once: by
//! `max_wait`, or by its [deadline](crate::Deadline). It takes its place when it is first polled.
//!
//! **Hints.** With a [classifier](Config::classify) that finds the time for which the service asks callers to stay away,
//! nothing is let through for that long, and then one call after the other at the rate. Two answers ask for it:
//!
//! - The service is overloaded ([`Outcome::Overload`](crate::Outcome::Overload), such as a 503 with `Retry-After`). In the
//!   attempts of a standard stack, a retry or a hedge over a balancer with other endpoints that take calls, this concerns the
//!   endpoint alone. A rate limit outside of them does not know of the balancer.
//! - The caller has used up its quota ([`Outcome::Throttled`](crate::Outcome::Throttled), such as a 429), if
//!   [`one_quota`](Config::one_quota) says that all calls of the layer are those of one caller. Without it, the answer concerns
//!   the request that got it: a tenant that uses up its quota does not stop the other ones.
//!
//! # Promises
//!
//! - In every window of time `T`, wherever it begins, at most `burst + ⌊rate × T⌋` tokens are taken. That also holds
//!   after any idle time and whatever the clock does.
//! - Under saturation the rate is exact to 0.002 %, from one in 365 days to 1,000,000,000 per second. The clock counts
//!   in nanoseconds: a burst that comes in a few of them loses more.
//! - A rejected call takes no token, nor does one that goes away while it waits: those behind it move up.
//! - Nobody overtakes those who wait, and nobody waits for longer than `max_wait` or beyond the deadline, by more
//!   than a tick of tokio's timer (1 ms).
//! - While a call waits or is rejected, nothing of the inner service is held.
//! - A call that passes at once takes no lock and allocates nothing. (Once in minutes to months, the higher the
//!   rate the more often, one call takes a short lock to count from a later origin.)
//!
//! # Cancellation
//!
//! Dropping the future of a call that waits gives its place up. A token that was taken is not given back: the
//! service may have seen the call.
//!
//! A future that is first in line and is not polled any more, but not dropped either, holds up those behind it, for as
//! long as they may wait.
//!
//! # What clones share
//!
//! Everything: all services made by one layer value, or by its clones, are one limit, with one queue.
//! [`RateLimitLayer::handle`] reads it, changes rate and burst, pauses it and resets it. Build a second layer for a second limit.
//!
//! # Cost
//!
//! A call that passes: one reading of the clock, one exchange of an atomic word, and one reference taken and given back. A call
//! that waits: three boxes and its place in the queue, a short lock and a timer.
//!
//! # Waiting at high rates
//!
//! Tokio's timers tick in milliseconds. Where calls wait, a burst of less than a millisecond's tokens loses those
//! that come in between. The default is a hundred times that. The length of the queue needs no bound of its own: no
//! more than the tokens of `max_wait` are waited for.
//!
//! # Errors
//!
//! [`ErrorKind::RateLimited`](crate::ErrorKind::RateLimited), with the time until a call would pass at once as
//! [`retry_after`](crate::Cause::retry_after): exact to the nanosecond if no other call comes first, and never zero.
//! [`ErrorKind::TooCostly`](crate::ErrorKind::TooCostly) for a call that costs more than the burst; trying again is of
//! no use. [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded) for a call that could wait for as long as
//! it takes if its deadline were not sooner.
//!
//! The inner service was not asked in any of these cases.
//!
//! # Metrics
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `buttress_rejections_total` | counter | name, layer = `rate_limit`, reason = `rate_limited`, `too_costly`, `deadline_exceeded`; mode |
//! | `buttress_queue_wait_seconds` | histogram, of calls that had to wait | name, layer = `rate_limit`, result = `admitted`, `rejected`, `cancelled` |
//! | `buttress_queue_depth` | gauge, if calls may wait | name, layer = `rate_limit` |
//!
//! The gauge is the sum over the limits of one name. It is published every 100 ms, by calls that have the time at hand;
//! and at once when nobody waits any longer, and when there are twice or half as many as is shown, and 8 more or less.
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | rate | none | depends on the service |
//! | [`burst`](Config::burst) | a tenth of a second's tokens, at least 1 | evens out how calls come, and keeps any second within 1.1 × the rate; a whole second's would let 2 × through |
//! | [`max_wait`](Config::max_wait) | off | a caller that is told at once can do something else |
//! | [`cost`](Config::cost) | 1 | |
//! | [`classify`](Config::classify) | none | what a pushback looks like depends on the service |
//! | [`max_retry_after`](Config::max_retry_after) | 60 s | the windows of most services are shorter; one odd answer must not silence a client for hours |
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
//! // Calls that wait, of which a long one costs more.
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
