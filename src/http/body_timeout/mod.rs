//! Timeouts of response bodies. The timeout of a call ends with the head and does not cover the body.
//!
//! # When to use it
//!
//! Put it next to every HTTP or gRPC client, inside its stack. Without it, a server that sends a head and then hangs
//! blocks the reader, a connection and a permit for ever; once as many calls hang as the limit admits, the limit
//! refuses all other calls. In a server, put it inside an [`InheritDeadlineLayer`](super::InheritDeadlineLayer): it
//! ends bodies that the handler does not finish in time.
//!
//! The defaults suit answers that end before the deadline of their operation. [Declare](crate::stack#streams) longer
//! streams, such as server-sent events or a gRPC `Watch`, to the standard stack around this layer. A declared stream
//! may be silent for any time, unless you set `stream_idle`, to somewhat more than the longest pause of a healthy
//! server. Without a standard stack, set `idle` to that time, and `.deadline(false)`. Set `total` if the size of the
//! bodies is known.
//!
//! A retry around this layer does not see the end of the body, because the caller has the response by then.
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
//! `idle` bounds the time for which a reader waits: from the poll that finds no frame until a frame arrives. It does
//! not run while the reader does something else, so a slow reader is not taken for a slow server. `total` runs from the
//! head, whichever side is slow. If the reader is waiting when `total` is over, the server was slow: outer layers that
//! see the body count a failure. If the reader polls after `total` is over and finds a frame, the reader was slow: the
//! call counts as cancelled. Unless [`deadline`](Config::deadline) is `false`, the body also ends at the deadline that
//! the operation had when the head arrived. The first limit that is reached ends the body.
//!
//! The limits of an answer depend on its kind:
//!
//! | answer | longest silence | `total` | deadline |
//! |---|---|---|---|
//! | of HTTP | `idle` | yes | yes |
//! | of gRPC (`content-type: application/grpc`) | `idle` up to the first message, then `stream_idle`, if it is set | yes | yes |
//! | a [declared stream](crate::stack#streams), of HTTP or gRPC | `stream_idle`, if it is set | no | only a deadline that was inherited or set for the call |
//! | an upgraded connection (WebSocket, `CONNECT`) | none | no | no |
//!
//! A declared stream that ends after a silence counts as cancelled, because the service may have had nothing to send.
//! Every other silence is a failure. This layer learns from the stack around it whether a call was declared a stream.
//! Without a stack, and in a server, set [`no_idle`](Config::no_idle) for streams.
//!
//! When a limit is reached, the layer drops the inner body, which closes the connection or resets the stream, and the
//! reader gets an error. If a frame is ready at the same time, the reader gets the frame. The last frame of a body is
//! always delivered when it is ready.
//!
//! # Limits
//!
//! A body can end only when it is polled. Its timer wakes the task that waits for the next frame. A server, however,
//! does not poll a body while its client does not read; only timeouts of the server or of TCP close such a connection.
//!
//! # Promises
//!
//! - A waiting reader gets its error at most one tick of tokio's timer (1 ms) after the limit.
//! - When the reader gets the error, the inner body has been dropped.
//! - A body whose frames are ready at each poll makes no timer, and reads the clock only if there is a `total` or a
//!   deadline.
//!
//! # Cancellation
//!
//! Dropping the body drops the inner body and the timer.
//!
//! # What clones share
//!
//! The settings and the metrics. There is no state.
//!
//! # Cost
//!
//! One allocation when a reader waits for the first time. The timer is boxed, so that the body is `Unpin` if the inner
//! body is.
//!
//! # Errors
//!
//! [`ErrorKind::Timeout`](crate::ErrorKind::Timeout), and
//! [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded) at the deadline, as the error of the body, whose
//! type is [`Error`](crate::Error). For an error of the inner body, the [`Error`](crate::Error) has that error as its
//! source.
//!
//! A tonic client reports such an error in a stream as `Unknown`, with the error as the source of its status:
//! [`Error::find`](crate::Error::find) finds it there. Under a [`RespondLayer`](super::RespondLayer) the client reports
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
//! | [`idle`](Config::idle) | 30 s | no healthy server is silent for 30 s within an answer |
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
