//! A status in trailers that follow at once is known before the caller has the response, and other answers pass as they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use buttress::BoxError;
use buttress::circuit_breaker::State;
use buttress::http::HttpReplay;
use buttress::http::grpc::{PeekTrailers, PeekedBody};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceExt, service_fn};

use crate::callers::{Body, MS, SECOND, grpc, request};
use crate::feed::{Feed, Source, feed};

/// A part of an answer, after its head.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Data(&'static [u8]),
    Status(&'static str),
    Error,
    /// The rest comes in the next turn of the scheduler.
    NextTurn,
    /// The rest comes a second later.
    Later,
}
use Part::{Data, Error, Later, NextTurn, Status};

/// A message without content.
const EMPTY: Part = Data(&[0; 5]);
/// Data without a message.
const NOTHING: Part = Data(&[]);
const MESSAGE: Part = Data(b"\0\0\0\0\x02ok");
const UNAVAILABLE: Part = Status("14");

/// Sends parts, up to the next wait. Returns the rest.
fn send(source: &Source, parts: &'static [Part]) -> &'static [Part] {
    for (sent, part) in parts.iter().enumerate() {
        match part {
            Data(data) => drop(source.send(*data)),
            Status(status) => source.trailers("grpc-status", status),
            Error => source.fail("connection reset"),
            NextTurn | Later => return &parts[sent..],
        }
    }
    &[]
}

/// A body that gives these parts.
fn body(parts: &'static [Part]) -> Feed {
    let (source, body) = feed();
    let mut rest = send(&source, parts);
    if !rest.is_empty() {
        tokio::spawn(async move {
            while let Some((wait, parts)) = rest.split_first() {
                if *wait == Later {
                    sleep(SECOND).await;
                }
                rest = send(&source, parts);
            }
        });
    }
    body
}

/// A client of a server that answers the first `bad` requests with `parts` after a head, and others well.
fn client(
    bad: u32,
    parts: &'static [Part],
) -> (
    impl Service<Request<Body>, Response = Response<PeekedBody<Feed>>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static,
    Arc<AtomicU32>,
) {
    let sent: Arc<AtomicU32> = Arc::default();
    let seen = Arc::clone(&sent);
    let client = service_fn(move |_: Request<Body>| {
        let is_bad = seen.fetch_add(1, Relaxed) < bad;
        async move {
            let parts = if is_bad {
                parts
            } else {
                &[MESSAGE, Status("0")]
            };
            let answer = Response::builder().header("content-type", "application/grpc");
            Ok::<_, BoxError>(answer.body(body(parts))?)
        }
    });
    (PeekTrailers::new(client), sent)
}

/// Reads a body to its end: the bytes of data, the status in trailers, an error.
async fn read(mut body: impl http_body::Body<Data = Bytes> + Unpin) -> Vec<String> {
    let mut parts = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            parts.push("error".to_owned());
            continue;
        };
        parts.push(match frame.into_data() {
            Ok(data) => format!("{data:?}"),
            Err(frame) => format!("{:?}", frame.into_trailers().ok().unwrap()["grpc-status"]),
        });
    }
    parts
}

/// The number of attempts of a call that may be repeated, whose first answer is this.
async fn attempts(parts: &'static [Part]) -> u32 {
    let (client, sent) = client(1, parts);
    let stack = grpc("ledger").replay(HttpReplay::new().idempotent_paths(|_| true));
    let answer = stack.build().unwrap().wrap(client).oneshot(request("POST"));
    drop(answer.await.unwrap());
    sent.load(Relaxed)
}

