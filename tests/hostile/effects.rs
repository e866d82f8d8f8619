//! After an attempt that may have acted, a conflict is not an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use buttress::BoxError;
use http::{Request, Response};
use tokio::time::sleep;
use tower::{Service, ServiceExt, service_fn};

use crate::callers::{Body, MS, SECOND, answer, request};

/// A server that acts on a key once: while it does, and for `conflicts` further requests, it answers 409, then 201.
/// The answer to the first request comes after `first`.
fn server(
    first: Duration,
    done: Duration,
    status: u16,
) -> (
    impl Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static,
    Arc<AtomicU32>,
) {
    let (began, acted) = (Arc::new(std::sync::OnceLock::new()), Arc::default());
    let effects: Arc<AtomicU32> = Arc::clone(&acted);
    let server = service_fn(move |_: Request<Body>| {
        let (began, effects) = (Arc::clone(&began), Arc::clone(&effects));
        async move {
            let now = tokio::time::Instant::now();
            if began.set(now).is_ok() {
                effects.fetch_add(1, Relaxed);
                sleep(first).await;
                return Ok(answer(201));
            }
            let is_done = began.get().is_some_and(|began| now - *began >= done);
            sleep(MS).await;
            Ok::<_, BoxError>(answer(if is_done { 201 } else { status }))
        }
    });
    (server, acted)
}

fn keyed() -> Request<Body> {
    let mut request = request("POST");
    let headers = request.headers_mut();
    headers.insert("idempotency-key", "\"8e03978e\"".parse().unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn a_hedge_with_a_key_does_not_win_with_a_conflict() {
    let (client, acted) = server(200 * MS, 200 * MS, 409);
    let stack = buttress::http::standard("pay")
        .unlimited()
        .hedge(|hedge| hedge.delay(50 * MS));
    let answer = stack.build().unwrap().wrap(client).oneshot(keyed()).await;
    assert_eq!(
        (answer.unwrap().status().as_u16(), acted.load(Relaxed)),
        (201, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_conflict_after_an_attempt_that_timed_out_is_waited_for() {
    let (client, acted) = server(3_600 * SECOND, 1_100 * MS, 409);
    let stack = buttress::http::standard("pay").unlimited().timeout(SECOND);
    let stack = stack.retry(|retry| retry.max_attempts(5));
    let answer = stack.build().unwrap().wrap(client).oneshot(keyed()).await;
    assert_eq!(
        (answer.unwrap().status().as_u16(), acted.load(Relaxed)),
        (201, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_conditional_write_whose_answer_was_lost_is_not_sent_again() {
    let (client, _) = server(3_600 * SECOND, 3_600 * SECOND, 412);
    let stack = buttress::http::standard("files")
        .unlimited()
        .build()
        .unwrap();
    let mut request = request("PUT");
    let headers = request.headers_mut();
    headers.insert("if-none-match", "*".parse().unwrap());
    stack.wrap(client).oneshot(request).await.unwrap_err();
}
