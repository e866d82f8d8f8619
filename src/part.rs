//! Parts: the algorithms of the layers, and how to write one of your own.
//!
//! # When to use it
//!
//! Write a part to admit or count calls by a rule that no layer of this crate has: by the bytes in flight, by a switch
//! that an operator sets, by a quota that another system grants. You write the decision, and [`PartLayer`] makes a
//! Tower layer of it, with the future, readiness, cancellation, panic handling and `send` of all layers of this crate.
//! The circuit breaker, the rate limit, the bulkhead and the measure are parts, too.
//!
//! Do not use a part to change requests or responses: write a Tower layer. Do not use it to make further attempts or to
//! end a call after a time: put [retry](crate::retry), [hedge](crate::hedge) and [timeout](crate::timeout) around your
//! part.
//!
//! # Examples
//!
//! A limit on the bytes that are uploaded at the same time:
//!
//! ```
//! use std::mem;
//! use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
//! use std::time::Duration;
//!
//! use buttress::part::{Admit, At, Part, PartFor, PartLayer, Record};
//! use buttress::{BoxError, Error, ErrorKind};
//! use tokio::time::sleep;
//! use tower::service_fn;
//!
//! struct UploadLimit {
//!     max_bytes: u64,
//!     in_flight: AtomicU64,
//! }
//!
//! impl Part for UploadLimit {
//!     /// The size of the file.
//!     type Ask = u64;
//!     /// The bytes that the call has in flight.
//!     type Permit = u64;
//!
//!     fn admit(&self, size: u64, permit: &mut u64, _: &At) -> Admit {
//!         let with_it = |bytes: u64| bytes.checked_add(size).filter(|sum| *sum <= self.max_bytes);
//!         if self.in_flight.fetch_update(Relaxed, Relaxed, with_it).is_err() {
//!             return Admit::Refuse(Error::refused("uploads", None));
//!         }
//!         *permit = size;
//!         Admit::Go
//!     }
//!
//!     fn settle(&self, permit: &mut u64, _: &Record<'_>) {
//!         self.in_flight.fetch_sub(mem::take(permit), Relaxed);
//!     }
//! }
//!
//! impl PartFor<Vec<u8>> for UploadLimit {
//!     fn ask(&self, file: &Vec<u8>) -> u64 {
//!         file.len() as u64
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let limit = UploadLimit { max_bytes: 1_000, in_flight: AtomicU64::new(0) };
//! let layer = PartLayer::of("uploads", limit);
//! let storage = layer.wrap(service_fn(|file: Vec<u8>| async move {
//!     sleep(Duration::from_millis(50)).await;
//!     Ok::<_, BoxError>(file.len())
//! }));
//! let (first, second) = tokio::join!(storage.send(vec![0; 600]), storage.send(vec![0; 600]));
//! assert_eq!(first?, 600);
//! assert_eq!(second.unwrap_err().kind(), ErrorKind::Refused);
//! assert_eq!(layer.part().in_flight.load(Relaxed), 0);
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! A part has two calls: [`admit`](Part::admit) before an attempt is sent, and [`settle`](Part::settle) when it is
//! over. In between, the part keeps its facts about the attempt in a *permit*, which is stored in the future of the
//! call.
//!
//! ```text
//!  request ─▶ ask ─▶ admit ── Go ────────────────▶ service ─▶ head of the answer
//!                     │ │                            │          │            │
//!                     │ └ Wait ─▶ poll_turn ─ Go ─▶──┤          │ is all     │ goes on
//!                     │            │   │             │ error,   │            ▼
//!                     │            │   └ Until ─▶ again timeout │          head
//!                     ▼ Refuse     ▼ Refuse          ▼          ▼            ▼ end, error, dropped
//!                  settle        settle            settle     settle       settle
//!
//!  dropped, or a panic, at any point after `ask`: settle
//! ```
//!
//! `settle` receives a [`Record`], which is filled once for each attempt and read by all parts of a stack. It has the
//! outcome by the classifier, the cause of the end, whether the service has seen the request, and the time for which
//! the service had the request. With [`PartLayer::of`] errors are failures, and a call is over when its response is
//! there; [`classify`](PartLayer::classify) and [`completion`](PartLayer::completion) change that.
//!
//! Parts compose. `Option<P>` is a part that may be left out, and `(A, B)` is two parts in one layer, the first one
//! outermost; more of them nest on the right: `(A, (B, C))`. They are admitted from the outside and settled from the
//! inside. If `B` refuses, `A` is settled with [`EndedBy::Refusal`].
//!
//! # Rules
//!
//! A part is correct if it keeps these rules. The compiler checks none of them.
//!
//! - **A permit is plain data, and its default stands for no permit.** It must not give anything back when it is
//!   dropped, because `settle` does that. The permits of an attempt may be moved, and the permits of a call may be
//!   stored in a response body until its end.
//! - **`settle` leaves the default permit.** Take the permit out first ([`std::mem::take`]), then act on it. `settle`
//!   may be called with a default permit, and must then do nothing. It is also called after `admit` has refused.
//! - **Write the permit before you run other code.** If a metrics recorder or a listener panics inside `admit`, the
//!   permit that you have written is settled.
//! - **A permit waits from `Admit::Wait` to the end of the wait.** [`is_waiting`](Part::is_waiting) returns `true` from
//!   then on, and `false` once [`poll_turn`](Part::poll_turn) has returned [`Turn::Go`] or [`Turn::Refuse`]. Take a
//!   place in a queue in `poll_turn` rather than in `admit`, so that a future that is never polled keeps no other call
//!   waiting.
//! - **`poll_turn` ends at the deadline.** While an attempt waits for a part no other timer runs. Bound [`Turn::Until`]
//!   by [`Deadline::current`](crate::Deadline::current) and refuse the attempt when the deadline has passed.
//! - **Call a waker without holding a lock.** The waker may run another task, which may call the same layer.
//!
//! # The clock
//!
//! A part does not read the clock itself but asks [`At`] for the time. `At` reads the clock when it is first asked, at
//! most once in each phase: when a call begins, in each poll of a wait, and when the attempt ends. All parts of a stack
//! share this reading, and without a question there is none. [`Record::nanos`] is measured if a part [is
//! timed](Part::is_timed). `At` reads tokio's clock, so that parts run in virtual time.
//!
//! # Promises
//!
//! - For each `admit` that writes a permit, `settle` receives this permit once, whatever refuses, fails, panics or is
//!   dropped, and in whatever order.
//! - An attempt that waits or was refused holds nothing of the inner service.
//! - `admit` is called in `call`, and `settle` before the caller gets the result, unless a
//!   [completion](crate::TrackCompletion) keeps the call open.
//!
//! # Cancellation
//!
//! Dropping the future of a call settles its permits with [`Outcome::Cancelled`](crate::Outcome::Cancelled) and
//! [`EndedBy::Caller`]. An attempt that ends because another one was faster has [`EndedBy::Hedge`]. Neither says
//! anything about the service, unless the service had enough time for a dropped call: see [calls that end
//! early](crate::circuit_breaker#calls-that-end-early).
//!
//! # What clones share
//!
//! All services made by one layer value, or by its clones, share one part: [`PartLayer::part`] returns it.
//!
//! # Cost
//!
//! One reference taken and given back for all parts of a layer; no allocation, no lock, and no reading of the clock
//! unless a part asks for it. An attempt that has to wait allocates a box for its timer.
//!
//! # Errors
//!
//! [`Error::refused`](crate::Error::refused) makes the error of a refusal, of the kind
//! [`ErrorKind::Refused`](crate::ErrorKind::Refused). Other layers treat it as a rejection: it does not count against
//! the service, and a retry makes no further attempt.
//!
//! # Metrics
//!
//! None for a part of your own. Report what you need through the [`metrics`] facade; to count refusals, put a
//! [`MeasureLayer`](crate::MeasureLayer) around the layer, which counts them as `rejected`. If
//! [`has_gauges`](Part::has_gauges) returns `true`, [`publish`](Part::publish) is called about every 100 ms while there
//! are calls.

pub use crate::chassis::{
    Admit, At, EndedBy, InFlight, LayerConfig, Operation, OperationFuture, OperationLayer,
    OperationPart, Part, PartFor, PartLayer, PartService, Plan, PlanFor, Record, ResponseFuture,
    Sent, Turn,
};
