//! Hedging: sends a copy of a request when its answer takes too long, and returns the answer that arrives first.
//!
//! # When to use it
//!
//! Use it for requests that do no harm when they are made twice, to a service with several servers, each of which is
//! slow now and then: a full queue, a garbage collection, a lost packet. The copy mostly goes to another server.
//! Hedging shortens the tail of the latencies, for a few per cent more calls.
//!
//! Do not use it for a service that is slow as a whole: copies would make it slower. The layer detects this and stops
//! hedging. Do not use it in front of a single server, unless the server is slow by chance and not by load.
//!
//! Put it inside retry and outside the circuit breaker and the timeout, so that each copy is an attempt with a timeout
//! of its own.
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
//! **Delay.** The delay is the 98th percentile of the latencies of the last 30 s, or a fixed time. With the percentile,
//! two calls in a hundred are hedged, however fast the service is. Only latencies of first attempts count. If an
//! attempt lost, failed or was given up, only a lower bound of its latency is known. It counts as a lower bound (the
//! estimator of Kaplan and Meier), so hedging does not change its own percentile. The percentile is computed each
//! second (a thirtieth of the window). With fewer than 100 calls there is no percentile, and no hedge. In the [standard
//! stack](crate::stack), the time that an attempt waits for a permit of the bulkhead or for the rate limit does not
//! count, because a copy would wait as well. In a stack that is built by hand, the layer cannot distinguish this wait
//! from a slow service: the wait counts, and the layer may send a copy of a call that only waits.
//!
//! A percentile follows the service: if more than 2 % of the calls are slow, the 98th percentile is the latency of a
//! slow call, and the copy is sent too late. In this case set a lower [`percentile`](Config::percentile), and a
//! [`rate_share`](Config::rate_share) above the share of calls beyond the percentile; or set a
//! [`delay`](Config::delay), if you know which latency is slow.
//!
//! **Conditions.** A hedge is sent only if all of these conditions hold:
//!
//! - The request can be copied and [may be hedged](crate::Replay::is_hedgeable): in HTTP it is a read (see
//!   [`Replay`](crate::Replay)).
//! - The median of the last second (a thirtieth of the window) is at most 1.5 times the median of the last 30 s. A
//!   greater one means that more than a few servers are slow. Fewer than 20 calls are not evaluated.
//! - The allowance permits it: one hedge for twenty calls, and a burst of ten hedges, or of one for each hundred calls
//!   of the last second if this is more. A hedge that an inner layer refuses costs nothing.
//! - The [budget](crate::budget) that the layer shares with the retries has enough tokens, if the layer has a budget.
//! - The deadline has not passed.
//!
//! A call whose hedge was denied is not hedged later.
//!
//! **Failures.** The end of one attempt affects the other attempts as follows:
//!
//! | outcome of the attempt | attempts that run | further copies |
//! |---|---|---|
//! | success, or another answer after which an attempt is [of no use](crate::Reattempt::Never), unless it is a [conflict](crate::Conflict) | are dropped, because the call is over | none |
//! | failure, or an answer that deserves another attempt [soon](crate::Reattempt::Soon) | continue | the next one at once, if there is no outer retry; else after the delay, while an attempt runs |
//! | overload, or a caller that has used up its quota | continue | after the delay, while an attempt runs |
//! | one of these outcomes that asks for a time (`Retry-After`, gRPC's pushback) | continue | as above, but not before that time |
//! | the same with a time of more than 60 s, or beyond the deadline | continue | none |
//! | one of these outcomes that asks for no further attempt (a negative pushback) | continue | none |
//! | refused by an inner layer, or its copy of the request was too far behind | continue | after the delay, while an attempt runs |
//!
//! If all attempts fail, the caller gets the first error. It gets the refusal of an inner layer only if there is no
//! other result. An answer that is a failure is dropped as soon as there is another attempt to wait for, because its
//! body may hold a connection, or the permit that the other attempt needs. Of several such answers, the caller
//! therefore gets the last one.
//!
//! **Over a balancer.** A copy goes to another endpoint than the first attempt. The losing attempt is dropped when the
//! winner answers, so it shows the balancer little of the latency of its endpoint. [`Balance`](crate::Balance)
//! therefore adds up the silence of the endpoint from one lost attempt to the next. If one of eleven replicas takes 2
//! s, it gets 0.08 % of the calls, as without hedging, and the 99.9th percentile stays at 200 ms.
//!
//! Sources: Dean and Barroso, *The Tail at Scale* (Communications of the ACM, 2013). The allowance follows gRPC's
//! proposal A6 and Finagle's `BackupRequestFilter`.
//!
//! # Promises
//!
//! - A call that is not hedged takes no lock and allocates nothing but the copy of the request.
//! - In the long run, at most a twentieth of the calls are hedged.
//! - A hedge does not affect the first attempt if the inner service is not ready for it, or an inner layer refuses it.
//! - No copy is sent before the time that the service has asked for in this call, or after it has asked for no further
//!   attempt.
//! - The losers are dropped before the call returns.
//!
//! # Cancellation
//!
//! The delay begins when the attempt is sent: with the call, or in the standard stack after its waits in the queues.
//! Timers are exact to a millisecond. A panic in an attempt is a panic of the call. Dropping the future drops all
//! attempts. Each attempt counts as [`Cancelled`](crate::Outcome::Cancelled) in the inner layers.
//!
//! # What clones share
//!
//! All services made by one layer value share the latencies and the allowance.
//!
//! # Cost
//!
//! Two readings of the clock, two atomic additions in cells of the thread's own, one reference taken and given back,
//! and a copy of the request. A layer takes 48 kB, and 4 kB for each core. Once a second, one call collects the counts,
//! which takes some microseconds.
//!
//! # Errors
//!
//! The errors of the inner service; none of its own.
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
//! | [`min_samples`](Config::min_samples) | 100 | with fewer calls, one or two of them decide the percentile |
//! | [`max_hedges`](Config::max_hedges) | 1 | a second copy takes away most of the tail, a third next to nothing |
//! | [`rate_share`](Config::rate_share) | 0.05 | denies hedges only when something is wrong |
//! | [`burst`](Config::burst) | 10 | covers a short stall of a client with little traffic |
//! | [`slowdown`](Config::slowdown) | 1.5 | if half of the calls take half as long again, more than a few servers are slow |
//! | [`budget`](Config::budget) | none | share the budget of the retries |
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
