//! A bulkhead: bounds the calls in flight.
//!
//! # When to use it
//!
//! In front of a dependency that can be given too much to do, and that is every one. Calls beyond what it can work
//! on wait in its queues, until every answer comes too late to be of use; nothing else in this crate
//! prevents that. A limit on the calls in flight keeps the queue short and refuses the rest at once. Put it inside
//! retry and circuit breaker, so that a wait between two attempts holds no permit and a call that the breaker refuses takes
//! none, and outside the timeout, so that a permit is back when the time is up.
//!
//! Not for a quota: that is per second, and wants a rate limit. The limit is for one process: with ten of them
//! the service gets ten times as many calls.
//!
//! Which limit? By Little's law a service that does 100 calls a second in 50 ms each has 5 in flight. Twice what is
//! in flight at the busiest hour leaves room, and stops what goes beyond. Or let [`Aimd`] find it.
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
//! **Limit.** A number, which can be changed at run time, or one that adapts: [`Aimd`], or a [`LimitPolicy`] of your
//! own, which is told how long each call took (without the time in the queue) and how it ended.
//!
//! **Queue.** Bounded by length and by time. A call waits at most [`queue_wait`](Config::queue_wait). Once the queue has
//! not been empty for `queue_wait`, calls wait at most a fifth of it until the queue is empty. So a burst is got over,
//! and a queue that stands does not hold everybody up. That is the rule of
//! `CoDel` (*Controlling Queue Delay*, Nichols and Jacobson, 2012) in the form that servers use (*Fail at Scale*,
//! Maurer, 2015). A deadline that comes sooner ends the wait. A permit that becomes free is handed to the
//! call whose turn it is, which nobody can forestall. A call takes its place when it is first polled.
//!
//! With 100 calls a second to a service that can do 80, a limit of 15 answers 79 % of them with a median of 198 ms
//! and a 99th percentile of 254 ms, 24 answer 80 % with 308 and 371 ms; with a timeout of 5 s alone
//! it is 61 % with 2.9 and 5.0 s (experiment X10 of `cargo bench --package effectiveness`).
//!
//! # Promises
//!
//! - Never more calls are in flight than the limit, except those that were when it became smaller.
//! - A permit that is free finds the one who waits for it: one is woken for each, and none is lost, whoever is
//!   cancelled when.
//! - A call that is admitted at once takes no lock and allocates nothing; with a fixed limit, 30 of 31 do not read the
//!   clock.
//! - Full is an error at once, never a service that is not ready; no timer is made for it.
//! - While a call waits nothing of the inner service is held for it.
//!
//! # Cancellation
//!
//! Dropping the future of a call gives its permit back, or its place in the queue. A permit that it was handed and does
//! not know of yet goes to the next. The same holds if the inner service or the classifier panics. A
//! [`TrackCompletion`](crate::TrackCompletion) decides how long a call that has its response keeps the permit.
//!
//! A future that waits and is not polled any more, but not dropped either, keeps its place, and a permit that it is
//! handed.
//!
//! # What clones share
//!
//! Everything: all services made by one layer value, or by its clones, share one limit and one queue.
//! [`BulkheadLayer::handle`] reads and steers it. Build a second layer for a second bulkhead.
//!
//! # Cost
//!
//! Two atomic updates of one word, and one reference taken and given back. An adaptive limit reads the clock twice.
//! A call that waits takes short locks and allocates its place and a timer.
//!
//! # Errors
//!
//! - [`ErrorKind::BulkheadFull`](crate::ErrorKind::BulkheadFull): no permit, and no place in the queue.
//! - [`ErrorKind::QueueTimeout`](crate::ErrorKind::QueueTimeout): waited for too long.
//! - [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded): the deadline came while the call waited.
//!
//! The inner service was not asked in any of these cases.
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
//! The gauges are the sums over the bulkheads of one name. They are published every 100 ms, by calls that know the
//! time; and at once when the limit changes, when nothing is in flight or nobody waits any longer, and when there
//! are twice or half as many as is shown, and 8 more or less.
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | limit | none | depends on the service |
//! | [`queue`](Config::queue) | 0 | who cannot be served now should know at once, unless bursts are usual |
//! | [`queue_order`](Config::queue_order) | FIFO | fair; a call that waits 20 ms at most gains little from being the newest |
//! | [`queue_wait`](Config::queue_wait) | 100 ms | gets over a burst |
//! | [`overloaded_wait`](Config::overloaded_wait) | a fifth of `queue_wait` | keeps permits busy, and no more |
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
pub use self::config::{Config, Settings};
pub use self::layer::{Bulkhead, BulkheadLayer};
pub use self::limit::{Limit, LimitPolicy, Sample};
pub use self::part::{BulkheadPermit, Handle};
pub use self::queue::QueueOrder;
