//! Settings of one call of HTTP: an extension of the request.
#![cfg(feature = "http")]
// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use buttress::http::{Classifier, Client, HttpReplay, IDEMPOTENCY_KEY, client, grpc};
use buttress::{
    BoxError, CallOptions, CloneService, ErrorKind, FallbackLayer, HedgeLayer, Never, RetryLayer,
    Stage, fallback,
};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt, service_fn};

use crate::feed::feed;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

type Body = Full<Bytes>;

/// The headers of the requests that a server got.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<HeaderMap>>>);

impl Seen {
    fn take(&self) -> Vec<HeaderMap> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    fn count(&self) -> usize {
        self.take().len()
    }

    /// A server that answers after this time with this status.
    fn server(
        &self,
        time: Duration,
        status: u16,
    ) -> impl CloneService<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send>
    + Send
    + Sync
    + 'static {
        let seen = Arc::clone(&self.0);
        service_fn(move |request: Request<Body>| {
            seen.lock().unwrap().push(request.headers().clone());
            async move {
                sleep(time).await;
                let mut response = Response::new(Body::default());
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                Ok::<_, BoxError>(response)
            }
        })
    }
}

fn request(method: Method, options: CallOptions) -> Request<Body> {
    let request = Request::builder().method(method).uri("http://stock/bolts");
    request.extension(options).body(Body::default()).unwrap()
}

fn get(options: CallOptions) -> Request<Body> {
    request(Method::GET, options)
}

fn options() -> CallOptions {
    CallOptions::new()
}

