//! Settings as data, which replace those of the code.

use std::time::Duration;

use buttress::{CircuitBreakerLayer, Mode, Rate, RateLimitLayer, settings, standard};

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
