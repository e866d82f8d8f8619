//! Drain: refuses new calls and waits for the calls in flight.
//!
//! # When to use it
//!
//! Use it when a process stops, or when you replace a client while the process runs. A
//! [server](mod@crate::http::server) always has a drain. A [standard stack](crate::stack) or a whole client has one if
//! you build it with `drain`.
//!
//! Drain the servers of a process first, and then its clients, because the calls that servers finish may need the
//! clients.
//!
//! # How it works
//!
//! ```text
//!  drain(within) ─▶ not ready ─▶ new calls are refused ─▶ calls and bodies in flight end ─▶ 0
//!                                                                ╰─▶ `within` has passed ─▶ number of calls in flight
//! ```
//!
//! A call is in flight until its answer has ended. For whole clients and servers the answer ends with its body, for
//! other stacks with the response. A drain lets the retries of a call in flight go on. A refused call makes no
//! attempt, so its error says that the request was [not sent](crate::Cause::was_sent).
//!
//! A drain ends no call. If a stream does not end within `within`, `drain` returns and counts it, and the end of the
//! process cuts it off. Bound streams by a deadline, or let their handlers end when [`is_ready`](Handle::is_ready)
//! returns `false`.
//!
//! # Defaults
//!
//! | | drain | reason |
//! |---|---|---|
//! | stack, whole client | off | each call would cost two more atomic additions |
//! | server | on | a server must finish its calls before its process ends |
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
//! A drain begins when the method is called. Dropping its future ends only the wait, and no event reports the end of
//! the drain. A call that is dropped is no longer in flight.
//!
//! # What clones share
//!
//! All services of one layer value, and all clones of a client, share one drain.
//!
//! # Cost
//!
//! Each call makes two atomic additions to a counter of its thread, and allocates nothing.
//!
//! # Metrics
//!
//! The [events](crate::event) `DrainBegan` and `DrainEnded` report the beginning and the end of a drain.
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
