//! Settings as data, which replace those of the code.

use std::time::Duration;

use buttress::balance::{self, Failover, OutlierEjection};
use buttress::bulkhead::Aimd;
use buttress::circuit_breaker::State;
use buttress::{
    Backoff, Balance, BoxError, CircuitBreakerLayer, ErrorKind, Jitter, Mode, Rate, RateLimitLayer,
    settings, standard,
};
use tokio::time::{Instant, sleep};
use tower::service_fn;

const MILLISECOND: Duration = Duration::from_millis(1);

/// Returns settings, with a change.
fn overlay<T: Default>(change: impl FnOnce(&mut T)) -> T {
    let mut settings = T::default();
    change(&mut settings);
    settings
}

#[test]
fn empty_settings_change_nothing() {
    let config = CircuitBreakerLayer::config("db").failure_share(0.3);
    let same = config
        .clone()
        .settings(&settings::CircuitBreaker::default());
    assert_eq!(config, same);
}

#[test]
fn a_named_value_replaces_the_one_of_the_code_and_the_others_stay() {
    let changed = overlay(|settings: &mut settings::CircuitBreaker| {
        settings.min_calls = Some(7);
        settings.slow_calls = Some(settings::SlowCalls {
            longer_than: 40 * MILLISECOND,
            share: 0.2,
        });
        settings.mode = Some(Mode::Observe);
    });
    let config = CircuitBreakerLayer::config("db").failure_share(0.3);
    let expected = config.clone().min_calls(7).mode(Mode::Observe);
    let expected = expected.slow_calls(40 * MILLISECOND, 0.2);
    assert_eq!(config.settings(&changed), expected);

    let faster = overlay(|settings: &mut settings::RateLimit| {
        settings.rate = Some(Rate::per_second(70));
    });
    let config = RateLimitLayer::config("db", Rate::per_second(10)).burst(3);
    let limit = config.settings(&faster).build().unwrap().handle();
    assert_eq!((limit.rate(), limit.burst()), (Rate::per_second(70), 3));
}

#[test]
fn settings_of_a_balancer_change_its_rules_one_by_one() {
    let changed = overlay(|all: &mut settings::Balance| {
        all.slow_start = Some(3 * MILLISECOND);
        all.outlier_ejection = Some(overlay(|rule: &mut settings::OutlierEjection| {
            rule.max_ejection_percent = Some(20);
        }));
        all.failover = Some(overlay(|rule: &mut settings::Failover| {
            rule.failback_delay = Some(7 * MILLISECOND);
        }));
    });
    let rule = OutlierEjection::new().min_calls(9);
    let config: balance::Config = Balance::config("db").outlier_ejection(rule.clone());
    let expected = config.clone().slow_start(3 * MILLISECOND);
    let expected = expected.outlier_ejection(rule.max_ejection_percent(20));
    let expected = expected.failover(Failover::new().failback_delay(7 * MILLISECOND));
    assert_eq!(config.settings(&changed), expected);
}

#[cfg(feature = "http")]
#[test]
fn a_server_without_a_limit_refuses_settings_of_its_bulkhead() {
    let changed = overlay(|all: &mut settings::Server| {
        all.bulkhead = Some(overlay(|bulkhead: &mut settings::Bulkhead| {
            bulkhead.limit = Some(7);
        }));
    });
    let server = || buttress::http::server("db");
    let error = server().unlimited().settings(&changed).build().unwrap_err();
    assert_eq!(error.field(), "bulkhead", "{error}");
    let limited = server().concurrency_limit(50).settings(&changed);
    assert_eq!(
        limited
            .build()
            .unwrap()
            .handle()
            .bulkhead()
            .unwrap()
            .limit(),
        7
    );
}

#[test]
fn settings_take_precedence_over_setters_called_later() {
    let limit = overlay(|settings: &mut settings::Stack| {
        settings.bulkhead = Some(overlay(|bulkhead: &mut settings::Bulkhead| {
            bulkhead.limit = Some(7);
        }));
    });
    let stack = standard("db").settings(&limit).concurrency_limit(50);
    let handle = stack.build().unwrap().handle();
    assert_eq!(handle.bulkhead().unwrap().limit(), 7);
}

#[test]
fn a_part_that_the_stack_does_not_have_is_refused_by_name() {
    let bare = || standard("db").no_retry().no_circuit_breaker().unlimited();
    for (field, settings) in [
        (
            "retry",
            overlay(|all: &mut settings::Stack| all.retry = Some(<_>::default())),
        ),
        (
            "hedge",
            overlay(|all: &mut settings::Stack| all.hedge = Some(<_>::default())),
        ),
        (
            "circuit_breaker",
            overlay(|all: &mut settings::Stack| all.circuit_breaker = Some(<_>::default())),
        ),
        (
            "rate_limit",
            overlay(|all: &mut settings::Stack| all.rate_limit = Some(<_>::default())),
        ),
        (
            "bulkhead",
            overlay(|all: &mut settings::Stack| all.bulkhead = Some(<_>::default())),
        ),
    ] {
        let error = bare().settings(&settings).build().unwrap_err();
        assert_eq!(error.field(), field, "{error}");
    }
}

