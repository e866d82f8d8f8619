//! A body that is fed by hand.

#![allow(dead_code, reason = "each test file uses a part of this")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::pin::Pin;
use std::task::{Context, Poll};

use buttress::BoxError;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What comes is what was sent; it ends when the source is dropped.
#[derive(Debug)]
pub(crate) struct Feed(UnboundedReceiver<Part>);

type Part = Result<Frame<Bytes>, BoxError>;

#[derive(Clone, Debug)]
pub(crate) struct Source(UnboundedSender<Part>);

pub(crate) fn feed() -> (Source, Feed) {
    let (sender, receiver) = unbounded_channel();
    (Source(sender), Feed(receiver))
}

impl Source {
    /// Sends a part, and says whether somebody is there to read it.
    pub(crate) fn send(&self, part: impl Into<Bytes>) -> bool {
        self.0.send(Ok(Frame::data(part.into()))).is_ok()
    }

    pub(crate) fn trailers(&self, name: &'static str, value: &'static str) {
        let trailers = HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
        self.0.send(Ok(Frame::trailers(trailers))).unwrap();
    }

    pub(crate) fn fail(&self, error: impl Into<BoxError>) {
        self.0.send(Err(error.into())).unwrap();
    }

    /// Waits until the body has been dropped.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }
}

impl Body for Feed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx)
    }
}
