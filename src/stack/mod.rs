//! The standard stack: all layers that one dependency needs, in the right order.
//!
//! # When to use it
//!
//! Use it first, for each dependency. All its parts share one name, one classifier and one budget, and you can
//! configure each part or leave it out. Build a stack by hand only if you need the same layer twice, another order, or
//! layers of your own between the parts. To put your own layers around all parts, wrap the standard stack in them.
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
//! | part | by default | purpose |
//! |---|---|---|
//! | [measure](crate::measure), stage `operation` | on | measures calls as callers see them |
//! | [deadline](Standard::deadline) | none | ends the whole answer, body and trailers included; inner calls inherit it, and it can be sent to the service |
//! | [response timeout](Standard::response_timeout) | 10 s | ends the wait for the head of the answer, all attempts together |
//! | [retry](crate::retry) | 3 attempts | overcomes short faults |
//! | [hedge](crate::hedge) | off | shortens the tail of the latencies |
//! | [circuit breaker](crate::circuit_breaker) | on | stops calls to a service that is down |
//! | [rate limit](crate::rate_limit) | off | keeps to the rate that the service allows |
//! | [bulkhead](crate::bulkhead) | you choose | keeps a slow service from blocking all callers |
//! | [timeout](crate::timeout) | 2 s, at most 0.45 of the deadline and of the response timeout | ends an attempt that gets no answer |
//! | [measure](crate::measure), stage `attempt` | on | measures attempts as the service sees them |
//!
//! Each part has its position for a reason:
//!
//! - The deadline and the response timeout are outside retry, so that they cover all attempts and the waits between
//!   them.
//! - Retry is outside all parts that an attempt passes, so that each attempt is classified, limited and timed by
//!   itself. It does not retry an attempt that one of these parts refused, because they would refuse the next one as
//!   well.
//! - The hedge is inside retry and leaves failures to retry; one [budget](crate::budget) pays for both. Neither the
//!   hedge nor the circuit breaker counts the time in the queues of the rate limit and the bulkhead as slowness.
//! - The circuit breaker is outside the limits: an attempt that it refuses takes no permit and no token of the rate
//!   limit. A refusal by a limit says nothing about the service, and the breaker ignores it.
//! - The bulkhead is inside the rate limit, so that no call holds a permit while it waits for the rate limit.
//! - The timeout is inside the queues: a call that waits in a queue does not mean that the service is slow. The
//!   settings of the queues, the deadline and the response timeout bound the time in the queues.
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
//! The deadline is a promise to the caller. Inner calls inherit it, and a `PropagateDeadlineLayer` sends it to the
//! server. If the call has inherited a deadline as well, the sooner one counts. A server that keeps to the deadline
//! ends the whole answer at that time. This stack does the same if its [completion](Standard::completion) waits for the
//! end of the body, as the completion of `http::standard` does. The response timeout is private to the stack: no inner
//! call inherits it, and it is never sent to a server.
//!
//! ## Streams
//!
//! The answer to a subscription, to a request for server-sent events or to a gRPC `Watch` goes on for longer than any
//! deadline. Declare these calls as streams:
//!
//! - all of a stack: `.streaming(|_: &Request| true)`, or for HTTP `.streaming(HttpStreams::new().all())`;
//! - by a function of the request: `.streaming(|request: &Request| …)`, or `.streaming(HttpStreams::new().paths(|path|
//!   …))`;
//! - one call: [`CallOptions::stream`](crate::CallOptions::stream), which is an extension of an HTTP request.
//!
//! The options of a call take precedence over the declaration of its stack: with `stream(false)`, the call has the
//! deadline of the stack.
//!
//! The timeout and the response timeout cover the head of a declared stream, like the head of any other call. The
//! stack's own deadline does not end a declared stream and is not sent to the server. A deadline that is inherited or
//! set for the call, as with [`Deadline::scope`](crate::Deadline::scope), ends the stream and is sent. A stream that
//! ends by a deadline or after a silence is not a failure of the service. A stack inside this one decides for its own
//! calls: a stream that is declared to the outer stack alone ends at the deadline of the inner stack.
//!
//! Layers that you nest by hand in the same order act in the same way, with two differences. In the standard stack, the
//! hedge and the circuit breaker do not count the time that an attempt waits in the stack's own queues. Around a rate
//! limit or a bulkhead of your own, they count the wait as time of the service. An attempt that the timeout ends is a
//! `failure` in the metrics of this stack. A [measurement](crate::measure) inside a timeout of your own sees only that
//! the attempt is dropped, and counts it as `cancelled`.
//!
//! Only the bulkhead protects an overloaded service, and no default limit fits every service.
//! [`build`](Standard::build) therefore requires [`concurrency_limit`](Standard::concurrency_limit) or an explicit
//! [`unlimited`](Standard::unlimited). By Little's law, a service that answers 200 calls a second in 50 ms each has 10
//! calls in flight. A limit of four times this number and 5 more refuses less than 1 % of the calls while the service
//! is well. The limit should not exceed the number of calls that the service can answer within the timeout when it is
//! slowest: 50 calls take more than half a second at 80 calls a second.
//!
//! ## Settings of one call
//!
//! [`CallOptions`](crate::CallOptions) give one call another timeout, a sooner deadline, no retry or no hedge, or
//! declare it idempotent or a stream. Use `stock.with(CallOptions::new().no_retry()).send(request)`, or an extension of
//! an HTTP request.
//!
//! # Refused combinations
//!
//! `build` refuses combinations of settings in which one part keeps another from working. The error names both
//! settings.
//!
//! | setting | must be |
//! |---|---|
//! | timeout | less than the deadline, and than the response timeout |
//! | delay of the hedge, if it is fixed | less than the timeout; if there is none, than the deadline and the response timeout |
//! | slow calls of the circuit breaker | the same: the timeout ends slower calls |
//! | window of the circuit breaker | at least twice the timeout: the window would otherwise forget calls before they end |
//! | calls that the circuit breaker needs to open, 5 by default | at most the calls that the rate limit lets through in one window: the breaker would otherwise never open |
//! | longest wait for the rate limit, and in the queue of the bulkhead | less than the deadline, and than the response timeout |
//!
//! # Promises
//!
//! The promises of the parts hold. In addition:
//!
//! - You can name the type in a field: it is `StandardService<S>` with the defaults.
//! - A part that is left out does nothing and costs next to nothing.
//!
//! # Cancellation
//!
//! Dropping the future gives back all that the parts hold. Each part counts the call as cancelled. With
//! `http::standard` a call holds its permits until its body has ended or is dropped.
//!
//! # What clones share
//!
//! The state of every part. Build a second stack for a second dependency.
//!
//! # Cost
//!
//! A call whose answer is ready at the first poll counts one reference and reads the clock twice, for all parts
//! together. A hedge adds a third reading. `cargo bench --package overhead` shows the stack beside its parts.
//!
//! # Errors
//!
//! The errors of the parts, all with the name of the stack. [`kind`](crate::Cause::kind) distinguishes them.
//!
//! | ended by | kind | [`stage`](crate::Cause::stage) | `buttress_timeouts_total`, layer |
//! |---|---|---|---|
//! | timeout of the last attempt | `Timeout` | `Call` | `timeout` |
//! | response timeout | `Timeout` | `AllAttempts` | `response_timeout` |
//! | deadline, before the head | `DeadlineExceeded` | `Call` | `deadline` |
//! | deadline, while a reader waits for the rest of the body | `DeadlineExceeded` | `WholeAnswer` | `deadline` |
//! | deadline, when a reader continues to read after it | `DeadlineExceeded` | `Reader` | `deadline` |
//!
//! With `CompleteOnResponse` the stack does not see bodies and ends none. An error after several attempts, or after the
//! wait for another attempt, has the number of [`attempts`](crate::Cause::attempts), and in
//! [`gave_up`](crate::Cause::gave_up) the reason for making no further one.
//!
//! # Metrics
//!
//! The metrics of the parts, with the name of the stack. A response timeout counts in `buttress_timeouts_total`, layer
//! = `response_timeout`.
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

mod adjust;
mod config;
mod layer;
mod streams;
mod with_options;

pub use self::config::{Settings, Standard};
pub use self::layer::{
    Handle, StandardLayer, StandardOperation, StandardParts, StandardPlan, StandardService,
};
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
