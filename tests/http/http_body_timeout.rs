//! Bodies of responses that take too long, in paused time.

#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use crate::debugging::{DebugValue, DebuggingRecorder};
use buttress::http::{BodyTimeoutLayer, TimeoutBody};
use buttress::{BoxError, Deadline, DeadlineLayer, Error, ErrorKind};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, Sleep, advance, sleep};
use tower::limit::ConcurrencyLimit;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// A body whose frames come each after a time, counted from when it is polled first after the one before. `None` panics.
struct Paced {
    frames: VecDeque<Option<Duration>>,
    sleep: Option<Pin<Box<Sleep>>>,
    drops: Arc<AtomicU32>,
}

impl Paced {
    fn new(frames: impl IntoIterator<Item = Duration>) -> Self {
        Self {
            frames: frames.into_iter().map(Some).collect(),
            sleep: None,
            drops: Arc::default(),
        }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(next) = self.frames.front().copied() else {
            return Poll::Ready(None);
        };
        let after = next.expect("as asked");
        if !after.is_zero() {
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(after)));
            ready!(sleep.as_mut().poll(cx));
        }
        self.sleep = None;
        self.frames.pop_front();
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"bolt")))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(4 * self.frames.len() as u64)
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

/// Gets the body of a response through the layer.
async fn get(layer: &BodyTimeoutLayer, body: Paced) -> TimeoutBody<Paced> {
    let mut body = Some(body);
    let service = service_fn(move |_: Request<()>| {
        let body = body.take().unwrap();
        ready(Ok::<_, BoxError>(Response::new(body)))
    });
    let mut service = tower::Layer::layer(layer, service_fn_clone(service));
    let response = service.ready().await.unwrap().call(Request::new(()));
    response.await.unwrap().into_body()
}

/// Lets a service that is called once be wrapped.
fn service_fn_clone<S>(
    service: S,
) -> impl Service<Request<()>, Response = Response<Paced>, Error = BoxError> + Clone
where
    S: Service<Request<()>, Response = Response<Paced>, Error = BoxError>,
{
    let service = Arc::new(std::sync::Mutex::new(service));
    service_fn(move |request| service.lock().unwrap().call(request))
}

fn idle(timeout: Duration) -> BodyTimeoutLayer {
    let config = BodyTimeoutLayer::config("inventory").idle(timeout);
    config.build().unwrap()
}

fn total(timeout: Duration) -> BodyTimeoutLayer {
    let config = BodyTimeoutLayer::config("inventory").total(timeout);
    config.build().unwrap()
}

