//! The standard stack as users get it.

use crate::recorded;

use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::debugging::DebuggingRecorder;
use buttress::circuit_breaker::State;
use buttress::rate_limit::Rate;
use buttress::stack::{Standard, StandardLayer, StandardService};
use buttress::{
    Attempt, Availability, Backoff, BoxError, Budget, ByClone, CircuitBreakerLayer, ConfigError,
    Deadline, Error, ErrorKind, GaveUp, Jitter, Never, Outcome, Stage, classify_fn, standard,
};
use futures::FutureExt;
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const SECOND: Duration = Duration::from_secs(1);

fn config() -> Standard {
    standard("inventory").unlimited()
}

/// Counts the attempts, of which the first `failing` fail.
#[derive(Clone, Default)]
struct Attempts(Arc<AtomicU32>);

impl Attempts {
    fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn service(
        &self,
        failing: u32,
    ) -> impl Service<u8, Response = u32, Error = BoxError, Future: Send> + Clone + Send + use<>
    {
        let count = Arc::clone(&self.0);
        service_fn(move |_: u8| {
            let attempt = count.fetch_add(1, Ordering::Relaxed) + 1;
            ready(if attempt > failing {
                Ok(attempt)
            } else {
                Err(BoxError::from("connection reset"))
            })
        })
    }
}

async fn hangs(_: u8) -> Result<(), BoxError> {
    pending().await
}

fn kind(error: &Error) -> ErrorKind {
    error.kind()
}

