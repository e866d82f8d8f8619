//! Layers whose calls are over at the end of the response body.
#![cfg(feature = "http")]
// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use crate::feed;

use std::convert::Infallible;
use std::future::{Ready, pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use crate::debugging::{DebugValue, DebuggingRecorder};
use buttress::balance::Endpoint;
use buttress::bulkhead::{LimitPolicy, Sample};
use buttress::circuit_breaker::State;
use buttress::http::grpc;
use buttress::http::{BodyTimeoutLayer, Classifier, CompleteOnBodyEnd, ReplayBody, TrackedBody};
use buttress::part::InFlight;
use buttress::{
    Backoff, Balance, BoxError, BulkheadLayer, CircuitBreakerLayer, ConfigError, Error, ErrorKind,
    ErrorsAreFailures, FallbackLayer, HedgeLayer, Jitter, MeasureLayer, Never, Outcome, RetryLayer,
    TimeoutLayer, bulkhead, circuit_breaker, fallback,
};
use bytes::Bytes;
use feed::{Feed, Source, feed};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full};
use tokio::task::yield_now;
use tokio::time::{Instant, advance, sleep};
use tower::util::ServiceFn;
use tower::{Layer, Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

type Echo<B> = ServiceFn<fn(Response<B>) -> Ready<Result<Response<B>, Infallible>>>;

/// Answers a request with what it is.
fn echo<B>() -> Echo<B> {
    service_fn(|response| ready(Ok(response)))
}

/// A response whose body is fed by hand.
fn streamed(status: u16) -> (Source, Response<Feed>) {
    let (source, body) = feed();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    (source, response)
}

async fn call<S, Req>(service: &S, request: Req) -> S::Response
where
    S: Service<Req, Error = Error> + Clone,
{
    service.clone().oneshot(request).await.unwrap()
}

fn bulkhead(limit: usize) -> BulkheadLayer<Classifier, CompleteOnBodyEnd> {
    let config = BulkheadLayer::config("streams", limit).classify(Classifier::new());
    config.completion(CompleteOnBodyEnd).build().unwrap()
}

fn kind(error: &Error) -> ErrorKind {
    error.kind()
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_held_until_the_body_has_been_read() {
    let layer = bulkhead(1);
    let (handle, service) = (layer.handle(), layer.wrap(echo()));
    let (source, response) = streamed(200);
    let mut body = call(&service, response).await.into_body();
    assert_eq!(handle.in_flight(), 1);
    source.send("part");
    assert!(body.frame().await.unwrap().is_ok());
    assert_eq!(handle.in_flight(), 1);
    let refused = service.clone().oneshot(streamed(200).1).await.unwrap_err();
    assert_eq!(kind(&refused), ErrorKind::BulkheadFull);
    drop(source);
    assert!(body.frame().await.is_none());
    assert_eq!(handle.in_flight(), 0, "although the body is still there");
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn wherever_a_body_is_dropped_its_permit_comes_back() {
    let layer = bulkhead(1);
    let (handle, service) = (layer.handle(), layer.wrap(echo()));
    for reads in 0..5 {
        let (source, response) = streamed(200);
        for part in ["one", "two"] {
            source.send(part);
        }
        source.trailers("checksum", "3");
        drop(source);
        let mut body = call(&service, response).await.into_body();
        for _ in 0..reads {
            drop(body.frame().await);
        }
        assert_eq!(handle.in_flight(), usize::from(reads < 3), "{reads}");
        drop(body);
        assert_eq!(handle.in_flight(), 0, "{reads}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_permit_gets_that_of_a_body_that_ends() {
    let config = BulkheadLayer::config("queued streams", 1).queue(1);
    let config = config
        .classify(Classifier::new())
        .completion(CompleteOnBodyEnd);
    let service = config.build().unwrap().wrap(echo());
    let (source, response) = streamed(200);
    let body = call(&service, response).await.into_body();
    let mut waiting = tokio_test::task::spawn(service.oneshot(streamed(200).1));
    assert!(waiting.poll().is_pending());
    drop(source);
    let reader = tokio::spawn(body.collect());
    assert!(reader.await.unwrap().unwrap().to_bytes().is_empty());
    assert!(waiting.is_woken());
    assert!(waiting.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn trailers_and_sizes_pass_as_they_are() {
    let service = bulkhead(1).wrap(echo());
    let (source, response) = streamed(200);
    source.send("part");
    source.trailers("checksum", "3");
    drop(source);
    let body = call(&service, response).await.into_body();
    let collected = body.collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["checksum"], "3");
    assert_eq!(collected.to_bytes(), "part");

    let service = bulkhead(1).wrap(echo());
    let mut body = call(&service, Response::new(Full::<Bytes>::from("part"))).await;
    assert_eq!(body.body().size_hint().exact(), Some(4));
    assert!(!body.body().is_end_stream());
    drop(body.body_mut().frame().await);
    assert_eq!(body.body().size_hint().exact(), Some(0));
    assert!(body.body().is_end_stream());
}

/// Panics when it is polled.
struct Panics;

impl Body for Panics {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("in the body")
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_panics_gives_its_permit_back() {
    let layer = bulkhead(1);
    let (handle, service) = (layer.handle(), layer.wrap(echo()));
    let mut body = call(&service, Response::new(Panics)).await.into_body();
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let mut cx = Context::from_waker(Waker::noop());
        drop(Pin::new(&mut body).poll_frame(&mut cx));
    }));
    assert!(panicked.is_err());
    assert_eq!(handle.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_may_be_read_and_dropped_on_other_threads() {
    let stack = grpc::standard("threads")
        .replay(Never)
        .concurrency_limit(64);
    let stack = stack.build().unwrap();
    let service = stack.wrap(echo());
    let mut threads = Vec::new();
    for reads in 0..32 {
        let (source, response) = streamed(200);
        source.send("part");
        source.trailers("grpc-status", "0");
        let mut body = call(&service, response).await.into_body();
        // Without a runtime.
        threads.push(thread::spawn(move || {
            let mut cx = Context::from_waker(Waker::noop());
            for _ in 0..reads % 4 {
                drop(Pin::new(&mut body).poll_frame(&mut cx));
            }
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    let handle = stack.handle();
    assert_eq!(handle.bulkhead().unwrap().in_flight(), 0);
    drop((service, stack));
}

#[tokio::test(start_paused = true)]
async fn a_body_may_outlive_its_layer() {
    let (source, response) = streamed(200);
    let body = {
        let layer = bulkhead(1);
        call(&layer.wrap(echo()), response).await.into_body()
    };
    source.send("part");
    drop(source);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "part");
}

fn breaker(name: &str) -> CircuitBreakerLayer<grpc::Classifier, CompleteOnBodyEnd> {
    CircuitBreakerLayer::config(name)
        .consecutive_failures(1)
        .slow_calls(2 * SECOND, 0.1)
        .min_calls(1)
        .successes_to_close(1)
        .classify(grpc::Classifier::new())
        .completion(CompleteOnBodyEnd)
        .build()
        .unwrap()
}

/// The state that one call leaves a breaker in, whose body is made by `serve`, and read to the end.
async fn state_after(serve: impl AsyncFnOnce(Source)) -> State {
    let layer = breaker("state");
    let (source, response) = streamed(200);
    let body = call(&layer.wrap(echo()), response).await.into_body();
    assert_eq!(layer.handle().state(), State::Closed);
    let ((), read) = tokio::join!(serve(source), body.collect());
    drop(read);
    layer.handle().state()
}

#[tokio::test(start_paused = true)]
async fn a_breaker_sees_how_the_body_ends() {
    let ends =
        async |status| state_after(async |source| source.trailers("grpc-status", status)).await;
    assert_eq!(ends("0").await, State::Closed);
    assert_eq!(ends("5").await, State::Closed);
    assert_eq!(ends("14").await, State::Open);
    assert_eq!(ends("8").await, State::Closed, "the caller's quota");
    assert_eq!(ends("all is well").await, State::Open);
    let reset = async |source: Source| source.fail("connection reset");
    assert_eq!(state_after(reset).await, State::Open);
    let torn = async |source: Source| assert!(source.send("half a mess"));
    assert_eq!(state_after(torn).await, State::Open, "without a status");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_whoever_writes_the_body_has_met_is_a_plain_error() {
    let refused = async |source: Source| source.fail(Error::refused("mail", None));
    assert_eq!(state_after(refused).await, State::Open);
    // Also if its type is not hidden, and if it comes through several bodies.
    let fails = ready(Some(Err(Error::refused("mail", None))));
    let empty = Empty::<Bytes>::new().map_err(|never| match never {});
    let body = empty.with_trailers(fails);
    let layers = (breaker("checkout"), BodyTimeoutLayer::new("checkout"));
    let service = layers.layer(echo());
    let answer = call(&service, Response::new(body)).await;
    let error = answer.into_body().collect().await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Refused);
    assert!(!error.is_rejection() && error.was_sent(), "{error:?}");
    assert_eq!(layers.0.handle().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_a_slow_call_and_a_long_body_is_none() {
    let long = state_after(async |source: Source| {
        sleep(60 * SECOND).await;
        source.trailers("grpc-status", "0");
    });
    assert_eq!(long.await, State::Closed);

    for (takes, state) in [(SECOND, State::Closed), (3 * SECOND, State::Open)] {
        let layer = breaker("slow");
        let service = layer.wrap(service_fn(async |(takes, response)| {
            sleep(takes).await;
            Ok::<Response<Feed>, Infallible>(response)
        }));
        let (source, response) = streamed(200);
        let body = call(&service, (takes, response)).await.into_body();
        assert_eq!(layer.handle().state(), state, "its end does not matter");
        source.trailers("grpc-status", "0");
        drop(source);
        assert!(body.collect().await.is_ok());
        assert_eq!(layer.handle().state(), state);
    }
}

/// Streams through a closed breaker, one each millisecond, until it opens. Says how many there were.
struct Streams {
    layer: CircuitBreakerLayer<grpc::Classifier, CompleteOnBodyEnd>,
    began: usize,
    lasting: Vec<(Source, Box<dyn std::any::Any>)>,
}

impl Streams {
    fn new(
        change: impl FnOnce(
            circuit_breaker::Config<grpc::Classifier, CompleteOnBodyEnd>,
        ) -> circuit_breaker::Config<grpc::Classifier, CompleteOnBodyEnd>,
    ) -> Self {
        let config = CircuitBreakerLayer::config("streams")
            .classify(grpc::Classifier::new())
            .completion(CompleteOnBodyEnd);
        Self {
            layer: change(config).build().unwrap(),
            began: 0,
            lasting: Vec::new(),
        }
    }

    async fn begin(&mut self, status: u16) -> (Source, impl Body<Error = Error> + use<>) {
        advance(Duration::from_millis(1)).await;
        self.began += 1;
        let (source, response) = streamed(status);
        let response = call(&self.layer.wrap(echo()), response).await;
        (source, response.into_body())
    }

    /// One whose head is this, and which goes on for ever.
    async fn lasts(&mut self, status: u16) {
        let (source, body) = self.begin(status).await;
        self.lasting.push((source, Box::new(body)));
    }

    /// One that ends in this status.
    async fn ends(&mut self, status: &'static str) {
        let (source, body) = self.begin(200).await;
        source.trailers("grpc-status", status);
        drop(source);
        assert!(body.collect().await.is_ok());
    }

    fn is_open(&self) -> bool {
        self.layer.handle().state() == State::Open
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_last_or_are_given_up_weigh_against_those_that_fail() {
    for last in [true, false] {
        for window in [0, 100] {
            let mut streams = Streams::new(|config| match window {
                0 => config,
                calls => config.count_window(calls),
            });
            while streams.began < 3_000 {
                let status = if streams.began % 20 == 0 { 503 } else { 200 };
                streams.lasts(status).await;
                if !last {
                    streams.lasting.clear();
                }
                assert!(!streams.is_open(), "5 % of {} fail", streams.began);
            }
            while !streams.is_open() {
                streams.lasts(503).await;
                assert!(streams.began < 5_000, "none answers");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_off_is_a_failure_and_no_success() {
    for window in [0, 50] {
        let mut streams = Streams::new(|config| match window {
            0 => config,
            calls => config.count_window(calls),
        });
        // As many good ones as fill a window of calls, long before the others.
        for _ in 0..window.max(50) {
            streams.ends("0").await;
        }
        advance(20 * SECOND).await;
        let before = streams.began;
        while !streams.is_open() {
            streams.ends("14").await;
            assert!(streams.began - before < 40, "all fail");
        }
        assert!(streams.began - before >= 20);
    }
}

#[tokio::test(start_paused = true)]
async fn a_good_head_ends_a_row_of_bad_ones_and_only_a_good_end_one_of_broken_answers() {
    let three = || Streams::new(|config| config.consecutive_failures(3).min_calls(1_000));
    let mut streams = three();
    for _ in 0..100 {
        streams.lasts(503).await;
        streams.lasts(503).await;
        streams.lasts(200).await;
    }
    assert!(!streams.is_open(), "the answers last");
    streams.lasts(503).await;
    streams.lasts(503).await;
    assert!(!streams.is_open());
    streams.lasts(503).await;
    assert!(streams.is_open());

    let mut streams = three();
    for _ in 0..100 {
        streams.ends("14").await;
        streams.ends("14").await;
        streams.ends("0").await;
    }
    assert!(!streams.is_open());
    streams.ends("14").await;
    streams.ends("14").await;
    streams.lasts(200).await;
    assert!(!streams.is_open());
    streams.ends("14").await;
    assert!(streams.is_open(), "three answers broke off");
}

/// A breaker that is open after one failure, and over its open time.
async fn half_open(successes: u32) -> CircuitBreakerLayer<grpc::Classifier, CompleteOnBodyEnd> {
    let layer = CircuitBreakerLayer::config("half-open")
        .consecutive_failures(1)
        .slow_calls(2 * SECOND, 0.1)
        .successes_to_close(successes)
        .classify(grpc::Classifier::new())
        .completion(CompleteOnBodyEnd)
        .build()
        .unwrap();
    let (source, response) = streamed(200);
    let body = call(&layer.wrap(echo()), response).await.into_body();
    source.fail("connection reset");
    assert!(body.collect().await.is_err());
    assert_eq!(layer.handle().state(), State::Open);
    advance(3 * SECOND).await;
    layer
}

#[tokio::test(start_paused = true)]
async fn a_half_open_breaker_closes_while_its_probes_are_streams_that_last() {
    let layer = half_open(5).await;
    let service = layer.wrap(echo());
    let mut streams = Vec::new();
    for _ in 0..5 {
        assert_ne!(layer.handle().state(), State::Closed);
        let (source, response) = streamed(200);
        streams.push((source, call(&service, response).await));
    }
    assert_eq!(layer.handle().state(), State::Closed);
    // They were of another time.
    for (source, response) in streams {
        source.fail("connection reset");
        assert!(response.into_body().collect().await.is_err());
    }
    assert_eq!(layer.handle().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_stream_breaks_is_one_failure_and_no_success() {
    let layer = half_open(3).await;
    let (handle, service) = (layer.handle(), layer.wrap(echo()));
    let (first, response) = streamed(200);
    let mut bodies = vec![call(&service, response).await.into_body()];
    let (second, response) = streamed(200);
    bodies.push(call(&service, response).await.into_body());
    let mut read = bodies.into_iter().map(BodyExt::collect);
    first.fail("connection reset");
    assert!(read.next().unwrap().await.is_err());
    assert_eq!(handle.state(), State::HalfOpen, "one each");
    second.trailers("grpc-status", "14");
    drop(second);
    assert!(read.next().unwrap().await.is_ok());
    assert_eq!(handle.state(), State::Open);

    // A head that is a failure counts at once, and once.
    let layer = half_open(5).await;
    let (handle, service) = (layer.handle(), layer.wrap(echo()));
    let (_stream, response) = streamed(200);
    let _body = call(&service, response).await;
    let (source, mut response) = streamed(200);
    let status = "14".parse().unwrap();
    response.headers_mut().insert("grpc-status", status);
    let body = call(&service, response).await.into_body();
    source.fail("connection reset");
    assert!(body.collect().await.is_err());
    assert_eq!(handle.state(), State::HalfOpen, "one each");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_says_nothing_keeps_its_place_until_its_stream_is_over() {
    for is_read in [true, false] {
        let layer = half_open(5).await;
        let (handle, service) = (layer.handle(), layer.wrap(echo()));
        let (source, mut response) = streamed(200);
        let cancelled = "1".parse().unwrap();
        response.headers_mut().insert("grpc-status", cancelled);
        let body = call(&service, response).await.into_body();
        let refused = service.clone().oneshot(streamed(200).1).await;
        assert_eq!(kind(&refused.unwrap_err()), ErrorKind::CircuitOpen);
        drop(source);
        if is_read {
            assert!(body.collect().await.is_ok());
        } else {
            drop(body);
        }
        assert_eq!(handle.state(), State::HalfOpen);
        assert!(service.oneshot(streamed(200).1).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_its_reader_leaves_lying_is_no_failure_of_the_service() {
    let total = BodyTimeoutLayer::config("total").total(10 * SECOND);
    let total = total.build().unwrap();
    for (is_sent, state) in [(true, State::Closed), (false, State::Open)] {
        let layer = CircuitBreakerLayer::config("reader")
            .consecutive_failures(1)
            .classify(Classifier::new())
            .completion(CompleteOnBodyEnd)
            .build()
            .unwrap();
        let service = layer.layer(total.layer(echo()));
        let (source, response) = streamed(200);
        let body = call(&service, response).await.into_body();
        advance(11 * SECOND).await;
        if is_sent {
            source.send("one");
            source.send("two");
        }
        let error = body.collect().await.unwrap_err();
        assert_eq!(kind(&error), ErrorKind::Timeout);
        assert_eq!(layer.handle().state(), state, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_because_its_request_does_is_no_failure_of_the_service() {
    let (source, body) = feed();
    source.fail("the sender has gone away");
    let of_request = ReplayBody::new(body).collect().await.unwrap_err();
    let ends = async |error: BoxError| state_after(async |source: Source| source.fail(error)).await;
    assert_eq!(ends(of_request.into()).await, State::Closed);
    assert_eq!(ends("connection reset".into()).await, State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_head_opens_a_breaker_before_the_body_ends() {
    let layer = CircuitBreakerLayer::config("head first")
        .consecutive_failures(2)
        .classify(Classifier::new())
        .completion(CompleteOnBodyEnd)
        .build()
        .unwrap();
    let service = layer.wrap(echo());
    let (source, response) = streamed(500);
    let body = call(&service, response).await.into_body();
    source.fail("connection reset");
    assert!(body.collect().await.is_err());
    assert_eq!(layer.handle().state(), State::Closed, "it counts once");
    let (_source, response) = streamed(500);
    let _body = call(&service, response).await;
    assert_eq!(layer.handle().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_has_the_status_needs_no_trailers() {
    let layer = breaker("head");
    let service = layer.wrap(echo());
    // Nobody reads the body of such a response.
    for (status, state) in [("14", State::Open), ("0", State::Closed)] {
        let (_source, mut response) = streamed(200);
        let headers = response.headers_mut();
        headers.insert("grpc-status", status.parse().unwrap());
        drop(call(&service, response).await);
        assert_eq!(layer.handle().state(), state, "{status}");
        advance(3 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_given_up_says_nothing_about_the_service() {
    let layer = breaker("given up");
    let service = layer.wrap(echo());
    let (source, response) = streamed(200);
    source.send("part");
    let mut body = call(&service, response).await.into_body();
    drop(body.frame().await);
    drop(body);
    assert_eq!(layer.handle().state(), State::Closed);

    // Half-open, the place of a probe without a head is free again.
    let layer = half_open(5).await;
    let service = layer.wrap(service_fn(|()| {
        pending::<Result<Response<Feed>, BoxError>>()
    }));
    for _ in 0..100 {
        let mut probe = tokio_test::task::spawn(service.clone().oneshot(()));
        assert!(probe.poll().is_pending());
        let refused = service.clone().oneshot(()).await.unwrap_err();
        assert_eq!(kind(&refused), ErrorKind::CircuitOpen);
        assert_eq!(layer.handle().state(), State::HalfOpen);
        drop(probe);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_measured_is_the_whole_answer() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let stack = buttress::http::standard("measured").replay(Never);
    let stack = stack.concurrency_limit(1).build().unwrap();
    let service = stack.wrap(echo());

    let (source, response) = streamed(200);
    let body = call(&service, response).await.into_body();
    let serve = async move {
        for _ in 0..3 {
            source.send("part");
            sleep(SECOND).await;
        }
    };
    let ((), read) = tokio::join!(serve, body.collect());
    assert_eq!(read.unwrap().to_bytes().len(), 12);

    let (source, response) = streamed(200);
    let body = call(&service, response).await.into_body();
    advance(5 * SECOND).await;
    source.fail("connection reset");
    assert!(body.collect().await.is_err());

    let (_source, response) = streamed(200);
    let body = call(&service, response).await.into_body();
    advance(7 * SECOND).await;
    drop(body);

    let mut seen = Vec::new();
    for (key, value) in recorder.snapshotter().snapshot() {
        if let (name, DebugValue::Histogram(values)) = (key.name(), value) {
            assert_eq!(name, "buttress_call_duration_seconds");
            let label = |name| {
                let label = key.labels().find(|label| label.key() == name);
                label.unwrap().value().to_owned()
            };
            seen.push((label("stage"), label("outcome"), values));
        }
    }
    seen.sort_by(|one, other| one.partial_cmp(other).unwrap());
    let expected = ["attempt", "operation"].map(|stage| {
        let row = |outcome: &str, seconds| (stage.to_owned(), outcome.to_owned(), vec![seconds]);
        [
            row("cancelled", 7.0),
            row("failure", 5.0),
            row("success", 3.0),
        ]
    });
    assert_eq!(seen, expected.concat());
}

#[tokio::test(start_paused = true)]
async fn a_balancer_counts_a_stream_as_in_flight_and_its_failure_as_one() {
    let config = Balance::config("streams").classify(Classifier::new());
    let balance = config
        .completion(CompleteOnBodyEnd)
        .build([Endpoint::new("one", echo())])
        .unwrap();
    let handle = balance.handle();
    let status = || handle.endpoint("one").unwrap();

    let (source, response) = streamed(200);
    let body = call(&balance, response).await.into_body();
    assert_eq!(status().in_flight, 1);
    let before = status().load;
    source.fail("connection reset");
    assert!(body.collect().await.is_err());
    assert_eq!(status().in_flight, 0);
    assert!(status().load > 100.0 * before, "{} {before}", status().load);
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_an_hour_does_not_starve_its_endpoint() {
    let endpoints = ["one", "two"].map(|name| {
        let server = service_fn(|response| async move {
            sleep(Duration::from_millis(10)).await;
            Ok::<Response<Feed>, Infallible>(response)
        });
        Endpoint::new(name, server)
    });
    let config = Balance::config("watched")
        .classify(Classifier::new())
        .seed(1);
    let balance = config
        .completion(CompleteOnBodyEnd)
        .build(endpoints)
        .unwrap();
    let handle = balance.handle();
    let status = |name: &str| handle.endpoint(name).unwrap();
    let short = async || {
        for _ in 0..100 {
            let (source, response) = streamed(200);
            let body = call(&balance, response).await.into_body();
            drop(source);
            assert!(body.collect().await.is_ok());
        }
    };
    short().await;

    let (source, response) = streamed(200);
    let body = call(&balance, response).await.into_body();
    let watched = ["one", "two"]
        .into_iter()
        .find(|name| status(name).in_flight == 1);
    let watched = watched.unwrap();
    for _ in 0..60 {
        advance(60 * SECOND).await;
        short().await;
        assert!(status(watched).latency <= Duration::from_millis(15));
    }
    let others = ["one", "two"].map(|name| status(name).load);
    assert!(
        others[0].max(others[1]) < 5.0 * others[0].min(others[1]),
        "{others:?}"
    );

    source.fail("connection reset");
    assert!(body.collect().await.is_err());
    let status = status(watched);
    assert_eq!((status.in_flight, status.failure_share > 0.2), (0, true));
    assert!(status.latency <= Duration::from_millis(15), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_response_gives_its_permit_back_before_the_retry() {
    let layer = bulkhead(1);
    let handle = layer.handle();
    let breaker = CircuitBreakerLayer::config("retried")
        .count_window(10)
        .classify(Classifier::new())
        .completion(CompleteOnBodyEnd)
        .build()
        .unwrap();
    let retry = RetryLayer::config("retried")
        .backoff(Backoff::constant(SECOND).jitter(Jitter::None))
        .replay(|_: &Request<()>| Some(Request::new(())))
        .classify(Classifier::new())
        .build()
        .unwrap();
    let sources = Arc::new(Mutex::new(Vec::new()));
    let service = {
        let sources = Arc::clone(&sources);
        service_fn(move |_: Request<()>| {
            let mut sources = sources.lock().unwrap();
            let (source, response) = streamed(if sources.is_empty() { 500 } else { 200 });
            sources.push(source);
            ready(Ok::<_, BoxError>(response))
        })
    };
    let service = retry.layer(breaker.layer(layer.layer(service)));
    let mut call = tokio_test::task::spawn(service.oneshot(Request::new(())));
    assert!(call.poll().is_pending());
    let source = sources.lock().unwrap()[0].clone();
    assert!(!source.send("too late"), "nobody is there to read it");
    assert_eq!(handle.in_flight(), 0);
    let response = call.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(handle.in_flight(), 1);
}

/// What a limit policy has seen.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Sample>>>);

impl LimitPolicy for Seen {
    fn initial(&self) -> usize {
        10
    }

    fn update(&self, sample: &Sample) -> usize {
        self.0.lock().unwrap().push(*sample);
        sample.limit
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_ours_in_the_body_is_one_to_an_adaptive_limit() -> Result<(), ConfigError> {
    let seen = Seen::default();
    let policy = seen.clone();
    let limit = bulkhead::Limit::policy(move || policy.clone());
    let service = BulkheadLayer::config("adaptive", limit)
        .classify(Classifier::new())
        .completion(CompleteOnBodyEnd)
        .build()?
        .wrap(echo());
    let hangs = service_fn(|()| pending::<Result<(), BoxError>>());
    let timeout = TimeoutLayer::new("body", SECOND).wrap(hangs);
    let timed_out = timeout.oneshot(()).await.unwrap_err();

    for error in [BoxError::from(timed_out), "connection reset".into()] {
        let (source, response) = streamed(200);
        let body = call(&service, response).await.into_body();
        advance(SECOND).await;
        source.fail(error);
        assert!(body.collect().await.is_err());
    }
    let samples = seen.0.lock().unwrap();
    assert_eq!(samples.len(), 2);
    for (sample, timed_out) in samples.iter().zip([true, false]) {
        assert_eq!(
            (sample.outcome, sample.timed_out),
            (Outcome::Failure, timed_out)
        );
        assert_eq!((sample.round_trip, sample.held), (Duration::ZERO, SECOND));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_long_download_is_not_slow_to_an_adaptive_limit() -> Result<(), ConfigError> {
    let (head, seen) = (Duration::from_micros(1_500), Seen::default());
    let policy = seen.clone();
    let limits = [
        bulkhead::Limit::policy(move || policy.clone()),
        bulkhead::Aimd::between(2, 100).slow_calls(SECOND).into(),
    ];
    for limit in limits {
        let layer = BulkheadLayer::config("adaptive", limit)
            .classify(Classifier::new())
            .completion(CompleteOnBodyEnd)
            .build()?;
        let service = layer.wrap(service_fn(async |response| {
            sleep(head).await;
            Ok::<Response<Feed>, Infallible>(response)
        }));
        let initial = layer.handle().limit();
        for _ in 0..5 {
            let (source, response) = streamed(200);
            let body = call(&service, response).await.into_body();
            advance(60 * SECOND).await;
            drop(source);
            assert!(body.collect().await.is_ok());
        }
        assert_eq!(layer.handle().limit(), initial);
    }
    for sample in &*seen.0.lock().unwrap() {
        assert_eq!(
            (sample.outcome, sample.timed_out),
            (Outcome::Success, false)
        );
        assert!((head..SECOND).contains(&sample.round_trip), "{sample:?}");
        assert!(sample.held >= 60 * SECOND, "{sample:?}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_a_fallback_has_a_body_without_a_call() {
    type Answer = Response<TrackedBody<Full<Bytes>, InFlight<(), bulkhead::Handle>, Classifier>>;
    let layer = bulkhead(1);
    let handle = layer.handle();
    let answer = fallback::from_failure(|_: fallback::Failed<'_, Answer>| {
        Some(Response::new(Full::from("none").into()))
    });
    let service = FallbackLayer::new("fallback", answer).layer(layer.layer(service_fn(|()| {
        ready(Err::<Response<Full<Bytes>>, BoxError>(
            "connection reset".into(),
        ))
    })));
    let body = service.oneshot(()).await.unwrap().into_body();
    assert_eq!(handle.in_flight(), 0);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "none");
    assert!(
        TrackedBody::<Empty<Bytes>, InFlight<(), bulkhead::Handle>, Classifier>::default()
            .is_end_stream()
    );
}

#[tokio::test(start_paused = true)]
async fn a_classifier_that_looks_at_errors_only_will_do() {
    let layer = MeasureLayer::operation("errors").classify(ErrorsAreFailures);
    let service = layer.completion(CompleteOnBodyEnd).wrap(echo());
    let (source, response) = streamed(500);
    let body = call(&service, response).await.into_body();
    drop(source);
    yield_now().await;
    assert!(body.collect().await.is_ok());
}

/// Answers with these statuses one after the other, each after a time and with a body that does not end.
fn statuses(
    script: &'static [(u64, u16)],
) -> impl Service<(), Response = Response<Feed>, Error = Infallible, Future: Send> + Clone {
    let calls = Arc::new(Mutex::new((script.iter(), Vec::new())));
    service_fn(move |()| {
        let (lines, sources) = &mut *calls.lock().unwrap();
        let (takes, status) = *lines.next().unwrap();
        let (source, response) = streamed(status);
        sources.push(source);
        async move {
            sleep(Duration::from_millis(takes)).await;
            Ok(response)
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_failed_answer_does_not_keep_the_permit_that_the_next_attempt_of_a_hedge_needs() {
    // At once in place of the one that failed; and beside it, waiting for its permit.
    let scripts: [&[_]; 2] = [&[(1, 503), (1, 200)], &[(20, 503), (1, 200)]];
    for script in scripts {
        let bulkhead = BulkheadLayer::config("db", 1)
            .queue(1)
            .queue_wait(SECOND)
            .overloaded_wait(SECOND)
            .classify(Classifier::new())
            .completion(CompleteOnBodyEnd)
            .build()
            .unwrap();
        let hedge = HedgeLayer::config("db")
            .delay(Duration::from_millis(10))
            .classify(Classifier::new())
            .build()
            .unwrap();
        let client = hedge.layer(bulkhead.layer(statuses(script)));
        let began = Instant::now();
        let response = call(&client, ()).await;
        assert_eq!(response.status(), StatusCode::OK, "{script:?}");
        assert!(began.elapsed() < Duration::from_millis(100), "did not wait");
        assert_eq!(bulkhead.handle().in_flight(), 1);
        drop(response);
        assert_eq!(bulkhead.handle().in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn of_failed_answers_a_hedge_gives_the_last_one_and_drops_no_other_than_it_must() {
    let hedge = |burst| {
        let hedge = HedgeLayer::config("db").delay(Duration::from_millis(10));
        hedge
            .burst(burst)
            .classify(Classifier::new())
            .build()
            .unwrap()
    };
    let both = hedge(10).layer(statuses(&[(1, 500), (1, 502)]));
    assert_eq!(call(&both, ()).await.status(), StatusCode::BAD_GATEWAY);
    // No other attempt is allowed, so there is nothing to wait for.
    let denied = hedge(1).layer(statuses(&[(1, 500), (1, 200), (1, 500)]));
    assert_eq!(call(&denied, ()).await.status(), StatusCode::OK);
    let last = call(&denied, ()).await;
    assert_eq!(last.status(), StatusCode::INTERNAL_SERVER_ERROR);
}
