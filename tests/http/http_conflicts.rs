//! Answers to a request that an earlier attempt may have acted on.
#![cfg(feature = "http")]
// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buttress::http::{Classifier, HttpReplay, HttpStandard, ResultUnknown};
use buttress::{Attempts, GaveUp};
use bytes::Bytes;
use http::request::Builder;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::{Instant, sleep, timeout};
use tower::service_fn;

const MS: Duration = Duration::from_millis(1);

type Body = Full<Bytes>;

/// Answers of a server to one request after the other: after this time, or not at all.
type Script = &'static [Option<(u64, u16)>];

/// Sends a request to a server that answers by `script`, and the last answer of it to all further ones. Returns the response
/// and the number of requests that the server has seen.
async fn send(stack: HttpStandard, request: Builder, script: Script) -> (Response<()>, usize) {
    let seen = Arc::new(Mutex::new(0));
    let count = Arc::clone(&seen);
    let server = service_fn(move |_: Request<Body>| {
        let mut seen = seen.lock().unwrap();
        let answer = *script.get(*seen).unwrap_or(script.last().unwrap());
        *seen += 1;
        async move {
            let Some((after, status)) = answer else {
                return pending().await;
            };
            sleep(Duration::from_millis(after)).await;
            let mut response = Response::new(Body::default());
            *response.status_mut() = status.try_into().unwrap();
            Ok::<_, Infallible>(response)
        }
    });
    let stack = stack.timeout(200 * MS).seed(1).no_measure().unlimited();
    let client = stack.build().unwrap().wrap(server);
    let response = client
        .send(request.body(Body::default()).unwrap())
        .await
        .unwrap();
    let seen = *count.lock().unwrap();
    (response.map(drop), seen)
}

fn standard() -> HttpStandard {
    buttress::http::standard("shop")
}

fn with_key() -> Builder {
    Request::post("/orders").header("idempotency-key", "7")
}

fn is_unknown(response: &Response<()>) -> bool {
    response.extensions().get::<ResultUnknown>().is_some()
}

fn attempts(response: &Response<()>) -> Option<(u32, Option<GaveUp>)> {
    let attempts = response.extensions().get::<Attempts>()?;
    assert_eq!(attempts.is_result_unknown, is_unknown(response));
    Some((attempts.made, attempts.gave_up))
}

#[tokio::test(start_paused = true)]
async fn an_attempt_in_progress_is_waited_for() {
    let script: Script = &[None, Some((1, 409)), Some((1, 201))];
    let (response, seen) = send(standard(), with_key(), script).await;
    assert_eq!((response.status().as_u16(), seen), (201, 3));
    assert!(!is_unknown(&response));
    assert_eq!(attempts(&response), Some((3, None)));
}

#[tokio::test(start_paused = true)]
async fn a_conflict_that_stays_tells_that_the_result_is_unknown() {
    let script: Script = &[None, Some((1, 409))];
    let (response, seen) = send(standard(), with_key(), script).await;
    assert_eq!((response.status().as_u16(), seen), (409, 3));
    assert!(is_unknown(&response));
    assert_eq!(attempts(&response), Some((3, Some(GaveUp::Exhausted))));
}

