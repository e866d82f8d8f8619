//! Hedging: sends a copy of a request when its answer takes too long, and takes whichever comes first.
//!
//! # When to use it
//!
//! For requests that do no harm when they are made twice, to a service with several servers of which one or the
//! other is slow now and then: a full queue, a pause for garbage, a lost packet. A copy will then mostly meet
//! another server. It takes off the tail of the latencies, for the price of a few per cent more
//! calls.
//!
//! Not for a service that is slow altogether: copies would make it slower. The layer notices that and stops, but
//! gains nothing there. Nor in front of a single server, unless it is slow by chance and not by load.
//!
//! Put it under retry and outside the circuit breaker and the timeout, so that each copy is an attempt with
//! a timeout of its own.
//!
//! # How it works
//!
//! ```text
//!  call ──▶ first attempt ─────────────┬───────────────────▶ the first that succeeds
//!               │ no answer            │
//!               ▼ within the delay     │
//!            may be hedged? ─▶ a copy ─┘ the others are dropped
//! ```
//!
//! **Delay.** The 98th percentile of the last 30 s, so that two calls in a hundred are hedged whatever the
//! service is like; or a fixed time. The latencies are those of first attempts: what an attempt would have taken
//! that lost, failed or was given up is not known, only that it is longer. Such a one enters as that (the
//! estimator of Kaplan and Meier), so hedging does not change the percentile that it goes by. The
//! percentile is looked up each second (a thirtieth of the window); with fewer than 100 calls by then there is none, and
//! no hedge. In the [standard stack](crate::stack) the time that an attempt waits for a permit of the bulkhead, or for its
//! turn under the rate limit, does not count: a copy would wait as well. In a stack that is built by hand the layer cannot
//! tell such a wait from a slow service. It counts there, and a copy may be sent for a call that only waits.
//!
//! A percentile follows the service: where more than 2 % of the calls are slow, the 98th is that of a slow one and a
//! copy comes too late. Then choose a lower [`percentile`](Config::percentile) and let
//! [`rate_share`](Config::rate_share) exceed what it leaves out; or, if you know what is slow, a [`delay`](Config::delay).
//!
//! **Whether a hedge is sent.** Only if the request can be copied and [may be hedged](crate::Replay::is_hedgeable): for HTTP a read (see
//! [`Replay`](crate::Replay)), and if
//!
//! - the median of the last second (a thirtieth of the window) is at most 1.5 times that of the last 30 s: else it
//!   is not a few servers that are slow. Fewer than 20 calls are not evaluated,
//! - there is an allowance: one hedge for twenty calls, and at once ten or one for a hundred calls of the last
//!   second; nothing is paid for one that an inner layer refuses,
//! - the [budget](crate::budget) shared with the retries has the tokens, if the layer was given one,
//! - the deadline has not passed.
//!
//! A call whose hedge was denied is not hedged later.
//!
//! **Failures.** The end of one attempt means for the others
//!
//! | outcome of the attempt | attempts that run | further copies |
//! |---|---|---|
//! | success, or another answer after which an attempt is [of no use](crate::Reattempt::Never), unless it is a [conflict](crate::Conflict) | are dropped: the call is over | none |
//! | failure, or an answer that deserves another attempt [soon](crate::Reattempt::Soon) | go on | the next one at once, if there is no outer retry; else after the delay, while an attempt runs |
//! | overload, or a caller without quota | go on | after the delay, while an attempt runs |
//! | one of these that asks for a time (`Retry-After`, gRPC's pushback) | go on | as above, but not before that time |
//! | the same with a time of more than 60 s, or beyond the deadline | go on | none |
//! | one of these that asks for no further attempt (a negative pushback) | go on | none |
//! | refused by an inner layer, or its copy of the request was too far behind | go on | after the delay, while an attempt runs |
//!
//! If all attempts fail, the error that came first is the result; what an inner layer refused
//! comes back only if there is nothing else. An answer that is a failure is dropped as soon as there is another attempt to
//! wait for, as by retry: its body may hold a connection, or the permit that the other one needs. So of such answers the last
//! one comes back.
//!
//! **Over a balancer.** A copy goes to another endpoint than the first attempt. The loser tells the balancer
//! little about how slow its endpoint is, since it is dropped when the winner answers: [`Balance`](crate::Balance) therefore
//! counts the silence of the endpoint from one lost attempt to the next. With one of eleven replicas at 2 s, the replica gets
//! 0.08 % of the calls, as without hedging, and the 99.9th percentile stays at 200 ms.
//!
//! Sources: Dean and Barroso, *The Tail at Scale* (Communications of the ACM, 2013); for the allowance, gRPC's
//! proposal A6 and Finagle's `BackupRequestFilter`.
//!
//! # Promises
//!
//! - A call that is not hedged takes no lock and allocates nothing but the copy of the request.
//! - In the long run there are no more hedges than a twentieth of the calls.
//! - A hedge that the inner service is not ready for, or that an inner layer refuses, leaves the first
//!   attempt alone.
//! - No copy is sent before the time that the service has asked for in this call, or after it has asked for no further
//!   attempt.
//! - The losers are dropped before the call returns.
//!
//! # Cancellation
//!
//! The delay begins when the attempt is sent: with the call, or in the standard stack after its waits in the queues. Timers are
//! good to a millisecond. A panic in an attempt is a panic of
//! the call. Dropping the future drops all attempts. Each of them counts as [`Cancelled`](crate::Outcome::Cancelled) in
//! the inner layers.
//!
//! # What clones share
//!
//! All services made by one layer value share the latencies and the allowance.
//!
//! # Cost
//!
//! Two readings of the clock, two atomic additions in cells of the thread's own, one reference taken and given
//! back, and a copy of the request. A layer takes 48 kB, and 4 kB for each core. Once a second, one call
//! collects what has been counted, which takes some microseconds.
//!
//! # Errors
//!
//! The inner service's; none of its own.
//!
//! # Metrics
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `buttress_hedges_total` | counter | name; result = won, lost, failed, `denied_budget`, `denied_slowdown` |
//! | `buttress_hedge_delay_seconds` | gauge | name |
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | [`percentile`](Config::percentile) | 0.98 | 2 % more calls, as in the published experiments |
//! | [`window`](Config::window) | 30 s | long enough for a stable percentile, short enough to follow the service |
//! | [`min_samples`](Config::min_samples) | 100 | the percentile of fewer is that of one or two calls |
//! | [`max_hedges`](Config::max_hedges) | 1 | a second copy takes away most of the tail, a third next to nothing |
//! | [`rate_share`](Config::rate_share) | 0.05 | only bites when something is wrong |
//! | [`burst`](Config::burst) | 10 | a short stall of a client with little traffic |
//! | [`slowdown`](Config::slowdown) | 1.5 | half of the calls take half as long again: not a few servers |
//! | [`budget`](Config::budget) | none | give it that of the retries |
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//! use buttress::{BoxError, HedgeLayer};
//! use tokio::time::{Instant, sleep};
//! use tower::{Service, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! # use std::sync::atomic::{AtomicU32, Ordering};
//! # static REPLICA: AtomicU32 = AtomicU32::new(0);
//! # let next_replica = || REPLICA.fetch_add(1, Ordering::Relaxed);
//! // The first replica hangs for a second, the others answer after 5 ms.
//! let replicas = service_fn(move |item: &'static str| {
//!     let takes = if next_replica() == 0 { 1000 } else { 5 };
//!     async move {
//!         sleep(Duration::from_millis(takes)).await;
//!         Ok::<_, BoxError>(format!("12 of {item}"))
//!     }
//! });
//! let hedge = HedgeLayer::config("inventory").delay(Duration::from_millis(20)).build()?;
//! let mut client = hedge.wrap(replicas);
//! # std::future::poll_fn(|cx| client.poll_ready(cx)).await?;
//! let began = Instant::now();
//! assert_eq!(client.call("bolts").await?, "12 of bolts");
//! assert_eq!(began.elapsed(), Duration::from_millis(25));
//! # Ok(())
//! # }
//! ```

mod config;
mod layer;

pub use self::config::{Config, Settings};
pub use self::layer::{Handle, Hedge, HedgeLayer, HedgePlan};
