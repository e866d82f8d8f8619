//! Retry: tries again what failed, after a wait, within a budget.
//!
//! # When to use it
//!
//! For faults that are short and rare: a connection that was reset, a server that is being replaced,
//! a lost race. Put it inside the deadline and outside the circuit breaker and the timeout, so that
//! each attempt has its own timeout and is counted by the breaker. Retry in one place of a call chain
//! only; this layer does not retry within an attempt of another one unless told to. The attempt is carried
//! with the task: a retry in a task that an attempt spawns does not know of it.
//!
//! Not for overload (the [budget](crate::budget) stops it there), and not for requests that do harm
//! when the service acts on them twice: tell it with [`Replay`](crate::Replay) which those are.
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
//! After a failed attempt there is another one unless (in this order, each counted by name)
//!
//! | `decision` | because |
//! |---|---|
//! | `rejected` | a layer of this operation refused the call, and would do so again |
//! | `not_retryable` | another attempt is of no use, by [`Classify::reattempt`](crate::Classify::reattempt): the caller's mistake |
//! | `nested` | an outer retry makes the attempts |
//! | `exhausted` | all attempts have been made |
//! | `pushback` | the service asked not to be tried again |
//! | `not_copyable` | there is no copy of the request, or it was lost since |
//! | `not_idempotent` | acting twice does harm, and nothing [proves](#not-sent) that the request was not sent |
//! | `retry_after` | the service asked for a longer wait than [`max_retry_after`](Config::max_retry_after) |
//! | `deadline` | the wait would reach to the deadline or past it |
//! | `response_timeout` | in a standard stack, the wait would reach to the end of its response timeout or past it |
//! | `budget` | the budget is used up |
//!
//! The wait is drawn from the [`Backoff`](crate::Backoff), longer after an overload and for a caller without quota. The backoff is that of Marc
//! Brooker, *Exponential Backoff And Jitter* (AWS, 2015).
//!
//! If the service asks for a time v (`Retry-After`, gRPC's pushback), the wait is v + U(0, max(v / 10, base)), with the
//! base of the backoff that would have been drawn from. It is never shorter than v, and the random part spreads the
//! callers that were all told the same. If v is longer than [`max_retry_after`](Config::max_retry_after), or the
//! wait does not end before the deadline and the response timeout, the answer comes back at once: a request sooner than v would be in vain.
//! An endpoint of a balancer that is overloaded asks for itself: if there are others, the next attempt follows after the
//! usual backoff and goes to one of them.
//!
//! ## Not sent
//!
//! A request that must not be acted on twice is sent again only if one of two things proves that it was not sent:
//!
//! - A layer of this operation refused it: a part of the same stack, a layer that the retry calls directly or through services that
//!   pass the call on at once, the endpoint that a balancer has chosen, or a layer of the same name in the same task.
//! - The client says so, through an adapter that sits directly around it (`hyper::Client`, `tonic::Client` and `reqwest::Adapter` of
//!   this crate, behind the features of these names), and that is called directly as well.
//!
//! All else proves nothing, whatever the error is. A service that charges a card and then sends a mail may fail because the
//! connection to the mail server was refused, or because the breaker of the mail server is open. These are plain errors of the
//! service: they are retried if the request is idempotent, count in circuit breakers, and do not make a balancer leave the endpoint
//! alone.
//!
//! # Promises
//!
//! - A call that succeeds at the first attempt takes no lock and allocates nothing but the copy
//!   of the request; with [`Never`](crate::Never) or one attempt, not even that.
//! - The last attempt sends the copy itself instead of a copy of it.
//! - A service that is down gets 1.00 times the calls, once the budget is used up.
//! - No two requests share a sequence of waits; with a [`seed`](Config::seed) on one thread, all waits
//!   repeat exactly.
//! - The result of the last attempt comes back, whatever the reason for ending: a response of HTTP with the extension `Attempts`, unless the first attempt was a success, and an error with the number
//!   of attempts and the reason.
//!
//! # Cancellation
//!
//! Dropping the future drops the attempt or the wait, with its timer, and gives up the operation's place
//! in the budget. The payments for its retries are not refunded.
//!
//! # What clones share
//!
//! All services made by one layer value share the budget. The attempts of one operation belong to its
//! future.
//!
//! # Cost
//!
//! The copy of the request, two atomic updates of the budget, and one reference taken and given back. A further attempt
//! takes a lock to clone the inner service, a timer, and a box or two.
//!
//! # Errors
//!
//! The inner service's, and [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded) for a call that begins after its
//! deadline, or whose task is woken after it when the wait is over.
//!
//! The error of a call that was retried, or could have been, has the number of [`attempts`](crate::Cause::attempts) and the reason
//! why the retry [`gave_up`](crate::Cause::gave_up). Its message says both: `"inventory" gave no answer within 300.0ms, after 2 of 3
//! attempts: the retry budget is used up`. A retry inside another one writes neither.
//!
//! # Metrics
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `buttress_retry_decisions_total` | counter | name; decision = retried, or one of the table above |
//! | `buttress_retry_delay_seconds` | histogram | name; source = backoff, `retry_after` |
//! | `buttress_rejections_total` | counter | name, layer = retry, reason = `deadline_exceeded`, mode |
//!
//! And those of the [budget](crate::budget).
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
