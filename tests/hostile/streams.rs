//! Bodies: one setting has one meaning, and what a caller does with a body costs others little.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use buttress::circuit_breaker::State;
use buttress::http::{
    BodyTimeoutLayer, HttpStandardLayer, InheritDeadlineLayer, PropagateDeadlineLayer,
    ReplayBodyLayer,
};
use buttress::{BoxError, BulkheadLayer, Deadline};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

use crate::callers::{MS, SECOND, grpc, request};

const FOREVER: Duration = Duration::from_secs(360_000);

/// A body of one byte each `every`, for `time`.
struct Drips {
    every: Duration,
    until: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Drips {
    fn new(every: Duration, time: Duration) -> Self {
        Self {
            every,
            until: Instant::now() + time,
            sleep: Box::pin(sleep(every)),
        }
    }
}

impl Body for Drips {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if Instant::now() >= self.until {
            return Poll::Ready(None);
        }
        ready!(self.sleep.as_mut().poll(cx));
        let next = Instant::now() + self.every;
        self.sleep.as_mut().reset(next);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }
}

#[tokio::test(start_paused = true)]
#[ignore = "the deadline of a stack ends with the head of the answer"]
async fn the_deadline_of_the_first_recipe_covers_the_body() {
    let stack = buttress::http::standard("reports").deadline(2 * SECOND);
    let stack = stack.concurrency_limit(2).build().unwrap();
    let client = stack.wrap(service_fn(async |_: Request<crate::callers::Body>| {
        Ok::<_, BoxError>(Response::new(Drips::new(FOREVER, FOREVER)))
    }));
    for _ in 0..10 {
        let answer = client.clone().oneshot(request("GET")).await.unwrap();
        let body = timeout(3 * SECOND, answer.into_body().collect()).await;
        body.expect("ends at the deadline").unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
#[ignore = "the deadline of a stack is written on the wire for streams, too"]
async fn a_stream_is_not_ended_by_the_deadline_of_the_stack() {
    // A server that keeps to the deadline that it is told.
    let server = service_fn(async |request: Request<crate::callers::Body>| {
        let is_bounded = request.headers().contains_key("grpc-timeout");
        let time = if is_bounded { 2 * SECOND } else { 30 * SECOND };
        Ok::<_, BoxError>(Response::new(Drips::new(500 * MS, time)))
    });
    let stack = grpc("watch").deadline(2 * SECOND);
    let client = ServiceBuilder::new()
        .layer(stack.build().unwrap())
        .layer(BodyTimeoutLayer::new("watch"))
        .layer(PropagateDeadlineLayer::new("watch"))
        .service(server);
    // No way to declare a stream exists yet.
    let mut request = request("POST");
    let headers = request.headers_mut();
    headers.insert("content-type", "application/grpc".parse().unwrap());
    let answer = client.oneshot(request).await.unwrap();
    let began = Instant::now();
    let _end = answer.into_body().collect().await;
    assert!(began.elapsed() >= 29 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn bodies_that_drip_hold_the_permits_of_a_server_for_a_minute_at_most() {
    // A handler that reads the whole request.
    let handler = service_fn(async |request: Request<Drips>| {
        request.into_body().collect().await?;
        Ok::<_, BoxError>(Response::new(crate::callers::Body::default()))
    });
    let limit = BulkheadLayer::config("server", 100).build().unwrap();
    let handle = limit.handle();
    let server = ServiceBuilder::new()
        .layer(InheritDeadlineLayer::new("server"))
        .layer(limit)
        .service(handler);
    let drips = |_| Request::new(Drips::new(SECOND, FOREVER));
    let calls = (0..100)
        .map(drips)
        .map(|request| tokio::spawn(server.clone().oneshot(request)));
    let calls: Vec<_> = calls.collect();
    sleep(59 * SECOND).await;
    assert_eq!(handle.in_flight(), 100);
    sleep(2 * SECOND).await;
    assert_eq!(handle.in_flight(), 0);
    drop(calls);
}

/// The standard stack of uploads with 1 s for an answer.
fn uploads() -> HttpStandardLayer {
    let stack = buttress::http::standard("uploads").timeout(SECOND);
    stack.no_retry().unlimited().build().unwrap()
}

/// A service that reads this many frames of an upload, and then does not answer for `time`.
fn reads<B>(
    frames: usize,
    time: Duration,
) -> impl Service<
    Request<B>,
    Response = Response<crate::callers::Body>,
    Error = BoxError,
    Future: Send + 'static,
> + Clone
where
    B: Body<Error: Send, Data: Send> + Send + Unpin + 'static,
{
    service_fn(move |request: Request<B>| async move {
        let mut body = request.into_body();
        for _ in 0..frames {
            if body.frame().await.is_none() {
                break;
            }
        }
        sleep(time).await;
        Ok(Response::default())
    })
}

#[tokio::test(start_paused = true)]
async fn an_upload_may_take_longer_than_the_answer() {
    let client = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new())
        .layer(uploads())
        .service(reads(usize::MAX, 900 * MS));
    let upload = Request::new(Drips::new(100 * MS, 5 * SECOND));
    client.oneshot(upload).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_service_that_takes_no_more_of_an_upload_is_given_up_after_the_timeout() {
    // It takes nothing of 50 bytes; half of them; all of them; and learns of the end.
    for (frames, seconds) in [(0, 1.0), (25, 3.5), (50, 6.0), (51, 6.0)] {
        let client = ServiceBuilder::new()
            .layer(ReplayBodyLayer::new())
            .layer(uploads())
            .service(reads(frames, FOREVER));
        let (began, upload) = (Instant::now(), Drips::new(100 * MS, 5 * SECOND));
        client.oneshot(Request::new(upload)).await.unwrap_err();
        let took = began.elapsed().as_secs_f64();
        assert!((took - seconds).abs() < 0.11, "{frames} {took}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_pauses_its_upload_is_no_slow_service() {
    let client = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new())
        .layer(uploads())
        .service(reads(usize::MAX, 900 * MS));
    let upload = Request::new(Drips::new(3 * SECOND, 8 * SECOND));
    client.oneshot(upload).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn callers_that_leave_in_the_middle_of_an_upload_do_not_open_the_breaker() {
    let stack = uploads();
    let client = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new())
        .layer(stack.clone())
        .service(reads(usize::MAX, Duration::ZERO));
    for _ in 0..40 {
        let upload = Request::new(Drips::new(10 * MS, FOREVER));
        timeout(500 * MS, client.clone().oneshot(upload))
            .await
            .unwrap_err();
    }
    let handle = stack.handle();
    assert_eq!(handle.circuit_breaker().unwrap().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn callers_with_slow_uploads_do_not_open_the_breaker_for_others() {
    let client = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new())
        .layer(uploads())
        .service(reads(usize::MAX, 20 * MS));
    let mut calls = Vec::new();
    for number in 0..2_000 {
        let time = if number % 10 < 7 { 5 * SECOND } else { MS };
        let upload = Request::new(Drips::new(100 * MS, time));
        calls.push(tokio::spawn(client.clone().oneshot(upload)));
        sleep(10 * MS).await;
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_an_upload_and_does_not_read_it_is_given_up_after_the_timeout() {
    let server = service_fn(async |_request: Request<Drips>| {
        sleep(FOREVER).await;
        Ok::<_, BoxError>(Response::new(crate::callers::Body::default()))
    });
    let stack = buttress::http::standard("uploads").replay(buttress::Never);
    let stack = stack.timeout(SECOND).no_retry().unlimited();
    let client = stack.build().unwrap().wrap(server);
    let (began, upload) = (
        Instant::now(),
        Request::new(Drips::new(100 * MS, 5 * SECOND)),
    );
    client.oneshot(upload).await.unwrap_err();
    assert!(began.elapsed() <= 2 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn callers_that_bring_too_little_time_for_a_body_do_not_open_the_breaker() {
    let server = service_fn(async |_: Request<crate::callers::Body>| {
        Ok::<_, BoxError>(Response::new(Drips::new(10 * MS, 20 * MS)))
    });
    let stack = buttress::http::standard("reports")
        .unlimited()
        .build()
        .unwrap();
    let client = ServiceBuilder::new()
        .layer(stack.clone())
        .layer(BodyTimeoutLayer::new("reports"))
        .service(server);
    for number in 0..400 {
        let call = client.clone().oneshot(crate::callers::get("/"));
        let read = async { call.await.unwrap().into_body().collect().await.is_ok() };
        let is_patient = number % 10 >= 7;
        let time = if is_patient { SECOND } else { 12 * MS };
        assert_eq!(Deadline::after(time).scope(read).await, is_patient);
    }
    let handle = stack.handle();
    assert_eq!(handle.circuit_breaker().unwrap().state(), State::Closed);
}
