//! A circuit breaker: rejects calls to a service that is down.
//!
//! # When to use it
//!
//! Use it in front of a dependency that can fail completely. Calls to a failed dependency then fail at once instead of
//! after a timeout, and the dependency gets few calls while it recovers. Put the breaker inside retry and outside the
//! timeout, so that it sees every attempt and counts attempts that took too long.
//!
//! Do not use it against overload: if a service answers half of the calls in time, a closed breaker keeps it overloaded
//! and an open one keeps it idle. Use a concurrency limit there. If a service refuses
//! some calls as overloaded, [these refusals do not open the breaker](#overload). The price of a breaker: it still refuses calls for 1 s
//! on average, and for 2.5 s at most, after the service has recovered (1.6 and 3.5 s if calls fail by a timeout of 1 s;
//! experiment X9 of `cargo bench --package effectiveness`).
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
//! **Closed.** The breaker counts outcomes in ten buckets of one second each. When a call fails, it computes the lower
//! end of the Wilson score interval (z = 1.64) of the share of failures, for the whole window and for the last second
//! alone (a tenth of the window). The last second shows a sudden outage at once, however many calls succeeded before.
//! The breaker opens when this lower end exceeds 0.5 in one of two cases: for the last second, with 20 calls or more
//! and 10 failed operations or more; or for the whole window, under the conditions of [few calls](#few-calls). Two
//! optional rules open it after failures in a row and by the share of slow calls. A service that always fails 40 % of
//! the calls opens the breaker now and then by chance; a service that fails 20 % does not.
//!
//! In a test whose calls take no time, a second never ends: set [`consecutive_failures`](Config::consecutive_failures)
//! there.
//!
//! **Open.** The breaker rejects calls without calling the inner service, for 2 s ± 25 %, or for longer if the service
//! asked for it.
//!
//! **Half-open.** At first, one call passes as a probe. Each success doubles the number of probes that may be in flight
//! (1, 2, 4, 8), and each failure halves it. Five successes close the breaker; more failures than successes open it
//! again. A probe that takes longer than its lease gives its place to another one.
//!
//! At high rates, many calls fail within a second: at 20,000/s, some 10,000 fail before the breaker opens. To open
//! sooner, set failures in a row. Set the number of calls that begin in 50 ms, so that a fault of 10 ms does not open
//! the breaker: `consecutive_failures(1_000)`.
//!
//! A probe that hangs blocks its caller for the timeout. If 42 dependencies hang, 20 calls are blocked at a time with a
//! timeout of 2 s, and 5 calls with a timeout of 300 ms. With [`open_growth(2.0, 30 s)`](Config::open_growth) 3 calls
//! are blocked, but the breaker refuses calls for 16 s instead of 2 s after the dependencies have recovered.
//!
//! ## Few calls
//!
//! A client with a call every few seconds never has 20 calls in a second. For the whole window, 5 failures are
//! therefore enough, if the lower end of the share is above the threshold and at least 3 failed first attempts lie in
//! at least two of the ten buckets. One request that always fails does not open the breaker with its retries, and
//! neither do calls that fail together because their connection broke. A retry is never a first attempt: a breaker
//! inside an endpoint of a balancer also counts failures of requests that failed at another endpoint first, but opens
//! only if three requests that were sent to its own endpoint first have failed. [`min_calls`](Config::min_calls)
//! replaces these conditions by a number of calls, and a [count window](Config::count_window) has none of them.
//!
//! The price: if one caller repeats a request that always fails every 3 s, the breaker refuses 1.1 % of good calls at
//! 0.5/s. Without a good call for ten seconds, the breaker takes the failures for an outage. If a service fails 20 % of
//! the calls, a client with 0.3 to 5 calls a second has about 0.01 % of its calls refused; at 30 %, fewer than 0.5 %. If a service hangs for 5 minutes, a client with 0.5 calls a second sends it 47 attempts for 100 calls, and a
//! client with 1 call a second sends 32 (experiment X15).
//!
//! ## Overload
//!
//! An answer which says that the service is overloaded (503, `UNAVAILABLE` with a pushback;
//! [`Outcome::Overload`](crate::Outcome::Overload)) counts only if no call has succeeded for T/10 and at least 200 ms. T
//! is the timeout of an attempt (2 s if it has none). At twice its capacity, a service refuses more than half of the
//! calls and still answers as many as it can. An open breaker reduces that to 7 %, and a closed one leaves 93 to
//! 94 % (experiment X19). Timeouts and other failures of an overloaded service always count, and so do overloads in a row,
//! if `consecutive_failures` is set.
//!
//! The price: a service that begins to refuse all calls gets calls for these 200 ms longer. They fail at once, as they
//! would behind an open breaker. An overload without a status of its own, such as an `UNAVAILABLE` without a pushback,
//! looks like an outage, and the breaker opens if more than half of the calls get it.
//!
//! ## Calls that end early
//!
//! A call may end without an answer before the timeout T of its attempt (2 s if it has none): by a deadline, or because
//! its caller dropped it. Such a call is a failure if all of the following conditions hold. Otherwise it counts neither
//! as a success nor as a failure, nor as slow:
//!
//! - The service had the call for at least T/10.
//! - The service had the call for at least twice as long as the slowest good call of the last ten seconds took, or for
//!   all of T. Without a good call in these ten seconds, the condition does not apply.
//! - No other call succeeded while it ran (to a precision of T/50).
//!
//! Callers with very short deadlines therefore do not cause refusals for other callers. If a service hangs for all
//! callers, the breaker opens although every caller leaves before the timeout. Until the first good call, such calls do
//! not count for a time of T. The same conditions apply to an answer which says that the deadline has passed (504,
//! `DEADLINE_EXCEEDED`; see [`Classify::is_deadline_exceeded`](crate::Classify::is_deadline_exceeded)), if the call had
//! a deadline sooner than T. Such an answer is also a failure if no call has succeeded for ten seconds.
//!
//! While the breaker is not closed, the time that counts as enough is at least the time when it opened, and only grows.
//! A probe with a deadline sooner than this time has a place of its own beside the other probes. If it ends early, it
//! counts neither way, and the next such probe follows after the open time at the earliest.
//!
//! The price: a breaker does not open for a service that hangs for some calls while it answers others, nor for a
//! service whose callers all leave before T/10.
//!
//! ## Answers that are streamed
//!
//! With `http::CompleteOnBodyEnd`, a call is counted once, at its head. A breaker that waited for the end of long
//! streams would see only the calls that fail at once, and open after a few of them. If the body fails later, the
//! success becomes a failure. If the window has already dropped the success, the failure is counted in addition. A call
//! is slow if its head was slow: a download of a minute is no slow call. A probe gives its place back at a successful
//! head. If the state has changed since the head, the end of the body changes nothing. A successful head resets the
//! count of failures in a row, unless these failures are bodies that broke off: only an answer that ends well resets
//! such a count, because each broken body had a successful head.
//!
//! # Promises
//!
//! - Closed, a call takes no lock and allocates nothing (with the time window).
//! - A call that was admitted in one state never changes a later state, however late it ends.
//! - When the open time is over, exactly one of the calls that arrive together is admitted.
//! - Every state has an exit: a lost or hanging probe cannot keep the breaker half-open.
//! - `Ignored` calls count neither way, and rejections by inner layers are ignored. If a caller drops the body of an
//!   answer, the count of its head stays.
//! - In virtual time at 100 calls/s (`tests/hostile`): if 98 % of the callers have too short a deadline, or drop their
//!   calls, the other callers lose at most 0.5 % of their calls. If a service hangs for all callers, the breaker opens
//!   after 110 calls with deadlines of 500 ms, and after 240 calls with deadlines of 1.9 s; after a cold start, 200
//!   calls later.
//!
//! # Cancellation
//!
//! A call whose future is dropped [ends early](#calls-that-end-early): it is a failure if the service had enough time
//! for it. Otherwise a probe's place is free again, and nothing else changes. The same holds if the inner service
//! panics.
//!
//! # What clones share
//!
//! Everything: all services made by one layer value, or by its clones, share one breaker.
//! [`CircuitBreakerLayer::handle`] reads its state and opens or closes it. Build a second layer for a second breaker.
//!
//! # Cost
//!
//! Closed: two readings of the clock, one atomic update of a counter of the thread's own, two reads of shared words
//! that are rarely written, and one reference taken and given back. Failures in a row, if set, add one more counter.
//! The count window takes a short lock instead.
//!
//! # Errors
//!
//! [`ErrorKind::CircuitOpen`](crate::ErrorKind::CircuitOpen), with the remaining open time as
//! [`retry_after`](crate::Cause::retry_after) if it is known.
//!
//! # Metrics
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `buttress_breaker_state` | gauge, 1 for the present state (the number of breakers with the name) | name, state |
//! | `buttress_breaker_openings_total` | counter of the changes to `open`, for alerts: 0 from the start | name |
//! | `buttress_breaker_transitions_total` | counter | name, to, cause |
//! | `buttress_rejections_total` | counter | name, layer = `circuit_breaker`, reason = `circuit_open`, mode |
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | [`window`](Config::window) | 10 s | long enough to measure a share at modest rates, short enough to forget an old incident |
//! | [`failure_share`](Config::failure_share) | 0.5 | below this share, retries serve the user better |
//! | [`min_calls`](Config::min_calls) | 20 in a second, [5 failures](#few-calls) in the window | a share of fewer calls means nothing |
//! | [`consecutive_failures`](Config::consecutive_failures) | off | 7 failures in a row happen by chance |
//! | [`slow_calls`](Config::slow_calls) | off | the threshold depends on the service |
//! | [`open_for`](Config::open_for) | 2 s ± 25 % | a compromise between one probe every 2 s and about 1 s of refusals after an outage |
//! | [`open_growth`](Config::open_growth) | off | the longer the breaker stays open, the longer it refuses calls after the outage |
//! | [`max_retry_after`](Config::max_retry_after) | 30 s | one answer must not refuse all callers for long |
//! | [`successes_to_close`](Config::successes_to_close) | 5 | one may be chance |
//! | [`max_probes`](Config::max_probes) | 8 | does not overload a service that recovers |
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
