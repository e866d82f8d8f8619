//! How to choose layers, how to order them, and how to get from a service level to numbers.
//!
//! # Which layers
//!
//! Begin with the [standard stack](crate::stack); it is right for most. What else, or what instead:
//!
//! | what goes wrong | layer | not enough by itself, because |
//! |---|---|---|
//! | an answer never comes | [timeout](crate::timeout) for an attempt, deadline for the operation | whoever waits still waits for as long as that |
//! | now and then a call fails | [retry](crate::retry) with its [budget](crate::budget) | against overload it is the wrong thing |
//! | now and then an answer is slow | [hedge](crate::hedge) | needs more than one server, or chance |
//! | the service is down | [circuit breaker](crate::circuit_breaker) | it knows after some failures; retries must be bounded too |
//! | the service is overloaded | [bulkhead](crate::bulkhead), best with a limit that [adapts](crate::bulkhead::Aimd) | callers must be able to hear "no" |
//! | a quota | [rate limit](crate::rate_limit) | says nothing about calls that take long |
//! | one replica is slow, failing or gone | [balance](crate::balance) | all of them may be |
//! | one tenant takes it all | [keyed](crate::keyed) rate limit or bulkhead | the sum of all is not limited |
//! | there is something better than an error | [fallback](crate::fallback) | hides faults: watch its counter |
//!
//! # In which order
//!
//! ```text
//!  caller
//!    │
//!  measure (operations)    what the caller sees
//!    │
//!  fallback                acts on what all others have given up
//!    │
//!  deadline                bounds all attempts and all waits
//!    │
//!  retry                   makes attempts; each of them passes everything below
//!    │
//!  hedge                   a copy passes everything below as well
//!    │
//!  circuit breaker         takes no permit and no turn for what it refuses
//!    │
//!  rate limit              waits for a turn without holding a permit
//!    │
//!  bulkhead                a permit is held only while the service works
//!    │
//!  timeout                 waiting above is not slowness of the service
//!    │
//!  measure (attempts)      what the service sees
//!    │
//!  balance                 chooses a replica for each attempt; needs the same classifier
//!    │
//!  client
//! ```
//!
//! Common mistakes, and what they lead to:
//!
//! | order | then |
//! |---|---|
//! | timeout outside retry | one slow attempt uses up the time of all; that is a deadline, and called so here |
//! | circuit breaker outside retry | sees one failure for three, and opens late |
//! | bulkhead outside retry | a permit is held while nothing is in flight but a wait |
//! | retry in two services of a chain | 3 × 3 attempts; retry where the request begins, or let the [attempt](crate::Attempt) be known inner |
//! | a circuit breaker over all replicas, none for each | where two of three are dead it opens for all, though the third is well. Over a [balancer](crate::balance) leave it out, or give each endpoint its own |
//!
//! # From a service level to numbers
//!
//! What you need: the calls per second at the busiest hour *λ*, the mean latency *W* and some percentiles while all is
//! well ([measure](crate::measure) shows them), the share of calls that fail *p*, and how long your own caller waits.
//!
//! | setting | take | because |
//! |---|---|---|
//! | deadline | what your caller waits, less 10 %; none if it reads the answer as it comes | an answer that comes later is of no use. It covers the body, and the service is told |
//! | response timeout | as it is: 10 s; less if your caller does not wait so long for a head, and there is no deadline | bounds all attempts, and nobody else is told |
//! | timeout | 1.5 × the 99.9th percentile, and at most 0.45 × the shorter of these two (which is the default of the standard stack) | ends fewer than one good call in 1,000, and leaves time for a second attempt |
//! | attempts | as it is: 3, or 2 where a call is dear | of faults that come by chance *pⁿ* are left: of 1 %, one in 10,000 after two. None is begun that cannot wait out its backoff before the deadline and the response timeout |
//! | backoff | as it is: 50 ms, ×2, up to 2 s, full jitter | [`Backoff::contention`](crate::Backoff::contention) for writers that collide |
//! | budget | as it is: 20 % of the calls | holds up to failures of 35 %; beyond them retries only add load |
//! | concurrency limit | 2 to 4 × *λ·W* (Little's law: *λ·W* are in flight on average) | only bites when the service has slowed down |
//! | … and at most | timeout × the calls per second that the service can do at its worst | the last one in must come out before its time is up |
//! | … per process | that of the service, divided by the processes that call it | each counts only its own |
//! | queue | none; for bursts as long as the limit, with its 100 ms | a queue that stands only adds latency |
//! | rate limit | the quota divided by the processes, less 5 % | two clocks are never the same |
//! | … burst | the calls that come within 100 ms | a larger one is a burst for the service as well |
//! | hedge | the 98th percentile, for 2 % more calls; the 95th for 5 % | most of the tail beyond it goes, and a copy is cheap |
//! | circuit breaker, window | as it is: 10 s, and at least 2 × timeout | must see calls end that begin in it |
//! | … smallest count | 20, less if there are fewer than 2 calls per second | below, it would never open |
//! | … open time | as it is: 2 s. Shorter: probed sooner, and more often while it is down | calls lost to each outage ≈ *k* + 62.5 / open time in seconds at 100 calls a second |
//!
//! # An example
//!
//! A search service is called 200 times a second from each of four processes. Its latency is 30 ms on average, 90 ms at
//! the 98th percentile, 300 ms at the 99.9th. One call in 200 fails. Callers wait one second and want 99.9 % of the
//! answers. At its worst, with half of its replicas gone, the service can do 100 calls a second for each process.
//!
//! - Deadline: 1 s − 10 % = 900 ms. Timeout: 1.5 × 300 = 450 ms would leave no time for a second attempt; 0.45 × 900 = 405 ms
//!   does.
//! - Attempts: 3, as it is. Two that time out fit before the deadline, three that fail fast do. Of 0.5 % failures one
//!   in 40,000 is left after two.
//! - In flight: 200 × 0.03 = 6. Four times that is 24; the service at its worst can answer 0.405 × 100 = 40 in time, so
//!   24 is safe.
//! - Reads do no harm when made twice: hedge at the 98th percentile. An answer that would come after 90 ms mostly comes
//!   after 90 + 30 ms.
//!
//! ```
//! use std::time::Duration;
//!
//! let search = buttress::standard("search")
//!     .deadline(Duration::from_millis(900))
//!     .timeout(Duration::from_millis(405))
//!     .hedge(|hedge| hedge.percentile(0.98))
//!     .concurrency_limit(24)
//!     .build()?;
//! # Ok::<(), buttress::ConfigError>(())
//! ```
//!
//! # Several hops
//!
//! Each hop spends a part of one deadline, so it should be set once, where the request comes in. [`Deadline`] travels with the
//! task: a client called by a handler has what is left of the handler's. Over the network it travels in a header, with
//! the feature `http`. A call with no time left is refused before it is made. Calls whose answers are meant to outlast it are
//! [declared streams](crate::stack#streams).
//!
//! Retry in one place: the outermost that knows that the request does no harm when made twice. In one task a second
//! [retry](crate::retry) inner lets the first one do it.
//!
//! # What to watch
//!
//! | metric | if | then |
//! |---|---|---|
//! | `buttress_calls_total`, stage `operation`, outcome `failure` | more than the service level allows | look at the rows below |
//! | stage `attempt` against stage `operation` | more than 1.1 attempts for an operation | the service fails more than it should, or the timeout is too short |
//! | `buttress_timeouts_total` | more than 0.1 % of the attempts while all is well | the timeout is too short |
//! | `buttress_budget_tokens` | near zero | an outage, or more than 35 % fail |
//! | `buttress_retry_decisions_total`, decision `deadline` or `response_timeout` | often | the deadline leaves no time for what is configured |
//! | `buttress_hedges_total`, result `won` against `lost` | fewer than one in five won | the delay is too short, or all servers are slow together |
//! | `buttress_breaker_transitions_total`, to `open` | though the service was well | the share of failures it lives with is near 0.5: see `slow_calls`, the classifier |
//! | `buttress_in_flight` against `buttress_limit` | at the limit while latency is normal | the limit is too low |
//! | `buttress_queue_wait_seconds` | has a value at all times | the queue stands: more capacity, or a lower limit |
//! | `buttress_endpoints`, state `ejected` | for long | replace that replica |
//!
//! A counter appears with its first event, so that `increase` does not see that one; the gauges are there from the start.
//! Where one event matters, as when a breaker opens, ask the gauge: `max_over_time(buttress_breaker_state{state="open"}[5m])`.
//! The README has an exporter with buckets, and queries to begin with.
//!
//! To try a breaker, a rate limit, a bulkhead or a hedge on real traffic first, build it with
//! [`Mode::Observe`](crate::Mode::Observe): it decides and counts, and lets everything pass.
//!
//! # In your tests
//!
//! Everything waits by tokio's clock. With `start_paused` (feature `test-util` of tokio) a timeout of an hour passes at once,
//! and in order; a stack with a `seed` waits the same each time. A service that fails as you like is a `service_fn`, and the
//! handle of the stack brings parts of it into any state:
//!
//! ```
//! use std::time::Duration;
//!
//! use buttress::{BoxError, Error, ErrorKind, standard};
//! use tokio::time::{Instant, sleep};
//! use tower::service_fn;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! // In a test: `#[tokio::test(start_paused = true)]`.
//! let stack = standard("inventory")
//!     .timeout(Duration::from_millis(300))
//!     .deadline(Duration::from_secs(2))
//!     .unlimited()
//!     .seed(1)
//!     .build()?;
//! let inventory = stack.wrap(service_fn(|item: &'static str| async move {
//!     if item == "nuts" {
//!         sleep(Duration::from_secs(60)).await;
//!     }
//!     Ok::<_, BoxError>(format!("12 of {item}"))
//! }));
//!
//! let began = Instant::now();
//! let slow = inventory.send("nuts").await.unwrap_err();
//! assert_eq!(slow.kind(), ErrorKind::Timeout);
//! assert!(began.elapsed() < Duration::from_secs(2));
//!
//! let breaker = stack.handle();
//! breaker.circuit_breaker().expect("is on").force_open();
//! let refused = inventory.send("bolts").await.unwrap_err();
//! assert_eq!(refused.kind(), ErrorKind::CircuitOpen);
//! # Ok(())
//! # }
//! ```
//!
//! Not with real sockets: a paused clock goes on by itself as soon as nothing else is to be done, and a socket that is waited
//! for does not count. Every call over it would be taken for one that hangs. Use an unpaused clock there, or a service in place
//! of the server.
//!
//! [`Deadline`]: crate::Deadline
