//! Drain: the calls in flight go on, new calls are refused, and the last end is shown.
//!
//! # When to use it
//!
//! Use it when a process stops, or when you replace a client while it runs. A [server](mod@crate::http::server) always has
//! a drain. A [standard stack](crate::stack), and so each whole client, has one if you build it with `drain`. Drain the
//! servers of a process first, and then its clients, because the calls that servers finish may need the clients.
//!
//! # How it works
//!
//! ```text
//!  drain(within) ─▶ not ready ─▶ new calls are refused ─▶ calls and bodies in flight end ─▶ 0
//!                                                                ╰─▶ `within` has passed ─▶ number of calls in flight
//! ```
//!
//! An operation is in flight from its call until its answer has ended: with the body for whole clients and servers, and
//! with the response for other stacks. Its retries are part of it, so a drain lets them go on. A call that is refused
//! has made no attempt, and its error says that it was [not sent](crate::Cause::was_sent).
//!
//! A drain ends no call. If streams never end, `drain` returns after `within` with their number, and the end of the
//! process cuts them off. Bound streams by a deadline, or let their handlers end at
//! [`is_ready`](Handle::is_ready).
//!
//! # Defaults
//!
//! A stack has no drain, because counting costs two atomic additions in each call. A server has one.
//!
//! # Errors
//!
//! A refused call has an error of the kind [`Draining`](crate::ErrorKind::Draining).
//!
//! # Promises
//!
//! - A drain that returns 0 has waited for all admitted calls.
//! - A refused call makes no attempt.
//! - A drain cannot be undone.
//!
//! # Cancellation
//!
//! A drain begins when the method is called. Dropping its future ends only the wait. A call that is dropped is not in
//! flight any more.
//!
//! # What clones share
//!
//! All services of one layer value, and all clones of a client, share one drain.
//!
//! # Cost
//!
//! Two atomic additions to a word of the thread in each call. Nothing is allocated.
//!
//! # Metrics
//!
//! The [events](crate::event) of the client or the server show the beginning and the end of a drain.
//!
//! | metric | labels |
//! |---|---|
//! | `buttress_rejections_total` | name; layer = `drain`; reason = `draining`; mode |
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//!
//! use buttress::{BoxError, ErrorKind};
//! use tower::{Layer, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let protect = buttress::standard("stock").drain().concurrency_limit(50).build()?;
//! let stock = protect.layer(service_fn(async |bolts: u32| {
//!     tokio::time::sleep(Duration::from_secs(1)).await;
//!     Ok::<_, BoxError>(bolts)
//! }));
//! let call = tokio::spawn(stock.send(12));
//! tokio::task::yield_now().await;
//!
//! let handle = protect.handle();
//! let drain = handle.drain().expect("it was built with `drain`");
//! let drained = drain.drain(Duration::from_secs(20));
//! let refused = stock.send(7).await.expect_err("the stack is draining");
//! assert_eq!(refused.kind(), ErrorKind::Draining);
//!
//! assert_eq!(drained.await, 0);
//! assert_eq!(call.await??, 12);
//! # Ok(())
//! # }
//! ```

mod part;

pub use self::part::{Counted, Handle};
