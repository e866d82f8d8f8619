//! A circuit breaker: rejects calls to a service that is down.
//!
//! # When to use it
//!
//! In front of a dependency that can fail altogether. Calls to it then fail at once instead of after
//! a timeout, and it is left alone while it comes back. Put it under retry and outside the timeout, so
//! that it sees every attempt and counts the ones that took too long.
//!
//! Not against overload: a service that answers half of the calls in time is kept busy by a closed
//! breaker and idle by an open one. That is what a concurrency limit is for. A service that says itself that it has too much to
//! do is [not refused while it answers others](#overload). The price of a breaker is a
//! refusal of 1 s on average, 2.5 s at most, after an outage has healed (1.6 and 3.5 s if failing means
//! timing out after 1 s; experiment X9 of `cargo bench --package effectiveness`).
//!
//! # How it works
//!
//! ```text
//!             too many failures
//!  ┌────────┐ in the window      ┌──────┐
//!  │ Closed │───────────────────▶│ Open │◀──────────┐
//!  └────────┘                    └──────┘           │ more probes failed
//!      ▲                            │ open time     │ than succeeded
//!      │ 5 probes succeeded         ▼ is over       │
//!      │                       ┌──────────┐         │
//!      └───────────────────────│ HalfOpen │─────────┘
//!                              └──────────┘
//! ```
//!
//! **Closed.** Outcomes are counted over ten buckets of one second each. When a call fails, the share
//! of failures is evaluated by the lower end of its Wilson score interval (z = 1.64), of the whole window
//! and of the last second alone (a tenth of the window); the second sees a sudden outage at once,
//! however good the seconds before it were. It opens when that exceeds 0.5 for the last second, and there were 20 calls or
//! more and 10 operations or more that failed; or for the whole window, under the conditions of [few calls](#few-calls).
//! Optionally also on failures in a row and on the share of slow calls. A service that fails 40 % of the
//! calls all the time will open it now and then by chance; one that fails 20 % will not.
//!
//! In a test whose calls take no time, a second never ends: set failures in a row there.
//!
//! **Open.** Calls are rejected without touching the inner service, for 2 s ± 25 %, or for longer if the
//! service asked for it.
//!
//! **Half-open.** One probe passes; with each success twice as many may be in flight (1, 2, 4, 8), with
//! each failure half as many. Five successes close the breaker, more failures than successes open it
//! again. A probe that takes longer than its lease gives its place to another one.
//!
//! At high rates a second is many calls: at 20,000/s some 10,000 fail before the breaker opens. Failures in a row shorten
//! that. Set as many as come in 50 ms, so that a blip of 10 ms does not open it: `consecutive_failures(1_000)`.
//!
//! A probe that hangs blocks its caller for the timeout. 42 dependencies that hang block 20 calls at a time with a timeout of 2 s,
//! 5 with one of 300 ms, and 3 with [`open_growth(2.0, 30 s)`](Config::open_growth), which refuses calls for 16 s in place of 2
//! after they are well again.
//!
//! ## Few calls
//!
//! A client with a call every few seconds does not have 20 calls in a second. The whole window therefore decides by 5 failures,
//! if the share is surely above the threshold and the failed first attempts are at least 3, in at least two of the ten
//! buckets. So a request that always fails and its retries do not open the breaker, nor do calls that fail together
//! because their connection broke. A retry is never a first attempt: a breaker inside an endpoint of a balancer also counts the
//! failures of requests that failed at another endpoint first, but three that came to its own endpoint first must have failed.
//! [`min_calls`](Config::min_calls) replaces these conditions by a number of calls, and a
//! [count window](Config::count_window) has none of them.
//!
//! The price: if a caller whose request always fails makes it every 3 s, beside good calls of 0.5/s, 1.1 % of those are refused. To
//! a breaker it looks like an outage when no good call comes for ten seconds. Of a client with 0.3 to 5 calls a second to a
//! service that fails 20 % of the time, fewer than 0.01 % are refused, of one that fails 30 %, fewer than 0.2 %. A client of
//! 0.5/s sends 47 attempts for 100 calls into a service that hangs for 5 minutes, one of 1/s sends 32 (experiment X15).
//!
//! ## Overload
//!
//! An answer that says that the service has too much to do (503, `UNAVAILABLE` with a pushback;
//! [`Outcome::Overload`](crate::Outcome::Overload)) counts only if no call was answered well within the last T, the timeout of an
//! attempt (2 s if it has none). A service that sheds load at twice its capacity turns more than half of the calls away, and its
//! goodput is all that it can do: a breaker that opened would let 7 % of that through, a closed one lets 94 % through
//! (experiment X19). Timeouts and other failures of a service that is overloaded count as ever, and so do overloads among
//! failures in a row, if these are set.
//!
//! The price: a service that begins to turn all calls away gets calls for T longer. They fail at once, as they would if they
//! were refused. Without a status of its own, such as an `UNAVAILABLE` of gRPC without a pushback, overload looks like an outage,
//! and the breaker opens when it fails more than half of the calls.
//!
//! ## Calls that end early
//!
//! A call may end without an answer before the timeout T of its attempt (2 s if it has none): by a deadline, or because its
//! caller dropped it. It is a failure if all of this holds, and otherwise counts neither way, nor as slow:
//!
//! - The service had it for at least T/10.
//! - The service had it for at least twice as long as the slowest good call of the last ten seconds took, or for all of T.
//!   Without a good call in these ten seconds the condition falls away.
//! - No call was answered well while it ran (to T/50).
//!
//! So callers that bring too little time do not have others refused, and a service that hangs for everybody is seen although
//! all callers leave before the timeout. Before the first good call, such calls do not count for one T. An answer that says
//! itself that the deadline has passed (504, `DEADLINE_EXCEEDED`; see
//! [`Classify::is_deadline_exceeded`](crate::Classify::is_deadline_exceeded)) to a call with a deadline sooner than T is
//! treated in the same way, but it is a failure if no call was answered well for ten seconds.
//!
//! While the breaker is not closed, the time that was needed when it opened is still needed, and only grows. A probe whose
//! deadline is sooner than that has a place beside those of the others. If it ends early, it says nothing, and the next
//! such probe follows after the open time at the soonest.
//!
//! The price: a breaker does not open for a service that hangs for some of the calls while it answers others, nor for one that
//! all callers leave before T/10.
//!
//! ## Answers that are streamed
//!
//! With `http::CompleteOnBodyEnd`, a call is counted once, and at its head: who waited for the end
//! of streams that last would see only those calls that fail at once, and open over a few of them. If the body fails
//! later, the success becomes a failure; one that the window no longer holds stays, and the failure is counted beside it.
//! A call is slow if its head was: a download of a minute is no slow call. A probe gives its place back at a head that is
//! a success. When the state has changed, the end changes nothing. Of failures in a row, a good head ends a row of bad
//! ones, but a row of answers that broke off is ended by a whole answer only: each of them had a good head.
//!
//! # Promises
//!
//! - Closed, a call takes no lock and allocates nothing (with the time window).
//! - A call that was let through in one state never changes a later one, however late it ends.
//! - At the edge from open to half-open, exactly one of the calls that arrive together is let through.
//! - Every state has an exit: no probe, lost or hanging, can keep the breaker half-open.
//! - `Ignored` calls count neither way; rejections by inner layers are ignored. Of an answer that is given up, its head
//!   has counted.
//! - In virtual time at 100 calls/s (`tests/hostile`): if 98 % of the callers bring too little time, or drop their calls, the
//!   others lose at most 0.5 % of theirs. A service that hangs for everybody is refused after 110 calls if all callers bring
//!   500 ms, and after 240 if they bring 1.9 s; from a cold start after 200 more.
//!
//! # Cancellation
//!
//! A call whose future is dropped is a call that [ends early](#calls-that-end-early): a failure if the service had enough
//! time for it. Otherwise a probe's place is free again, and nothing else changes. The same holds if the inner service
//! panics.
//!
//! # What clones share
//!
//! Everything: all services made by one layer value, or by its clones, are one breaker.
//! [`CircuitBreakerLayer::handle`] reads and steers it. Build a second layer for a second breaker.
//!
//! # Cost
//!
//! Closed: two readings of the clock, one atomic update of a counter of the thread's own, two looks at shared words that are
//! rarely written, and one reference taken and given back; failures in a row, if set, are one more counter. The count
//! window takes a short lock instead.
//!
//! # Errors
//!
//! [`ErrorKind::CircuitOpen`](crate::ErrorKind::CircuitOpen), with the rest of the open time as
//! [`retry_after`](crate::Cause::retry_after) if it is known.
//!
//! # Metrics
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `buttress_breaker_state` | gauge, 1 for the present state (the number of breakers with the name) | name, state |
//! | `buttress_breaker_transitions_total` | counter | name, to, cause |
//! | `buttress_rejections_total` | counter | name, layer = `circuit_breaker`, reason = `circuit_open`, mode |
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | [`window`](Config::window) | 10 s | sees a share at modest rates, forgets an old incident |
//! | [`failure_share`](Config::failure_share) | 0.5 | below, retrying serves the user better |
//! | [`min_calls`](Config::min_calls) | 20 in a second, [5 failures](#few-calls) in the window | a share of fewer means nothing |
//! | [`consecutive_failures`](Config::consecutive_failures) | off | 7 in a row come by chance |
//! | [`slow_calls`](Config::slow_calls) | off | what is slow depends on the service |
//! | [`open_for`](Config::open_for) | 2 s ± 25 % | a probe every 2 s against about 1 s of refusal after an outage |
//! | [`open_growth`](Config::open_growth) | off | the longer it stays open, the longer it refuses after the outage |
//! | [`max_retry_after`](Config::max_retry_after) | 30 s | one answer must not refuse all callers for long |
//! | [`successes_to_close`](Config::successes_to_close) | 5 | one may be chance |
//! | [`max_probes`](Config::max_probes) | 8 | does not overrun a service that comes back |
//! | [`probe_lease`](Config::probe_lease) | 5 s | longer than most calls take |
//!
//! [`fail_fast`](Config::fail_fast) is a preset that opens after 12 failures in a row and stays open for 1.3 s.
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//! use buttress::circuit_breaker::State;
//! use buttress::{BoxError, CircuitBreakerLayer, Error, ErrorKind};
//! use tower::{Service, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let layer = CircuitBreakerLayer::config("inventory").consecutive_failures(3).build()?;
//! let breaker = layer.handle();
//! let mut client = layer.wrap(service_fn(|is_up: bool| async move {
//!     if is_up { Ok("12 bolts") } else { Err::<_, BoxError>("connection reset".into()) }
//! }));
//! # std::future::poll_fn(|cx| client.poll_ready(cx)).await?;
//! for _ in 0..3 {
//!     client.call(false).await.unwrap_err();
//! }
//! assert_eq!(breaker.state(), State::Open);
//! let error = client.call(true).await.unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::CircuitOpen);
//!
//! tokio::time::sleep(Duration::from_secs(3)).await;
//! for _ in 0..5 {
//!     client.call(true).await?;
//! }
//! assert_eq!(breaker.state(), State::Closed);
//! # Ok(())
//! # }
//! ```

mod config;
mod layer;
mod metrics;
mod part;
mod shared;

pub use self::config::{Config, Settings};
pub use self::layer::{CircuitBreaker, CircuitBreakerLayer};
pub use self::part::{BreakerPermit, Handle};
pub use crate::algorithm::breaker::{State, Transition, TransitionCause};
