//! A bulkhead: bounds the calls in flight.
//!
//! # When to use it
//!
//! Use it in front of every dependency, because every dependency can be overloaded. Calls beyond its capacity wait in
//! its queues, until every answer comes too late to be of use; no other layer of this crate prevents this. A limit on
//! the calls in flight keeps the queue short and refuses the other calls at once. Put it inside retry and circuit
//! breaker, so that a wait between two attempts holds no permit and a call that the breaker refuses takes none. Put it
//! outside the timeout, so that a call that times out gives its permit back.
//!
//! Do not use it for a quota of calls per second: use a rate limit. Each process has its own limit: with ten processes
//! the service gets ten times as many calls.
//!
//! To choose the limit, estimate the calls in flight. By Little's law, a service that answers 100 calls a second in 50
//! ms each has 5 in flight. A limit of four times the number at the busiest hour and 5 more, here 25, refuses less than
//! 1 % of the calls while the service is well. Alternatively, let [`Aimd`] find the limit.
//!
//! # How it works
//!
//! ```text
//!              permit free, nobody waits
//!   call ───┬─────────────────────────────▶ in flight ≤ limit ───▶ done
//!           │                                    ▲  │
//!           │ place in the queue (off by default)│  │ permit, handed on
//!           ├────────────────────────────▶ queue ┘◀─┘
//!           │                                │ waited too long
//!           ▼ full                           ▼
//!      BulkheadFull                     QueueTimeout
//! ```
//!
//! **Limit.** A number, which you can change at run time, or a limit that adapts: [`Aimd`], or a [`LimitPolicy`] of
//! your own. A policy receives the duration of each call (without the time in the queue) and its outcome.
//!
//! **Queue.** Bounded by length and by time. A call waits at most [`queue_wait`](Config::queue_wait). Once the queue
//! has not been empty for `queue_wait`, calls wait at most a fifth of `queue_wait` until the queue is empty. The queue
//! therefore absorbs a burst, and a standing queue does not delay every call. This is the rule of `CoDel` (*Controlling
//! Queue Delay*, Nichols and Jacobson, 2012) in the form for servers (*Fail at Scale*, Maurer, 2015). A sooner deadline
//! ends the wait. A free permit goes directly to the call whose turn it is, and no other call can take it first. A call
//! takes its place in the queue when it is first polled.
//!
//! With 100 calls a second to a service that can answer 80, these shares of the calls succeed (experiment X10 of `cargo
//! bench --package effectiveness`): with a limit of 15, 79 %, with a median of 198 ms and a 99th percentile of 254 ms;
//! with a limit of 24, 80 %, with 308 and 371 ms; with a timeout of 5 s alone, 61 %, with 2.9 and 5.0 s.
//!
//! # Promises
//!
//! - The calls in flight never exceed the limit, except for calls that were in flight when it became smaller.
//! - Each free permit wakes one waiting call. No permit is lost, whichever call is cancelled at whichever moment.
//! - A call that is admitted at once takes no lock and allocates nothing; with a fixed limit, 30 of 31 calls do not
//!   read the clock.
//! - A call that finds the bulkhead full gets an error at once, without a timer. The service is always ready.
//! - While a call waits, it holds nothing of the inner service.
//!
//! # Cancellation
//!
//! Dropping the future of a call gives back its permit or its place in the queue. If the call has just been given a
//! permit and was not polled since, the permit goes to the next call. The same holds if the inner service or the
//! classifier panics. A [`TrackCompletion`](crate::TrackCompletion) decides how long a call keeps its permit after the
//! response.
//!
//! A waiting future that is neither polled nor dropped keeps its place, and keeps a permit that it is given.
//!
//! # What clones share
//!
//! Everything: all services made by one layer value, or by its clones, share one limit and one queue.
//! [`BulkheadLayer::handle`] reads their state and changes the settings. Build a second layer for a second bulkhead.
//!
//! # Cost
//!
//! Two atomic updates of one word, and one reference taken and given back. An adaptive limit reads the clock twice. A
//! waiting call takes short locks and allocates its place and a timer.
//!
//! # Errors
//!
//! - [`ErrorKind::BulkheadFull`](crate::ErrorKind::BulkheadFull): no permit, and no place in the queue.
//! - [`ErrorKind::QueueTimeout`](crate::ErrorKind::QueueTimeout): the call waited in the queue for too long.
//! - [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded): the deadline passed while the call waited.
//!
//! In all three cases the inner service was not called.
//!
//! # Metrics
//!
//! | metric | type | labels |
//! |---|---|---|
//! | `buttress_limit` | gauge | name, layer = `bulkhead` |
//! | `buttress_in_flight` | gauge | name, layer = `bulkhead` |
//! | `buttress_queue_depth` | gauge | name, layer = `bulkhead` |
//! | `buttress_queue_wait_seconds` | histogram, of the calls that waited | name, layer = `bulkhead`, result = `admitted`, `timeout`, `deadline`, `cancelled` |
//! | `buttress_rejections_total` | counter | name, layer = `bulkhead`, reason = `bulkhead_full`, `queue_timeout`, `deadline_exceeded`; mode |
//!
//! The gauges are the sums over the bulkheads of one name. Calls that know the time publish them every 100 ms. A gauge
//! is published at once when the limit changes, when no call is in flight or waits any longer, and when its value is at
//! least twice or at most half of the published one, and 8 more or less.
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | limit | none | depends on the service |
//! | [`queue`](Config::queue) | 0 | a call that cannot be served now should fail at once, unless bursts are usual |
//! | [`queue_order`](Config::queue_order) | FIFO | fair; a call that waits 20 ms at most gains little from being the newest |
//! | [`queue_wait`](Config::queue_wait) | 100 ms | absorbs a burst |
//! | [`overloaded_wait`](Config::overloaded_wait) | a fifth of `queue_wait` | just long enough to keep the permits in use |
//! | [`overloaded_after`](Config::overloaded_after) | `queue_wait` | a burst that the queue can hold is over by then |
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//! use buttress::{BoxError, BulkheadLayer, Error, ErrorKind};
//! use tokio::time::sleep;
//! use tower::{Service, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let layer = BulkheadLayer::config("inventory", 1).queue(1).build()?;
//! let bulkhead = layer.handle();
//! let mut client = layer.wrap(service_fn(|item: &'static str| async move {
//!     sleep(Duration::from_millis(50)).await;
//!     Ok::<_, BoxError>(format!("12 of {item}"))
//! }));
//! # std::future::poll_fn(|cx| client.poll_ready(cx)).await?;
//! let [first, second] = ["bolts", "nuts"].map(|item| tokio::spawn(client.call(item)));
//! tokio::task::yield_now().await;
//! assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (1, 1));
//!
//! let error = client.call("screws").await.unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::BulkheadFull);
//!
//! assert_eq!(first.await??, "12 of bolts");
//! assert_eq!(second.await??, "12 of nuts");
//! # Ok(())
//! # }
//! ```

mod aimd;
mod config;
mod gate;
mod layer;
mod limit;
mod metrics;
mod part;
mod queue;
mod shared;
mod word;

pub use self::aimd::Aimd;
pub(crate) use self::config::check_limit_is_chosen;
pub use self::config::{Config, Settings};
pub use self::layer::{Bulkhead, BulkheadLayer};
pub use self::limit::{Limit, LimitPolicy, Sample};
pub use self::part::{BulkheadPermit, Handle};
pub use self::queue::QueueOrder;
