//! What a circuit breaker does to calls.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::future::{Ready, ready};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buttress::circuit_breaker::{Handle, State, TransitionCause};
use buttress::event::EventKind;
use buttress::{
    Availability, BoxError, CircuitBreakerLayer, Error, ErrorKind, Mode, Outcome, Permit,
    RetryLayer, TrackCompletion, classify_fn,
};
use tokio::time::{advance, sleep, timeout};
use tower::{Layer, Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// Answers `Ok` or `Err` as the request says.
fn backend()
-> impl Service<bool, Response = (), Error = BoxError, Future = Ready<Result<(), BoxError>>> + Clone
{
    service_fn(|succeeds| ready(if succeeds { Ok(()) } else { Err("down".into()) }))
}

async fn calls(layer: &CircuitBreakerLayer, count: u32, succeeds: bool) {
    for _ in 0..count {
        drop(layer.layer(backend()).oneshot(succeeds).await);
    }
}

/// Fails until the breaker opens; the number of calls that took.
async fn fail_until_open(layer: &CircuitBreakerLayer) -> u32 {
    for count in 0..10_000 {
        if layer.handle().state() == State::Open {
            return count;
        }
        calls(layer, 1, false).await;
    }
    panic!("never opened");
}

fn is_refused(result: &Result<(), Error>) -> bool {
    result
        .as_ref()
        .is_err_and(|error| error.kind() == ErrorKind::CircuitOpen)
}

#[tokio::test(start_paused = true)]
async fn opens_after_twenty_failures_and_says_when_to_come_back() {
    let layer = CircuitBreakerLayer::new("open");
    assert_eq!(fail_until_open(&layer).await, 20);
    let left = layer.handle().open_for_remaining().unwrap();
    assert!(
        (SECOND * 3 / 2..=SECOND * 5 / 2).contains(&left),
        "{left:?}"
    );
    let error = layer.layer(backend()).oneshot(true).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(left));
}

#[tokio::test(start_paused = true)]
async fn a_sudden_outage_is_not_diluted_by_the_good_time_before() {
    let layer = CircuitBreakerLayer::new("sudden");
    for _ in 0..10 {
        calls(&layer, 1_000, true).await;
        advance(SECOND).await;
    }
    advance(SECOND).await;
    assert_eq!(
        fail_until_open(&layer).await,
        20,
        "nothing good in the newest two buckets"
    );
}

#[tokio::test(start_paused = true)]
async fn calls_leave_the_window_with_time() {
    let layer = CircuitBreakerLayer::new("leave");
    calls(&layer, 19, false).await;
    advance(SECOND * 10).await;
    assert_eq!(fail_until_open(&layer).await, 20);
}

#[tokio::test(start_paused = true)]
async fn a_count_window_judges_the_last_calls_only() {
    let layer = CircuitBreakerLayer::config("count")
        .count_window(50)
        .min_calls(10)
        .build()
        .unwrap();
    calls(&layer, 100_000, true).await;
    // 31 of 50: the first count whose lower bound exceeds one half.
    assert_eq!(fail_until_open(&layer).await, 31);
}

#[tokio::test(start_paused = true)]
async fn a_count_window_judges_as_soon_as_there_are_calls_enough() {
    let layer = CircuitBreakerLayer::config("minimum")
        .count_window(100)
        .min_calls(5);
    let layer = layer.build().unwrap();
    assert_eq!(fail_until_open(&layer).await, 5);
}

