//! Timeouts of response bodies, which a timeout of the call does not cover: it is over with the head.
//!
//! # When to use it
//!
//! Next to every HTTP or gRPC client, inside its stack. Without it a server that sends a head and then hangs holds the
//! reader, a connection and a permit for ever; once as many calls hang as the limit admits, the limit refuses all others.
//! In a server, inside an [`InheritDeadlineLayer`](super::InheritDeadlineLayer), it ends bodies that the handler does not
//! finish in time.
//!
//! The defaults suit answers that are part of their operation. Streams that are meant to outlast it, such as server-sent
//! events or a gRPC `Watch`, are [declared](crate::stack#streams) to the standard stack around this layer. They may then be
//! silent for any time, unless `stream_idle` is set: to somewhat more than the longest pause that a healthy server makes.
//! Without a standard stack set `idle` to that time, and `.deadline(false)`. Set `total` where bodies have a size that is known.
//!
//! A retry around it does not see the end of the body: the head was delivered.
//!
//! # How it works
//!
//! ```text
//!          head
//! total     |----------------------------------------------------|
//! body      |frame|······wait······|frame|          |frame|··wait··|frame|
//! idle            |---- 5 s ----|                         |---- 5 s ----|
//! reader                                 (is busy)
//! ```
//!
//! `idle` is the time for which a reader waits: from the poll that finds no frame until one comes. While the reader does
//! something else no clock runs, so a slow reader is not taken for a slow server. `total` runs from the head, whoever is
//! slow. When it is over, a reader that waits has a slow server, which is a failure to layers outside that see the body; one
//! that comes too late and finds a frame was slow itself, and the call counts as cancelled. Unless
//! [`deadline`](Config::deadline) is `false`, the body also ends at the deadline of the operation, as it was when the head
//! came. The first limit that is reached counts.
//!
//! The limits of an answer depend on its kind:
//!
//! | answer | longest silence | `total` | deadline |
//! |---|---|---|---|
//! | of HTTP | `idle` | yes | yes |
//! | of gRPC (`content-type: application/grpc`) | `idle` up to the first message, then `stream_idle`, if it is set | yes | yes |
//! | a [declared stream](crate::stack#streams), of HTTP or gRPC | `stream_idle`, if it is set | no | only one that was inherited or set for the call |
//! | an upgraded connection (WebSocket, `CONNECT`) | none | no | no |
//!
//! A declared stream that ends for silence counts as cancelled, because the service may have had nothing to say. Every other
//! silence is a failure. The stack around this layer is what knows whether a call was declared a stream. Without a stack, and in
//! a server, set [`no_idle`](Config::no_idle) for answers that are streams.
//!
//! When time is up, the body inside is dropped, which closes the connection or resets the stream, and the reader gets an
//! error. A frame that is due at the same time wins, and so does the last frame of a body when it is there.
//!
//! # Limits
//!
//! A body is ended when it is polled. Its timer wakes the task that waits for the next frame, but a server does not poll a
//! body while its client does not read: only timeouts of the server or of TCP close such a connection.
//!
//! # Promises
//!
//! - A reader that waits gets its error at most one tick of tokio's timer (1 ms) after time is up.
//! - Nothing that the body held is held when the reader sees the error.
//! - A body whose frames are there when they are asked for makes no timer, and reads the clock only if there is a `total` or a
//!   deadline.
//!
//! # Cancellation
//!
//! Dropping the body drops the one inside, and the timer.
//!
//! # What clones share
//!
//! The settings and the metrics. There is no state.
//!
//! # Cost
//!
//! One allocation when a reader has to wait for the first time, so that the body is `Unpin` if the one inside is.
//!
//! # Errors
//!
//! [`ErrorKind::Timeout`](crate::ErrorKind::Timeout), and [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded) at the deadline,
//! as the error of the body, whose type is [`Error`](crate::Error). An error of the body inside is the source of such an error.
//!
//! A tonic client inside whose stream this happens makes `Unknown` of it, with this error as the source of its status:
//! [`Error::find`](crate::Error::find) tells it from others. Under a [`RespondLayer`](super::RespondLayer) it sees
//! `DeadlineExceeded`.
//!
//! # Metrics
//!
//! | metric | labels |
//! |---|---|
//! | `buttress_timeouts_total` | name, layer = body |
//!
//! # Defaults
//!
//! | setting | default | reason |
//! |---|---|---|
//! | [`idle`](Config::idle) | 30 s | no healthy server is silent for so long within an answer |
//! | [`stream_idle`](Config::stream_idle) | none | a stream reports events, and there may be none for hours |
//! | [`deadline`](Config::deadline) | true | a deadline is for the whole answer |
//! | [`total`](Config::total) | none | depends on the size of the body |
//!
//! # Examples
//!
//! ```
//! use std::convert::Infallible;
//! use std::pin::Pin;
//! use std::task::{Context, Poll};
//! use std::time::Duration;
//!
//! use buttress::http::BodyTimeoutLayer;
//! use buttress::{BoxError, Error, ErrorKind};
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body::Frame;
//! use http_body_util::BodyExt;
//! use tower::{Service, ServiceBuilder, service_fn};
//!
//! /// A body that never comes.
//! struct Hangs;
//!
//! impl http_body::Body for Hangs {
//!     type Data = Bytes;
//!     type Error = Infallible;
//!
//!     fn poll_frame(
//!         self: Pin<&mut Self>,
//!         _: &mut Context<'_>,
//!     ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
//!         Poll::Pending
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let timeout = BodyTimeoutLayer::config("inventory")
//!     .idle(Duration::from_secs(5))
//!     .total(Duration::from_secs(60))
//!     .build()?;
//! let mut client = ServiceBuilder::new()
//!     .layer(timeout)
//!     .service(service_fn(|_: Request<()>| async {
//!         Ok::<_, BoxError>(Response::new(Hangs))
//!     }));
//! # std::future::poll_fn(|cx| client.poll_ready(cx)).await?;
//! let response = client.call(Request::new(())).await?;
//! let error = response.into_body().collect().await.unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Timeout);
//! # Ok(())
//! # }
//! ```

mod body;
mod config;
mod layer;

pub use self::body::TimeoutBody;
pub use self::config::Config;
pub use self::layer::{BodyTimeout, BodyTimeoutLayer, ResponseFuture};