/// The kind of an error of ours.
fn kind(error: &Error) -> Option<ErrorKind> {
    (error.kind() != ErrorKind::Service).then(|| error.kind())
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_ends_with_an_error_and_is_dropped() {
    let inner = Paced::new([Duration::ZERO, SECOND, 60 * SECOND]);
    let drops = Arc::clone(&inner.drops);
    let mut body = get(&idle(2 * SECOND), inner).await;
    let began = Instant::now();
    assert!(body.frame().await.unwrap().is_ok());
    assert!(body.frame().await.unwrap().is_ok());
    assert_eq!(began.elapsed().as_secs(), 1);
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(
        began.elapsed().as_secs(),
        3,
        "from the poll that found nothing"
    );
    assert_eq!(kind(&error), Some(ErrorKind::Timeout));
    assert_eq!(error.name(), "inventory");
    assert_eq!(drops.load(Ordering::Relaxed), 1, "at once");
    assert!(body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(0));
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_not_a_slow_server() {
    let mut body = get(&idle(2 * SECOND), Paced::new([SECOND; 5])).await;
    for _ in 0..5 {
        advance(60 * SECOND).await;
        assert!(body.frame().await.unwrap().is_ok());
    }
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_long_body_that_keeps_coming_is_not_idle() {
    let body = get(&idle(2 * SECOND), Paced::new([SECOND; 100])).await;
    let began = Instant::now();
    assert_eq!(body.collect().await.unwrap().to_bytes().len(), 400);
    assert_eq!(began.elapsed().as_secs(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_due_with_the_timeout_wins() {
    let body = get(&idle(SECOND), Paced::new([SECOND; 3])).await;
    assert!(body.collect().await.is_ok());
    let body = get(&total(3 * SECOND), Paced::new([SECOND; 3])).await;
    assert!(body.collect().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_ends_when_its_time_is_over() {
    let began = Instant::now();
    let body = get(&total(10 * SECOND), Paced::new([SECOND * 3; 100])).await;
    let error = body.collect().await.unwrap_err();
    assert_eq!(kind(&error), Some(ErrorKind::Timeout));
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_slower_than_the_body_has_no_more_than_the_total() {
    let mut body = get(&total(10 * SECOND), Paced::new([Duration::ZERO; 100])).await;
    for _ in 0..10 {
        assert!(body.frame().await.unwrap().is_ok());
        advance(SECOND).await;
    }
    assert!(body.frame().await.unwrap().is_ok(), "due with it");
    advance(SECOND).await;
    assert!(body.frame().await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_body_whose_last_frame_is_there_is_not_too_late() {
    let mut body = get(&total(SECOND), Paced::new([Duration::ZERO])).await;
    advance(60 * SECOND).await;
    assert!(body.frame().await.unwrap().is_ok());
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn trailers_that_are_there_are_not_too_late() {
    // It does not say that nothing comes after them.
    let service = service_fn(|_: Request<()>| {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, "abc".parse().unwrap())]);
        let body = Full::new(Bytes::new()).with_trailers(ready(Some(Ok(trailers))));
        ready(Ok::<_, BoxError>(Response::new(body)))
    });
    let service = total(SECOND).wrap(service);
    let response = service.oneshot(Request::new(())).await.unwrap();
    advance(60 * SECOND).await;
    let collected = response.into_body().collect().await.unwrap();
    assert!(collected.trailers().is_some());
}

#[tokio::test(start_paused = true)]
async fn the_clock_of_a_total_runs_from_the_head() {
    let mut body = get(&total(10 * SECOND), Paced::new([SECOND, 60 * SECOND])).await;
    let began = Instant::now();
    advance(5 * SECOND).await;
    assert!(body.frame().await.unwrap().is_ok());
    assert!(body.frame().await.unwrap().is_err());
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_the_body_only_if_that_is_wanted() {
    async fn takes(deadline: bool) -> Result<u64, (u64, ErrorKind)> {
        let config = BodyTimeoutLayer::config("inventory").idle(30 * SECOND);
        let layer = config.deadline(deadline).build().unwrap();
        let service = ServiceBuilder::new()
            .layer(DeadlineLayer::new("inventory", 5 * SECOND))
            .layer(layer)
            .service(service_fn(|_: Request<()>| async {
                sleep(SECOND).await;
                Ok::<_, BoxError>(Response::new(Paced::new([SECOND; 20])))
            }));
        let began = Instant::now();
        let body = service.oneshot(Request::new(())).await.unwrap().into_body();
        // The head is there, and the deadline is no longer that of the task.
        assert_eq!(Deadline::current(), None);
        let result = body.collect().await;
        let seconds = began.elapsed().as_secs();
        match result {
            Ok(_) => Ok(seconds),
            Err(error) => Err((seconds, kind(&error).unwrap())),
        }
    }
    assert_eq!(takes(false).await, Ok(21));
    assert_eq!(takes(true).await, Err((5, ErrorKind::DeadlineExceeded)));
}

#[tokio::test(start_paused = true)]
async fn by_default_a_body_ends_after_30_s_of_silence_or_at_the_deadline() {
    async fn takes(deadline: Duration) -> (u64, ErrorKind) {
        let service = ServiceBuilder::new()
            .layer(DeadlineLayer::new("inventory", deadline))
            .layer(BodyTimeoutLayer::new("inventory"))
            .service(service_fn(|_: Request<()>| {
                ready(Ok::<_, BoxError>(Response::new(Paced::new([
                    Duration::MAX,
                ]))))
            }));
        let began = Instant::now();
        let body = service.oneshot(Request::new(())).await.unwrap().into_body();
        let error = body.collect().await.unwrap_err();
        (began.elapsed().as_secs(), kind(&error).unwrap())
    }
    let at_the_deadline = (2, ErrorKind::DeadlineExceeded);
    assert_eq!(takes(2 * SECOND).await, at_the_deadline);
    assert_eq!(takes(60 * SECOND).await, (30, ErrorKind::Timeout));
}

/// The seconds until an answer that makes these pauses is ended for silence; `None` if it is read to its end.
async fn ends_after(status: u16, content_type: &str, pauses: &[u64]) -> Option<u64> {
    let pauses = pauses.iter().copied().map(Duration::from_secs);
    let response = Response::builder()
        .status(status)
        .header(http::header::CONTENT_TYPE, content_type)
        .body(Paced::new(pauses))
        .unwrap();
    let mut response = Some(response);
    let service = service_fn(move |_: Request<()>| {
        let response = response.take().unwrap();
        ready(Ok::<_, BoxError>(response))
    });
    let service = tower::Layer::layer(
        &BodyTimeoutLayer::new("inventory"),
        service_fn_clone(service),
    );
    let response = service.oneshot(Request::new(())).await.unwrap();
    let began = Instant::now();
    let end = response.into_body().collect().await;
    end.err().map(|_| began.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_grpc_may_be_silent_after_its_first_message() {
    let grpc = "application/grpc+proto";
    assert_eq!(ends_after(200, grpc, &[25, 600, 600]).await, None);
    assert_eq!(ends_after(200, grpc, &[31]).await, Some(30));
    let json = "application/json";
    assert_eq!(ends_after(200, json, &[25, 600, 600]).await, Some(55));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_upgraded_may_be_silent() {
    assert_eq!(ends_after(101, "", &[600, 600]).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_dropped_while_it_waits_leaves_no_timer() {
    struct Woken;
    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {}
    }
    // For every number of polls.
    for polls in 0..4 {
        let woken = Arc::new(Woken);
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let inner = Paced::new([SECOND, SECOND]);
        let drops = Arc::clone(&inner.drops);
        let mut body = Box::pin(get(&idle(5 * SECOND), inner).await);
        for _ in 0..polls {
            drop(body.as_mut().poll_frame(&mut cx));
            advance(SECOND / 2).await;
        }
        drop(body);
        drop(waker);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        assert_eq!(Arc::strong_count(&woken), 1, "after {polls} polls");
    }
}

#[tokio::test]
async fn a_body_that_is_there_makes_no_timer() {
    // Without tokio's time there would be a panic.
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let config = BodyTimeoutLayer::config("inventory").idle(SECOND);
            let layer = config.total(60 * SECOND).build().unwrap();
            let body = get(&layer, Paced::new([Duration::ZERO; 10])).await;
            assert_eq!(body.collect().await.unwrap().to_bytes().len(), 40);
        });
    })
    .join()
    .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_that_panics_does_not_count_as_late() {
    let mut inner = Paced::new([Duration::ZERO]);
    inner.frames.push_back(None);
    let drops = Arc::clone(&inner.drops);
    let recorder = DebuggingRecorder::new();
    let mut body = get(&idle(SECOND), inner).await;
    let _local = metrics::set_default_local_recorder(&recorder);
    assert!(body.frame().await.unwrap().is_ok());
    let mut cx = Context::from_waker(Waker::noop());
    let poll = || drop(Pin::new(&mut body).poll_frame(&mut cx));
    assert!(std::panic::catch_unwind(AssertUnwindSafe(poll)).is_err());
    drop(body);
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    assert!(recorder.snapshotter().snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn every_timeout_is_counted_once() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _local = metrics::set_default_local_recorder(&recorder);
    for _ in 0..3 {
        let mut body = get(&idle(SECOND), Paced::new([60 * SECOND])).await;
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.is_none());
    }
    get(&idle(SECOND), Paced::new([SECOND]))
        .await
        .collect()
        .await
        .unwrap();
    let mut rows = snapshotter.snapshot();
    // Other tests of the process have layers of this name, with gauges.
    rows.retain(|(_, value)| !matches!(value, DebugValue::Gauge(_)));
    let (key, .., value) = rows.first().unwrap();
    assert_eq!(
        (rows.len(), value),
        (1, &DebugValue::Counter(3)),
        "{rows:?}"
    );
    assert_eq!(key.name(), "buttress_timeouts_total");
    let labels = key.labels().map(|label| (label.key(), label.value()));
    let labels = labels.collect::<Vec<_>>();
    assert_eq!(
        labels,
        [
            ("name", "inventory"),
            ("layer", "body"),
            ("mode", "enforce")
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_inner_service_that_is_not_ready_is_waited_for_in_the_call() {
    let slow = service_fn(|_: Request<()>| async {
        sleep(SECOND).await;
        Ok::<_, BoxError>(Response::new(Full::new(Bytes::new())))
    });
    let mut client = idle(SECOND).wrap(ConcurrencyLimit::new(slow, 1));
    let mut calls = Vec::new();
    for _ in 0..3 {
        poll_fn(|cx| client.poll_ready(cx)).await.unwrap();
        calls.push(tokio_test::task::spawn(client.call(Request::new(()))));
    }
    assert!(calls.iter_mut().all(|call| call.poll().is_pending()));
    // The place of a call that is dropped while it waits is free.
    drop(calls.remove(1));
    let began = Instant::now();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(began.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_is_the_end_of_a_call() {
    #[derive(Clone)]
    struct Down;

    impl Service<Request<()>> for Down {
        type Response = Response<Full<Bytes>>;
        type Error = BoxError;
        type Future = std::future::Ready<Result<Self::Response, BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Err("down".into()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            unreachable!("never ready")
        }
    }

    let mut client = idle(SECOND).wrap(Down);
    for _ in 0..2 {
        poll_fn(|cx| client.poll_ready(cx)).await.unwrap();
        let error = client.call(Request::new(())).await.unwrap_err();
        assert_eq!(error.service_error().unwrap().to_string(), "down");
    }
}

#[tokio::test(start_paused = true)]
async fn trailers_and_errors_pass() {
    let trailers = HeaderMap::from_iter([(http::header::ETAG, "abc".parse().unwrap())]);
    let whole =
        Full::new(Bytes::from_static(b"bolts")).with_trailers(ready(Some(Ok(trailers.clone()))));
    let body = TimeoutBody::from(whole);
    let collected = body.collect().await.unwrap();
    assert_eq!(collected.trailers(), Some(&trailers));
    assert!(TimeoutBody::<Full<Bytes>>::default().is_end_stream());
    // Without limits it has all the time in the world.
    let mut endless = TimeoutBody::from(Paced::new([1_000_000 * SECOND]));
    assert!(endless.frame().await.unwrap().is_ok());
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let config = || BodyTimeoutLayer::config("inventory");
    let field = |config: buttress::http::body_timeout::Config| config.build().unwrap_err().field();
    let unlimited = config().no_idle().deadline(false);
    assert_eq!(field(unlimited), "idle", "nothing is limited");
    for no_time in [Duration::ZERO, Duration::MAX] {
        assert_eq!(field(config().idle(no_time)), "idle");
        assert_eq!(field(config().stream_idle(no_time)), "stream_idle");
        assert_eq!(field(config().total(no_time)), "total");
    }
    assert_eq!(field(config().idle(SECOND).total(SECOND)), "total");
    assert_eq!(field(BodyTimeoutLayer::config("").idle(SECOND)), "name");
    assert!(config().total(SECOND).build().is_ok(), "the default idle");
    assert!(config().no_idle().build().is_ok(), "there is the deadline");
    let error = config().idle(2 * SECOND).total(SECOND).build().unwrap_err();
    let text = "body timeout \"inventory\": total is 1s, but must be longer than `idle`";
    assert_eq!(error.to_string(), text);
}

#[tokio::test(start_paused = true)]
async fn the_error_says_what_took_too_long() {
    let text = async |mut body: TimeoutBody<Paced>| loop {
        if let Err(error) = body.frame().await.unwrap() {
            return error.to_string();
        }
    };
    let stalls = || Paced::new([Duration::ZERO, 60 * SECOND, SECOND]);
    let idle = text(get(&idle(5 * SECOND), stalls()).await).await;
    assert_eq!(idle, "\"inventory\" sent no more of its answer within 5.0s");
    let layer = total(9 * SECOND);
    let whole = text(get(&layer, stalls()).await).await;
    assert_eq!(
        whole,
        "\"inventory\" did not send its whole answer within 9.0s"
    );
    let body = get(&layer, Paced::new([Duration::ZERO; 2])).await;
    advance(10 * SECOND).await;
    let unread = text(body).await;
    assert_eq!(
        unread,
        "the answer of \"inventory\" was not read within 9.0s"
    );
}
