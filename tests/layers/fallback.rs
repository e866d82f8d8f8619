//! What a fallback makes of failed calls.

use crate::common;
use crate::recorded;

use std::future::pending;
use std::io;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use crate::debugging::DebuggingRecorder;
use buttress::circuit_breaker::State;
use buttress::fallback::{self, Failed};
use buttress::{
    BoxError, CircuitBreakerLayer, Deadline, DeadlineLayer, Error, ErrorKind, FallbackLayer, Never,
    Outcome, Replay, TimeoutLayer, classify_fn,
};
use common::{Plan, Probe, Task};
use tokio::time::{Instant, sleep};
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// Answers with the request, or fails as it says.
async fn primary(request: &'static str) -> Result<&'static str, BoxError> {
    match request {
        "error" => Err("reset".into()),
        "refused" => Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()),
        "hangs" => pending().await,
        request => Ok(request),
    }
}

/// Judges answers by their word.
fn by_word(result: Result<&&'static str, &Error>) -> Outcome {
    match result {
        Ok(&"failure") | Err(_) => Outcome::Failure,
        Ok(&"overload") => Outcome::Overload { retry_after: None },
        Ok(&"ignored") => Outcome::Ignored,
        Ok(&"cancelled") => Outcome::Cancelled,
        Ok(_) => Outcome::Success,
    }
}

#[tokio::test]
async fn by_default_failures_and_overloads_are_answered_and_nothing_else() {
    let layer = FallbackLayer::config("default", fallback::value("unknown"))
        .classify(classify_fn(by_word))
        .build()
        .unwrap();
    let ask = |request| layer.wrap(service_fn(primary)).oneshot(request);
    for failed in ["error", "refused", "failure", "overload"] {
        assert_eq!(ask(failed).await.unwrap(), "unknown", "{failed}");
    }
    for other in ["ok", "ignored", "cancelled"] {
        assert_eq!(ask(other).await.unwrap(), other);
    }
}

#[tokio::test(start_paused = true)]
async fn rejections_and_timeouts_of_layers_further_in_are_answered() {
    let breaker = CircuitBreakerLayer::new("rejects");
    breaker.handle().force_open();
    let layer = FallbackLayer::new("rejects", fallback::value("unknown"));
    let rejecting = layer.layer(breaker.layer(service_fn(primary)));
    assert_eq!(rejecting.oneshot("ok").await.unwrap(), "unknown");
    let timeout = TimeoutLayer::new("rejects", SECOND);
    let slow = layer.layer(timeout.layer(service_fn(primary)));
    assert_eq!(slow.oneshot("hangs").await.unwrap(), "unknown");
}

#[tokio::test(start_paused = true)]
async fn outcomes_and_kinds_of_error_can_be_chosen() {
    let breaker = CircuitBreakerLayer::new("chosen");
    let only_open = FallbackLayer::config("chosen", fallback::value("unknown"))
        .when(|failed: Failed<'_, &str>| failed.kind() == Some(ErrorKind::CircuitOpen))
        .build()
        .unwrap();
    let client = only_open.layer(breaker.layer(service_fn(primary)));
    let error = client.clone().oneshot("error").await.unwrap_err();
    assert_eq!(
        error.service_error().unwrap().to_string(),
        "reset",
        "as it came"
    );
    breaker.handle().force_open();
    assert_eq!(client.clone().oneshot("ok").await.unwrap(), "unknown");

    let by_outcome = FallbackLayer::config("chosen", fallback::value("unknown"))
        .classify(classify_fn(by_word))
        .when(|failed: Failed<'_, &str>| {
            failed.outcome() == Outcome::Ignored && failed.result().is_ok()
        })
        .build()
        .unwrap();
    let client = by_outcome.layer(service_fn(primary));
    assert_eq!(client.clone().oneshot("ignored").await.unwrap(), "unknown");
    assert_eq!(client.clone().oneshot("failure").await.unwrap(), "failure");
    for never in ["ok", "cancelled"] {
        let greedy = FallbackLayer::config("chosen", fallback::value("unknown"))
            .classify(classify_fn(by_word))
            .when(|_: Failed<'_, &str>| true)
            .build()
            .unwrap();
        let answer = greedy.layer(service_fn(primary)).oneshot(never).await;
        assert_eq!(answer.unwrap(), never, "is never replaced");
    }
}

#[tokio::test]
async fn a_function_sees_the_request_and_the_failure_and_may_have_no_answer() {
    let stale =
        fallback::from_request(|request: &'static str, failed: Failed<'_, &'static str>| {
            assert_eq!(
                failed
                    .result()
                    .unwrap_err()
                    .service_error()
                    .unwrap()
                    .to_string(),
                "reset"
            );
            (request == "error").then_some("yesterday's")
        });
    let client = FallbackLayer::new("function", stale).layer(service_fn(primary));
    assert_eq!(
        client.clone().oneshot("error").await.unwrap(),
        "yesterday's"
    );

    let none = fallback::from_failure(|_: Failed<'_, &'static str>| None);
    let client = FallbackLayer::new("function", none).layer(service_fn(primary));
    let error = client.clone().oneshot("error").await.unwrap_err();
    assert_eq!(error.service_error().unwrap().to_string(), "reset");
}

