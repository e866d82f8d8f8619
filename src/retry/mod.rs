//! Retry: repeats failed calls, after a wait, within a budget.
//!
//! # When to use it
//!
//! Use it for faults that are short and rare: a connection that was reset, a server that is being replaced, a lost
//! race. Put it inside the deadline and outside the circuit breaker and the timeout, so that each attempt has its own
//! timeout and is counted by the breaker. Retry at one place of a call chain only: this layer does not retry within an
//! attempt of another retry, unless [`retry_nested`](Config::retry_nested) is set. The task carries the attempt of the
//! outer retry. A spawned task does not inherit it, so a retry in a spawned task makes attempts of its own.
//!
//! Do not use it against overload, where the [budget](crate::budget) stops it. Do not use it for requests that do harm
//! when the service acts on them twice: a [`Replay`](crate::Replay) policy names these requests.
//!
//! # How it works
//!
//! ```text
//!             ┌─────────┐ success, or no further attempt
//!  call ─────▶│ Attempt │───────────────────────────────▶ the result, as it came
//!             └─────────┘
//!        copied  ▲   │ failure: may, should and can it be sent again?
//!        request │   ▼ the response is dropped
//!             ┌─────────┐
//!             │  Wait   │ full jitter: 0 to min(2 s, 50 ms · 2ⁿ)
//!             └─────────┘
//! ```
//!
//! A failed attempt is followed by another one unless one of these decisions prevents it. They are made in this order,
//! and each is counted by name:
//!
//! | `decision` | because |
//! |---|---|
//! | `rejected` | a layer of this operation refused the call, and would do so again |
//! | `not_retryable` | another attempt is of no use, by [`Classify::reattempt`](crate::Classify::reattempt), as after a mistake of the caller |
//! | `nested` | an outer retry makes the attempts |
//! | `exhausted` | all attempts have been made |
//! | `pushback` | the service asked not to be tried again |
//! | `not_copyable` | there is no copy of the request, or the copy has been lost |
//! | `not_idempotent` | the request does harm when the service acts on it twice, and nothing [proves](#not-sent) that it was not sent |
//! | `retry_after` | the service asked for a longer wait than [`max_retry_after`](Config::max_retry_after) |
//! | `deadline` | the wait would reach to the deadline or past it |
//! | `response_timeout` | in a standard stack, the wait would reach to the end of its response timeout or past it |
//! | `budget` | the budget is used up |
//!
//! The wait is a random time from the [`Backoff`](crate::Backoff). It is longer after an overload, and when the caller
//! has used up its quota. The algorithm is from Marc Brooker, *Exponential Backoff And Jitter* (AWS, 2015).
//!
//! If the service asks for a time v (`Retry-After`, gRPC's pushback), the wait is v + U(0, max(v / 10, base)), where
//! base is that of the backoff that would apply. The wait is never shorter than v, and its random part spreads callers
//! that got the same v. If v is longer than [`max_retry_after`](Config::max_retry_after), or the wait would not end
//! before the deadline and the response timeout, the caller gets the answer at once: a request sooner than v would be
//! in vain. An overloaded endpoint of a balancer asks for itself only: if there are other endpoints, the next attempt
//! follows after the usual backoff and goes to one of them.
//!
//! ## Not sent
//!
//! If the service must not act on a request twice, the request is sent again only if one of two proofs shows that it
//! was not sent:
//!
//! - A layer of this operation refused it: a part of the same stack, a layer that the retry calls directly or through services that
//!   pass the call on at once, the endpoint that a balancer has chosen, or a layer of the same name in the same task.
//! - The client says so, through an adapter directly around it (`hyper::Client`, `tonic::Client` and `reqwest::Adapter`
//!   of this crate, behind the features of these names). The retry must call the adapter directly as well.
//!
//! No other error is a proof. For example, a service that charges a card and then sends a mail may fail because the
//! mail server refused the connection, or because the breaker of the mail server is open. Such errors are plain errors
//! of the service: they are retried if the request is idempotent, they count in circuit breakers, and a balancer does
//! not avoid the endpoint because of them.
//!
//! # Promises
//!
//! - A call that succeeds at the first attempt takes no lock and allocates nothing but the copy
//!   of the request; with [`Never`](crate::Never) or one attempt, not even that.
//! - The last attempt sends the kept copy itself and does not copy it again.
//! - Once the budget is used up, the load on a service that is down is 1.00 times the calls.
//! - No two requests share a sequence of waits; with a [`seed`](Config::seed) on one thread, all waits
//!   repeat exactly.
//! - The caller gets the result of the last attempt, whatever the reason for ending. Unless the first attempt was a
//!   success, an HTTP response has the extension `Attempts`; an error has the number of attempts and the reason.
//!
//! # Cancellation
//!
//! Dropping the future drops the attempt, or the wait with its timer. The operation no longer counts as in flight in
//! the budget. The tokens that its retries have cost are not refunded.
//!
//! # What clones share
//!
//! All services made by one layer value share the budget. The attempts of one operation belong to its
//! future.
//!
//! # Cost
//!
//! The copy of the request, two atomic updates of the budget, and one reference taken and given back. A further attempt
//! costs a lock to clone the inner service, a timer, and a box or two.
//!
//! # Errors
//!
//! The errors of the inner service, and [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded) for a call
//! that begins after its deadline, or whose task wakes from a wait after the deadline.
//!
//! The error of a call that was retried, or could have been, has the number of [`attempts`](crate::Cause::attempts) and
//! the reason why the retry [`gave_up`](crate::Cause::gave_up). Its message says both: `"inventory" gave no answer
//! within 300.0ms, after 2 of 3 attempts: the retry budget is used up`. A retry inside another retry adds neither.
//!
//! # Metrics
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `buttress_retry_decisions_total` | counter | name; decision = retried, or one of the table above |
//! | `buttress_retry_delay_seconds` | histogram | name; source = backoff, `retry_after` |
//! | `buttress_rejections_total` | counter | name, layer = retry, reason = `deadline_exceeded`, mode |
//!
//! In addition, the metrics of the [budget](crate::budget).
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | [`max_attempts`](Config::max_attempts) | 3 | two retries reach the other side of most short faults |
//! | [`backoff`](Config::backoff) | 50 ms doubling to 2 s, full jitter | longer than a blip, shorter than a user notices |
//! | [`overload_backoff`](Config::overload_backoff) | 1 s doubling to 20 s, full jitter | the service needs time |
//! | [`max_retry_after`](Config::max_retry_after) | 60 s | the windows of most quotas are shorter |
//! | [`budget`](Config::budget) | its own | share one among the clients of a dependency |
//! | [`retry_rejections`](Config::retry_rejections) | no | an open breaker stays open |
//! | [`retry_nested`](Config::retry_nested) | no | attempts would multiply |
//!
//! # Examples
//!
//! ```
//! use buttress::{Attempt, BoxError, RetryLayer};
//! use tower::{Service, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let retry = RetryLayer::config("inventory").max_attempts(3).build()?;
//! let mut client = retry.wrap(service_fn(|item: &'static str| async move {
//!     match Attempt::current().map(Attempt::number) {
//!         Some(3) => Ok(format!("12 of {item}")),
//!         _ => Err::<_, BoxError>("connection reset".into()),
//!     }
//! }));
//! # std::future::poll_fn(|cx| client.poll_ready(cx)).await?;
//! assert_eq!(client.call("bolts").await?, "12 of bolts");
//! # Ok(())
//! # }
//! ```

mod config;
mod layer;

pub use self::config::{Config, Settings};
pub use self::layer::{Retry, RetryLayer, RetryPlan};