/// Returns the kind of the error of a call, if it has one, and how long it took.
async fn end<S>(stock: &Client<S>, request: Request<Body>) -> (Option<ErrorKind>, Duration)
where
    S: CloneService<Request<Body>, Response = Response<Body>, Future: Send> + Send + Sync,
{
    let began = Instant::now();
    let error = stock.send::<Body, _, _>(request).await.err();
    (error.map(|error| error.kind()), began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn the_times_of_a_request_are_those_of_its_call_alone() {
    let seen = Seen::default();
    let stock = client("stock").unlimited().deadline(9 * SECOND).no_retry();
    let stock = stock.wrap(seen.server(3 * SECOND, 200)).unwrap();
    for (options, kind, took) in [
        (options(), Some(ErrorKind::Timeout), 2_000),
        (options().timeout(SECOND), Some(ErrorKind::Timeout), 1_000),
        (options().timeout(5 * SECOND), None, 3_000),
        (
            options().deadline(500 * MS),
            Some(ErrorKind::DeadlineExceeded),
            500,
        ),
        (
            options().deadline(20 * SECOND),
            Some(ErrorKind::Timeout),
            2_000,
        ),
    ] {
        let ended = end(&stock, get(options)).await;
        assert_eq!(ended, (kind, took * MS), "{options:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_server_is_told_of_the_deadline_of_a_call() {
    let seen = Seen::default();
    let stock = client("stock").unlimited();
    let stock = stock.wrap(seen.server(MS, 200)).unwrap();
    end(&stock, get(options().deadline(SECOND).timeout(10 * MS))).await;
    end(&stock, get(options())).await;
    let told = seen.take();
    let told = told.iter().map(|told| told.get("x-request-timeout-ms"));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [Some(&"1000".parse().unwrap()), None]
    );
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_call_ends_its_body_also_that_of_a_stream() {
    for options in [
        options().deadline(2 * SECOND),
        options().deadline(2 * SECOND).stream(true),
    ] {
        let server = service_fn(async |_: Request<Body>| {
            let (source, body) = feed();
            std::mem::forget(source); // It never ends.
            Ok::<_, BoxError>(Response::new(body))
        });
        let stock = client("stock").unlimited().wrap(server).unwrap();
        let began = Instant::now();
        let response = stock.send::<Body, _, _>(get(options)).await.unwrap();
        let error = response.into_body().collect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(error.stage(), Stage::WholeAnswer);
        assert_eq!(began.elapsed(), 2 * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_says_whether_it_is_sent_again() {
    let seen = Seen::default();
    // A new client for each call, whose budget is full.
    let stock = || client("stock").unlimited().wrap(seen.server(MS, 503));
    for (method, options, sent) in [
        (Method::GET, options(), 3),
        (Method::GET, options().no_retry(), 1),
        (Method::GET, options().idempotent(false), 1),
        (Method::POST, options(), 1),
        (Method::POST, options().idempotent(true), 3),
        (Method::POST, options().idempotent(true).no_retry(), 1),
    ] {
        end(&stock().unwrap(), request(method.clone(), options)).await;
        assert_eq!(seen.count(), sent, "{method} {options:?}");
    }
    let mut keyed = request(Method::POST, options());
    let key = "order-1".parse().unwrap();
    keyed.headers_mut().insert(IDEMPOTENCY_KEY, key);
    end(&stock().unwrap(), keyed).await;
    let keys = seen.take();
    let keys = keys.iter().map(|sent| sent.get("idempotency-key").unwrap());
    assert_eq!(keys.collect::<Vec<_>>(), ["order-1"; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_request_says_whether_it_is_hedged() {
    let seen = Seen::default();
    let stock = client("stock").unlimited();
    let stock = stock.hedge(|hedge| hedge.delay(20 * MS));
    let stock = stock.wrap(seen.server(SECOND, 200)).unwrap();
    for (method, options, sent) in [
        (Method::GET, options(), 2),
        (Method::GET, options().no_hedge(), 1),
        (Method::GET, options().idempotent(false), 1),
        (Method::POST, options(), 1),
        (Method::POST, options().idempotent(true), 2),
        (Method::POST, options().idempotent(true).no_hedge(), 1),
    ] {
        end(&stock, request(method.clone(), options)).await;
        assert_eq!(seen.count(), sent, "{method} {options:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn layers_that_are_nested_by_hand_read_the_options_that_concern_them() {
    let seen = Seen::default();
    // A new layer for each call, whose budget is full.
    let retry = || {
        let retry = RetryLayer::config("stock").replay(HttpReplay::new());
        let retry = retry.classify(Classifier::new()).build().unwrap();
        retry.layer(seen.server(MS, 503))
    };
    let hedge = HedgeLayer::config("stock").replay(HttpReplay::new());
    let hedge = hedge.delay(20 * MS).classify(Classifier::new());
    let hedge = hedge.build().unwrap().layer(seen.server(SECOND, 200));
    for (options, retries, hedges) in [
        (options(), 3, 2),
        (options().no_retry(), 1, 2),
        (options().no_hedge(), 3, 1),
        (options().idempotent(false), 1, 1),
        // A time is for a standard stack.
        (options().timeout(MS / 2), 3, 2),
    ] {
        retry().send(get(options)).await.unwrap();
        assert_eq!(seen.count(), retries, "{options:?}");
        hedge.send(get(options)).await.unwrap();
        assert_eq!(seen.count(), hedges, "{options:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fallback_does_not_send_a_request_that_must_not_act_twice() {
    let (first, second) = (Seen::default(), Seen::default());
    let answer = fallback::service(second.server(MS, 200));
    let fallback = FallbackLayer::config("stock", answer).replay(HttpReplay::new());
    let fallback = fallback.classify(Classifier::new()).build().unwrap();
    let stock = fallback.layer(first.server(MS, 503));
    for (options, sent) in [(options(), 1), (options().idempotent(false), 0)] {
        stock.clone().oneshot(get(options)).await.unwrap();
        assert_eq!(second.count(), sent, "{options:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn options_of_an_argument_and_of_the_request_add_up() {
    let seen = Seen::default();
    for (own, of_request, sent) in [
        (options().no_hedge(), options(), 3),
        (options().no_retry(), options(), 1),
        (options(), options().no_retry(), 1),
        (options(), options().idempotent(false), 1),
        (options().idempotent(true), options().idempotent(false), 3),
    ] {
        let layer = buttress::http::standard("stock").unlimited();
        let stock = layer.build().unwrap().wrap(seen.server(MS, 503));
        stock.with(own).send(get(of_request)).await.unwrap();
        assert_eq!(seen.count(), sent, "{own:?} {of_request:?}");
    }
    let layer = buttress::http::standard("stock").unlimited();
    let stock = layer.build().unwrap().wrap(seen.server(SECOND, 200));
    for (own, of_request) in [(9, 3), (3, 9)] {
        let (own, of_request) = (
            options().deadline(own * MS),
            options().deadline(of_request * MS),
        );
        let began = Instant::now();
        stock.with(own).send(get(of_request)).await.unwrap_err();
        assert_eq!(began.elapsed(), 3 * MS);
    }
}

#[tokio::test(start_paused = true)]
async fn options_work_for_a_stack_that_copies_nothing() {
    let seen = Seen::default();
    let layer = grpc::standard("stock").unlimited().replay(Never);
    let stock = layer.build().unwrap().wrap(seen.server(SECOND, 200));
    let call = stock.with(options().timeout(100 * MS));
    let error = call.send(get(options())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}
