//! What timeout and deadline do.

use std::future::{pending, poll_fn, ready};
use std::task::Poll;
use std::time::Duration;

use buttress::{BoxError, Deadline, DeadlineLayer, Error, ErrorKind, RetryLayer, TimeoutLayer};
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn kind(error: &Error) -> Option<ErrorKind> {
    (error.kind() != ErrorKind::Service).then(|| error.kind())
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_ends_in_time() {
    let service = TimeoutLayer::new("slow", SECOND)
        .layer(service_fn(|(): ()| pending::<Result<(), BoxError>>()));
    let start = Instant::now();
    let error = service.oneshot(()).await.unwrap_err();
    let found = Error::find(&error).unwrap();
    assert_eq!(
        (found.kind(), found.was_sent(), found.name()),
        (ErrorKind::Timeout, true, "slow")
    );
    assert!(!found.is_rejection());
    assert_eq!(start.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_with_the_timeout_wins() {
    for layer in [SECOND, Duration::from_millis(999)] {
        let answer = service_fn(|(): ()| async {
            sleep(SECOND).await;
            Ok::<_, BoxError>(())
        });
        let result = TimeoutLayer::new("tie", layer)
            .layer(answer)
            .oneshot(())
            .await;
        assert_eq!(result.is_ok(), layer == SECOND);
        let result = DeadlineLayer::new("tie", layer)
            .layer(answer)
            .oneshot(())
            .await;
        assert_eq!(result.is_ok(), layer == SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_from_the_request_may_be_zero_or_endless() {
    let timeout = |timeout: &Duration| *timeout;
    let layer = TimeoutLayer::per_request("by request", timeout);
    let service = |wait: Duration| {
        layer.layer(service_fn(move |_: Duration| async move {
            if !wait.is_zero() {
                sleep(wait).await;
            }
            Ok::<_, BoxError>(())
        }))
    };
    service(Duration::ZERO)
        .oneshot(Duration::ZERO)
        .await
        .unwrap();
    let start = Instant::now();
    let error = service(SECOND).oneshot(Duration::ZERO).await.unwrap_err();
    assert_eq!(kind(&error), Some(ErrorKind::Timeout));
    assert_eq!(start.elapsed(), Duration::ZERO, "at once");
    let nearly = Duration::MAX.saturating_sub(Duration::from_nanos(1));
    for endless in [Duration::MAX, nearly, Duration::from_secs(u64::MAX)] {
        let call = service(SECOND * 100_000).oneshot(endless);
        call.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_before_the_first_poll_does_not_count() {
    let service = TimeoutLayer::new("first poll", SECOND).layer(service_fn(|(): ()| async {
        sleep(SECOND / 2).await;
        Ok::<_, BoxError>(())
    }));
    let call = service.oneshot(());
    sleep(SECOND * 5).await;
    call.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_inner_service_is_not_a_timeout() {
    async fn inside((): ()) -> Result<(), BoxError> {
        sleep(SECOND / 2).await;
        panic!("inside")
    }
    let service = TimeoutLayer::new("panic", SECOND).layer(service_fn(inside));
    let joined = tokio::spawn(service.oneshot(())).await;
    assert!(joined.unwrap_err().is_panic());
}

#[tokio::test(start_paused = true)]
async fn a_future_that_uses_up_the_cooperative_budget_still_times_out() {
    // Every poll spends the whole budget, so that a timer which asks for some never gets any.
    async fn greedy((): ()) -> Result<(), BoxError> {
        loop {
            tokio::task::coop::consume_budget().await;
        }
    }
    let timeout = TimeoutLayer::new("greedy", SECOND).layer(service_fn(greedy));
    let deadline = DeadlineLayer::new("greedy", SECOND).layer(service_fn(greedy));
    let calls = [
        tokio::spawn(timeout.oneshot(())),
        tokio::spawn(deadline.oneshot(())),
    ];
    for _ in 0..15 {
        tokio::time::advance(SECOND / 10).await;
    }
    assert!(calls.iter().all(tokio::task::JoinHandle::is_finished));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_covers_all_attempts_and_waits() {
    let service = ServiceBuilder::new()
        .layer(DeadlineLayer::new("whole", SECOND))
        .layer(
            RetryLayer::config("whole")
                .max_attempts(100)
                .no_budget()
                .build()
                .unwrap(),
        )
        .layer(TimeoutLayer::new("whole", SECOND / 5))
        .service(service_fn(|(): ()| pending::<Result<(), BoxError>>()));
    let start = Instant::now();
    let error = service.oneshot(()).await.unwrap_err();
    assert!(matches!(
        kind(&error),
        Some(ErrorKind::DeadlineExceeded | ErrorKind::Timeout)
    ));
    assert!(start.elapsed() <= SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_sooner_of_an_inherited_deadline_and_our_own_counts() {
    let slow = service_fn(|(): ()| pending::<Result<(), BoxError>>());
    for (inherited, own) in [(1, 5), (5, 1)] {
        let start = Instant::now();
        let layer = DeadlineLayer::new("inherited", SECOND * own);
        let call = Deadline::after(SECOND * inherited).scope(layer.layer(slow).oneshot(()));
        assert_eq!(
            kind(&call.await.unwrap_err()),
            Some(ErrorKind::DeadlineExceeded)
        );
        assert_eq!(start.elapsed(), SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sooner_deadline_counts_also_for_a_call_that_was_made_outside_of_it() {
    let start = Instant::now();
    let slow = service_fn(|(): ()| pending::<Result<(), BoxError>>());
    let mut service = DeadlineLayer::new("outside", SECOND * 10).layer(slow);
    let call = tower::Service::call(&mut service, ());
    let error = Deadline::after(SECOND).scope(call).await.unwrap_err();
    assert_eq!(kind(&error), Some(ErrorKind::DeadlineExceeded));
    assert_eq!(start.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_call_after_the_deadline_is_not_sent() {
    let service = service_fn(|(): ()| -> std::future::Ready<Result<(), BoxError>> {
        panic!("must not be called")
    });
    let call = DeadlineLayer::new("expired", SECOND)
        .layer(service)
        .oneshot(());
    let error = Deadline::after(Duration::ZERO)
        .scope(call)
        .await
        .unwrap_err();
    let found = Error::find(&error).unwrap();
    assert_eq!(
        (found.kind(), found.is_rejection()),
        (ErrorKind::DeadlineExceeded, true)
    );
}

#[tokio::test(start_paused = true)]
async fn the_time_that_is_left_is_seen_in_call_and_poll_and_shrinks_with_each_attempt() {
    let service = service_fn(|(): ()| {
        let in_call = Deadline::current().unwrap();
        async move {
            sleep(SECOND / 10).await;
            assert_eq!(Deadline::current(), Some(in_call));
            Err::<(), _>(BoxError::from(format!("{:?} left", in_call.remaining())))
        }
    });
    let retry = RetryLayer::config("left")
        .max_attempts(2)
        .backoff(buttress::Backoff::constant(SECOND / 10).jitter(buttress::Jitter::None));
    let service = ServiceBuilder::new()
        .layer(DeadlineLayer::new("left", SECOND))
        .layer(retry.build().unwrap())
        .service(service);
    let error = service.oneshot(()).await.unwrap_err();
    assert_eq!(error.service_error().unwrap().to_string(), "700ms left");
    assert_eq!(Deadline::current(), None);
}

#[tokio::test(start_paused = true)]
async fn two_calls_on_one_task_each_have_their_own_deadline() {
    let layer = |seconds| DeadlineLayer::new("join", SECOND * seconds);
    let remaining = service_fn(|(): ()| {
        poll_fn(|_| Poll::Ready(Ok::<_, BoxError>(Deadline::current().unwrap().remaining())))
    });
    let (one, two) = tokio::join!(
        layer(1).layer(remaining).oneshot(()),
        layer(2).layer(remaining).oneshot(()),
    );
    assert_eq!((one.unwrap(), two.unwrap()), (SECOND, SECOND * 2));
}

#[tokio::test(start_paused = true)]
async fn an_answer_at_once_is_passed_on() {
    let service = ServiceBuilder::new()
        .layer(DeadlineLayer::new("at once", SECOND))
        .layer(TimeoutLayer::new("at once", SECOND))
        .service(service_fn(|n: u32| ready(Ok::<_, BoxError>(n + 1))));
    assert_eq!(service.oneshot(1).await.unwrap(), 2);
}
