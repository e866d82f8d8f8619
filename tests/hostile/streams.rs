//! Bodies: one setting has one meaning, and what a caller does with a body costs others little.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use buttress::circuit_breaker::State;
use buttress::http::{
    BodyTimeoutLayer, HttpStandardLayer, HttpStreams, InheritDeadlineLayer, PropagateDeadlineLayer,
    ReplayBody, ReplayBodyLayer,
};
use buttress::{BoxError, BulkheadLayer, CallOptions, Deadline, ErrorKind, Rate, Stage};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

use crate::callers::{MS, SECOND, grpc, request};
use crate::feed::{Feed, feed};

const FOREVER: Duration = Duration::from_secs(360_000);

/// A body of one byte each `every`, for `time`.
#[derive(Debug)]
struct Drips {
    every: Duration,
    until: Instant,
    sleep: Pin<Box<Sleep>>,
    /// The status of gRPC at the end.
    code: Option<&'static str>,
}

impl Drips {
    fn new(every: Duration, time: Duration) -> Self {
        Self {
            every,
            until: Instant::now() + time,
            sleep: Box::pin(sleep(every)),
            code: None,
        }
    }

    fn ending_with(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
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
            let trailer = |code: &str| ("grpc-status".parse().unwrap(), code.parse().unwrap());
            let trailers = self
                .code
                .take()
                .map(|code| HeaderMap::from_iter([trailer(code)]));
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        ready!(self.sleep.as_mut().poll(cx));
        let next = Instant::now() + self.every;
        self.sleep.as_mut().reset(next);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }
}

#[tokio::test(start_paused = true)]
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
async fn a_server_that_stalls_after_the_head_frees_everything_at_the_deadline() {
    let server = service_fn(async |_: Request<crate::callers::Body>| {
        Ok::<_, BoxError>(Response::new(Drips::new(900 * MS, FOREVER)))
    });
    let stack = buttress::http::standard("reports").deadline(2 * SECOND);
    let stack = stack.concurrency_limit(1).build().unwrap();
    let handle = stack.handle();
    let in_flight = || handle.bulkhead().unwrap().in_flight();
    let client = stack.wrap(server);
    let began = Instant::now();
    let answer = client.send(request("GET")).await.unwrap();
    let mut body = answer.into_body();
    for _ in 0..2 {
        body.frame().await.unwrap().unwrap();
    }
    let is_held = body.get_ref().is_some();
    assert_eq!((is_held, in_flight()), (true, 1));
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(began.elapsed(), 2 * SECOND);
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(error.stage(), Stage::WholeAnswer);
    assert_eq!(
        error.to_string(),
        "\"reports\" did not finish by its deadline"
    );
    // The reader keeps what it has.
    assert_eq!((body.get_ref().is_some(), in_flight()), (false, 0));
    assert!(body.frame().await.is_none() && body.is_end_stream());
    client.send(request("GET")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_its_time_over_what_is_there_holds_nothing_after_the_deadline() {
    let server = service_fn(async |_: Request<crate::callers::Body>| {
        let frame = || Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"x")));
        let always = futures::stream::repeat_with(frame);
        Ok::<_, BoxError>(Response::new(StreamBody::new(always)))
    });
    let stack = buttress::http::standard("reports").deadline(2 * SECOND);
    let stack = stack.concurrency_limit(1).build().unwrap();
    let handle = stack.handle();
    let answer = stack.wrap(server).send(request("GET")).await.unwrap();
    let mut body = answer.into_body();
    let mut read = 0;
    let error = loop {
        match body.frame().await.unwrap() {
            Ok(_) => read += 1,
            Err(error) => break error,
        }
        sleep(SECOND).await;
    };
    // At 0, 1 and 2 s.
    assert_eq!(read, 3);
    assert_eq!(
        (error.kind(), error.stage()),
        (ErrorKind::DeadlineExceeded, Stage::Reader)
    );
    assert_eq!(error.to_string(), "the answer of \"reports\" was not read");
    let in_flight = handle.bulkhead().unwrap().in_flight();
    assert_eq!((body.get_ref().is_some(), in_flight), (false, 0));
}

