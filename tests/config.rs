//! Settings: what makes no sense is refused when a layer is built, and whatever is accepted works.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::fmt::Debug;
use std::future::pending;
use std::time::Duration;

use buttress::circuit_breaker::{self, Handle, State};
use buttress::{
    Backoff, BoxError, Budget, ByClone, CircuitBreakerLayer, ConfigError, DeadlineLayer,
    MeasureLayer, Outcome, RetryLayer, TimeoutLayer, budget, retry,
};
use proptest::prelude::*;
use tokio::time::{advance, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);
const NANOSECOND: Duration = Duration::from_nanos(1);
/// The longest time that can be set.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

const NO_TIMES: [Duration; 3] = [
    Duration::ZERO,
    Duration::MAX,
    YEAR.saturating_add(NANOSECOND),
];
const NO_COUNTS: [u32; 2] = [0, u32::MAX];
const NO_SHARES: [f64; 6] = [0.0, -0.1, 1.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];

/// Gives a field values that make no sense, and reads the errors.
fn refuses<V: Debug + Copy, T>(
    field: &str,
    values: impl IntoIterator<Item = V>,
    build: impl Fn(V) -> Result<T, ConfigError>,
) {
    for value in values {
        let Err(error) = build(value) else {
            panic!("{field} = {value:?} is accepted");
        };
        let value = format!("{value:?}");
        assert_eq!((error.field(), error.value()), (field, &*value), "{error}");
        let text = error.to_string();
        for part in [
            error.layer(),
            error.name(),
            field,
            &value,
            error.permitted(),
        ] {
            assert!(text.contains(part), "{part:?} in {text:?}");
        }
    }
}

#[test]
fn a_timeout_or_deadline_that_makes_no_sense_is_refused() {
    refuses("timeout", NO_TIMES, |time| {
        TimeoutLayer::config("a", time).build()
    });
    refuses("total", NO_TIMES, |time| {
        DeadlineLayer::config("a", time).build()
    });
}

#[test]
fn a_retry_that_makes_no_sense_is_refused() {
    let with = |set: &dyn Fn(retry::Config) -> retry::Config| set(RetryLayer::config("a")).build();
    refuses("max_attempts", [0, 10_001, u32::MAX], |n| {
        with(&|c| c.max_attempts(n))
    });
    refuses("hint_slack", NO_TIMES, |time| with(&|c| c.hint_slack(time)));
    for make in [Backoff::exponential, Backoff::linear, Backoff::decorrelated] {
        for (base, cap) in NO_TIMES
            .map(|time| [(time, SECOND), (SECOND, time)])
            .as_flattened()
        {
            let bad = if *base == SECOND { *cap } else { *base };
            refuses("backoff", [bad], |_| {
                with(&|c| c.backoff(make(*base, *cap)))
            });
            refuses("overload_backoff", [bad], |_| {
                with(&|c| c.overload_backoff(make(*base, *cap)))
            });
        }
    }
    refuses("backoff", NO_TIMES, |time| {
        with(&|c| c.backoff(Backoff::constant(time)))
    });
    let shrinking = Backoff::exponential(2 * SECOND, SECOND);
    refuses("backoff", [&shrinking], |backoff| {
        with(&|c| c.backoff(backoff.clone()))
    });
}

#[test]
fn a_budget_that_makes_no_sense_is_refused() {
    let with = |set: &dyn Fn(budget::Config) -> budget::Config| set(Budget::config("a")).build();
    refuses("reserve", [0, 10_001, u32::MAX], |n| {
        with(&|c| c.reserve(n))
    });
    refuses("initial", [11, u32::MAX], |n| with(&|c| c.initial(n)));
    refuses("share", NO_SHARES, |share| with(&|c| c.share(share)));
}