#[tokio::test(start_paused = true)]
async fn an_async_function_is_waited_for_and_may_have_no_answer() {
    let cached =
        fallback::from_request_async(|request: &'static str, failed: Failed<'_, &'static str>| {
            let is_error = failed.kind() == Some(ErrorKind::Service);
            async move {
                sleep(SECOND).await;
                (request == "error" && is_error).then_some("yesterday's")
            }
        });
    let layer = FallbackLayer::config("async", cached)
        .classify(classify_fn(by_word))
        .build()
        .unwrap();
    let client = layer.layer(service_fn(primary));
    let began = Instant::now();
    assert_eq!(client.send("ok").await.unwrap(), "ok");
    assert_eq!(began.elapsed(), Duration::ZERO, "not asked after a success");
    let call = tokio::spawn(client.send("error"));
    assert_eq!(call.await.unwrap().unwrap(), "yesterday's");
    assert_eq!(began.elapsed(), SECOND);

    // The failure comes back as it is: a response as well as an error.
    assert_eq!(client.send("overload").await.unwrap(), "overload");
    let error = client.send("refused").await.unwrap_err();
    assert!(error.downcast_ref::<io::Error>().is_some(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn an_async_function_is_not_called_after_the_deadline_and_ends_with_the_call() {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let held = Arc::new(());
    let function = {
        let held = Arc::clone(&held);
        move |_: &'static str, _: Failed<'_, &'static str>| {
            STARTED.fetch_add(1, Ordering::Relaxed);
            let held = Arc::clone(&held);
            async move {
                pending::<()>().await;
                drop(held);
                None
            }
        }
    };
    let layer = FallbackLayer::new("async", fallback::from_request_async(function));
    let client = layer.layer(service_fn(primary));
    let over = Deadline::after(Duration::ZERO);
    let mut late = Box::pin(over.scope(client.send("error")));
    let Poll::Ready(Err(error)) = Task::default().poll(&mut late) else {
        panic!("the function is called");
    };
    assert_eq!(error.kind(), ErrorKind::Service);
    assert_eq!(STARTED.load(Ordering::Relaxed), 0);

    // A deadline outside ends it.
    let bounded = DeadlineLayer::new("outer", SECOND).layer(client.clone());
    let error = bounded.send("error").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    let mut call = Box::pin(client.send("error"));
    assert!(Task::default().poll(&mut call).is_pending());
    assert_eq!(
        (STARTED.load(Ordering::Relaxed), Arc::strong_count(&held)),
        (2, 3)
    );
    drop(call);
    assert_eq!(Arc::strong_count(&held), 2, "the function's own");
}

#[tokio::test]
async fn the_request_is_copied_only_for_a_fallback_that_needs_it() {
    static COPIES: AtomicU32 = AtomicU32::new(0);
    let copy = |request: &&'static str| {
        COPIES.fetch_add(1, Ordering::Relaxed);
        Some(*request)
    };
    let inner = service_fn(primary);
    let config = FallbackLayer::config("copies", fallback::value("unknown")).replay(copy);
    config
        .build()
        .unwrap()
        .layer(inner)
        .oneshot("error")
        .await
        .unwrap();
    let function = fallback::from_failure(|_: Failed<'_, &'static str>| Some("unknown"));
    let config = FallbackLayer::config("copies", function).replay(copy);
    config
        .build()
        .unwrap()
        .layer(inner)
        .oneshot("error")
        .await
        .unwrap();
    assert_eq!(COPIES.load(Ordering::Relaxed), 0);

    let second = fallback::service(service_fn(async |_: &'static str| Ok::<_, BoxError>("2nd")));
    let config = FallbackLayer::config("copies", second).replay(copy);
    let client = config.build().unwrap().layer(inner);
    assert_eq!(client.clone().oneshot("error").await.unwrap(), "2nd");
    assert_eq!(client.clone().oneshot("ok").await.unwrap(), "ok");
    assert_eq!(COPIES.load(Ordering::Relaxed), 2, "one for each call");
}

#[tokio::test]
async fn a_request_that_is_not_copied_gets_its_failure_back() {
    let second = fallback::service(service_fn(primary));
    let layer = FallbackLayer::config("once", second)
        .replay(Never)
        .build()
        .unwrap();
    let error = layer
        .layer(service_fn(primary))
        .oneshot("error")
        .await
        .unwrap_err();
    assert_eq!(error.service_error().unwrap().to_string(), "reset");
}

#[tokio::test]
async fn the_failed_call_holds_nothing_when_the_second_service_is_called() {
    static LIVE: AtomicU32 = AtomicU32::new(0);

    /// A response that holds something until it is dropped.
    #[derive(Debug)]
    struct Poisoned;

    impl Drop for Poisoned {
        fn drop(&mut self) {
            LIVE.fetch_sub(1, Ordering::Relaxed);
        }
    }

    let failing = service_fn(async |_: u32| {
        assert_eq!(
            LIVE.fetch_add(1, Ordering::Relaxed),
            0,
            "the first response is gone"
        );
        Ok::<_, BoxError>(Poisoned)
    });
    // One call at a time, whether to the first or to the second service.
    let one = ConcurrencyLimitLayer::new(1).layer(failing);
    let layer = FallbackLayer::config("holds", fallback::service(one.clone()))
        .classify(classify_fn(|_: Result<&Poisoned, &Error>| Outcome::Failure))
        .build()
        .unwrap();
    let mut call = Box::pin(layer.layer(one).oneshot(1));
    let answer = Task::default().poll(&mut call);
    assert!(
        matches!(answer, Poll::Ready(Ok(_))),
        "waits for a permit that it holds itself"
    );
}

#[tokio::test(start_paused = true)]
async fn a_circuit_breaker_further_in_still_counts_the_failures() {
    let breaker = CircuitBreakerLayer::new("counts");
    let layer = FallbackLayer::new("counts", fallback::value("unknown"));
    let client = layer.layer(breaker.layer(service_fn(primary)));
    for _ in 0..20 {
        assert_eq!(client.clone().oneshot("error").await.unwrap(), "unknown");
    }
    assert_eq!(breaker.handle().state(), State::Open);
}

#[tokio::test]
async fn the_error_of_the_second_service_comes_back_unless_it_was_not_reached() {
    #[derive(Debug, thiserror::Error)]
    #[error("the cache is corrupt")]
    struct Corrupt;

    let corrupt = service_fn(async |_: &'static str| Err::<&str, BoxError>(Corrupt.into()));
    let layer = FallbackLayer::new("errors", fallback::service(corrupt));
    let error = layer
        .layer(service_fn(primary))
        .oneshot("error")
        .await
        .unwrap_err();
    let inside = error.service_error().unwrap();
    assert!(inside.is::<Corrupt>(), "untouched: {error:?}");

    let open = CircuitBreakerLayer::new("errors");
    open.handle().force_open();
    let layer = FallbackLayer::new("errors", fallback::service(open.layer(service_fn(primary))));
    let error = layer
        .layer(service_fn(primary))
        .oneshot("error")
        .await
        .unwrap_err();
    assert_eq!(
        error.service_error().unwrap().to_string(),
        "reset",
        "not an error that says: not sent"
    );
    assert!(error.kind() == ErrorKind::Service && error.was_sent());

    // Nothing proves that it was not reached.
    let refused = service_fn(async |_: &'static str| primary("refused").await);
    let layer = FallbackLayer::new("errors", fallback::service(refused));
    let error = layer.layer(service_fn(primary)).oneshot("error").await;
    assert!(error.unwrap_err().downcast_ref::<io::Error>().is_some());
    // The answer of the first one was a failure, so something may have acted.
    let layer = FallbackLayer::config("errors", fallback::service(open.layer(service_fn(primary))));
    let layer = layer.classify(classify_fn(by_word)).build().unwrap();
    let error = layer.layer(service_fn(primary)).oneshot("failure").await;
    assert!(error.unwrap_err().was_sent());
}

#[tokio::test(start_paused = true)]
async fn a_value_is_given_after_the_deadline_and_a_second_service_is_not_asked() {
    let deadline = DeadlineLayer::new("late", SECOND);
    let layer = FallbackLayer::new("late", fallback::value("unknown"));
    let own = layer.layer(deadline.layer(service_fn(primary)));
    assert_eq!(own.oneshot("hangs").await.unwrap(), "unknown");
    let inherited = layer.layer(deadline.layer(service_fn(primary)));
    let over = Deadline::after(Duration::ZERO);
    assert_eq!(
        over.scope(inherited.oneshot("ok")).await.unwrap(),
        "unknown"
    );

    let second = service_fn(async |_: &'static str| Ok::<_, BoxError>("2nd"));
    let layer = FallbackLayer::new("late", fallback::service(second));
    let client = layer.layer(deadline.layer(service_fn(primary)));
    let over = Deadline::after(Duration::ZERO);
    let error = over.scope(client.clone().oneshot("ok")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    let answer = client.clone().oneshot("hangs").await.unwrap();
    assert_eq!(answer, "2nd", "an inner deadline has no say any more");
}

#[tokio::test]
async fn a_second_service_is_not_asked_to_act_twice_on_what_is_not_idempotent() {
    #[derive(Clone)]
    struct NotIdempotent;

    impl Replay<&'static str> for NotIdempotent {
        fn copy(&self, request: &&'static str) -> Option<&'static str> {
            Some(request)
        }

        fn is_idempotent(&self, _: &&'static str) -> bool {
            false
        }
    }

    let second = service_fn(async |_: &'static str| Ok::<_, BoxError>("second"));
    let layer = FallbackLayer::config("once", fallback::service(second))
        .replay(NotIdempotent)
        .build()
        .unwrap();
    let ask = |request| layer.layer(service_fn(primary)).oneshot(request);
    assert_eq!(
        ask("error")
            .await
            .unwrap_err()
            .service_error()
            .unwrap()
            .to_string(),
        "reset"
    );
    assert!(
        ask("refused").await.is_err(),
        "nothing proves that it was not sent"
    );
    let open = CircuitBreakerLayer::new("open");
    open.handle().force_open();
    let refused = layer.layer(open.layer(service_fn(primary)));
    assert_eq!(
        refused.oneshot("ok").await.unwrap(),
        "second",
        "it was not sent"
    );
}

#[tokio::test(start_paused = true)]
async fn a_second_service_is_called_when_it_is_ready_and_dropped_with_the_call() {
    let failing = Probe::new(&[Plan::FAILS; 4]);
    let second = Probe::new(&[
        Plan::readiness(2, common::GOOD),
        Plan::answer(0, common::End::Held),
        Plan::readiness(0, common::End::Held),
    ]);
    let layer = FallbackLayer::new("ready", fallback::service(second.clone()));
    let client = layer.layer(failing.clone());
    client.clone().oneshot(1).await.unwrap();
    assert_eq!((second.calls(), second.seen().held), (1, 0));
    for _ in 0..2 {
        let mut call = client.clone().oneshot(1);
        let task = Task::default();
        assert!(task.poll(&mut call).is_pending());
        assert_eq!(failing.seen().held, 0, "the first call is over");
        drop(call);
        assert_eq!(second.seen().held, 0);
        assert!(task.is_forgotten());
    }
    second.follow(&[Plan::readiness(0, common::End::Error)]);
    let error = client.clone().oneshot(1).await.unwrap_err();
    assert_eq!(
        error.service_error().unwrap().to_string(),
        "connection reset",
        "of its readiness"
    );
}

#[tokio::test(start_paused = true)]
async fn a_fallback_keeps_the_contract_of_readiness() {
    let probe = Probe::new(&[Plan::readiness(1, common::GOOD)]);
    let second = fallback::service(Probe::new(&[]));
    let mut client = FallbackLayer::new("contract", second).layer(probe.clone());
    for _ in 0..3 {
        assert!(Task::default().poll(&mut client.ready()).is_ready());
    }
    client.call(1).await.unwrap();
    let mut clone = client.clone();
    clone.call(1).await.unwrap();
    assert_eq!((probe.calls(), probe.seen().held), (2, 0));
}

#[tokio::test]
async fn a_panic_of_the_function_or_of_the_second_service_leaves_the_layer_whole() {
    let function = fallback::from_request(|request: &'static str, _: Failed<'_, &'static str>| {
        assert_ne!(request, "error", "the function panics");
        Some("unknown")
    });
    let client = FallbackLayer::new("panics", function).layer(service_fn(primary));
    let call = tokio::spawn(client.clone().oneshot("error"));
    assert!(call.await.unwrap_err().is_panic());
    assert_eq!(client.clone().oneshot("refused").await.unwrap(), "unknown");

    let second = service_fn(async |request: &'static str| {
        assert_ne!(request, "error", "the second service panics");
        Ok::<_, BoxError>("2nd")
    });
    let client = FallbackLayer::new("panics", fallback::service(second)).layer(service_fn(primary));
    let call = tokio::spawn(client.clone().oneshot("error"));
    assert!(call.await.unwrap_err().is_panic());
    assert_eq!(client.clone().oneshot("refused").await.unwrap(), "2nd");
}

#[tokio::test(start_paused = true)]
async fn every_result_is_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let inner = service_fn(primary);
    let second = || fallback::service(service_fn(async |_: &'static str| primary("error").await));
    let value = FallbackLayer::new("counted", fallback::value("unknown")).layer(inner);
    value.clone().oneshot("ok").await.unwrap();
    value.clone().oneshot("error").await.unwrap();
    value.clone().oneshot("refused").await.unwrap();
    let failing = FallbackLayer::new("counted", second()).layer(inner);
    failing.clone().oneshot("error").await.unwrap_err();
    let over = Deadline::after(Duration::ZERO);
    over.scope(failing.oneshot("error")).await.unwrap_err();
    let once = FallbackLayer::config("counted", second())
        .replay(Never)
        .build()
        .unwrap();
    once.layer(inner).oneshot("error").await.unwrap_err();
    let none = fallback::from_failure(|_: Failed<'_, &'static str>| None);
    let none = FallbackLayer::new("counted", none);
    none.layer(inner).oneshot("error").await.unwrap_err();
    let lookup = |request: &'static str, _: Failed<'_, &'static str>| async move {
        (request == "error").then_some("unknown")
    };
    let lookup = fallback::from_request_async(lookup);
    let lookup = FallbackLayer::new("counted", lookup).layer(inner);
    lookup.clone().oneshot("error").await.unwrap();
    lookup.oneshot("refused").await.unwrap_err();
    let bad = fallback::service(service_fn(async |_: &'static str| {
        Ok::<_, BoxError>("failure")
    }));
    let bad = FallbackLayer::config("counted", bad).classify(classify_fn(by_word));
    let answer = bad.build().unwrap().layer(inner).oneshot("error").await;
    assert_eq!(answer.unwrap(), "failure", "comes back as it is");

    let rows = recorded::rows(&snapshotter).filter(|row| row.metric == "buttress_fallbacks_total");
    let mut seen: Vec<_> = rows
        .map(|row| {
            assert_eq!(row.label("name"), Some("counted"));
            (row.label("result").unwrap().to_owned(), row.value as u64)
        })
        .collect();
    seen.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [
        ("answered", 3),
        ("deadline", 1),
        ("failed", 2),
        ("no_answer", 2),
        ("not_copyable", 1),
    ];
    let expected = expected.map(|(labels, count)| (labels.to_owned(), count));
    assert_eq!(seen, expected);
}

#[test]
fn a_name_that_is_empty_is_refused() {
    let error = FallbackLayer::config("", fallback::value(1))
        .build()
        .unwrap_err();
    assert_eq!((error.layer(), error.field()), ("fallback", "name"));
}

#[test]
fn requests_need_not_be_sync_and_responses_need_not_be_clone() {
    fn send_and_sync<T: Send + Sync>(_: &T) {}
    fn send<T: Send>(_: &T) {}

    /// Not `Clone`, not `Sync`.
    struct Response(PhantomData<*const ()>);

    struct Request(std::cell::Cell<u32>);

    let inner = service_fn(async |_: Request| Ok::<_, BoxError>(7));
    let layer = FallbackLayer::config("bounds", fallback::service(inner))
        .replay(|request: &Request| Some(Request(request.0.clone())))
        .build()
        .unwrap();
    let mut client = layer.wrap(inner);
    send_and_sync(&client);
    send(&client.call(Request(1.into())));

    let local = service_fn(async |_: Rc<u32>| Ok::<_, BoxError>(Response(PhantomData)));
    let function = fallback::from_failure(|_: Failed<'_, Response>| None);
    drop(FallbackLayer::new("bounds", function).wrap::<Rc<u32>, _>(local));
}

#[test]
fn a_fallback_adds_little_to_the_future() {
    let mut inner = service_fn(async |request: [u8; 100]| Ok::<_, BoxError>(request));
    let layer = FallbackLayer::new("size", fallback::value([0; 100]));
    let whole = size_of_val(&layer.layer(inner).call([0; 100]));
    let added = whole - size_of_val(&inner.call([0; 100]));
    assert!(added <= 32, "adds {added} bytes");
    drop(ServiceBuilder::new().layer(layer).service(inner));
}
