//! The drain of a stack.
// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::future::{pending, ready};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use buttress::stack::StandardLayer;
use buttress::{Availability, Backoff, BoxError, ErrorKind, Jitter, drain, standard};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};
use tower::{Layer, ServiceExt, service_fn};

use crate::debugging::DebuggingRecorder;
use crate::recorded;

const SECOND: Duration = Duration::from_secs(1);

fn stack() -> StandardLayer {
    let wait = Backoff::constant(SECOND).jitter(Jitter::None);
    let config = standard("stock").drain().unlimited();
    config.retry(|retry| retry.backoff(wait)).build().unwrap()
}

fn drain_of(layer: &StandardLayer) -> drain::Handle {
    layer.handle().drain().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn new_calls_are_refused_and_retries_of_old_calls_go_on() {
    static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
    let layer = stack();
    let stock = layer.layer(service_fn(|_: u8| {
        let attempt = ATTEMPTS.fetch_add(1, Ordering::Relaxed) + 1;
        ready(if attempt == 3 {
            Ok(attempt)
        } else {
            Err(BoxError::from("connection reset"))
        })
    }));
    let began = Instant::now();
    let call = tokio::spawn(stock.clone().oneshot(1));
    yield_now().await;

    let drain = drain_of(&layer);
    assert!(drain.is_ready() && layer.handle().is_available());
    let drained = drain.drain(20 * SECOND);
    assert!(!drain.is_ready() && !layer.handle().is_available());
    assert_eq!(drain.in_flight(), 1);
    let error = stock.clone().oneshot(2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Draining);
    assert!(error.is_rejection() && !error.was_sent());
    assert_eq!(error.gave_up(), None, "it is not retried");
    let text = "\"stock\" is draining and takes no new calls";
    assert_eq!(error.to_string(), text);

    assert_eq!(drained.await, 0);
    assert_eq!(began.elapsed(), 2 * SECOND, "the waits of two retries");
    assert_eq!(call.await.unwrap().unwrap(), 3);
    assert_eq!(ATTEMPTS.load(Ordering::Relaxed), 3);
    assert_eq!(drain.drain(SECOND).await, 0, "again");
}

#[tokio::test(start_paused = true)]
async fn calls_that_do_not_end_in_time_are_counted() {
    let config = standard("stock").drain().unlimited();
    let config = config.no_timeout().no_response_timeout();
    let layer = config.build().unwrap();
    let stock = layer.layer(service_fn(|_: u8| pending::<Result<(), BoxError>>()));
    let calls: Vec<_> = (0..3)
        .map(|call| tokio::spawn(stock.clone().oneshot(call)))
        .collect();
    yield_now().await;
    let (drain, began) = (drain_of(&layer), Instant::now());
    assert_eq!(drain.drain(20 * SECOND).await, 3);
    assert_eq!(began.elapsed(), 20 * SECOND);

    // A call that is dropped is not in flight any more, and its end wakes the wait.
    let drained = tokio::spawn(drain.drained());
    for call in calls {
        yield_now().await;
        assert!(!drained.is_finished());
        call.abort();
    }
    timeout(SECOND, drained).await.unwrap().unwrap();
    assert_eq!(drain.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_is_counted_as_rejected() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let layer = stack();
    let stock = layer.layer(service_fn(|_: u8| ready(Ok::<_, BoxError>(()))));
    assert_eq!(drain_of(&layer).drain(SECOND).await, 0);
    stock.oneshot(1).await.unwrap_err();
    let rows: Vec<_> = recorded::rows(&snapshotter).collect();
    let count = |title: &str| {
        let row = rows.iter().find(|row| row.title() == title);
        row.map_or(0, |row| row.value as u64)
    };
    let refused = "buttress_rejections_total drain draining enforce";
    assert_eq!(count(refused), 1);
    assert_eq!(count("buttress_calls_total operation rejected"), 1);
    assert!(
        !rows
            .iter()
            .any(|row| row.is_of("attempt") && row.value > 0.0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_listener_hears_the_beginning_and_the_end_once() {
    let (sender, events) = mpsc::channel();
    let config = standard("stock").drain().unlimited().no_timeout();
    let config = config.no_response_timeout();
    let config = config.on_event(move |event| sender.send(event.to_string()).unwrap());
    let layer = config.build().unwrap();
    let stock = layer.layer(service_fn(|_: u8| pending::<Result<(), BoxError>>()));
    let call = tokio::spawn(stock.clone().oneshot(1));
    yield_now().await;
    assert_eq!(drain_of(&layer).drain(SECOND).await, 1);
    call.abort();
    assert_eq!(drain_of(&layer).drain(SECOND).await, 0);
    stock.oneshot(2).await.unwrap_err();
    let heard: Vec<_> = events.try_iter().collect();
    let expected = [
        "stock: drain began with 1 calls in flight",
        "stock: drain ended with 1 calls in flight",
        "stock: drain ended with 0 calls in flight",
        "stock: drain refused a call: draining",
    ];
    assert_eq!(heard, expected);
}

#[tokio::test(start_paused = true)]
async fn a_stack_has_a_drain_only_if_it_is_set() {
    let layer = standard("stock").unlimited().build().unwrap();
    assert!(layer.handle().drain().is_none());
}
