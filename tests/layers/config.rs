//! Settings: what makes no sense is refused when a layer is built, and whatever is accepted works.

// Helpers of tests are tests.

use std::fmt::Debug;
use std::future::pending;
use std::time::Duration;

use buttress::bulkhead::{self, Aimd, Limit, LimitPolicy, Sample};
use buttress::circuit_breaker::{self, Handle, State};
use buttress::{
    Backoff, BoxError, Budget, BulkheadLayer, ByClone, CircuitBreakerLayer, ConfigError,
    DeadlineLayer, Error, FallbackLayer, HedgeLayer, KeyedLayer, MeasureLayer, Outcome, Rate,
    RateLimitLayer, RetryLayer, TimeoutLayer, budget, fallback, hedge, rate_limit, retry, standard,
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
    refuses("max_retry_after", NO_TIMES, |time| {
        with(&|c| c.max_retry_after(time))
    });
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
    refuses("initial", [20_001, u32::MAX], |n| with(&|c| c.initial(n)));
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
    times("max_retry_after", circuit_breaker::Config::max_retry_after);
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

/// Above the most calls in flight, in a queue, and keys.
const NO_SIZES: [usize; 3] = [0, 1_000_001, usize::MAX];
const NO_LARGE_COUNTS: [u32; 3] = [0, 1_000_001, u32::MAX];

fn no_rates() -> [Rate; 9] {
    [
        Rate::per_second(0),
        Rate::per(0, Duration::ZERO),
        Rate::per(1, Duration::ZERO),
        Rate::per(1, Duration::MAX),
        Rate::per(u32::MAX, Duration::MAX),
        Rate::per(1, YEAR + NANOSECOND),
        Rate::per_second(1_000_000_001),
        Rate::per_second(u32::MAX),
        Rate::per(2, NANOSECOND),
    ]
}

#[test]
fn a_rate_limit_that_makes_no_sense_is_refused() {
    let rate = Rate::per_second(100);
    let with = |set: &dyn Fn(rate_limit::Config) -> rate_limit::Config| {
        set(RateLimitLayer::config("a", rate)).build()
    };
    refuses("rate", no_rates(), |rate| {
        RateLimitLayer::config("a", rate).build()
    });
    let more_than_a_years = 100 * 365 * 24 * 60 * 60 + 1;
    refuses("burst", [0, more_than_a_years, u32::MAX], |tokens| {
        with(&|c| c.burst(tokens))
    });
    refuses("burst", [2, u32::MAX], |tokens| {
        RateLimitLayer::config("a", Rate::per(1, YEAR))
            .burst(tokens)
            .build()
    });
    refuses("max_wait", NO_TIMES, |time| with(&|c| c.max_wait(time)));
    refuses("max_retry_after", NO_TIMES, |time| {
        with(&|c| c.max_retry_after(time))
    });
    with(&|c| c.burst(more_than_a_years - 1)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rate_or_burst_that_makes_no_sense_is_refused_while_the_limit_is_in_use() {
    let rate = Rate::per_second(100);
    let layer = RateLimitLayer::config("a", rate).burst(5).build().unwrap();
    let limit = layer.handle();
    refuses("rate", no_rates(), |rate| limit.set_rate(rate));
    refuses("burst", [0, u32::MAX], |tokens| limit.set_burst(tokens));
    // One that does not go with the burst, or the rate, of the moment.
    refuses("burst", [5], |_| limit.set_rate(Rate::per(1, YEAR)));
    assert_eq!(
        (limit.rate(), limit.burst(), limit.available()),
        (rate, 5, 5)
    );
    limit.set_burst(1).unwrap();
    limit.set_rate(Rate::per(1, YEAR)).unwrap();
    refuses("burst", [2], |tokens| limit.set_burst(tokens));
    for duration in [Duration::ZERO, NANOSECOND, YEAR, Duration::MAX] {
        limit.pause(duration);
    }
    assert_eq!(limit.available(), 0, "for ever");
    let called = layer
        .wrap(service_fn(answer))
        .oneshot(Answer::Success)
        .await;
    called.unwrap_err();
}

#[test]
fn a_bulkhead_that_makes_no_sense_is_refused() {
    let with = |set: &dyn Fn(bulkhead::Config) -> bulkhead::Config| {
        set(BulkheadLayer::config("a", 1).queue(1)).build()
    };
    let times = |field, set: fn(bulkhead::Config, Duration) -> bulkhead::Config| {
        refuses(field, NO_TIMES, |time| with(&|c| set(c, time)));
    };
    refuses("limit", NO_SIZES, |limit| {
        BulkheadLayer::config("a", limit).build()
    });
    refuses("queue", NO_SIZES[1..].iter().copied(), |length| {
        with(&|c| c.queue(length))
    });
    times("queue_wait", bulkhead::Config::queue_wait);
    times("overloaded_wait", bulkhead::Config::overloaded_wait);
    times("overloaded_after", bulkhead::Config::overloaded_after);
    refuses("overloaded_wait", [SECOND], |time| {
        with(&|c| c.queue_wait(SECOND / 2).overloaded_wait(time))
    });
    let limit = with(&|c| c).unwrap().handle();
    refuses("limit", NO_SIZES, |new| limit.set_limit(new));
    assert_eq!(limit.limit(), 1);
}

#[test]
fn a_limit_that_adapts_and_makes_no_sense_is_refused() {
    let with = |aimd: Aimd| BulkheadLayer::config("a", aimd).build();
    refuses("min", NO_SIZES, |min| with(Aimd::between(min, 100)));
    refuses("max", NO_SIZES, |max| with(Aimd::between(1, max)));
    refuses("min", [101], |min| with(Aimd::between(min, 100)));
    refuses("initial", [0, 4, 101, usize::MAX], |initial| {
        with(Aimd::between(5, 100).initial(initial))
    });
    refuses("backoff", NO_SHARES, |share| {
        with(Aimd::between(5, 100).backoff(share))
    });
    refuses("backoff", [1.0], |share| {
        with(Aimd::between(5, 100).backoff(share))
    });
    refuses("slow_calls", NO_TIMES, |time| {
        with(Aimd::between(5, 100).slow_calls(time))
    });
    refuses("limit", NO_SIZES, |initial| {
        let policy = Limit::policy(move || Always(initial, 1));
        BulkheadLayer::config("a", policy).build()
    });
}

/// A policy that begins with one limit and then wants another, whatever happens.
struct Always(usize, usize);

impl LimitPolicy for Always {
    fn initial(&self) -> usize {
        self.0
    }

    fn update(&self, _: &Sample) -> usize {
        self.1
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_makes_no_sense_is_kept_within_the_range() {
    for (wanted, limit) in [(0, 1), (usize::MAX, 1_000_000)] {
        let policy = Limit::policy(move || Always(10, wanted));
        let layer = BulkheadLayer::new("a", policy);
        let service = layer.wrap(service_fn(answer));
        for _ in 0..3 {
            service.clone().oneshot(Answer::Success).await.unwrap();
            assert_eq!(layer.handle().limit(), limit);
        }
    }
}

#[test]
fn a_hedge_that_makes_no_sense_is_refused() {
    let with = |set: &dyn Fn(hedge::Config) -> hedge::Config| set(HedgeLayer::config("a")).build();
    refuses("delay", NO_TIMES, |time| with(&|c| c.delay(time)));
    refuses("percentile", NO_SHARES, |share| {
        with(&|c| c.percentile(share))
    });
    refuses("percentile", [0.49, 0.999_91, 1.0], |share| {
        with(&|c| c.percentile(share))
    });
    refuses("window", NO_TIMES, |time| with(&|c| c.window(time)));
    let too_short = Duration::from_nanos(29_999_999);
    refuses("window", [too_short], |time| with(&|c| c.window(time)));
    refuses("min_samples", NO_LARGE_COUNTS, |calls| {
        with(&|c| c.min_samples(calls))
    });
    refuses("max_hedges", [0, 11, u32::MAX], |hedges| {
        with(&|c| c.max_hedges(hedges))
    });
    refuses("rate_share", NO_SHARES, |share| {
        with(&|c| c.rate_share(share))
    });
    refuses("burst", NO_LARGE_COUNTS, |hedges| {
        with(&|c| c.burst(hedges))
    });
    let no_factors = [0.0, 1.0, 1_000.1, -2.0, f64::NAN, f64::INFINITY];
    refuses("slowdown", no_factors, |factor| {
        with(&|c| c.slowdown(factor))
    });
}

#[test]
fn keys_that_make_no_sense_are_refused() {
    let keyed = || KeyedLayer::config("a", |_: &Answer| 1, |_: &u8| breaker().build().unwrap());
    refuses("max_keys", NO_LARGE_COUNTS, |keys| {
        keyed().max_keys(keys).build()
    });
    refuses("idle", NO_TIMES, |time| keyed().idle(time).build());
}

#[test]
fn a_standard_stack_whose_parts_make_no_sense_is_refused() {
    let with = || standard("a").unlimited();
    refuses("timeout", NO_TIMES, |time| {
        with().no_response_timeout().timeout(time).build()
    });
    refuses("response_timeout", NO_TIMES, |time| {
        with().no_timeout().response_timeout(time).build()
    });
    refuses("deadline", NO_TIMES, |time| {
        with().no_timeout().deadline(time).build()
    });
    refuses("limit", NO_SIZES, |limit| {
        standard("a").concurrency_limit(limit).build()
    });
    refuses("rate", no_rates(), |rate| {
        with().rate_limit(rate, |limit| limit).build()
    });
    refuses("max_wait", [Duration::ZERO], |time| {
        let limited = with().rate_limit(Rate::per_second(1), |limit| limit.max_wait(time));
        limited.build()
    });
    refuses("delay", [Duration::ZERO], |time| {
        with().hedge(|hedge| hedge.delay(time)).build()
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
    refuses("name", [""], |name| {
        RateLimitLayer::config(name, Rate::per_second(1)).build()
    });
    refuses("name", [""], |name| BulkheadLayer::config(name, 1).build());
    refuses("name", [""], |name| HedgeLayer::config(name).build());
    refuses("name", [""], |name| {
        FallbackLayer::config(name, fallback::value(1)).build()
    });
    refuses("name", [""], |name| {
        KeyedLayer::config(name, |_: &Answer| 1, |_: &u8| breaker().build().unwrap()).build()
    });
    refuses("name", [""], |name| standard(name).unlimited().build());
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

type Judge = fn(Result<&Answer, &Error>) -> Outcome;

fn judge(result: Result<&Answer, &Error>) -> Outcome {
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
    S: Service<Answer, Error = Error> + Clone,
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
        .max_retry_after(NANOSECOND)
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
        .max_retry_after(YEAR)
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
                .max_retry_after(time)
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
async fn limits_with_the_smallest_or_largest_settings_let_calls_through() {
    let slow = Rate::per(1, YEAR);
    let fast = Rate::per_second(1_000_000_000);
    for (rate, burst, wait) in [(slow, 1, YEAR), (fast, u32::MAX, NANOSECOND)] {
        let limit = RateLimitLayer::config("a", rate).burst(burst);
        let limit = limit
            .max_wait(wait)
            .max_retry_after(wait)
            .classify(judge as Judge);
        let limit = limit.build().unwrap();
        let service = limit.wrap(service_fn(answer));
        let overload = Answer::Overload(Duration::MAX);
        service.clone().oneshot(overload).await.unwrap();
        let _ended = service.clone().oneshot(overload).await;
        advance(2 * YEAR).await;
        service.clone().oneshot(Answer::Success).await.unwrap();
        assert_eq!(limit.handle().waiting(), 0);
    }
    for (limit, queue, wait) in [(1, 0, NANOSECOND), (1_000_000, 1_000_000, YEAR)] {
        for limit in [
            Limit::from(limit),
            Limit::from(Aimd::between(limit, limit).slow_calls(wait)),
        ] {
            let bulkhead = BulkheadLayer::config("a", limit)
                .queue(queue)
                .queue_wait(wait)
                .overloaded_wait(wait)
                .overloaded_after(wait)
                .build()
                .unwrap();
            let service = bulkhead.wrap(service_fn(answer));
            for trouble in [Answer::Failure, Answer::Late(YEAR), Answer::Success] {
                service.clone().oneshot(trouble).await.unwrap();
            }
            assert_eq!(bulkhead.handle().in_flight(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_with_the_smallest_or_largest_settings_answers() {
    let smallest = HedgeLayer::config("a")
        .percentile(0.5)
        .window(Duration::from_millis(30))
        .min_samples(1)
        .max_hedges(1)
        .rate_share(f64::MIN_POSITIVE)
        .burst(1)
        .slowdown(1.0 + f64::EPSILON);
    let largest = HedgeLayer::config("a")
        .percentile(0.9999)
        .window(YEAR)
        .min_samples(1_000_000)
        .max_hedges(10)
        .rate_share(1.0)
        .burst(1_000_000)
        .slowdown(1_000.0);
    for config in [
        smallest.clone().delay(NANOSECOND),
        smallest,
        largest.clone().delay(YEAR),
        largest,
    ] {
        let layer = config.classify(judge as Judge).build().unwrap();
        let service = layer.wrap(service_fn(answer));
        for trouble in [Answer::Success, Answer::Failure, Answer::Late(2 * YEAR)].repeat(10) {
            service.clone().oneshot(trouble).await.unwrap();
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
        (max_retry_after, successes, probes, lease) in (times(), 1_u32..20, 1_u32..20, times()),
        seed in any::<u64>(),
    ) -> (circuit_breaker::Config<Judge>, u32, Duration) {
        let mut config = breaker()
            .window(window.max(SECOND / 100))
            .min_calls(min_calls)
            .failure_share(failure_share)
            .open_for(open_for)
            .open_jitter(jitter)
            .open_growth(growth, most)
            .max_retry_after(max_retry_after)
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
        max_retry_after in times(),
        (retry_rejections, has_budget) in any::<(bool, bool)>(),
        seed in any::<u64>(),
    ) -> retry::Config<ByClone, Judge> {
        let backoff = make(base.min(cap), cap);
        let config = retry()
            .max_attempts(attempts)
            .backoff(backoff.clone())
            .overload_backoff(backoff)
            .max_retry_after(max_retry_after)
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
