//! The standard stack: all that one dependency needs, in the right order.
//!
//! # When to use it
//!
//! First. It is the stack that this crate's authors would build, with one name, one classifier and one budget
//! for all parts; each part can be configured or left out. Build one by hand if you need two of a kind, another
//! order, or layers of your own in between; layers of your own round the whole go round this one as well.
//!
//! # How it works
//!
//! ```text
//!  measure ─▶ deadline, response timeout ─▶ retry ─▶ hedge ─▶ circuit breaker ─▶ rate limit ─▶ bulkhead ─▶ timeout ─▶ measure ─▶ client
//! ╰────────────── of an operation ───────────────╯╰──────────────────────────── of each attempt ──────────────────────────────╯
//! ```
//!
//! From the outside:
//!
//! | part | by default | what it is for |
//! |---|---|---|
//! | [measure](crate::measure), stage `operation` | on | what callers see |
//! | [deadline](Standard::deadline) | none | ends the whole answer, body and trailers included; inherited, and told to the service |
//! | [response timeout](Standard::response_timeout) | 10 s | ends the wait for the head of the answer, all attempts together |
//! | [retry](crate::retry) | 3 attempts | gets over short faults |
//! | [hedge](crate::hedge) | off | takes off the tail of the latencies |
//! | [circuit breaker](crate::circuit_breaker) | on | leaves a service alone that is down |
//! | [rate limit](crate::rate_limit) | off | keeps to what the service allows |
//! | [bulkhead](crate::bulkhead) | you say | keeps a service that is slow from taking all callers with it |
//! | [timeout](crate::timeout) | 2 s, at most 0.45 of the shorter of the two | ends an attempt that gets no answer |
//! | [measure](crate::measure), stage `attempt` | on | what the service sees |
//!
//! The order follows from what each part has to see:
//!
//! - The deadline and the response timeout are outside retry, so that they cover all attempts and the waits between them.
//! - Retry is outside everything that an attempt has to pass, so that each attempt is classified, limited and timed by
//!   itself. It does not retry what one of these parts refused, because that would be refused again.
//! - The hedge is inside retry and leaves failures to it; both are paid from one [budget](crate::budget). Time in
//!   the queues of the rate limit and the bulkhead is not slowness to it, nor to the circuit breaker.
//! - The circuit breaker is outside the limits: an attempt that it refuses takes no permit and no place
//!   under the rate. Refusals of the limits say nothing about the service, and the breaker ignores them.
//! - The bulkhead is inside the rate limit, so that nobody holds a permit while waiting for a turn.
//! - The timeout is inside the queues: a call that waits for its turn is not a service that is slow. The time in the
//!   queues is bounded by their own settings, by the deadline and by the response timeout.
//!
//! ## The three times
//!
//! ```text
//!                 attempt 1        attempt 2
//! call ──────────▶|·······|─ wait ─▶|·······|head|──── body ────|trailers|
//! timeout         |-------|         |-------|
//! response timeout|-------------------------|
//! deadline        |------------------------------------------------------|
//! ```
//!
//! The deadline is a promise to the caller, and is passed on: inner calls inherit it, and a `PropagateDeadlineLayer` writes it
//! on the wire. Of the stack's own deadline and an inherited one the sooner counts. A server that keeps to it ends the whole answer then, and so
//! does this stack if its [completion](Standard::completion) waits for the end of the body, as that of `http::standard` does. The response
//! timeout is private to the stack: no inner call inherits it, and it is never written on the wire.
//!
//! ## Streams
//!
//! The answer of a subscription, of server-sent events or of a gRPC `Watch` is meant to outlast any deadline of an answer. Declare such calls:
//!
//! - all of a stack: `.streaming(|_: &Request| true)`, or for HTTP `.streaming(HttpStreams::new().all())`;
//! - by a function of the request: `.streaming(|request: &Request| …)`, or `.streaming(HttpStreams::new().paths(|path| …))`;
//! - one call: [`CallOptions::stream`](crate::CallOptions::stream), for HTTP as an extension of the request.
//!
//! The options of a call win over the declaration of its stack: with `stream(false)` it has the deadline of the stack.
//!
//! Timeout and response timeout cover the head of a stream as that of any call. The deadline of the stack neither ends it nor is written
//! on the wire for it; a deadline that is inherited or set for the call, as with [`Deadline::scope`](crate::Deadline::scope), does
//! both. That a stream ends for time, by a deadline or for silence, is not a failure of the service. A stack inside this one decides
//! for its own calls: a stream that is declared to the outer stack alone ends at the deadline of the inner one.
//!
//! Layers that you nest by hand in the same order act alike, but for what they know of each other. In the standard stack the
//! wait of an attempt in its own queues is known as such. Around a rate limit or a bulkhead of your own, hedge and circuit
//! breaker take the wait for time of the service. And an attempt that the timeout ends is a `failure` of the attempt in the
//! metrics of this stack, while a [measurement](crate::measure) inside a timeout of your own sees that it is dropped,
//! and counts it as `cancelled`.
//!
//! Nothing but the bulkhead protects a service that is overloaded, and no default fits every service, so
//! [`build`](Standard::build) asks for [`concurrency_limit`](Standard::concurrency_limit) or an explicit
//! [`unlimited`](Standard::unlimited). By Little's law a service that answers 200 calls a second in 50 ms
//! each has 10 in flight; a limit of two to four times that only bites when it has slowed down. It should not be more
//! than the service can answer within the timeout when it is at its worst: 50 calls that are answered at 80 a second
//! take more than half a second.
//!
//! ## Settings of one call
//!
//! [`CallOptions`](crate::CallOptions) give one call another timeout, a sooner deadline, no retry, no hedge, or say that it is
//! idempotent or a stream: `stock.with(CallOptions::new().no_retry()).send(request)`, or an extension of an HTTP request.
//!
//! # What is refused
//!
//! Parts that cannot do their work beside each other. The error names both.
//!
//! | setting | must be |
//! |---|---|
//! | timeout | less than the deadline, and than the response timeout |
//! | delay of the hedge, if it is fixed | less than the timeout; if there is none, than the deadline and the response timeout |
//! | slow calls of the circuit breaker | the same: slower ones never come |
//! | window of the circuit breaker | at least twice the timeout: it would have forgotten the calls before they end |
//! | calls that the circuit breaker needs to open, 5 by default | at most those that the rate limit lets through in its window: it would never open |
//! | longest wait for the rate limit, and in the queue of the bulkhead | less than the deadline, and than the response timeout |
//!
//! # Promises
//!
//! Those of the parts. Besides: the type is one that can be written in a field, `StandardService<S>` with the defaults;
//! and a part that is left out does nothing, for next to nothing.
//!
//! # Cancellation
//!
//! Dropping the future gives back all that the parts hold. Each counts the call as cancelled. With `http::standard` a call holds
//! its permits until its body has ended or is dropped.
//!
//! # What clones share
//!
//! The state of every part. Build a second stack for a second dependency.
//!
//! # Cost
//!
//! For a call whose answer is there at the first poll: one reference taken and given back and two readings of the clock for all
//! parts together, and a third reading with a hedge. `cargo bench --package overhead` shows the stack beside its parts.
//!
//! # Errors
//!
//! Those of the parts, all with the name of the stack. [`kind`](crate::Cause::kind) tells them apart.
//!
//! | ended by | kind | [`stage`](crate::Cause::stage) | `buttress_timeouts_total`, layer |
//! |---|---|---|---|
//! | timeout of the last attempt | `Timeout` | `Call` | `timeout` |
//! | response timeout | `Timeout` | `AllAttempts` | `response_timeout` |
//! | deadline, before the head | `DeadlineExceeded` | `Call` | `deadline` |
//! | deadline, while a reader waits for the rest of the body | `DeadlineExceeded` | `WholeAnswer` | `deadline` |
//! | deadline, and a reader reads on after it | `DeadlineExceeded` | `Reader` | `deadline` |
//!
//! With `CompleteOnResponse` the stack does not see the body, and ends none. An error after several attempts, or after the wait for
//! another one, has the number of [`attempts`](crate::Cause::attempts), and the reason in [`gave_up`](crate::Cause::gave_up).
//!
//! # Metrics
//!
//! Those of the parts, with the name of the stack. A response timeout is counted as `buttress_timeouts_total`, layer =
//! `response_timeout`.
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//! use buttress::{BoxError, standard};
//! use tower::service_fn;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let client = service_fn(|item: &'static str| async move {
//!     Ok::<_, BoxError>(format!("12 of {item}"))
//! });
//! let stack = standard("inventory")
//!     .timeout(Duration::from_millis(300))
//!     .deadline(Duration::from_secs(2))
//!     .concurrency_limit(50)
//!     .build()?;
//! let inventory = stack.wrap(client);
//! assert_eq!(inventory.send("bolts").await?, "12 of bolts");
//! # Ok(())
//! # }
//! ```

mod config;
mod layer;
mod streams;
mod with_options;

pub use self::config::{Settings, Standard};
pub use self::layer::{Handle, StandardLayer, StandardParts, StandardPlan, StandardService};
pub use self::streams::{NoStreams, Streams};
pub use self::with_options::WithOptions;
use crate::ByClone;

/// Begins to configure the standard stack for the calls to one dependency. See the
/// [module documentation](crate::stack).
pub fn standard(name: impl Into<String>) -> Standard {
    let name = name.into();
    let settings = Settings::new(&name);
    Standard::new(name, settings, ByClone)
}