#[test]
fn a_breaker_that_makes_no_sense_is_refused() {
    let with = |set: &dyn Fn(circuit_breaker::Config) -> circuit_breaker::Config| {
        set(CircuitBreakerLayer::config("a")).build()
    };
    let times = |field, set: fn(circuit_breaker::Config, Duration) -> circuit_breaker::Config| {
        refuses(field, NO_TIMES, |time| with(&|c| set(c, time)));
    };
    let counts = |field, set: fn(circuit_breaker::Config, u32) -> circuit_breaker::Config| {
        refuses(field, NO_COUNTS, |count| with(&|c| set(c, count)));
    };
    let shares = |field, set: fn(circuit_breaker::Config, f64) -> circuit_breaker::Config| {
        refuses(field, NO_SHARES, |share| with(&|c| set(c, share)));
        refuses(field, [1.0], |share| with(&|c| set(c, share)));
    };
    times("window", circuit_breaker::Config::window);
    times("open_for", circuit_breaker::Config::open_for);
    times("open_growth", |c, most| c.open_growth(2.0, most));
    times("max_hint", circuit_breaker::Config::max_hint);
    times("probe_lease", circuit_breaker::Config::probe_lease);
    times("slow_calls", |c, time| c.slow_calls(time, 0.5));
    counts("min_calls", circuit_breaker::Config::min_calls);
    counts(
        "consecutive_failures",
        circuit_breaker::Config::consecutive_failures,
    );
    counts(
        "successes_to_close",
        circuit_breaker::Config::successes_to_close,
    );
    counts("max_probes", circuit_breaker::Config::max_probes);
    counts("count_window", circuit_breaker::Config::count_window);
    shares("failure_share", circuit_breaker::Config::failure_share);
    shares("slow_calls", |c, share| c.slow_calls(SECOND, share));
    refuses("window", [SECOND / 101], |time| with(&|c| c.window(time)));
    refuses("min_calls", [11], |n| {
        with(&|c| c.count_window(10).min_calls(n))
    });
    let not_jitter = [-0.1, 0.91, f64::NAN, f64::INFINITY];
    refuses("open_jitter", not_jitter, |share| {
        with(&|c| c.open_jitter(share))
    });
    let not_growth = [0.0, 0.9, 10.1, -2.0, f64::NAN, f64::INFINITY];
    refuses("open_growth", not_growth, |factor| {
        with(&|c| c.open_growth(factor, SECOND))
    });
}

#[test]
fn a_layer_without_a_name_is_refused() {
    refuses("name", [""], |name| {
        TimeoutLayer::config(name, SECOND).build()
    });
    refuses("name", [""], |name| {
        DeadlineLayer::config(name, SECOND).build()
    });
    refuses("name", [""], |name| RetryLayer::config(name).build());
    refuses("name", [""], |name| Budget::config(name).build());
    refuses("name", [""], |name| {
        CircuitBreakerLayer::config(name).build()
    });
    let measure = std::panic::catch_unwind(|| MeasureLayer::operation(""));
    measure.unwrap_err();
}

/// What a call meets.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Success,
    Failure,
    Overload(Duration),
    Ignored,
    Late(Duration),
    Never,
}

async fn answer(answer: Answer) -> Result<Answer, BoxError> {
    match answer {
        Answer::Late(after) => sleep(after).await,
        Answer::Never => pending().await,
        _ => {}
    }
    Ok(answer)
}

type Judge = fn(Result<&Answer, &BoxError>) -> Outcome;

fn judge(result: Result<&Answer, &BoxError>) -> Outcome {
    match result {
        Ok(Answer::Failure) | Err(_) => Outcome::Failure,
        Ok(Answer::Ignored) => Outcome::Ignored,
        Ok(&Answer::Overload(wait)) => Outcome::Overload {
            retry_after: Some(wait),
        },
        Ok(_) => Outcome::Success,
    }
}

fn breaker() -> circuit_breaker::Config<Judge> {
    CircuitBreakerLayer::config("a").classify(judge)
}

fn retry() -> retry::Config<ByClone, Judge> {
    RetryLayer::config("a").classify(judge)
}