#[tokio::test(start_paused = true)]
async fn a_conflict_without_an_earlier_attempt_is_the_answer() {
    let remove = Request::delete("/orders/7");
    let (conflict, not_found): (Script, Script) = (&[Some((1, 409))], &[Some((1, 404))]);
    for (request, status, script) in [(with_key(), 409, conflict), (remove, 404, not_found)] {
        let (response, seen) = send(standard(), request, script).await;
        assert_eq!((response.status().as_u16(), seen), (status, 1));
        assert_eq!(attempts(&response), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_finds_nothing_after_a_lost_answer_is_unknown() {
    let scripts: [Script; 2] = [&[None, Some((1, 404))], &[None, Some((1, 410))]];
    for script in scripts {
        let (response, seen) = send(standard(), Request::delete("/orders/7"), script).await;
        assert_eq!(seen, 2);
        assert!(is_unknown(&response));
        let (response, _) = send(standard(), Request::get("/orders/7"), script).await;
        assert!(!is_unknown(&response), "a read finds what there is");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_attempt_leaves_no_trace() {
    // The first answer says that nothing was done, but nothing proves it.
    let script: Script = &[Some((1, 503)), Some((1, 409)), Some((1, 201))];
    let (response, seen) = send(standard(), with_key(), script).await;
    assert_eq!((response.status().as_u16(), seen), (201, 3));
}

#[tokio::test(start_paused = true)]
async fn a_conditional_write_that_may_have_acted_is_not_sent_again() {
    for (name, value) in [("if-none-match", "*"), ("if-match", "\"7\"")] {
        let write = Request::put("/orders/7").header(name, value);
        let stack = buttress::http::standard("shop").timeout(200 * MS);
        let seen = Arc::new(Mutex::new(0));
        let count = Arc::clone(&seen);
        let server = service_fn(move |_: Request<Body>| {
            *seen.lock().unwrap() += 1;
            pending::<Result<Response<Body>, Infallible>>()
        });
        let client = stack.unlimited().build().unwrap().wrap(server);
        client
            .send(write.body(Body::default()).unwrap())
            .await
            .unwrap_err();
        assert_eq!(*count.lock().unwrap(), 1, "{name}");
    }
    let read = Request::get("/orders/7").header("if-none-match", "\"7\"");
    let (response, seen) = send(standard(), read, &[None, Some((1, 304))]).await;
    assert_eq!((response.status().as_u16(), seen), (304, 2));
}

#[tokio::test(start_paused = true)]
async fn only_reads_are_hedged_unless_told_otherwise() {
    let hedged = || standard().hedge(|hedge| hedge.delay(20 * MS)).no_retry();
    let slow: Script = &[Some((100, 200))];
    for method in ["GET", "HEAD", "OPTIONS"] {
        let request = Request::builder().method(method);
        assert_eq!(send(hedged(), request, slow).await.1, 2, "{method}");
    }
    for method in ["PUT", "DELETE", "TRACE", "POST"] {
        let request = with_key().method(method);
        assert_eq!(send(hedged(), request, slow).await.1, 1, "{method}");
    }
    let replay =
        || HttpReplay::new().hedge_if(|method, uri, _| method == "POST" && uri == "/orders");
    assert_eq!(send(hedged().replay(replay()), with_key(), slow).await.1, 2);
    let all = HttpReplay::new().all_idempotent();
    assert_eq!(
        send(hedged().replay(all), Request::put("/"), slow).await.1,
        2
    );
}

#[tokio::test(start_paused = true)]
async fn the_conflict_of_a_hedge_does_not_beat_the_attempt_that_it_conflicts_with() {
    let replay = HttpReplay::new().hedge_if(|_, _, _| true);
    let stack = standard()
        .replay(replay)
        .hedge(|hedge| hedge.delay(20 * MS));
    let began = Instant::now();
    let script: Script = &[Some((100, 201)), Some((1, 409))];
    let answered = send(stack, with_key(), script);
    let (response, seen) = timeout(1_000 * MS, answered).await.unwrap();
    assert_eq!((response.status().as_u16(), seen), (201, 2));
    assert_eq!(began.elapsed(), 100 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_hedged_removal_is_not_beaten_by_its_own_copy() {
    let replay = HttpReplay::new().hedge_if(|_, _, _| true);
    let stack = standard().replay(replay).no_retry();
    let stack = stack.hedge(|hedge| hedge.delay(20 * MS));
    let script: Script = &[Some((100, 204)), Some((1, 404))];
    let (response, seen) = send(stack, Request::delete("/orders/7"), script).await;
    assert_eq!((response.status().as_u16(), seen), (204, 2));
    assert!(!is_unknown(&response));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_declined_leaves_no_trace() {
    let renewing = || standard().classify(Classifier::new().retry_unauthorized());
    for first in [401, 429] {
        let script: Script = match first {
            401 => &[Some((1, 401)), Some((1, 409))],
            _ => &[Some((1, 429)), Some((1, 409))],
        };
        let (response, seen) = send(renewing(), with_key(), script).await;
        assert_eq!((response.status().as_u16(), seen), (409, 2), "{first}");
        assert!(!is_unknown(&response), "{first}");
    }
}