#[tokio::test(start_paused = true)]
async fn the_type_can_be_written_in_a_field() {
    type Judge = fn(Result<&u32, &Error>) -> Outcome;

    #[derive(Clone)]
    struct Shop<S> {
        plain: StandardService<S>,
        layer: StandardLayer,
        once: StandardService<S, Never, Judge>,
    }

    fn is_shared<T: Clone + Send + Sync>(_: &T) {}

    let client = service_fn(|number: u32| ready(Ok::<_, BoxError>(number + 1)));
    let judge: Judge = |_| Outcome::Success;
    let layer = config().build().unwrap();
    let shop = Shop {
        plain: layer.wrap(client),
        once: config()
            .replay(Never)
            .classify(judge)
            .build()
            .unwrap()
            .wrap(client),
        layer,
    };
    is_shared(&shop);
    assert_eq!(shop.clone().plain.oneshot(1).await.unwrap(), 2);
    assert_eq!(shop.once.oneshot(1).await.unwrap(), 2);
    assert_eq!(shop.layer.handle().budget().name(), "inventory");
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_is_made_again() {
    let attempts = Attempts::default();
    let client = config().build().unwrap().wrap(attempts.service(2));
    assert_eq!(client.oneshot(7).await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_its_timeout_and_the_operation_its_deadline() {
    let began = Instant::now();
    let no_wait = Backoff::constant(millis(1)).jitter(Jitter::None);
    let stack = config()
        .timeout(SECOND)
        .deadline(millis(2_500))
        .retry(|retry| retry.backoff(no_wait));
    let client = stack.build().unwrap().wrap(service_fn(hangs));
    let error = client.oneshot(7).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::DeadlineExceeded);
    assert_eq!(began.elapsed(), millis(2_500));

    let began = Instant::now();
    let client = config().no_retry().timeout(SECOND).build().unwrap();
    let error = client.wrap(service_fn(hangs)).oneshot(7).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Timeout);
    assert_eq!(began.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn all_attempts_together_have_the_response_timeout() {
    let no_wait = Backoff::constant(millis(1)).jitter(Jitter::None);
    let stack = config().response_timeout(millis(2_500)).timeout(SECOND);
    let stack = stack.retry(|retry| retry.backoff(no_wait)).build().unwrap();
    let client = stack.wrap(service_fn(hangs));
    let began = Instant::now();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let guard = metrics::set_default_local_recorder(&recorder);
    let error = client.send(7).await.unwrap_err();
    drop(guard);
    assert_eq!(
        (error.kind(), error.stage(), error.was_sent()),
        (ErrorKind::Timeout, Stage::AllAttempts, true)
    );
    assert_eq!(began.elapsed(), millis(2_500));
    assert_eq!(
        error.to_string(),
        "\"inventory\" gave no answer within 2.5s, all attempts included, after 3 of 3 attempts: the response timeout leaves no \
         time for another attempt"
    );
    let timeouts = |layer| {
        let rows = recorded::rows(&snapshotter);
        let mut rows = rows.filter(|row| row.metric == "buttress_timeouts_total");
        rows.find(|row| row.is_of(layer)).map(|row| row.value)
    };
    assert_eq!(timeouts("response_timeout"), Some(1.0));

    // The sooner of the two counts, and the error tells which one it was.
    for (deadline, response_timeout, kind) in [
        (2, 3, ErrorKind::DeadlineExceeded),
        (3, 2, ErrorKind::Timeout),
    ] {
        let stack = config().no_timeout().no_retry();
        let stack = stack.deadline(deadline * SECOND);
        let stack = stack.response_timeout(response_timeout * SECOND);
        let client = stack.build().unwrap().wrap(service_fn(hangs));
        let began = Instant::now();
        assert_eq!(client.send(7).await.unwrap_err().kind(), kind);
        assert_eq!(began.elapsed(), 2 * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_ends_in_its_first_backoff_was_sent_and_tells_its_attempts() {
    use ErrorKind::{DeadlineExceeded, Timeout};
    let backoff = || Backoff::constant(millis(500)).jitter(Jitter::None);
    // The time after which the task is polled again, and the time it brings then.
    for (late, brings, kind, gave_up) in [
        (2_000, None, DeadlineExceeded, GaveUp::Deadline),
        (4_000, None, Timeout, GaveUp::ResponseTimeout),
        (0, Some(10), DeadlineExceeded, GaveUp::Deadline),
    ] {
        let stack = config().retry(|retry| retry.backoff(backoff()));
        let stack = stack.response_timeout(3 * SECOND);
        let stack = if kind == Timeout {
            stack.deadline(60 * SECOND)
        } else {
            stack.deadline(SECOND).no_response_timeout()
        };
        let attempts = Attempts::default();
        let client = stack.build().unwrap().wrap(attempts.service(9));
        let mut call = Box::pin(client.send(7));
        assert!(call.as_mut().now_or_never().is_none());
        tokio::time::advance(millis(late)).await;
        let result = match brings {
            Some(time) => Deadline::after(millis(time)).scope(call).await,
            None => call.await,
        };
        let error = result.unwrap_err();
        assert_eq!(
            (error.kind(), error.attempts(), error.gave_up()),
            (kind, Some(1), Some(gave_up))
        );
        assert!(error.was_sent(), "{error}");
        assert_eq!(attempts.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_inside_a_stack_is_told_of_its_response_timeout() {
    let stack = config().response_timeout(SECOND).build().unwrap();
    let inside = service_fn(async |_: u8| Ok::<_, BoxError>(Deadline::current()));
    assert_eq!(stack.wrap(inside).send(7).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_stack_is_none_of_a_declared_stream() {
    let left =
        service_fn(async |_: u8| Ok::<_, BoxError>(Deadline::current().map(Deadline::remaining)));
    let stack = config().deadline(5 * SECOND);
    let stack = stack.streaming(|request: &u8| *request == 1);
    let client = stack.build().unwrap().wrap(left);
    assert_eq!(client.send(0).await.unwrap(), Some(5 * SECOND));
    assert_eq!(client.send(1).await.unwrap(), None);
    let within = |time| Deadline::after(time).scope(client.send(1));
    assert_eq!(within(9 * SECOND).await.unwrap(), Some(9 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn what_an_open_breaker_refuses_is_not_retried() {
    let attempts = Attempts::default();
    let stack = config().build().unwrap();
    let handle = stack.handle();
    handle.circuit_breaker().unwrap().force_open();
    assert!(!handle.is_available());
    let error = stack
        .wrap(attempts.service(0))
        .oneshot(7)
        .await
        .unwrap_err();
    assert_eq!(
        (kind(&error), attempts.count()),
        (ErrorKind::CircuitOpen, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_bulkhead_refuses_does_not_open_the_breaker() {
    let stack = standard("inventory").concurrency_limit(1).build().unwrap();
    let client = stack.wrap(service_fn(hangs));
    let mut first = client.clone();
    let mut running = Box::pin(first.ready().await.unwrap().call(7));
    assert!(tokio::time::timeout(millis(1), &mut running).await.is_err());
    assert!(!stack.handle().is_available());
    for _ in 0..100 {
        let error = client.clone().oneshot(7).await.unwrap_err();
        assert_eq!(kind(&error), ErrorKind::BulkheadFull);
    }
    let handle = stack.handle();
    assert_eq!(handle.circuit_breaker().unwrap().state(), State::Closed);
    assert_eq!(handle.bulkhead().unwrap().in_flight(), 1);
    drop(running);
    assert_eq!(handle.bulkhead().unwrap().in_flight(), 0);
    assert!(handle.is_available());
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_permit_is_not_under_the_timeout() {
    let stack = standard("inventory")
        .bulkhead(1, |bulkhead| {
            bulkhead
                .queue(10)
                .queue_wait(SECOND)
                .overloaded_wait(SECOND)
        })
        .timeout(millis(300))
        // Or what timed out would be sent again.
        .no_retry()
        .build()
        .unwrap();
    let client = stack.wrap(service_fn(async |_: u8| {
        sleep(millis(250)).await;
        Ok::<_, BoxError>(())
    }));
    let (one, two) = (client.clone().oneshot(7), client.oneshot(7));
    let (one, two) = tokio::join!(one, two);
    one.unwrap();
    two.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_part_further_in_is_not_touched_by_what_one_further_out_holds_back() {
    let stack = standard("inventory")
        .rate_limit(Rate::per_second(10), |limit| {
            limit.burst(2).max_wait(SECOND)
        })
        .concurrency_limit(1)
        .build()
        .unwrap();
    let (client, handle) = (stack.wrap(service_fn(hangs)), stack.handle());
    let permits = || handle.bulkhead().unwrap().in_flight();
    let tokens = || handle.rate_limit().unwrap().available();
    let mut running = tokio_test::task::spawn(client.clone().oneshot(7));
    assert!(running.poll().is_pending());
    assert_eq!((permits(), tokens()), (1, 1));

    handle.circuit_breaker().unwrap().force_open();
    let error = client.clone().oneshot(7).await.unwrap_err();
    assert_eq!(
        kind(&error),
        ErrorKind::CircuitOpen,
        "and not that it is full"
    );
    assert_eq!(tokens(), 1, "and takes no token");

    handle.circuit_breaker().unwrap().reset();
    drop(running);
    handle.rate_limit().unwrap().pause(millis(500));
    let mut waits = tokio_test::task::spawn(client.oneshot(7));
    assert!(waits.poll().is_pending());
    assert_eq!((permits(), handle.rate_limit().unwrap().waiting()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_that_of_attempts() {
    let attempts = Attempts::default();
    let stack = config()
        .rate_limit(Rate::per_second(2), |limit| limit.burst(2))
        .build()
        .unwrap();
    let client = stack.wrap(attempts.service(u32::MAX));
    let error = client.oneshot(7).await.unwrap_err();
    assert_eq!(
        (kind(&error), attempts.count()),
        (ErrorKind::RateLimited, 2)
    );
    assert!(!stack.handle().is_available());
}

#[tokio::test(start_paused = true)]
async fn a_hedge_is_sent_within_an_attempt_and_paid_from_the_same_budget() {
    let calls = Attempts::default();
    let count = Arc::clone(&calls.0);
    let slow_once = service_fn(move |_: u8| {
        let takes = if count.fetch_add(1, Ordering::Relaxed) == 0 {
            1_000
        } else {
            5
        };
        async move {
            sleep(millis(takes)).await;
            Ok::<_, BoxError>(Attempt::current().map(Attempt::number))
        }
    });
    let stack = config()
        .hedge(|hedge| hedge.delay(millis(20)))
        .build()
        .unwrap();
    let began = Instant::now();
    assert_eq!(stack.wrap(slow_once).oneshot(7).await.unwrap(), Some(1));
    assert_eq!((calls.count(), began.elapsed()), (2, millis(25)));
    let tokens = stack.handle().budget().tokens();
    assert_eq!(tokens, 40 - 20 + 1, "20 paid and 1 brought");
    assert_eq!(stack.handle().hedge().unwrap().delay(), Some(millis(20)));
}

#[tokio::test(start_paused = true)]
async fn a_hedge_without_a_retry_repeats_failures() {
    let attempts = Attempts::default();
    let stack = config().no_retry().hedge(|hedge| hedge).build().unwrap();
    assert_eq!(stack.wrap(attempts.service(1)).oneshot(7).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_budget_serves_several_stacks() {
    let budget = Budget::config("inventory").initial(0).build().unwrap();
    for _ in 0..2 {
        let attempts = Attempts::default();
        let stack = config().budget(&budget).build().unwrap();
        stack
            .wrap(attempts.service(1))
            .oneshot(7)
            .await
            .unwrap_err();
        assert_eq!(attempts.count(), 1);
        assert_eq!(stack.handle().budget(), &budget);
    }
    // What a part is told itself comes first.
    let own = Budget::new("retries");
    let stack = config()
        .budget(&budget)
        .retry(|retry| retry.budget(&own))
        .build()
        .unwrap();
    stack
        .wrap(Attempts::default().service(1))
        .oneshot(7)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn hedges_are_paid_for_by_successes_whatever_retries_are_paid_from() {
    let own = Budget::new("retries");
    // The budget of the stack begins with what those need that use it.
    let stacks = [
        (config(), 40),
        (config().retry(buttress::retry::Config::no_budget), 20),
        (config().retry(|retry| retry.budget(&own)), 20),
    ];
    for (stack, initial) in stacks {
        let stack = stack.hedge(|hedge| hedge).build().unwrap();
        let client = stack.wrap(Attempts::default().service(0));
        for _ in 0..30 {
            client.clone().oneshot(7).await.unwrap();
        }
        assert_eq!(stack.handle().budget().tokens(), initial + 30);
    }
    // Also within an attempt of an outer retry, which has another budget.
    let stack = config().hedge(|hedge| hedge).build().unwrap();
    let client = stack.wrap(Attempts::default().service(0));
    let outer = service_fn(move |request: u8| client.clone().oneshot(request));
    let outer = buttress::RetryLayer::new("outer").layer(outer);
    for _ in 0..30 {
        outer.clone().oneshot(7).await.unwrap();
    }
    assert_eq!(stack.handle().budget().tokens(), 70);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_turn_is_not_slowness_to_the_breaker() {
    let stack = config()
        .rate_limit(Rate::per_second(20), |limit| {
            limit.burst(1).max_wait(5 * SECOND)
        })
        .circuit_breaker(|breaker| breaker.slow_calls(millis(500), 0.5))
        .build()
        .unwrap();
    let client = stack.wrap(service_fn(async |_: u8| {
        sleep(millis(1)).await;
        Ok::<_, BoxError>(())
    }));
    let calls: Vec<_> = (0..60)
        .map(|_| tokio::spawn(client.clone().oneshot(7)))
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let breaker = stack.handle().circuit_breaker().unwrap().clone();
    assert_eq!(breaker.state(), State::Closed);

    // Once it is sent, it is as slow as it is.
    let client = stack.wrap(service_fn(async |_: u8| {
        sleep(SECOND).await;
        Ok::<_, BoxError>(())
    }));
    let calls: Vec<_> = (0..60)
        .map(|_| tokio::spawn(client.clone().oneshot(7)))
        .collect();
    for call in calls {
        drop(call.await.unwrap());
    }
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_stack_without_a_deadline_keeps_that_of_its_caller() {
    let client = config().no_deadline().build().unwrap();
    let client = client.wrap(service_fn(hangs));
    let began = Instant::now();
    let call = Deadline::after(millis(500)).scope(client.oneshot(7));
    assert_eq!(kind(&call.await.unwrap_err()), ErrorKind::DeadlineExceeded);
    assert_eq!(began.elapsed(), millis(500));
}

#[tokio::test(start_paused = true)]
async fn all_parts_judge_alike() {
    let attempts = Attempts::default();
    let count = Arc::clone(&attempts.0);
    let client = service_fn(move |_: u8| {
        count.fetch_add(1, Ordering::Relaxed);
        ready(Ok::<_, BoxError>(503))
    });
    let stack = config()
        .classify(classify_fn(|result: Result<&u16, &Error>| match result {
            Ok(503) | Err(_) => Outcome::Failure,
            Ok(_) => Outcome::Success,
        }))
        .circuit_breaker(|breaker| breaker.consecutive_failures(3))
        .build()
        .unwrap();
    let (result, counted) = count_calls(stack.wrap(client).oneshot(7)).await;
    assert_eq!((result.unwrap(), attempts.count()), (503, 3));
    assert_eq!(
        stack.handle().circuit_breaker().unwrap().state(),
        State::Open
    );
    assert_eq!(counted("operation", "failure"), 1);
    assert_eq!(counted("attempt", "failure"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_stack_of_nothing_is_transparent() {
    let attempts = Attempts::default();
    let stack = config()
        .no_response_timeout()
        .no_retry()
        .no_circuit_breaker()
        .no_timeout()
        .no_measure()
        .build()
        .unwrap();
    let handle = stack.handle();
    assert!(handle.circuit_breaker().is_none() && handle.bulkhead().is_none());
    assert!(handle.rate_limit().is_none() && handle.hedge().is_none());
    assert!(handle.is_available());
    let (result, counted) = count_calls(stack.wrap(attempts.service(1)).oneshot(7)).await;
    assert_eq!(
        result.unwrap_err().service_error().unwrap().to_string(),
        "connection reset"
    );
    assert_eq!(attempts.count(), 1);
    assert_eq!(counted("operation", "failure"), 0);

    let context = service_fn(async |_: u8| {
        sleep(Duration::from_secs(100_000)).await;
        Ok::<_, BoxError>((Deadline::current(), Attempt::current()))
    });
    assert_eq!(stack.wrap(context).oneshot(7).await.unwrap(), (None, None));
}

#[tokio::test(start_paused = true)]
async fn clones_of_the_layer_and_of_the_service_share_all_parts() {
    let stack = standard("inventory")
        .concurrency_limit(10)
        .circuit_breaker(|breaker| breaker.consecutive_failures(3))
        .no_retry()
        .build()
        .unwrap();
    let attempts = Attempts::default();
    let one = stack.wrap(attempts.service(u32::MAX));
    let two = stack.clone().layer(attempts.service(u32::MAX));
    for client in [
        one.clone().boxed_clone(),
        one.boxed_clone(),
        two.boxed_clone(),
    ] {
        client.oneshot(7).await.unwrap_err();
    }
    assert_eq!(
        stack.handle().circuit_breaker().unwrap().state(),
        State::Open
    );
}

#[test]
fn a_concurrency_limit_or_the_word_that_there_is_none_is_asked_for() {
    let error = standard("inventory").build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "standard stack \"inventory\": concurrency_limit is not set, but must be a number of calls, or `unlimited()`"
    );
}

#[test]
fn parts_that_contradict_each_other_are_refused_and_both_are_named() {
    let refused = |config: Standard| config.build().unwrap_err().to_string();
    let is = |error: String, text: &str| {
        assert_eq!(error, format!("standard stack \"inventory\": {text}"));
    };
    is(
        refused(config().timeout(SECOND).deadline(SECOND)),
        "timeout is 1s, but must be less than the deadline of 1s",
    );
    is(
        refused(
            config()
                .timeout(millis(500))
                .hedge(|hedge| hedge.delay(millis(500))),
        ),
        "hedge delay is 500ms, but must be less than the timeout of 500ms",
    );
    is(
        refused(config().circuit_breaker(|breaker| breaker.window(3 * SECOND))),
        "circuit breaker window is 3s, but must be at least twice the timeout of 2s",
    );
    is(
        refused(config().circuit_breaker(|breaker| breaker.slow_calls(2 * SECOND, 0.5))),
        "circuit breaker slow_calls is 2s, but must be less than the timeout of 2s",
    );
    is(
        refused(
            config()
                .no_timeout()
                .deadline(SECOND)
                .hedge(|hedge| hedge.delay(SECOND)),
        ),
        "hedge delay is 1s, but must be less than the deadline of 1s",
    );
    is(
        refused(config().rate_limit(Rate::per(1, 5 * SECOND), |limit| limit.burst(1))),
        "circuit breaker window is 10s, but must be long enough for the 5 calls that can open the breaker, of which the rate limit lets 3 through",
    );
    let limited = || config().rate_limit(Rate::per(1, SECOND), |limit| limit.burst(1));
    is(
        refused(limited().circuit_breaker(|breaker| breaker.min_calls(20))),
        "circuit breaker window is 10s, but must be long enough for the 20 calls that can open the breaker, of which the rate limit lets 11 through",
    );
    is(
        refused(config().deadline(Duration::ZERO)),
        "deadline is 0ns, but must be above 0s and at most 365 days",
    );
    let waits = |wait| config().rate_limit(Rate::per_second(9), |limit| limit.max_wait(wait));
    is(
        refused(waits(10 * SECOND)),
        "rate limit max_wait is 10s, but must be less than the response timeout of 10s",
    );
    let queues =
        |wait| standard("inventory").bulkhead(1, |bulkhead| bulkhead.queue(5).queue_wait(wait));
    is(
        refused(queues(10 * SECOND)),
        "bulkhead queue_wait is 10s, but must be less than the response timeout of 10s",
    );
    // Each alone is fine.
    limited().build().unwrap();
    config().no_timeout().deadline(SECOND).build().unwrap();
    config().timeout(4 * SECOND).build().unwrap();
    waits(9 * SECOND).build().unwrap();
    queues(9 * SECOND).build().unwrap();
}

#[test]
fn what_a_part_refuses_is_its_error() {
    let layer = |config: Standard| -> Result<(), ConfigError> { config.build().map(drop) };
    let error = layer(config().retry(|retry| retry.max_attempts(0))).unwrap_err();
    assert_eq!((error.layer(), error.field()), ("retry", "max_attempts"));
    let error = layer(config().hedge(|hedge| hedge.burst(0))).unwrap_err();
    assert_eq!((error.layer(), error.field()), ("hedge", "burst"));
    let error = layer(standard("inventory").concurrency_limit(0)).unwrap_err();
    assert_eq!(error.layer(), "bulkhead");
    let error = layer(standard("").unlimited()).unwrap_err();
    assert_eq!(error.field(), "name");
    let error = layer(config().timeout(Duration::ZERO)).unwrap_err();
    assert_eq!(error.field(), "timeout");
    let error = layer(config().deadline(Duration::MAX)).unwrap_err();
    assert_eq!(error.field(), "deadline");
}

#[test]
fn configurations_are_values() {
    let one = config().retry(|retry| retry.max_attempts(2));
    assert_eq!(one, one.clone());
    assert_ne!(one, config());
    assert!(format!("{one:?}").contains("max_attempts: 2"));
    let _typed: Standard<ByClone> = one;
}

/// Runs a call, and returns with its result how many were counted in a stage with an outcome.
async fn count_calls<T>(call: impl Future<Output = T>) -> (T, impl Fn(&str, &str) -> u64) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let guard = metrics::set_default_local_recorder(&recorder);
    let result = call.await;
    drop(guard);
    let rows: Vec<_> = recorded::rows(&snapshotter).collect();
    let count = move |stage: &str, outcome: &str| {
        let calls = rows
            .iter()
            .filter(|row| row.metric == "buttress_calls_total");
        let calls = calls.filter(|row| row.is_of(stage) && row.is_of(outcome));
        calls.map(|row| row.value as u64).sum()
    };
    (result, count)
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_dropped_in_a_queue_is_none_of_the_service() {
    let slow = Rate::per(1, 100 * SECOND);
    let stack = standard("orders")
        .timeout(SECOND / 2)
        .no_response_timeout()
        .unlimited()
        .circuit_breaker(|breaker| breaker.consecutive_failures(2))
        .rate_limit(slow, |limit| limit.burst(1).max_wait(200 * SECOND))
        .build()
        .unwrap();
    let client = stack.wrap(service_fn(|()| pending::<Result<(), BoxError>>()));
    // The first attempt times out, and the second one waits for a token until its caller goes away.
    let call = client.send(());
    tokio::time::timeout(20 * SECOND, call).await.unwrap_err();
    let handle = stack.handle();
    assert_eq!(handle.circuit_breaker().unwrap().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_was_refused_in_its_second_attempt_is_a_failure_of_the_service() {
    let mail = standard("mail")
        .circuit_breaker(|breaker| breaker.consecutive_failures(1))
        .unlimited()
        .build()
        .unwrap()
        .wrap(service_fn(async |()| {
            Err::<(), _>(BoxError::from("connection reset"))
        }));
    let checkout = CircuitBreakerLayer::config("checkout").consecutive_failures(1);
    let checkout = checkout.build().unwrap();
    let client = checkout.wrap(service_fn(move |()| {
        let mail = mail.clone();
        async move {
            tokio::task::yield_now().await;
            mail.send(()).await
        }
    }));
    let error = client.send(()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CircuitOpen);
    assert_eq!((error.is_rejection(), error.was_sent()), (false, true));
    assert_eq!(checkout.handle().state(), State::Open);
}