/// Lets the open time and the lease of every probe pass, and makes as many successful calls as it takes
/// to close.
async fn recovers<S>(breaker: &Handle, lease: Duration, successes: u32, service: &S)
where
    S: Service<Answer, Error = BoxError> + Clone,
{
    advance(breaker.open_for_remaining().unwrap_or_default().max(lease)).await;
    for _ in 0..successes {
        let called = service.clone().oneshot(Answer::Success).await;
        assert!(
            called.is_ok(),
            "a breaker that lets nothing through: {breaker:?}"
        );
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_with_the_smallest_settings_opens_and_closes() {
    let smallest = breaker()
        .min_calls(1)
        .failure_share(f64::MIN_POSITIVE)
        .consecutive_failures(1)
        .slow_calls(NANOSECOND, f64::MIN_POSITIVE)
        .open_for(NANOSECOND)
        .open_jitter(0.0)
        .open_growth(1.0, NANOSECOND)
        .max_hint(NANOSECOND)
        .successes_to_close(1)
        .max_probes(1)
        .probe_lease(NANOSECOND);
    for config in [
        smallest.clone().window(SECOND / 100),
        smallest.count_window(1),
    ] {
        let layer = config.build().unwrap();
        let service = layer.layer(service_fn(answer));
        for trouble in [
            Answer::Failure,
            Answer::Overload(Duration::MAX),
            Answer::Late(SECOND),
        ] {
            service.clone().oneshot(trouble).await.unwrap();
            assert_eq!(layer.handle().state(), State::Open);
            recovers(&layer.handle(), NANOSECOND, 1, &service).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_breaker_with_the_largest_settings_opens_and_closes() {
    let largest = breaker()
        .failure_share(1.0 - f64::EPSILON)
        .slow_calls(YEAR, 1.0 - f64::EPSILON)
        .open_for(YEAR)
        .open_jitter(0.9)
        .open_growth(10.0, YEAR)
        .max_hint(YEAR)
        .successes_to_close(10_000)
        .max_probes(10_000)
        .probe_lease(YEAR);
    let by_time = largest.clone().window(YEAR).min_calls(1_000_000);
    let by_count = largest.count_window(100_000).min_calls(100_000);
    for config in [by_time, by_count] {
        config
            .clone()
            .consecutive_failures(1_000_000)
            .build()
            .unwrap();
        let layer = config.consecutive_failures(1).build().unwrap();
        let service = layer.layer(service_fn(answer));
        for trouble in [Answer::Failure, Answer::Overload(Duration::MAX)] {
            service.clone().oneshot(trouble).await.unwrap();
            assert_eq!(layer.handle().state(), State::Open);
            recovers(&layer.handle(), YEAR, 10_000, &service).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_time_that_grows_for_ever_stops_at_its_most() {
    let most = 60 * SECOND;
    let config = breaker().consecutive_failures(1).open_jitter(0.0);
    let layer = config.open_growth(10.0, most).build().unwrap();
    let service = layer.layer(service_fn(answer));
    for _ in 0..400 {
        service.clone().oneshot(Answer::Failure).await.unwrap();
        let open_for = layer.handle().open_for_remaining().unwrap();
        assert!(open_for <= most, "{open_for:?}");
        advance(open_for).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_with_the_smallest_or_largest_settings_ends() {
    let budget = |reserve, share, initial| {
        let budget = Budget::config("a")
            .reserve(reserve)
            .share(share)
            .initial(initial);
        budget.build().unwrap()
    };
    let (small, large) = (budget(1, f64::MIN_POSITIVE, 0), budget(10_000, 1.0, 10_000));
    for (attempts, time, budget) in [(1, NANOSECOND, &small), (10_000, YEAR, &large)] {
        for make in [Backoff::exponential, Backoff::linear, Backoff::decorrelated] {
            let layer = retry()
                .max_attempts(attempts)
                .backoff(make(NANOSECOND, time))
                .overload_backoff(make(time, time))
                .hint_slack(time)
                .budget(budget)
                .build()
                .unwrap();
            for trouble in [Answer::Failure, Answer::Overload(Duration::MAX)] {
                let call = layer.layer(service_fn(answer)).oneshot(trouble);
                let _ended = tokio::time::timeout(2 * YEAR, call).await;
            }
            assert_eq!(budget.in_flight(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_stands_still_breaks_nothing() {
    let layer = breaker().build().unwrap();
    let service = RetryLayer::config("a")
        .classify(judge as Judge)
        .backoff(Backoff::constant(NANOSECOND))
        .build()
        .unwrap()
        .layer(layer.layer(service_fn(answer)));
    let now = tokio::time::Instant::now();
    for trouble in [[Answer::Failure; 100], [Answer::Success; 100]].concat() {
        let mut call = tokio_test::task::spawn(service.clone().oneshot(trouble));
        let _waits = call.poll();
    }
    assert_eq!(tokio::time::Instant::now(), now);
    assert_eq!(layer.handle().state(), State::Open);
    recovers(&layer.handle(), NANOSECOND, 5, &service).await;
}

fn times() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(NANOSECOND),
        Just(YEAR),
        (1_u64..20_000).prop_map(Duration::from_millis)
    ]
}

/// Times that a request or a service may come up with.
fn any_times() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(Duration::ZERO), Just(Duration::MAX), times()]
}

fn shares() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(f64::MIN_POSITIVE),
        Just(1.0 - f64::EPSILON),
        0.01..0.99
    ]
}

prop_compose! {
    fn breakers()(
        (window, by_count) in (times(), any::<bool>()),
        (min_calls, in_a_row) in (1_u32..10, prop::option::of(1_u32..10)),
        (failure_share, slow_calls) in (shares(), prop::option::of((times(), shares()))),
        (open_for, jitter, growth, most) in (times(), 0.0..=0.9, 1.0..=10.0, times()),
        (max_hint, successes, probes, lease) in (times(), 1_u32..20, 1_u32..20, times()),
        seed in any::<u64>(),
    ) -> (circuit_breaker::Config<Judge>, u32, Duration) {
        let mut config = breaker()
            .window(window.max(SECOND / 100))
            .min_calls(min_calls)
            .failure_share(failure_share)
            .open_for(open_for)
            .open_jitter(jitter)
            .open_growth(growth, most)
            .max_hint(max_hint)
            .successes_to_close(successes)
            .max_probes(probes)
            .probe_lease(lease)
            .seed(seed);
        if by_count {
            config = config.count_window(10);
        }
        if let Some(failures) = in_a_row {
            config = config.consecutive_failures(failures);
        }
        if let Some((longer_than, share)) = slow_calls {
            config = config.slow_calls(longer_than, share);
        }
        (config, successes, lease)
    }
}

prop_compose! {
    fn retries()(
        attempts in 1_u32..10,
        (base, cap) in (times(), times()),
        make in prop::sample::select(vec![Backoff::exponential, Backoff::linear, Backoff::decorrelated]),
        slack in times(),
        (retry_rejections, has_budget) in any::<(bool, bool)>(),
        seed in any::<u64>(),
    ) -> retry::Config<ByClone, Judge> {
        let backoff = make(base.min(cap), cap);
        let config = retry()
            .max_attempts(attempts)
            .backoff(backoff.clone())
            .overload_backoff(backoff)
            .hint_slack(slack)
            .retry_rejections(retry_rejections)
            .seed(seed);
        if has_budget { config } else { config.no_budget() }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Begins a call, with this timeout for each attempt.
    Call(Answer, Duration),
    Wait(Duration),
    /// Cancels one of the calls under way.
    Cancel(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let answers = prop_oneof![
        3 => Just(Answer::Success),
        3 => Just(Answer::Failure),
        1 => Just(Answer::Ignored),
        1 => Just(Answer::Never),
        1 => any_times().prop_map(Answer::Overload),
        1 => times().prop_map(Answer::Late),
    ];
    let step = prop_oneof![
        4 => (answers, any_times()).prop_map(|(answer, timeout)| Step::Call(answer, timeout)),
        2 => times().prop_map(Step::Wait),
        1 => any::<prop::sample::Index>().prop_map(Step::Cancel),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #[test]
    fn no_settings_and_no_sequence_of_events_lead_to_a_panic_or_a_state_without_an_exit(
        (breaker, successes, lease) in breakers(),
        retry in retries(),
        total in times(),
        steps in steps(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let breaker = breaker.build().unwrap();
            let retry = retry.build().unwrap();
            let attempt = ServiceBuilder::new()
                .layer(breaker.clone())
                .layer(TimeoutLayer::per_request("a", |call: &(Answer, Duration)| call.1))
                .map_request(|call: (Answer, Duration)| call.0)
                .service_fn(answer);
            let service = ServiceBuilder::new()
                .layer(DeadlineLayer::new("a", total))
                .layer(retry.clone())
                .service(attempt.clone());
            let mut calls = Vec::new();
            for step in steps {
                match step {
                    Step::Call(answer, timeout) => {
                        let call = service.clone().oneshot((answer, timeout));
                        calls.push(tokio_test::task::spawn(call));
                    }
                    Step::Wait(time) => advance(time).await,
                    Step::Cancel(index) if !calls.is_empty() => {
                        let index = index.index(calls.len());
                        drop(calls.swap_remove(index));
                    }
                    Step::Cancel(_) => {}
                }
                calls.retain_mut(|call| call.poll().is_pending());
            }
            // Calls that hang go on hanging meanwhile.
            let attempt = attempt.map_request(|answer| (answer, SECOND));
            recovers(&breaker.handle(), lease, successes, &attempt).await;
            drop(calls);
            prop_assert_eq!(retry.budget().map_or(0, Budget::in_flight), 0);
            Ok(())
        })?;
    }
}