#[tokio::test(start_paused = true)]
async fn a_failure_in_trailers_that_follow_at_once_is_retried() {
    for parts in [
        &[UNAVAILABLE] as &[_],
        &[NOTHING, UNAVAILABLE],
        &[EMPTY, UNAVAILABLE],
        &[NextTurn, EMPTY, UNAVAILABLE],
        &[EMPTY, NextTurn, UNAVAILABLE],
        &[NextTurn, EMPTY, NextTurn, UNAVAILABLE],
    ] {
        assert_eq!(attempts(parts).await, 2, "{parts:?}");
    }
    for parts in [
        &[Later, UNAVAILABLE] as &[_],
        &[EMPTY, Later, UNAVAILABLE],
        &[MESSAGE, UNAVAILABLE],
        &[NOTHING, NOTHING, UNAVAILABLE],
        &[EMPTY, EMPTY, UNAVAILABLE],
        &[EMPTY, Status("0")],
        // The caller is told.
        &[EMPTY, Status("5")],
        &[EMPTY, Error],
        &[EMPTY],
        &[],
    ] {
        assert_eq!(attempts(parts).await, 1, "{parts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_caller_gets_all_that_was_looked_at() {
    for parts in [
        &[EMPTY, UNAVAILABLE] as &[_],
        &[NOTHING, MESSAGE, Status("0")],
        &[NOTHING, NOTHING, MESSAGE, UNAVAILABLE],
        &[EMPTY, Later, MESSAGE, Status("0")],
        &[MESSAGE, EMPTY, Error],
        &[EMPTY, Error],
        &[Error],
        &[UNAVAILABLE],
        &[EMPTY],
        &[],
    ] {
        let (client, _) = client(u32::MAX, parts);
        let answer = client.oneshot(request("POST")).await.unwrap();
        assert!(!answer.headers().contains_key("grpc-status"));
        let expected = read(body(parts)).await;
        assert_eq!(read(answer.into_body()).await, expected, "{parts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_size_includes_the_data_that_was_looked_at() {
    let answer = Response::builder().header("content-type", "application/grpc");
    let answer = answer.body(http_body_util::Full::new(Bytes::from_static(&[0; 5])));
    let answer = answer.unwrap();
    let client = service_fn(move |_: Request<Body>| {
        let answer = answer.clone();
        async { Ok::<_, BoxError>(answer) }
    });
    let answer = PeekTrailers::new(client).oneshot(request("POST")).await;
    let body = answer.unwrap().into_body();
    assert_eq!(body.size_hint().exact(), Some(5));
    assert!(!body.is_end_stream());
    assert_eq!(read(body).await, [r#"b"\0\0\0\0\0""#]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_says_nothing_or_little_is_not_waited_for() {
    for parts in [
        &[Later, MESSAGE, Status("0")] as &[_],
        &[EMPTY, Later, UNAVAILABLE],
        &[MESSAGE, Later, UNAVAILABLE],
    ] {
        let (client, _) = client(1, parts);
        let began = Instant::now();
        let answer = client.oneshot(request("POST")).await.unwrap();
        let first = answer.into_body().frame().await;
        first.unwrap().unwrap();
        let expected = SECOND * u32::from(parts[0] == Later);
        assert_eq!(began.elapsed(), expected, "{parts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_nobody_reads_opens_the_breaker() {
    let (client, sent) = client(u32::MAX, &[EMPTY, UNAVAILABLE]);
    let stack = grpc("ledger").build().unwrap();
    let client = stack.wrap(client);
    for _ in 0..40 {
        drop(client.clone().oneshot(request("POST")).await);
    }
    let breaker = stack.handle().circuit_breaker().unwrap().clone();
    assert_eq!(breaker.state(), State::Open);
    assert!(sent.load(Relaxed) < 40);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_fails_in_its_trailers_does_not_win() {
    let requests = Arc::new(AtomicU32::new(0));
    let client = service_fn(move |_: Request<Body>| {
        let number = requests.fetch_add(1, Relaxed);
        async move {
            let (time, parts): (Duration, &[Part]) = match number {
                0 => (100 * MS, &[MESSAGE, Status("0")]),
                _ => (MS, &[EMPTY, UNAVAILABLE]),
            };
            sleep(time).await;
            let answer = Response::builder().header("content-type", "application/grpc");
            Ok::<_, BoxError>(answer.body(body(parts))?)
        }
    });
    let stack = grpc("ledger").no_retry().replay(buttress::ByClone);
    let stack = stack.hedge(|hedge| hedge.delay(20 * MS));
    let client = stack.build().unwrap().wrap(PeekTrailers::new(client));
    let answer = client.oneshot(request("POST")).await.unwrap();
    assert_eq!(read(answer.into_body()).await[1], r#""0""#);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_something_that_does_not_speak_grpc_is_not_looked_at() {
    let (source, body) = feed();
    source.trailers("grpc-status", "14");
    let mut answer = Some(Response::new(body));
    let client = service_fn(move |_: Request<Body>| {
        let answer = answer.take().unwrap();
        async { Ok::<_, BoxError>(answer) }
    });
    let answer = PeekTrailers::new(client).oneshot(request("GET")).await;
    assert!(answer.unwrap().extensions().is_empty());
}