#[tokio::test(start_paused = true)]
async fn a_small_count_window_is_judged_when_it_is_full() {
    let layer = CircuitBreakerLayer::config("small")
        .count_window(10)
        .build()
        .unwrap();
    assert_eq!(fail_until_open(&layer).await, 10);
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_open_whatever_the_share() {
    let layer = CircuitBreakerLayer::config("row")
        .consecutive_failures(12)
        .build()
        .unwrap();
    for _ in 0..100 {
        calls(&layer, 11, false).await;
        calls(&layer, 89, true).await;
    }
    assert_eq!(layer.handle().state(), State::Closed);
    assert_eq!(fail_until_open(&layer).await, 12);
    layer.handle().reset();
    calls(&layer, 1_000, true).await;
    assert_eq!(fail_until_open(&layer).await, 12, "the row starts anew");
}

#[tokio::test(start_paused = true)]
async fn slow_calls_open_although_they_succeed() {
    let config = CircuitBreakerLayer::config("slow").slow_calls(SECOND, 0.5);
    let layer = config.window(SECOND * 100).build().unwrap();
    let slow = layer.layer(service_fn(|wait: Duration| async move {
        sleep(wait).await;
        Ok::<_, BoxError>(())
    }));
    for _ in 0..19 {
        slow.clone()
            .oneshot(SECOND + Duration::from_millis(1))
            .await
            .unwrap();
    }
    slow.clone().oneshot(SECOND).await.unwrap();
    assert_eq!(layer.handle().state(), State::Closed);
    slow.oneshot(SECOND * 2).await.unwrap();
    assert_eq!(layer.handle().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn slow_probes_do_not_close() {
    let layer = CircuitBreakerLayer::config("slow probes").slow_calls(SECOND, 0.5);
    let layer = layer.window(SECOND * 100).build().unwrap();
    let slow = layer.layer(service_fn(|wait: Duration| async move {
        sleep(wait).await;
        Ok::<_, BoxError>(())
    }));
    while layer.handle().state() == State::Closed {
        slow.clone().oneshot(SECOND * 2).await.unwrap();
    }
    for (wait, state) in [(SECOND * 2, State::Open), (SECOND, State::HalfOpen)] {
        sleep(layer.handle().open_for_remaining().unwrap()).await;
        slow.clone().oneshot(wait).await.unwrap();
        assert_eq!(layer.handle().state(), state);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_from_before_a_reset_does_not_count_in_the_row_after_it() {
    let layer = CircuitBreakerLayer::config("late row").consecutive_failures(12);
    let layer = layer.build().unwrap();
    calls(&layer, 11, false).await;
    let (answer, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = Arc::new(Mutex::new(Some(wait)));
    let late = layer.layer(service_fn(move |(): ()| {
        let wait = wait.lock().unwrap().take().unwrap();
        async move { wait.await.map_err(BoxError::from) }
    }));
    let mut late = tokio_test::task::spawn(late.oneshot(()));
    assert!(late.poll().is_pending());
    layer.handle().reset();
    drop(answer);
    assert!(late.poll().is_ready());
    assert_eq!(layer.handle().state(), State::Closed);
    assert_eq!(fail_until_open(&layer).await, 12);
}

/// A call is over when the one who made it says so.
#[derive(Clone, Copy)]
struct WhenTold;

impl<K> TrackCompletion<(), K> for WhenTold {
    type Response<T: Permit> = Box<dyn FnOnce(Outcome) + Send>;

    fn attach<T: Permit>(&self, (): (), _: Outcome, _: &K, permit: Option<T>) -> Self::Response<T> {
        let permit = permit.expect("no call is over with its head");
        Box::new(move |outcome| permit.resolve(outcome))
    }
}

#[tokio::test(start_paused = true)]
async fn a_completion_decides_when_a_call_is_over_and_how() {
    let layer = CircuitBreakerLayer::config("completion").consecutive_failures(1);
    let layer = layer.completion(WhenTold).build().unwrap();
    let call = || layer.layer(backend()).oneshot(true);
    drop(call().await.unwrap());
    assert_eq!(layer.handle().state(), State::Closed, "cancelled");
    let end = call().await.unwrap();
    assert_eq!(layer.handle().state(), State::Closed, "not over yet");
    end(Outcome::Failure);
    assert_eq!(layer.handle().state(), State::Open);
}

/// A service that fails twice, and then answers after this time.
fn fails_twice(
    takes: Duration,
) -> impl Service<(), Response = (), Error = BoxError, Future: Send> + Clone + Send {
    let calls = Arc::new(AtomicU32::new(0));
    service_fn(move |()| {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        async move {
            if call < 2 {
                return Err(BoxError::from("down"));
            }
            sleep(takes).await;
            Ok(())
        }
    })
}

#[tokio::test(start_paused = true)]
async fn retries_whose_answers_break_off_outside_of_the_call_are_no_operations_of_their_own() {
    let layer = CircuitBreakerLayer::config("broken off").completion(WhenTold);
    let layer = layer.build().unwrap();
    let request = async || {
        let service = layer.layer(fails_twice(Duration::ZERO));
        let retry = RetryLayer::config("broken off").build().unwrap();
        let end = retry.layer(service).oneshot(()).await.unwrap();
        sleep(SECOND).await;
        end(Outcome::Failure);
    };
    request().await;
    request().await;
    assert_eq!(layer.handle().state(), State::Closed, "of two operations");
    assert!(layer.layer(backend()).oneshot(false).await.is_err());
    assert_eq!(layer.handle().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn retries_that_are_dropped_are_no_operations_of_their_own() {
    let layer = CircuitBreakerLayer::new("dropped");
    // Before the first good call, those that are dropped do not count.
    calls(&layer, 1, true).await;
    sleep(20 * SECOND).await;
    let request = async || {
        let service = layer.layer(fails_twice(100 * SECOND));
        let retry = RetryLayer::config("dropped").build().unwrap();
        let call = retry.layer(service).oneshot(());
        timeout(3 * SECOND, call).await.unwrap_err();
    };
    request().await;
    request().await;
    assert_eq!(layer.handle().state(), State::Closed, "of two operations");
    assert!(layer.layer(backend()).oneshot(false).await.is_err());
    assert_eq!(layer.handle().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn ignored_calls_count_neither_way() {
    let classify = classify_fn(|result: Result<&(), &Error>| match result {
        Ok(()) => Outcome::Success,
        Err(_) => Outcome::Ignored,
    });
    let layer = CircuitBreakerLayer::config("ignored")
        .classify(classify)
        .build()
        .unwrap();
    for _ in 0..1_000 {
        assert!(layer.layer(backend()).oneshot(false).await.is_err());
    }
    assert_eq!(layer.handle().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn rejections_by_a_breaker_further_in_do_not_open_the_one_further_out() {
    let (inner, outer) = (
        CircuitBreakerLayer::new("backend"),
        CircuitBreakerLayer::new("backend"),
    );
    inner.handle().force_open();
    for _ in 0..1_000 {
        let result = outer.layer(inner.layer(backend())).oneshot(true).await;
        assert!(is_refused(&result));
    }
    assert_eq!(outer.handle().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn rejections_by_the_breaker_of_another_dependency_count_as_failures() {
    let mail = CircuitBreakerLayer::new("mail");
    mail.handle().force_open();
    let checkout = CircuitBreakerLayer::new("checkout");
    for _ in 0..20 {
        let result = checkout.layer(mail.layer(backend())).oneshot(true).await;
        assert!(result.unwrap_err().is_of(&mail.handle()));
    }
    assert_eq!(checkout.handle().state(), State::Open);
}

/// Waits until the open time is over, and sends calls until the breaker is closed.
async fn heal(layer: &CircuitBreakerLayer) {
    sleep(layer.handle().open_for_remaining().unwrap()).await;
    for _ in 0..5 {
        layer.layer(backend()).oneshot(true).await.unwrap();
    }
    assert_eq!(layer.handle().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn five_successes_after_the_open_time_close_it() {
    let layer = CircuitBreakerLayer::new("heal");
    fail_until_open(&layer).await;
    heal(&layer).await;
    assert_eq!(fail_until_open(&layer).await, 20, "the window starts empty");
}

#[tokio::test(start_paused = true)]
async fn a_failed_probe_opens_it_again() {
    let layer = CircuitBreakerLayer::new("probe fails");
    fail_until_open(&layer).await;
    sleep(layer.handle().open_for_remaining().unwrap()).await;
    calls(&layer, 1, false).await;
    assert_eq!(layer.handle().state(), State::Open);
    assert!(is_refused(&layer.layer(backend()).oneshot(true).await));
}

#[tokio::test(start_paused = true)]
async fn the_service_can_ask_for_a_longer_open_time_of_at_most_30_s() {
    for (asked, open_for) in [(20, 20), (30, 30), (86_400, 30)] {
        let classify = classify_fn(move |_: Result<&(), &Error>| Outcome::Overload {
            retry_after: Some(SECOND * asked),
        });
        let layer = CircuitBreakerLayer::config("hint").classify(classify);
        let layer = layer.build().unwrap();
        for _ in 0..20 {
            assert!(layer.layer(backend()).oneshot(false).await.is_err());
        }
        let remaining = layer.handle().open_for_remaining();
        assert_eq!(remaining, Some(SECOND * open_for));
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_sheds_load_is_refused_only_while_it_answers_nothing() {
    let classify = classify_fn(|result: Result<&(), &Error>| match result {
        Ok(()) => Outcome::Success,
        Err(_) => Outcome::Overload {
            retry_after: Some(SECOND),
        },
    });
    let layer = CircuitBreakerLayer::config("sheds").classify(classify);
    let layer = layer.build().unwrap();
    let calls = async |count: u32, is_good: fn(u32) -> bool| {
        for number in 0..count {
            let answer = layer.layer(backend()).oneshot(is_good(number)).await;
            if is_refused(&answer) {
                return number;
            }
            advance(SECOND / 100).await;
        }
        count
    };
    assert_eq!(calls(10_000, |number| number % 10 == 0).await, 10_000);
    let most = calls(1_000, |_| false).await;
    // The last good one was 100 ms ago. After 200 ms, overloads count, and 20 calls in a second decide.
    assert!((25..=40).contains(&most), "{most}");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_sheds_load_after_an_outage_is_not_refused_for_good() {
    #[derive(Debug, thiserror::Error)]
    #[error("busy")]
    struct Busy;

    let classify = classify_fn(|result: Result<&(), &Error>| match result {
        Ok(()) => Outcome::Success,
        Err(error) if error.downcast_ref::<Busy>().is_some() => {
            Outcome::Overload { retry_after: None }
        }
        Err(_) => Outcome::Failure,
    });
    let layer = CircuitBreakerLayer::config("sheds after an outage").classify(classify);
    let layer = layer.seed(1).build().unwrap();
    let call = async |answer: fn() -> Result<(), BoxError>| {
        let service = service_fn(move |()| async move { answer() });
        advance(SECOND / 100).await;
        layer.layer(service).oneshot(()).await.is_ok()
    };
    for _ in 0..150 {
        call(|| Err("down".into())).await;
    }
    assert_ne!(layer.handle().state(), State::Closed);
    let mut good = 0;
    for number in 0..6_000 {
        let is_good = number % 10 < 3;
        good += u32::from(
            call(if is_good {
                || Ok(())
            } else {
                || Err(Busy.into())
            })
            .await,
        );
    }
    // The open time and the probes cost some. If shed probes count as failures, it is some 30.
    assert!(good > 900, "{good} of 1,800");
}

#[tokio::test(start_paused = true)]
async fn services_of_one_layer_share_a_breaker_and_two_builds_do_not() {
    let config = CircuitBreakerLayer::config("shared");
    let (one, two) = (config.clone().build().unwrap(), config.build().unwrap());
    fail_until_open(&one).await;
    assert!(is_refused(
        &one.clone().layer(backend()).oneshot(true).await
    ));
    assert!(two.layer(backend()).oneshot(true).await.is_ok());
    assert_eq!(two.handle().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_observing_breaker_decides_and_lets_pass() {
    let layer = CircuitBreakerLayer::config("observe")
        .mode(Mode::Observe)
        .build()
        .unwrap();
    fail_until_open(&layer).await;
    assert!(layer.handle().is_available(), "calls pass");
    for _ in 0..100 {
        layer.layer(backend()).oneshot(true).await.unwrap();
    }
    assert_eq!(
        layer.handle().state(),
        State::Open,
        "calls that it would reject do not count"
    );
    heal(&layer).await;
}

#[tokio::test(start_paused = true)]
async fn the_handle_knows_whether_a_call_would_pass() {
    let layer = CircuitBreakerLayer::new("available");
    let handle: Handle = layer.handle();
    assert!(handle.is_available());
    fail_until_open(&layer).await;
    assert!(!handle.is_available());
    sleep(handle.open_for_remaining().unwrap()).await;
    assert!(handle.is_available(), "a probe would pass");
    let probe = layer.layer(service_fn(|(): ()| {
        std::future::pending::<Result<(), BoxError>>()
    }));
    let mut probe = tokio_test::task::spawn(probe.oneshot(()));
    assert!(probe.poll().is_pending());
    assert_eq!(handle.state(), State::HalfOpen);
    assert!(!handle.is_available(), "the place is taken");
    drop(probe);
    assert!(handle.is_available());
}

#[tokio::test(start_paused = true)]
async fn the_listener_hears_of_each_change_and_may_use_the_breaker() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let slot: Arc<Mutex<Option<Handle>>> = Arc::default();
    let (log, own) = (Arc::clone(&heard), Arc::clone(&slot));
    let layer = CircuitBreakerLayer::config("listener")
        .on_event(move |event| {
            let EventKind::Transition(transition) = event.kind else {
                return;
            };
            let state = own.lock().unwrap().as_ref().map(Handle::state);
            assert_eq!(state, Some(transition.to));
            log.lock().unwrap().push((transition.to, transition.cause));
        })
        .build()
        .unwrap();
    *slot.lock().unwrap() = Some(layer.handle());
    fail_until_open(&layer).await;
    heal(&layer).await;
    layer.handle().force_open();
    let heard = heard.lock().unwrap().clone();
    assert_eq!(
        heard,
        [
            (State::Open, TransitionCause::FailureShare),
            (State::HalfOpen, TransitionCause::OpenTimeOver),
            (State::Closed, TransitionCause::ProbesSucceeded),
            (State::Open, TransitionCause::Forced),
        ]
    );
    *slot.lock().unwrap() = None;
}

#[tokio::test(start_paused = true)]
async fn a_million_calls_in_one_window_are_judged_like_twenty() {
    let layer = CircuitBreakerLayer::new("million");
    calls(&layer, 1_000_000, true).await;
    assert_eq!(layer.handle().state(), State::Closed);
    advance(SECOND * 3).await;
    assert_eq!(fail_until_open(&layer).await, 20);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_stands_still_is_survived() {
    let reached = AtomicU32::new(0);
    let layer = CircuitBreakerLayer::config("still")
        .seed(1)
        .build()
        .unwrap();
    for round in 0..1_000_u32 {
        let result = layer.layer(backend()).oneshot(round % 3 == 0).await;
        if !is_refused(&result) {
            reached.fetch_add(1, Ordering::Relaxed);
        }
    }
    assert!((20..100).contains(&reached.load(Ordering::Relaxed)));
    assert_eq!(layer.handle().state(), State::Open);
}

/// Overlays made by a change of the default.
fn settings(
    change: impl FnOnce(&mut buttress::settings::CircuitBreaker),
) -> buttress::settings::CircuitBreaker {
    let mut settings = buttress::settings::CircuitBreaker::default();
    change(&mut settings);
    settings
}

#[tokio::test(start_paused = true)]
async fn thresholds_change_while_the_breaker_runs_and_its_counts_stay() {
    let layer = CircuitBreakerLayer::new("thresholds");
    calls(&layer, 10, false).await;
    layer
        .handle()
        .apply(&settings(|to| to.min_calls = Some(11)))
        .unwrap();
    assert_eq!(fail_until_open(&layer).await, 1, "ten are counted already");

    let layer = CircuitBreakerLayer::new("share");
    calls(&layer, 100, true).await;
    calls(&layer, 60, false).await;
    assert_eq!(layer.handle().state(), State::Closed);
    let settings = settings(|to| to.failure_share = Some(0.2));
    layer.handle().apply(&settings).unwrap();
    assert_eq!(fail_until_open(&layer).await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_stays_open_for_the_time_it_opened_for() {
    let layer = CircuitBreakerLayer::new("stays");
    fail_until_open(&layer).await;
    let handle = layer.handle();
    let left = handle.open_for_remaining();
    handle
        .apply(&settings(|to| to.open_for = Some(60 * SECOND)))
        .unwrap();
    assert_eq!(handle.state(), State::Open);
    assert_eq!(handle.open_for_remaining(), left);
    advance(3 * SECOND).await;
    calls(&layer, 1, false).await;
    let next = handle.open_for_remaining().unwrap();
    assert!(next > 40 * SECOND, "the next open time is new: {next:?}");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_no_longer_named_is_that_of_the_code_again() {
    let layer = CircuitBreakerLayer::config("again")
        .consecutive_failures(3)
        .build()
        .unwrap();
    let handle = layer.handle();
    handle
        .apply(&settings(|to| to.consecutive_failures = Some(1_000)))
        .unwrap();
    calls(&layer, 9, false).await;
    assert_eq!(handle.state(), State::Closed);
    handle.apply(&<_>::default()).unwrap();
    assert_eq!(fail_until_open(&layer).await, 1, "the row went on");
}

#[tokio::test(start_paused = true)]
async fn a_row_that_begins_to_count_forgets_what_it_did_not_see() {
    let layer = CircuitBreakerLayer::config("row")
        .consecutive_failures(3)
        .build()
        .unwrap();
    let off = CircuitBreakerLayer::new("row-off");
    off.handle()
        .apply(&settings(|to| to.consecutive_failures = Some(3)))
        .unwrap();
    calls(&off, 2, false).await;
    off.handle().apply(&<_>::default()).unwrap();
    calls(&off, 1, true).await;
    off.handle()
        .apply(&settings(|to| to.consecutive_failures = Some(3)))
        .unwrap();
    assert_eq!(fail_until_open(&off).await, 3);
    assert_eq!(fail_until_open(&layer).await, 3);
}

#[tokio::test(start_paused = true)]
async fn slow_calls_count_from_the_moment_at_which_a_limit_is_set() {
    let layer = CircuitBreakerLayer::new("slow-later");
    let slow = async |count: u32| {
        for _ in 0..count {
            let service = layer.layer(service_fn(async |()| {
                sleep(2 * SECOND / 10).await;
                Ok::<(), BoxError>(())
            }));
            drop(service.oneshot(()).await);
        }
    };
    slow(40).await;
    assert_eq!(layer.handle().state(), State::Closed);
    let slow_calls = buttress::settings::SlowCalls {
        longer_than: SECOND / 10,
        share: 0.1,
    };
    layer
        .handle()
        .apply(&settings(|to| to.slow_calls = Some(slow_calls)))
        .unwrap();
    slow(20).await;
    assert_eq!(layer.handle().state(), State::Open);
}

#[test]
fn settings_that_cannot_be_applied_change_nothing_and_are_named() {
    let layer = CircuitBreakerLayer::new("bad");
    for (field, bad) in [
        (
            "failure_share",
            settings(|to| to.failure_share = Some(f64::NAN)),
        ),
        ("min_calls", settings(|to| to.min_calls = Some(0))),
        ("open_for", settings(|to| to.open_for = Some(Duration::MAX))),
        ("window", settings(|to| to.window = Some(SECOND))),
        ("count_window", settings(|to| to.count_window = Some(10))),
    ] {
        let before = format!("{:?}", layer.handle());
        assert_eq!(layer.handle().apply(&bad).unwrap_err().field(), field);
        assert_eq!(format!("{:?}", layer.handle()), before);
    }
}

#[tokio::test(start_paused = true)]
async fn the_mode_changes_while_the_breaker_runs() {
    let layer = CircuitBreakerLayer::new("switch");
    let handle = layer.handle();
    handle.force_open();
    for (mode, refused) in [
        (Mode::Observe, false),
        (Mode::Enforce, true),
        (Mode::Observe, false),
    ] {
        handle.set_mode(mode);
        assert_eq!(handle.is_available(), !refused);
        let service = layer.layer(backend());
        assert_eq!(
            is_refused(&service.oneshot(true).await),
            refused,
            "{mode:?}"
        );
    }
    handle.apply(&<_>::default()).unwrap();
    let service = layer.layer(backend());
    assert!(is_refused(&service.oneshot(true).await), "as the code says");
    assert_eq!(handle.state(), State::Open);
}
