//! What retry does, over services that follow a script.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::future::ready;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use buttress::{
    Attempt, Backoff, BoxError, Budget, CircuitBreakerLayer, Classify, Deadline, DeadlineLayer,
    Error, ErrorKind, HedgeLayer, Jitter, Never, Outcome, Pushback, Replay, RetryLayer,
    classify_fn,
};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};

/// Counts the attempts that reach a service, and when they did.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Instant>>>);

impl Log {
    fn attempts(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// The waits between the attempts.
    fn waits(&self) -> Vec<Duration> {
        let times = self.0.lock().unwrap();
        times.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// A service that fails until the attempt number `succeeds_at`.
    fn service<Req: Send + 'static>(
        &self,
        succeeds_at: usize,
    ) -> impl Service<Req, Response = usize, Error = BoxError, Future: Send> + Clone + Send + use<Req>
    {
        let log = self.clone();
        service_fn(move |_: Req| {
            log.0.lock().unwrap().push(Instant::now());
            let attempt = log.attempts();
            ready(if attempt >= succeeds_at {
                Ok(attempt)
            } else {
                Err(BoxError::from(format!("attempt {attempt} failed")))
            })
        })
    }
}

fn plain(wait: Duration) -> Backoff {
    Backoff::constant(wait).jitter(Jitter::None)
}

const NEVER: usize = usize::MAX;
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_failed_call_is_tried_again_until_it_succeeds() {
    let log = Log::default();
    let retry = RetryLayer::new("until-success");
    assert_eq!(retry.layer(log.service(3)).oneshot(()).await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_last_error_comes_back_when_all_attempts_have_failed() {
    let log = Log::default();
    let retry = RetryLayer::new("last-error");
    let error = retry
        .layer(log.service(NEVER))
        .oneshot(())
        .await
        .unwrap_err();
    assert_eq!(
        error.service_error().unwrap().to_string(),
        "attempt 3 failed"
    );
}

#[tokio::test(start_paused = true)]
async fn two_requests_get_different_waits_and_a_seed_repeats_them() {
    async fn waits(seed: u64) -> [Vec<Duration>; 2] {
        let retry = RetryLayer::config("sequences").seed(seed).build().unwrap();
        let logs = [Log::default(), Log::default()];
        for log in &logs {
            drop(retry.layer(log.service(NEVER)).oneshot(()).await);
        }
        logs.map(|log| log.waits())
    }
    let [first, second] = waits(1).await;
    assert_ne!(first, second);
    assert_eq!(waits(1).await, [first, second]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_copied_is_sent_once() {
    #[derive(Debug)]
    struct NotClone;
    let log = Log::default();
    let retry = RetryLayer::config("once").replay(Never).build().unwrap();
    let service = retry.wrap::<NotClone, _>(log.service(NEVER));
    assert!(service.oneshot(NotClone).await.is_err());
    assert_eq!(log.attempts(), 1);
}

/// A request that counts its copies.
#[derive(Clone, Default)]
struct Counted {
    copies: Arc<AtomicU32>,
    marks: Vec<u32>,
}

/// Copies and marks [`Counted`] requests; they are idempotent or not.
#[derive(Clone, Copy)]
struct Counting {
    is_idempotent: bool,
}

impl Replay<Counted> for Counting {
    fn copy(&self, request: &Counted) -> Option<Counted> {
        request.copies.fetch_add(1, Ordering::Relaxed);
        Some(request.clone())
    }

    fn is_idempotent(&self, _: &Counted) -> bool {
        self.is_idempotent
    }

    fn set_attempt(&self, request: &mut Counted, attempt: u32) {
        request.marks.push(attempt);
    }
}

#[tokio::test(start_paused = true)]
async fn requests_are_copied_only_while_a_further_attempt_is_possible() {
    let replay = Counting {
        is_idempotent: true,
    };
    for (max_attempts, copies) in [(1, 0), (2, 1), (3, 2)] {
        let retry = RetryLayer::config("copies")
            .max_attempts(max_attempts)
            .replay(replay)
            .build()
            .unwrap();
        let request = Counted::default();
        let counter = Arc::clone(&request.copies);
        let log = Log::default();
        assert!(
            retry
                .layer(log.service(NEVER))
                .oneshot(request)
                .await
                .is_err()
        );
        assert_eq!(counter.load(Ordering::Relaxed), copies);
        assert_eq!(log.attempts() as u32, max_attempts);
    }
}

#[tokio::test(start_paused = true)]
async fn each_attempt_is_marked_in_the_request_and_on_the_task() {
    let replay = Counting {
        is_idempotent: true,
    };
    let retry = RetryLayer::config("marks").replay(replay).build().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let service = service_fn(move |request: Counted| {
        let in_call = Attempt::current().map(Attempt::number);
        let log = Arc::clone(&log);
        async move {
            let in_poll = Attempt::current().map(Attempt::number);
            assert_eq!(in_call, in_poll);
            log.lock().unwrap().push((request.marks, in_poll.unwrap()));
            Err::<(), _>(BoxError::from("failed"))
        }
    });
    assert!(
        retry
            .layer(service)
            .oneshot(Counted::default())
            .await
            .is_err()
    );
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen, [(vec![1], 1), (vec![2], 2), (vec![3], 3)]);
    assert_eq!(Attempt::current(), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_idempotent_is_sent_again_only_if_it_was_provably_not_sent() {
    async fn attempts(error: impl Fn() -> BoxError + Clone + Send + 'static) -> u32 {
        let attempts = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&attempts);
        let service = service_fn(move |_: Counted| {
            count.fetch_add(1, Ordering::Relaxed);
            ready(Err::<(), _>(error()))
        });
        let replay = Counting {
            is_idempotent: false,
        };
        let retry = RetryLayer::config("idempotent").retry_rejections(true);
        let retry = retry.replay(replay).build();
        let retry = retry.unwrap().layer(service);
        assert!(retry.oneshot(Counted::default()).await.is_err());
        attempts.load(Ordering::Relaxed)
    }
    use std::io::ErrorKind::{ConnectionRefused, ConnectionReset};
    assert_eq!(
        attempts(|| std::io::Error::from(ConnectionReset).into()).await,
        1
    );
    assert_eq!(
        attempts(|| std::io::Error::from(ConnectionRefused).into()).await,
        1
    );
    assert_eq!(
        attempts(|| Error::refused("idempotent", None).into()).await,
        3
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_would_reach_the_deadline_is_not_begun() {
    let start = Instant::now();
    for (wait, attempts) in [(999, 2), (1_000, 1), (5_000, 1)] {
        let log = Log::default();
        let retry = RetryLayer::config("deadline")
            .max_attempts(2)
            .backoff(plain(Duration::from_millis(wait)))
            .build()
            .unwrap();
        let service = DeadlineLayer::new("deadline", SECOND).layer(retry.layer(log.service(NEVER)));
        let error = service.oneshot(()).await.unwrap_err();
        assert_eq!(
            error.service_error().unwrap().to_string(),
            format!("attempt {attempts} failed")
        );
    }
    assert_eq!(
        start.elapsed(),
        Duration::from_millis(999),
        "gave up at once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_begins_after_its_deadline_is_not_sent() {
    let log = Log::default();
    let service = RetryLayer::new("expired").layer(log.service(1));
    let call = Deadline::after(Duration::ZERO).scope(service.oneshot(()));
    let error = call.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.was_sent()),
        (ErrorKind::DeadlineExceeded, false)
    );
    assert_eq!(log.attempts(), 0);
}

#[tokio::test(start_paused = true)]
async fn rejections_by_a_layer_further_in_are_not_retried_and_cost_nothing() {
    let breaker = CircuitBreakerLayer::new("rejections");
    breaker.handle().force_open();
    let retry = RetryLayer::new("rejections");
    let (budget, log) = (retry.budget().unwrap().clone(), Log::default());
    let tokens = budget.tokens();
    let service = retry.layer(breaker.layer(log.service::<()>(1)));
    let start = Instant::now();
    let error = service.oneshot(()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CircuitOpen);
    assert_eq!((budget.tokens(), start.elapsed()), (tokens, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn rejections_are_retried_when_asked_for() {
    let breaker = CircuitBreakerLayer::new("asked");
    breaker.handle().force_open();
    let retry = RetryLayer::config("asked")
        .retry_rejections(true)
        .backoff(plain(SECOND))
        .build()
        .unwrap();
    let (handle, log) = (breaker.handle(), Log::default());
    let service = retry.layer(breaker.layer(log.service::<()>(1)));
    let call = tokio::spawn(service.oneshot(()));
    tokio::time::sleep(SECOND / 2).await;
    handle.reset();
    assert_eq!(call.await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn retries_within_the_attempt_of_a_retry_do_not_multiply() {
    for (retry_nested, attempts) in [(false, 3), (true, 9)] {
        let log = Log::default();
        let inner = RetryLayer::config("nested-inner")
            .retry_nested(retry_nested)
            .no_budget()
            .build()
            .unwrap();
        let outer = RetryLayer::config("nested-outer")
            .no_budget()
            .build()
            .unwrap();
        let service = outer.layer(inner.layer(log.service(NEVER)));
        assert!(service.oneshot(()).await.is_err());
        assert_eq!(log.attempts(), attempts);
    }
}

#[tokio::test(start_paused = true)]
async fn retries_do_not_multiply_over_a_buffer_either() {
    let log = Log::default();
    let retry = |name| RetryLayer::config(name).no_budget().build().unwrap();
    let inner = retry("buffer-inner").layer(log.service::<()>(NEVER));
    let buffer = tower::buffer::Buffer::new(inner, 8);
    assert!(
        retry("buffer-outer")
            .layer(buffer)
            .oneshot(())
            .await
            .is_err()
    );
    assert_eq!(log.attempts(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_of_another_retry_brings_nothing_to_the_budget() {
    let budget = Budget::new("nested");
    let retry = || {
        RetryLayer::config("nested")
            .budget(&budget)
            .build()
            .unwrap()
    };
    let service = retry().layer(retry().layer(Log::default().service(1)));
    let tokens = budget.tokens();
    let mut call = tokio_test::task::spawn(service.oneshot(()));
    assert!(call.poll().is_ready());
    assert_eq!((budget.tokens(), budget.in_flight()), (tokens + 1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_not_begun_by_a_task_that_is_woken_after_the_deadline() {
    let log = Log::default();
    let retry = RetryLayer::config("late")
        .backoff(plain(SECOND * 9 / 10))
        .build()
        .unwrap();
    let service = DeadlineLayer::new("late", SECOND).layer(retry.layer(log.service(NEVER)));
    let call = tokio::spawn(service.oneshot(()));
    tokio::task::yield_now().await;
    // The runtime was busy meanwhile.
    tokio::time::advance(SECOND * 3 / 2).await;
    let error = call.await.unwrap().unwrap_err();
    let kind = Some(error.kind());
    assert_eq!(kind, Some(ErrorKind::DeadlineExceeded));
    assert_eq!(log.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_that_knows_when_to_come_back_is_retried_then() {
    let breaker = CircuitBreakerLayer::config("come back")
        .consecutive_failures(1)
        .build()
        .unwrap();
    let log = Log::default();
    let service = breaker.layer(log.service(2));
    assert!(service.clone().oneshot(()).await.is_err());
    let retry = RetryLayer::config("come back")
        .retry_rejections(true)
        .max_attempts(2);
    let service = retry.build().unwrap().layer(service);
    assert_eq!(service.oneshot(()).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_clone_of_the_inner_service_that_panics_harms_one_call_only() {
    /// Fails, and panics when it is cloned while the flag is set.
    struct Fragile(Arc<AtomicU32>);

    impl Clone for Fragile {
        fn clone(&self) -> Self {
            assert_eq!(self.0.load(Ordering::Relaxed), 0, "cloned");
            Self(Arc::clone(&self.0))
        }
    }

    impl Service<()> for Fragile {
        type Response = ();
        type Error = BoxError;
        type Future = std::future::Ready<Result<(), BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            ready(Err("failed".into()))
        }
    }

    let panics = Arc::new(AtomicU32::new(0));
    let retry = RetryLayer::new("fragile").layer(Fragile(Arc::clone(&panics)));
    let broken = tokio::spawn(retry.clone().oneshot(()));
    tokio::task::yield_now().await;
    panics.store(1, Ordering::Relaxed);
    assert!(broken.await.unwrap_err().is_panic());
    panics.store(0, Ordering::Relaxed);
    let error = retry.oneshot(()).await.unwrap_err();
    assert_eq!(error.service_error().unwrap().to_string(), "failed");
}

/// Says that the service asked for something.
#[derive(Clone, Copy)]
struct AsksFor(Pushback);

impl<Res> Classify<Res> for AsksFor {
    fn classify(&self, _: Result<&Res, &Error>) -> Outcome {
        Outcome::Failure
    }

    fn pushback(&self, _: Result<&Res, &Error>) -> Option<Pushback> {
        Some(self.0)
    }
}

#[tokio::test(start_paused = true)]
async fn the_service_may_ask_for_a_time_or_for_no_retry() {
    async fn run(pushback: Pushback) -> Log {
        let log = Log::default();
        let retry = RetryLayer::config("hints")
            .max_attempts(2)
            .backoff(plain(Duration::from_millis(100)))
            .classify(AsksFor(pushback))
            .build()
            .unwrap();
        drop(retry.layer(log.service(NEVER)).oneshot(()).await);
        log
    }
    assert_eq!(run(Pushback::DoNotRetry).await.attempts(), 1);
    let base = Duration::from_millis(100);
    for (asked, spread) in [
        (Duration::ZERO, base),
        (SECOND, base),
        (60 * SECOND, 6 * SECOND),
    ] {
        let waits = run(Pushback::RetryAfter(asked)).await.waits();
        assert!(
            waits.len() == 1 && (asked..=asked + spread).contains(&waits[0]),
            "{waits:?}"
        );
    }
    for longer in [61 * SECOND, Duration::MAX] {
        assert_eq!(run(Pushback::RetryAfter(longer)).await.attempts(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_beyond_the_deadline_ends_the_call_at_once() {
    let log = Log::default();
    let retry = RetryLayer::config("pushback-deadline")
        .classify(AsksFor(Pushback::RetryAfter(SECOND * 2)))
        .build()
        .unwrap();
    let service =
        DeadlineLayer::new("pushback-deadline", SECOND).layer(retry.layer(log.service(NEVER)));
    let start = Instant::now();
    let error = service.oneshot(()).await.unwrap_err();
    assert_eq!(
        (
            error.service_error().unwrap().to_string().as_str(),
            start.elapsed()
        ),
        ("attempt 1 failed", Duration::ZERO)
    );
}

#[tokio::test(start_paused = true)]
async fn ignored_outcomes_are_not_retried() {
    let log = Log::default();
    let classify = classify_fn(|_: Result<&usize, &Error>| Outcome::Ignored);
    let retry = RetryLayer::config("ignored")
        .classify(classify)
        .build()
        .unwrap();
    assert!(retry.layer(log.service(NEVER)).oneshot(()).await.is_err());
    assert_eq!(log.attempts(), 1);
}

/// Sends `calls` calls to a service of which a `share` fails at random; the attempts it gets.
async fn attempts(retry: &RetryLayer, calls: u32, share: f64) -> u32 {
    use rand::{RngExt, SeedableRng, rngs::SmallRng};
    let random = Arc::new(Mutex::new(SmallRng::seed_from_u64(7)));
    let attempts = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&attempts);
    let service = retry.layer(service_fn(move |(): ()| {
        count.fetch_add(1, Ordering::Relaxed);
        let fails = random.lock().unwrap().random_bool(share);
        ready(if fails {
            Err(BoxError::from("failed"))
        } else {
            Ok(())
        })
    }));
    for _ in 0..calls {
        drop(service.clone().oneshot(()).await);
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    attempts.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_down_gets_no_more_than_its_calls() {
    let retry = RetryLayer::new("down");
    assert_eq!(
        attempts(&retry, 10_000, 1.0).await,
        10_004,
        "four retries at the start"
    );
}

#[tokio::test(start_paused = true)]
async fn hardly_a_retry_is_denied_while_a_fifth_of_the_calls_fails() {
    let retry = RetryLayer::new("fifth");
    let expected = 10_000.0 * (1.0 + 0.2 + 0.04);
    let attempts = f64::from(attempts(&retry, 10_000, 0.2).await);
    assert!(
        (attempts / expected - 1.0).abs() < 0.02,
        "{attempts} of {expected}"
    );
}

#[tokio::test(start_paused = true)]
async fn success_of_a_retry_gives_back_what_it_cost_and_no_more() {
    let retry = RetryLayer::new("refund");
    let budget = retry.budget().unwrap().clone();
    let tokens = budget.tokens();
    retry
        .layer(Log::default().service(3))
        .oneshot(())
        .await
        .unwrap();
    assert_eq!(budget.tokens(), tokens);
    retry
        .layer(Log::default().service(1))
        .oneshot(())
        .await
        .unwrap();
    assert_eq!(budget.tokens(), tokens + 1);
    assert!(
        retry
            .layer(Log::default().service(NEVER))
            .oneshot(())
            .await
            .is_err()
    );
    assert_eq!(
        budget.tokens(),
        tokens + 1 - 20,
        "both retries were in vain"
    );
}

#[tokio::test(start_paused = true)]
async fn clones_and_services_of_one_layer_share_the_budget() {
    let retry = RetryLayer::new("shared");
    let service = retry.layer(Log::default().service(NEVER));
    for _ in 0..2 {
        assert!(service.clone().oneshot(()).await.is_err());
    }
    for other in [service, retry.clone().layer(Log::default().service(NEVER))] {
        let error = other.oneshot(()).await.unwrap_err();
        assert_eq!(error.attempts(), Some(1), "no tokens are left: {error}");
    }
    let budget = Budget::new("shared by two");
    let layer = |name| RetryLayer::config(name).budget(&budget).build().unwrap();
    assert!(
        layer("one")
            .layer(Log::default().service(NEVER))
            .oneshot(())
            .await
            .is_err()
    );
    assert_eq!(layer("two").budget().unwrap().tokens(), 20);
}

#[tokio::test(start_paused = true)]
async fn an_overload_costs_twice_and_waits_longer() {
    let classify = classify_fn(|_: Result<&usize, &Error>| Outcome::Overload { retry_after: None });
    let retry = RetryLayer::config("overload")
        .classify(classify)
        .overload_backoff(plain(SECOND))
        .build()
        .unwrap();
    let log = Log::default();
    assert!(retry.layer(log.service(NEVER)).oneshot(()).await.is_err());
    assert_eq!(log.waits(), [SECOND, SECOND]);
    assert_eq!(retry.budget().unwrap().tokens(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_with_a_call_now_and_then_retries_after_an_overload_and_hedges() {
    let classify = || {
        classify_fn(|result: Result<&usize, &Error>| match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Overload { retry_after: None },
        })
    };
    let budget = Budget::new("now and then");
    let retry = RetryLayer::config("now and then")
        .seed(1)
        .classify(classify())
        .budget(&budget)
        .build()
        .unwrap();
    for _ in 0..20 {
        retry
            .layer(Log::default().service(1))
            .oneshot(())
            .await
            .unwrap();
        tokio::time::sleep(20 * SECOND).await;
    }
    for _ in 0..2 {
        let log = Log::default();
        retry.layer(log.service(2)).oneshot(()).await.unwrap();
        assert_eq!(
            (log.attempts(), budget.tokens(), budget.capacity()),
            (2, 10, 10)
        );
    }
    // It has no more than one retry.
    let log = Log::default();
    retry.layer(log.service(3)).oneshot(()).await.unwrap_err();
    assert_eq!((log.attempts(), budget.tokens()), (2, 0));

    // A hedge that is refused brings back the 10 that it took.
    let hedge = HedgeLayer::config("now and then")
        .delay(SECOND)
        .budget(&budget)
        .build()
        .unwrap();
    let hung = || {
        service_fn(|(): ()| async {
            tokio::time::sleep(3 * SECOND).await;
            Ok::<_, BoxError>(0_usize)
        })
    };
    for _ in 0..5 {
        retry
            .layer(Log::default().service(1))
            .oneshot(())
            .await
            .unwrap();
        tokio::time::sleep(20 * SECOND).await;
    }
    assert_eq!((budget.tokens(), budget.capacity()), (10, 10));
    hedge.layer(hung()).oneshot(()).await.unwrap();
    assert_eq!(
        budget.tokens(),
        2,
        "ten for the hedge, and two for a success"
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_process_makes_all_attempts_of_its_first_operation() {
    let overload = Outcome::Overload {
        retry_after: Some(30 * SECOND),
    };
    for outcome in [
        Outcome::Failure,
        Outcome::Overload { retry_after: None },
        overload,
    ] {
        for max_attempts in [1, 2, 3, 60, 1_000] {
            let config = || {
                RetryLayer::config("first")
                    .max_attempts(max_attempts)
                    .classify(classify_fn(move |_: Result<&usize, &Error>| outcome))
            };
            let shared = Budget::new("first");
            // Built when others have told the budget what they need, and before others do.
            drop(RetryLayer::config("other").budget(&shared).build().unwrap());
            for config in [config(), config().budget(&shared)] {
                let (retry, log) = (config.build().unwrap(), Log::default());
                drop(RetryLayer::config("other").budget(&shared).build().unwrap());
                assert!(retry.layer(log.service(NEVER)).oneshot(()).await.is_err());
                assert_eq!(log.attempts() as u32, max_attempts, "{outcome:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_is_built_again_brings_no_new_tokens_to_a_shared_budget() {
    let budget = Budget::new("again");
    let layer = || RetryLayer::config("again").budget(&budget).build().unwrap();
    assert_eq!(budget.tokens(), 0, "nothing has told it what is needed");
    for tokens in [40, 20, 0, 0] {
        let retry = layer();
        assert_eq!(budget.tokens(), tokens);
        assert!(
            retry
                .layer(Log::default().service(NEVER))
                .oneshot(())
                .await
                .is_err()
        );
    }
    let fixed = Budget::config("fixed").initial(1).build().unwrap();
    drop(RetryLayer::config("fixed").budget(&fixed).build().unwrap());
    assert_eq!(fixed.tokens(), 10, "the user has said so");
}

#[cfg(feature = "http")]
mod over_http {
    use super::*;
    use buttress::circuit_breaker::State;
    use buttress::http::{Classifier, standard};
    use http::{Request, Response, StatusCode};

    /// A service that answers each attempt like this.
    fn answering(
        log: &Log,
        status: u16,
        retry_after: &'static str,
    ) -> impl Service<Request<String>, Response = Response<String>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + use<> {
        let log = log.clone();
        service_fn(move |_: Request<String>| {
            log.0.lock().unwrap().push(Instant::now());
            let response = Response::builder()
                .status(status)
                .header("retry-after", retry_after);
            ready(response.body(String::new()).map_err(BoxError::from))
        })
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_waited_for_in_full_or_no_further_request_is_sent() {
        for status in [429, 503, 500] {
            for (asked, deadline, attempts) in [
                ("60", None, 3),
                ("61", None, 1),
                ("86400", None, 1),
                ("60", Some(10), 1),
                ("10", Some(10), 1),
                ("3", Some(10), 3),
                ("0", Some(10), 3),
            ] {
                let log = Log::default();
                let stack = standard("api").unlimited().no_circuit_breaker();
                let stack = match deadline {
                    Some(seconds) => stack.deadline(seconds * SECOND),
                    None => stack.no_response_timeout(),
                };
                let client = stack.build().unwrap().wrap(answering(&log, status, asked));
                let began = Instant::now();
                let response = client.oneshot(Request::new(String::new())).await.unwrap();
                assert_eq!(response.status(), status, "the answer at hand");
                assert_eq!(
                    log.attempts(),
                    attempts,
                    "{status}, {asked} s within {deadline:?} s"
                );
                let asked: u32 = asked.parse().unwrap();
                assert!(log.waits().iter().all(|wait| *wait >= asked * SECOND));
                assert_eq!(began.elapsed(), log.waits().iter().sum(), "ends at once");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_service_does_not_implement_is_asked_for_once_and_is_no_fault() {
        for status in [501, 505] {
            let log = Log::default();
            let stack = standard("api").unlimited().build().unwrap();
            let client = stack.wrap(answering(&log, status, "0"));
            for _ in 0..100 {
                let call = client.clone().oneshot(Request::new(String::new()));
                assert_eq!(call.await.unwrap().status(), status);
            }
            assert_eq!(log.attempts(), 100);
            let handle = stack.handle();
            assert_eq!(handle.circuit_breaker().unwrap().state(), State::Closed);

            let status = StatusCode::from_u16(status).unwrap();
            let log = Log::default();
            let classify = Classifier::new().status(status, Outcome::Failure);
            let stack = standard("api").classify(classify).unlimited();
            let client = stack
                .build()
                .unwrap()
                .wrap(answering(&log, status.as_u16(), "0"));
            client.oneshot(Request::new(String::new())).await.unwrap();
            assert_eq!(log.attempts(), 3, "unless the user says otherwise");
        }
    }
}
