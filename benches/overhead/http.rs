//! Requests and responses of HTTP through `http::standard`: values of some 200 bytes, and calls that are over at the
//! end of the response's body.

use std::convert::Infallible;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use buttress::BoxError;
use buttress::http::HttpStandard;
use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::Full;
use tower::layer::util::Identity;
use tower::{Layer, Service};

use crate::rows::{Row, SECOND, Section, six_parts, tower_timeout};
use crate::timed;

type Request = http::Request<Full<Bytes>>;
type Response = http::Response<Frames>;

/// Of a body that needs several polls.
const SEVERAL: u32 = 8;

pub(crate) fn section() -> Section {
    let plain = || standard(|config| config);
    let six = || standard(six_parts);
    Section {
        title: "HTTP, the body read to its end",
        rows: vec![
            row(
                "tower Timeout (the unit)",
                "1",
                tower_timeout(),
                Page::of(1),
            ),
            row("no layer", "", Identity::new(), Page::of(1)),
            row("standard stack", "", plain(), Page::of(1)),
            row("standard stack, 8 frames", "", plain(), Page::of(SEVERAL)),
            row(
                "standard stack, pending once",
                "",
                plain(),
                Page::of(1).pending(),
            ),
            row("six parts in one stack", "", six(), Page::of(1)),
            row(
                "six parts in one stack, 8 frames",
                "",
                six(),
                Page::of(SEVERAL),
            ),
        ],
    }
}

fn standard(
    change: impl FnOnce(HttpStandard) -> HttpStandard,
) -> buttress::http::HttpStandardLayer {
    let config = buttress::http::standard("bench").deadline(SECOND);
    let config = change(config.concurrency_limit(100));
    config.build().expect("is valid")
}

fn row<L, S, B>(name: &'static str, target: &'static str, layer: L, inner: Page) -> Row
where
    L: Layer<Page, Service = S>,
    S: Service<Request, Response = http::Response<B>, Error: Into<BoxError>> + Clone + 'static,
    B: Body,
{
    let frames = inner.frames;
    let service = layer.layer(inner);
    Row::new(name, target, move |calls| {
        let mut service = service.clone();
        timed(calls, |_| assert_eq!(call(&mut service), frames))
    })
}

/// Sends one request, polls the response to its end without a runtime round it, and counts the frames of the body.
fn call<S, B>(service: &mut S) -> u32
where
    S: Service<Request, Response = http::Response<B>, Error: Into<BoxError>>,
    B: Body,
{
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    let mut future = pin!(service.call(black_box(Request::default())));
    let response = loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            break result.unwrap_or_else(|error| panic!("{}", error.into()));
        }
    };
    let mut body = pin!(response.into_body());
    let mut frames = 0;
    while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut context) {
        assert!(frame.is_ok());
        frames += 1;
    }
    frames
}

/// Answers with a body of so many frames, at once or when it is polled a second time.
#[derive(Clone)]
struct Page {
    frames: u32,
    is_pending: bool,
}

impl Page {
    fn of(frames: u32) -> Self {
        Self {
            frames,
            is_pending: false,
        }
    }

    fn pending(self) -> Self {
        Self {
            is_pending: true,
            ..self
        }
    }
}

impl Service<Request> for Page {
    type Response = Response;
    type Error = BoxError;
    type Future = Self;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self {
        drop(black_box(request));
        self.clone()
    }
}

impl Future for Page {
    type Output = Result<Response, BoxError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::take(&mut self.is_pending) {
            return Poll::Pending;
        }
        let left = self.frames;
        Poll::Ready(Ok(Response::new(Frames { left })))
    }
}

/// A body that has all its frames at hand.
#[derive(Default)]
struct Frames {
    left: u32,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(left) = self.left.checked_sub(1) else {
            return Poll::Ready(None);
        };
        self.left = left;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"12 bolts")))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }
}