/// A server that keeps to the deadline that it is told, and ends a call with that status of gRPC.
fn obeys(request: &Request<crate::callers::Body>) -> Response<Drips> {
    let told = request.headers().get("grpc-timeout");
    let micros = |told: &HeaderValue| told.to_str().unwrap().trim_end_matches('u').parse();
    let told = told.map(|told| Duration::from_micros(micros(told).unwrap()));
    let time = told.unwrap_or(30 * SECOND);
    let code = if told.is_some() { "4" } else { "0" };
    Response::new(Drips::new(500 * MS, time).ending_with(code))
}

fn watch() -> Request<crate::callers::Body> {
    let mut request = request("POST");
    let content_type = "application/grpc".parse().unwrap();
    request.headers_mut().insert("content-type", content_type);
    request
        .extensions_mut()
        .insert(CallOptions::new().stream(true));
    request
}

/// Returns how long the answer goes on, and how it ends.
async fn read<B: Body<Data = Bytes>>(answer: Response<B>) -> (Duration, Result<(), B::Error>) {
    let began = Instant::now();
    let end = answer.into_body().collect().await;
    (began.elapsed(), end.map(drop))
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_not_ended_by_the_deadline_of_the_stack() {
    // A server that keeps to the deadline that it is told.
    let server = service_fn(async |request: Request<crate::callers::Body>| {
        Ok::<_, BoxError>(obeys(&request))
    });
    let stack = grpc("watch").deadline(2 * SECOND);
    let client = ServiceBuilder::new()
        .layer(stack.build().unwrap())
        .layer(BodyTimeoutLayer::new("watch"))
        .layer(PropagateDeadlineLayer::new("watch"))
        .service(server);
    let (time, end) = read(client.clone().oneshot(watch()).await.unwrap()).await;
    assert!(time >= 29 * SECOND, "{time:?}");
    end.unwrap();

    // One that is not declared is.
    let mut request = watch();
    request.extensions_mut().remove::<CallOptions>();
    let (time, _) = read(client.oneshot(request).await.unwrap()).await;
    assert_eq!(time, 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_mark_of_a_request_wins_over_the_declaration_of_the_stack() {
    let server = service_fn(async |_: Request<crate::callers::Body>| {
        Ok::<_, BoxError>(Response::new(Drips::new(500 * MS, 30 * SECOND)))
    });
    for (declared, mark, ends) in [
        (true, Some(false), 2),
        (true, None, 30),
        (false, Some(true), 30),
        (false, None, 2),
    ] {
        let stack = grpc("watch").deadline(2 * SECOND);
        let stack = stack.streaming(move |_: &Request<crate::callers::Body>| declared);
        let mut request = watch();
        match mark {
            Some(mark) => request
                .extensions_mut()
                .insert(CallOptions::new().stream(mark)),
            None => request.extensions_mut().remove::<CallOptions>(),
        };
        let client = stack.build().unwrap().wrap(server);
        let (time, _) = read(client.oneshot(request).await.unwrap()).await;
        assert_eq!(time.as_secs(), ends, "{declared} {mark:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_with_an_inherited_deadline_is_ended_by_it_and_the_server_is_told() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let server = service_fn(|request: Request<crate::callers::Body>| {
        let header = request.headers().get("grpc-timeout").cloned();
        told.lock().unwrap().push(header);
        let answer = Response::new(Drips::new(700 * MS, FOREVER));
        std::future::ready(Ok::<_, BoxError>(answer))
    });
    let stack = grpc("watch").deadline(2 * SECOND);
    let stack = stack.streaming(HttpStreams::new().paths(|path| path == "/"));
    let client = ServiceBuilder::new()
        .layer(stack.build().unwrap())
        .layer(PropagateDeadlineLayer::new("watch"))
        .service(server);
    let mut request = watch();
    request.extensions_mut().remove::<CallOptions>();
    let call = Deadline::after(9 * SECOND).scope(client.oneshot(request));
    let (time, end) = read(call.await.unwrap()).await;
    assert_eq!(time, 9 * SECOND);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    let told = told.lock().unwrap();
    assert_eq!(told[..], [Some("9000000u".parse().unwrap())]);
}

#[tokio::test(start_paused = true)]
async fn the_response_timeout_is_never_on_the_wire() {
    let server = service_fn(async |request: Request<crate::callers::Body>| {
        let told = request.headers().get("x-request-timeout-ms");
        let told = told.map(|told| told.to_str().unwrap().to_owned());
        Ok::<_, BoxError>(Response::new(told.unwrap_or_default()))
    });
    let with = |streams| {
        let stack = buttress::http::standard("reports").response_timeout(3 * SECOND);
        stack.unlimited().streaming(streams)
    };
    let stack = || with(HttpStreams::new());
    let streaming = || with(HttpStreams::new().all());
    for (stack, told) in [
        (stack(), ""),
        (stack().deadline(5 * SECOND), "5000"),
        (streaming(), ""),
        (streaming().deadline(5 * SECOND), ""),
    ] {
        let client = ServiceBuilder::new()
            .layer(stack.build().unwrap())
            .layer(PropagateDeadlineLayer::new("reports"))
            .service(server);
        let answer = client.oneshot(request("GET")).await.unwrap();
        let body = answer.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), told);
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_end_for_time_do_not_open_the_breaker() {
    let stack = grpc("watch").streaming(HttpStreams::new().all());
    let stack = stack.concurrency_limit(50).build().unwrap();
    let idle = BodyTimeoutLayer::config("watch").stream_idle(SECOND);
    let idle = idle.deadline(false).build().unwrap();
    let (late, silent) = (ErrorKind::DeadlineExceeded, ErrorKind::Timeout);
    // The server says that time is up, the stack does, or the stream falls silent.
    for (every, time, lasts, end) in [
        (500 * MS, 5 * SECOND, 5 * SECOND, Ok(())),
        (500 * MS, FOREVER, 9 * SECOND, Err(late)),
        (5 * SECOND, FOREVER, SECOND, Err(silent)),
    ] {
        let server = service_fn(async |_: Request<crate::callers::Body>| {
            Ok::<_, BoxError>(Response::new(Drips::new(every, time).ending_with("4")))
        });
        let client = ServiceBuilder::new()
            .layer(stack.clone())
            .layer(idle)
            .service(server);
        // All at once, so that the breaker remembers each.
        let calls = (0..30).map(|_| async {
            let call = Deadline::after(9 * SECOND).scope(client.clone().oneshot(watch()));
            read(call.await.expect("a head")).await
        });
        for (lasted, ended) in futures::future::join_all(calls).await {
            assert_eq!(ended.map_err(|error| error.kind()), end);
            assert!(lasted.abs_diff(lasts) <= 500 * MS, "{lasted:?} {end:?}");
        }
        let breaker = stack.handle().circuit_breaker().unwrap().clone();
        assert_eq!(breaker.state(), State::Closed, "{end:?}");
        assert_eq!(stack.handle().bulkhead().unwrap().in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_response_timeout_ends_a_wait_in_queues_before_anything_was_sent() {
    let stack = buttress::http::standard("reports").response_timeout(2 * SECOND);
    let stack = stack.bulkhead(1, |bulkhead| {
        let bulkhead = bulkhead.queue(5).queue_wait(1_900 * MS);
        bulkhead.overloaded_wait(1_900 * MS)
    });
    let stack = stack.rate_limit(Rate::per_second(1), |limit| {
        limit.burst(1).max_wait(1_900 * MS)
    });
    let stack = stack.no_circuit_breaker().build().unwrap();
    let handle = stack.handle();
    let client = stack.wrap(service_fn(async |_: Request<crate::callers::Body>| {
        Ok::<_, BoxError>(Response::new(Drips::new(FOREVER, FOREVER)))
    }));
    // Its body takes up the only slot.
    let first = client.send(request("GET")).await.unwrap();
    let began = Instant::now();
    let error = client.send(request("GET")).await.unwrap_err();
    assert_eq!(
        (error.stage(), error.was_sent(), began.elapsed()),
        (Stage::AllAttempts, false, 2 * SECOND)
    );
    let bulkhead = handle.bulkhead().unwrap();
    assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (1, 0));
    drop(first);
    // An attempt that was let in after a wait has its own timeout.
    let stack = buttress::http::standard("reports")
        .timeout(500 * MS)
        .no_retry()
        .unlimited();
    let stack = stack.rate_limit(Rate::per_second(1), |limit| {
        limit.burst(1).max_wait(1_900 * MS)
    });
    let stack = stack.no_circuit_breaker().build().unwrap();
    let client = stack.wrap(service_fn(async |_: Request<crate::callers::Body>| {
        std::future::pending::<Result<Response<crate::callers::Body>, BoxError>>().await
    }));
    let began = Instant::now();
    let calls = tokio::join!(client.send(request("GET")), client.send(request("GET")));
    assert_eq!(calls.1.unwrap_err().stage(), Stage::Call);
    assert_eq!(began.elapsed(), 1_500 * MS);
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
async fn a_service_that_drops_an_upload_it_waits_for_is_given_up_after_the_timeout() {
    let server = service_fn(|request: Request<ReplayBody<Drips>>| async move {
        drop(timeout(500 * MS, request.into_body().collect()).await);
        sleep(FOREVER).await;
        Ok::<_, BoxError>(Response::new(crate::callers::Body::default()))
    });
    let client = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new())
        .layer(uploads())
        .service(server);
    let (began, upload) = (Instant::now(), Drips::new(FOREVER, FOREVER));
    let call = timeout(60 * SECOND, client.oneshot(Request::new(upload)));
    call.await.unwrap().unwrap_err();
    assert_eq!(began.elapsed(), 1_500 * MS);
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_the_end_of_an_upload_took_the_time_since_the_last_part() {
    let server = service_fn(|request: Request<ReplayBody<Feed>>| async move {
        drop(timeout(800 * MS, request.into_body().collect()).await);
        Ok::<_, BoxError>(Response::new(crate::callers::Body::default()))
    });
    let stack = buttress::http::standard("uploads").timeout(SECOND);
    let stack = stack.circuit_breaker(|breaker| breaker.slow_calls(500 * MS, 0.5));
    let stack = stack.no_retry().unlimited().build().unwrap();
    let client = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new())
        .layer(stack.clone())
        .service(server);
    let calls = (0..40).map(|_| async {
        let (source, body) = feed();
        assert!(source.send("part"));
        drop(client.clone().oneshot(Request::new(body)).await);
    });
    futures::future::join_all(calls).await;
    let handle = stack.handle();
    assert_eq!(handle.circuit_breaker().unwrap().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn an_upload_is_no_slowness_that_is_hedged() {
    for (time, expected) in [(200 * MS, 1), (400 * MS, 2)] {
        let sent = Arc::new(AtomicU32::new(0));
        let (seen, server) = (Arc::clone(&sent), reads(usize::MAX, time));
        let server = service_fn(move |request| {
            seen.fetch_add(1, Relaxed);
            server.clone().oneshot(request)
        });
        let stack = buttress::http::standard("uploads").timeout(SECOND);
        let stack = stack.hedge(|hedge| hedge.delay(300 * MS));
        let client = ServiceBuilder::new()
            .layer(ReplayBodyLayer::new())
            .layer(stack.no_retry().unlimited().build().unwrap())
            .service(server);
        let upload = Request::new(Drips::new(100 * MS, 2 * SECOND));
        client.oneshot(upload).await.unwrap();
        assert_eq!(sent.load(Relaxed), expected, "{time:?}");
    }
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
async fn an_upload_that_tells_no_progress_has_one_timeout_with_its_answer() {
    let stack = buttress::http::standard("uploads").replay(buttress::Never);
    let stack = stack.timeout(SECOND).no_retry().unlimited();
    let server = reads::<Drips>(usize::MAX, Duration::ZERO);
    let client = stack.build().unwrap().wrap(server);
    let send = |time| client.send(Request::new(Drips::new(100 * MS, time)));
    send(900 * MS).await.unwrap();
    let began = Instant::now();
    let error = send(5 * SECOND).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(began.elapsed(), SECOND);
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