#[test]
fn settings_are_checked_like_setters() {
    for share in [0.0, 1.0, -0.5, f64::NAN, f64::INFINITY] {
        let settings = overlay(|all: &mut settings::Stack| {
            all.circuit_breaker = Some(overlay(|breaker: &mut settings::CircuitBreaker| {
                breaker.failure_share = Some(share);
            }));
        });
        let by_settings = standard("db").unlimited().settings(&settings).build();
        let by_setter = standard("db")
            .unlimited()
            .circuit_breaker(|breaker| breaker.failure_share(share))
            .build();
        let (by_settings, by_setter) = (by_settings.unwrap_err(), by_setter.unwrap_err());
        assert_eq!(by_settings.to_string(), by_setter.to_string());
    }
}

/// Settings with this timeout.
fn with_timeout(time: Duration) -> settings::Stack {
    overlay(|all: &mut settings::Stack| all.timeout = Some(time))
}

/// Never answers.
async fn hang((): ()) -> Result<(), BoxError> {
    std::future::pending().await
}

#[tokio::test(start_paused = true)]
async fn a_change_applies_to_new_operations_and_not_to_those_in_flight() {
    let stack = standard("db")
        .no_retry()
        .unlimited()
        .timeout(100 * MILLISECOND);
    let stack = stack.build().unwrap();
    let service = stack.wrap(service_fn(hang));
    let began = Instant::now();
    let before = tokio::spawn({
        let service = service.clone();
        async move {
            (
                service.send(()).await.map_err(|error| error.kind()),
                Instant::now(),
            )
        }
    });
    sleep(MILLISECOND).await;
    stack
        .handle()
        .apply(&with_timeout(300 * MILLISECOND))
        .unwrap();
    let (result, ended) = before.await.unwrap();
    assert_eq!(result, Err(ErrorKind::Timeout));
    assert_eq!(ended - began, 100 * MILLISECOND);

    let began = Instant::now();
    service.send(()).await.unwrap_err();
    assert_eq!(began.elapsed(), 300 * MILLISECOND);

    stack.handle().apply(&settings::Stack::default()).unwrap();
    let began = Instant::now();
    service.send(()).await.unwrap_err();
    assert_eq!(began.elapsed(), 100 * MILLISECOND, "the value of the code");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_refused_names_the_value_and_changes_nothing() {
    let config = standard("db").no_response_timeout().concurrency_limit(5);
    let config = config.deadline(Duration::from_secs(1));
    let with = |change: fn(&mut settings::Stack)| {
        let mut all = with_timeout(7 * MILLISECOND);
        change(&mut all);
        all
    };
    for (field, settings) in [
        ("timeout", with(|all| all.timeout = Some(Duration::ZERO))),
        ("timeout", with(|all| all.timeout = Some(Duration::MAX))),
        ("timeout", with(|all| all.deadline = Some(7 * MILLISECOND))),
        (
            "response_timeout",
            with(|all| all.response_timeout = Some(9 * MILLISECOND)),
        ),
        ("hedge", with(|all| all.hedge = Some(<_>::default()))),
        (
            "max_attempts",
            with(|all| {
                all.retry = Some(overlay(|retry: &mut settings::Retry| {
                    retry.max_attempts = Some(0);
                }));
            }),
        ),
        (
            "queue",
            with(|all| {
                all.bulkhead = Some(overlay(|bulkhead: &mut settings::Bulkhead| {
                    bulkhead.queue = Some(2_000_000);
                }));
            }),
        ),
        (
            "failure_share",
            with(|all| {
                all.circuit_breaker = Some(overlay(|breaker: &mut settings::CircuitBreaker| {
                    breaker.failure_share = Some(f64::NAN);
                }));
            }),
        ),
        (
            "count_window",
            with(|all| {
                all.circuit_breaker = Some(overlay(|breaker: &mut settings::CircuitBreaker| {
                    breaker.count_window = Some(100);
                }));
            }),
        ),
    ] {
        let stack = config.clone().build().unwrap();
        let error = stack.handle().apply(&settings).unwrap_err();
        assert_eq!(error.field(), field, "{error}");
        let began = Instant::now();
        let service = stack.wrap(service_fn(hang));
        service.send(()).await.unwrap_err();
        assert!(
            began.elapsed() > 400 * MILLISECOND,
            "{field} has changed the timeout"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_changes_under_load_are_never_mixed_and_the_books_balance() {
    const RETRY_WAIT: Duration = Duration::from_millis(5);
    let settings = |timeout, attempts| {
        let mut all = with_timeout(timeout);
        all.retry = Some(overlay(|retry: &mut settings::Retry| {
            retry.max_attempts = Some(attempts);
        }));
        all
    };
    let constant = Backoff::constant(RETRY_WAIT).jitter(Jitter::None);
    let stack = standard("db")
        .concurrency_limit(10_000)
        .no_circuit_breaker()
        .retry(|retry| retry.backoff(constant.clone()).no_budget())
        .build()
        .unwrap();
    let service = stack.wrap(service_fn(hang));
    let mut calls = Vec::new();
    for change in 0..1000 {
        let next = if change % 2 == 0 {
            settings(30 * MILLISECOND, 1)
        } else {
            settings(50 * MILLISECOND, 3)
        };
        stack.handle().apply(&next).unwrap();
        let service = service.clone();
        calls.push(tokio::spawn(async move {
            let began = Instant::now();
            service.send(()).await.unwrap_err();
            (change % 2, began.elapsed())
        }));
        sleep(MILLISECOND).await;
    }
    for call in calls {
        let expected = match call.await.unwrap() {
            (0, took) => (took, 30 * MILLISECOND),
            (_, took) => (took, 150 * MILLISECOND + 2 * RETRY_WAIT),
        };
        assert_eq!(expected.0, expected.1);
    }
    let handle = stack.handle();
    assert_eq!(handle.bulkhead().unwrap().in_flight(), 0);
    assert_eq!(handle.budget().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_breaker_through_the_stack_keeps_its_state() {
    let stack = standard("db").no_retry().unlimited().build().unwrap();
    let service = stack.wrap(service_fn(|()| async {
        Err::<(), BoxError>("down".into())
    }));
    let row = |failures| {
        overlay(|all: &mut settings::Stack| {
            all.circuit_breaker = Some(overlay(|breaker: &mut settings::CircuitBreaker| {
                breaker.consecutive_failures = Some(failures);
            }));
        })
    };
    let handle = stack.handle();
    let breaker = handle.circuit_breaker().unwrap();
    handle.apply(&row(2)).unwrap();
    for _ in 0..2 {
        assert_eq!(breaker.state(), State::Closed);
        service.send(()).await.unwrap_err();
    }
    assert_eq!(breaker.state(), State::Open, "the new number is in force");
    handle.apply(&row(500)).unwrap();
    assert_eq!(breaker.state(), State::Open, "the state stays");
    breaker.reset();
    for _ in 0..3 {
        service.send(()).await.unwrap_err();
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn limits_change_and_what_a_handle_has_set_stays_if_the_settings_do_not_change() {
    let stack = standard("db").concurrency_limit(5);
    let stack = stack.rate_limit(Rate::per_second(10), |limit| limit.burst(3));
    let handle = stack.build().unwrap().handle();
    let (rate, bulkhead) = (handle.rate_limit().unwrap(), handle.bulkhead().unwrap());
    let changed = overlay(|all: &mut settings::Stack| {
        all.rate_limit = Some(overlay(|limit: &mut settings::RateLimit| {
            limit.rate = Some(Rate::per_second(70));
        }));
        all.bulkhead = Some(overlay(|bulkhead: &mut settings::Bulkhead| {
            bulkhead.limit = Some(9);
        }));
    });
    handle.apply(&changed).unwrap();
    assert_eq!((rate.rate(), rate.burst()), (Rate::per_second(70), 3));
    assert_eq!(bulkhead.limit(), 9);

    bulkhead.set_limit(4).unwrap();
    handle.apply(&changed).unwrap();
    assert_eq!(bulkhead.limit(), 4);

    let mut wrong = changed;
    wrong.rate_limit = Some(<_>::default());
    wrong.bulkhead.as_mut().unwrap().limit = Some(0);
    assert_eq!(handle.apply(&wrong).unwrap_err().field(), "limit");
    assert_eq!(rate.rate(), Rate::per_second(70), "none of it has changed");

    handle.apply(&settings::Stack::default()).unwrap();
    assert_eq!(rate.rate(), Rate::per_second(10));
    assert_eq!(bulkhead.limit(), 5);
}

#[test]
fn an_adaptive_limit_is_not_replaced_while_the_stack_runs() {
    let stack = standard("db").concurrency_limit(Aimd::between(2, 20));
    let handle = stack.build().unwrap().handle();
    let fixed = overlay(|all: &mut settings::Stack| {
        all.bulkhead = Some(overlay(|bulkhead: &mut settings::Bulkhead| {
            bulkhead.limit = Some(9);
        }));
    });
    assert_eq!(handle.apply(&fixed).unwrap_err().field(), "limit");
}

#[tokio::test(start_paused = true)]
async fn a_new_timeout_decides_which_calls_the_service_had_for_long_enough() {
    let stack = standard("db").no_retry().unlimited().no_response_timeout();
    let stack = stack.timeout(20 * MILLISECOND).build().unwrap();
    let handle = stack.handle();
    // A tenth of it is more than the callers below permit.
    handle.apply(&with_timeout(Duration::from_secs(4))).unwrap();
    let service = stack.wrap(service_fn(hang));
    for _ in 0..100 {
        let call = tokio::time::timeout(100 * MILLISECOND, service.send(()));
        assert!(call.await.is_err(), "the caller leaves");
    }
    assert_eq!(handle.circuit_breaker().unwrap().state(), State::Closed);
}
