//! Events: each decision is told once, and a listener does no harm.

use std::future::ready;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use buttress::balance::{Endpoint, HealthCheck, OutlierEjection, RoundRobin};
use buttress::bulkhead::Aimd;
use buttress::circuit_breaker::State;
use buttress::event::{Event, EventKind};
use buttress::{
    Balance, BoxError, Budget, BulkheadLayer, CircuitBreakerLayer, Classify, Error,
    ErrorsAreFailures, GaveUp, HedgeLayer, Mode, Outcome, Rate, RateLimitLayer, RetryLayer,
    standard,
};
use futures::FutureExt;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// The lines of the events so far.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn listener(&self) -> impl Fn(&Event<'_>) + Send + Sync + 'static {
        let lines = Arc::clone(&self.0);
        move |event| {
            lines
                .lock()
                .expect("the lock is held for one line")
                .push(event.to_string());
        }
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("the lock is held for one line"))
    }
}

async fn echo(word: &'static str) -> Result<&'static str, BoxError> {
    match word {
        "fails" => Err("broken".into()),
        "hangs" => std::future::pending().await,
        _ => Ok(word),
    }
}

#[tokio::test(start_paused = true)]
async fn a_successful_call_causes_no_event() {
    let log = Log::default();
    let stack = standard("quiet").concurrency_limit(5).hedge(|hedge| hedge);
    let stack = stack.rate_limit(Rate::per_second(10), |limit| limit);
    let stack = stack.on_event(log.listener()).build().unwrap();
    stack.wrap(service_fn(echo)).send("ok").await.unwrap();
    assert_eq!(log.take(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_stack_tells_of_retries_with_their_cause_and_of_the_end() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let events = Arc::clone(&seen);
    let stack = standard("shop").unlimited().no_circuit_breaker().seed(1);
    let stack = stack.on_event(move |event| {
        let mut events = events.lock().unwrap();
        events.push(match event.kind {
            EventKind::Retry {
                attempt,
                wait,
                error,
                by_retry_after,
                ..
            } => {
                assert!(wait > Duration::ZERO && !by_retry_after);
                assert!(error.unwrap().to_string().contains("\"shop\" failed"));
                format!("retry {attempt}")
            }
            EventKind::GaveUp {
                attempts, reason, ..
            } => {
                assert_eq!(reason, GaveUp::Exhausted);
                format!("gave up {attempts}")
            }
            _ => event.to_string(),
        });
        assert_eq!((event.name, event.layer), ("shop", "retry"));
    });
    let client = stack.build().unwrap().wrap(service_fn(echo));
    client.send("fails").await.unwrap_err();
    assert_eq!(*seen.lock().unwrap(), ["retry 1", "retry 2", "gave up 3"]);
}

#[tokio::test(start_paused = true)]
async fn a_stack_tells_of_its_time_limits() {
    let log = Log::default();
    let stack = standard("slow").unlimited().no_retry().no_circuit_breaker();
    let stack = stack.timeout(SECOND).deadline(3 * SECOND);
    let stack = stack.on_event(log.listener()).build().unwrap();
    let client = stack.wrap(service_fn(echo));
    client.send("hangs").await.unwrap_err();
    assert_eq!(log.take(), ["slow: timeout ended a call after 1s"]);
    let stack = standard("slow").unlimited().no_retry().no_circuit_breaker();
    let stack = stack.no_timeout().deadline(3 * SECOND);
    let stack = stack.on_event(log.listener()).build().unwrap();
    stack
        .wrap(service_fn(echo))
        .send("hangs")
        .await
        .unwrap_err();
    assert_eq!(log.take(), ["slow: deadline ended a call after 3s"]);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_that_only_observes_ends_no_call_and_tells_once() {
    let log = Log::default();
    let stack = standard("slow").unlimited().no_circuit_breaker();
    let stack = stack.timeout(SECOND).timeout_mode(Mode::Observe);
    let stack = stack.on_event(log.listener()).build().unwrap();
    let client = stack.wrap(service_fn(async |seconds: u32| {
        for _ in 0..seconds {
            sleep(SECOND).await;
        }
        Ok::<_, BoxError>(())
    }));
    client.send(5).await.unwrap();
    assert_eq!(log.take(), ["slow: timeout would end a call after 1s"]);
    client.send(20).await.unwrap_err();
    let lines = log.take();
    assert_eq!(lines[0], "slow: timeout would end a call after 1s");
    assert_eq!(lines[1], "slow: response_timeout ended a call after 10s");
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_only_observes_refuses_no_retry() {
    for (mode, attempts) in [(Mode::Enforce, 1), (Mode::Observe, 3)] {
        let budget = Budget::config("empty")
            .initial(0)
            .mode(mode)
            .build()
            .unwrap();
        let calls = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&calls);
        let retry = RetryLayer::config("empty").budget(&budget).build().unwrap();
        let client = retry.wrap(service_fn(move |()| {
            *counted.lock().expect("no panic") += 1;
            async { Err::<(), BoxError>("down".into()) }
        }));
        client.send(()).await.unwrap_err();
        assert_eq!(*calls.lock().expect("no panic"), attempts);
        assert_eq!(budget.in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn each_layer_tells_of_its_decisions() {
    let log = Log::default();
    let breaker = CircuitBreakerLayer::config("b").consecutive_failures(1);
    let breaker = breaker
        .open_jitter(0.0)
        .on_event(log.listener())
        .build()
        .unwrap();
    let client = breaker.wrap(service_fn(echo));
    client.send("fails").await.unwrap_err();
    client.send("ok").await.unwrap_err();
    let lines = log.take();
    assert!(lines[0].starts_with(
        "b: circuit breaker closed -> open: consecutive_failures, 1 of 1 calls failed, for "
    ));
    assert!(lines[1].starts_with("b: circuit_breaker refused a call: circuit_open, try again in "));
    assert_eq!(lines.len(), 2);

    for (mode, word) in [(Mode::Enforce, "refused"), (Mode::Observe, "would refuse")] {
        let limit = RateLimitLayer::config("r", Rate::per_second(1))
            .burst(1)
            .mode(mode);
        let client = limit.on_event(log.listener()).build().unwrap();
        let client = client.wrap(service_fn(echo));
        client.send("ok").await.unwrap();
        drop(client.send("ok").await);
        let line = format!("r: rate_limit {word} a call: rate_limited, try again in 1s");
        let lines = log.take();
        assert!(
            lines.len() == 1 && line.starts_with(lines[0].as_str()),
            "{lines:?}"
        );
    }

    let limit = BulkheadLayer::config("l", 1).on_event(log.listener());
    let client = limit.build().unwrap().wrap(service_fn(echo));
    let mut held = tokio_test::task::spawn(client.send("hangs"));
    assert!(held.poll().is_pending());
    client.send("ok").await.unwrap_err();
    assert_eq!(log.take(), ["l: bulkhead refused a call: bulkhead_full"]);

    let hedge = HedgeLayer::config("h")
        .delay(SECOND)
        .on_event(log.listener());
    let client = hedge.build().unwrap().wrap(service_fn(async |()| {
        sleep(2 * SECOND).await;
        Ok::<_, BoxError>(())
    }));
    client.send(()).await.unwrap();
    assert_eq!(log.take(), ["h: hedge 1 was sent", "h: hedge lost"]);

    let broken = service_fn(|_: &'static str| async { Err::<&str, BoxError>("broken".into()) });
    let endpoint = |key: &'static str| match key {
        "bad" => Endpoint::new(key, BoxCloneSyncService::new(broken)),
        _ => Endpoint::new(key, BoxCloneSyncService::new(service_fn(echo))),
    };
    let rule = OutlierEjection::new().consecutive_failures(3);
    let config = Balance::config("e")
        .outlier_ejection(rule)
        .choose(RoundRobin);
    let balance = config.on_event(log.listener());
    let balance = balance.build(["a", "bad", "c"].map(endpoint)).unwrap();
    for _ in 0..9 {
        drop(balance.clone().oneshot("ok").await);
    }
    assert_eq!(
        log.take(),
        ["e: balancer ejected \"bad\": consecutive_failures"]
    );
}

#[tokio::test(start_paused = true)]
async fn the_listener_of_a_part_replaces_that_of_the_stack() {
    let (of_stack, of_part) = (Log::default(), Log::default());
    let inner = of_part.listener();
    let stack = standard("shop")
        .unlimited()
        .circuit_breaker(|breaker| breaker.consecutive_failures(1).on_event(inner))
        .on_event(of_stack.listener());
    let client = stack.build().unwrap().wrap(service_fn(echo));
    client.send("fails").await.unwrap_err();
    let is_of_breaker = |line: &String| line.starts_with("shop: circuit");
    assert!(of_part.take().iter().all(is_of_breaker));
    let lines = of_stack.take();
    assert!(
        !lines.is_empty() && !lines.iter().any(is_of_breaker),
        "{lines:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_listener_may_panic_and_steer_the_stack() {
    let handle = Arc::new(Mutex::new(None::<buttress::stack::Handle>));
    let steered = Arc::clone(&handle);
    let stack = standard("shop").concurrency_limit(1).no_retry();
    let stack = stack.circuit_breaker(|breaker| breaker.consecutive_failures(1));
    let stack = stack.on_event(move |event| {
        if matches!(event.kind, EventKind::Transition(_)) {
            let handle = steered.lock().unwrap().take();
            handle.unwrap().circuit_breaker().unwrap().reset();
        }
        panic!("a listener");
    });
    let stack = stack.build().unwrap();
    *handle.lock().unwrap() = Some(stack.handle());
    let client = stack.wrap(service_fn(echo));
    client.send("fails").await.unwrap_err();
    assert_eq!(
        client.send("ok").await.unwrap(),
        "ok",
        "the listener has reset the breaker"
    );
    let mut held = tokio_test::task::spawn(client.send("hangs"));
    assert!(held.poll().is_pending());
    client.send("ok").await.unwrap_err();
    drop(held);
    assert_eq!(stack.handle().bulkhead().unwrap().in_flight(), 0);
    client.send("ok").await.unwrap();
}

async fn slowly(word: &'static str) -> Result<&'static str, BoxError> {
    sleep(SECOND).await;
    Ok(word)
}

/// An answer that says that the service is overloaded.
fn overloaded(result: Result<&&str, &Error>) -> Outcome {
    match result {
        Ok(&"overloaded") => Outcome::Overload {
            retry_after: Some(5 * SECOND),
        },
        _ => ErrorsAreFailures.classify(result),
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_tells_once_that_the_service_asked_for_a_pause() {
    let log = Log::default();
    let limit = RateLimitLayer::config("paused", Rate::per_second(100)).classify(overloaded);
    let client = limit.on_event(log.listener()).build().unwrap();
    let client = client.wrap(service_fn(slowly));
    let both = tokio::join!(client.send("overloaded"), client.send("overloaded"));
    assert!(both.0.is_ok() && both.1.is_ok());
    let lines = log.take();
    assert_eq!(
        lines,
        ["paused: rate_limit pauses for 5s, as the service asked"]
    );
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_bulkhead_tells_when_it_shrinks_and_not_when_it_grows() {
    let log = Log::default();
    let limit = BulkheadLayer::config("adaptive", Aimd::between(2, 40).initial(10));
    let limit = limit.classify(overloaded).on_event(log.listener());
    let limit = limit.build().unwrap();
    let client = limit.wrap(service_fn(slowly));
    let calls: JoinSet<_> = (0..10).map(|_| client.clone().oneshot("ok")).collect();
    calls.join_all().await;
    assert!(limit.handle().limit() > 10, "it has grown");
    assert_eq!(log.take(), Vec::<String>::new());
    let before = limit.handle().limit();
    client.send("overloaded").await.unwrap();
    let after = limit.handle().limit();
    assert!(after < before);
    assert_eq!(
        log.take(),
        [format!("adaptive: bulkhead limit {before} -> {after}")]
    );
}

#[tokio::test(start_paused = true)]
async fn a_transition_tells_the_calls_that_it_is_based_on() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let changes = Arc::clone(&seen);
    let breaker = CircuitBreakerLayer::config("with counts").seed(1);
    let breaker = breaker.on_event(move |event| {
        if let EventKind::Transition(change) = event.kind {
            let counts = (change.calls, change.failures, change.slow);
            changes.lock().unwrap().push((change.to, counts));
        }
    });
    let client = breaker.build().unwrap().wrap(service_fn(echo));
    for _ in 0..2 {
        client.send("ok").await.unwrap();
    }
    for _ in 0..18 {
        client.send("fails").await.unwrap_err();
    }
    sleep(5 * SECOND).await;
    client.send("ok").await.unwrap();
    client.send("fails").await.unwrap_err();
    client.send("fails").await.unwrap_err();
    let seen = seen.lock().unwrap();
    let expected = [
        (State::Open, (20, 18, 0)),
        (State::HalfOpen, (0, 0, 0)),
        (State::Open, (3, 2, 0)),
    ];
    assert_eq!(*seen, expected);
}

/// A balancer over these endpoints, which all answer, and the lines of its events.
fn balanced(name: &str, keys: &[&'static str]) -> (Balance<Works>, Log) {
    let log = Log::default();
    let config = Balance::config(name).on_event(log.listener());
    let balance = config.build(keys.iter().map(works)).expect("is valid");
    (balance, log)
}

type Works = BoxCloneSyncService<&'static str, &'static str, BoxError>;

fn works(key: &&'static str) -> Endpoint<Works> {
    Endpoint::new(*key, BoxCloneSyncService::new(service_fn(echo)))
}

#[tokio::test(start_paused = true)]
async fn a_balancer_tells_of_endpoints_that_come_go_and_are_kept_out() {
    let (balance, log) = balanced("e", &["a", "b", "c"]);
    assert_eq!(
        log.take(),
        Vec::<String>::new(),
        "nothing of the first ones"
    );
    let handle = balance.handle();
    handle.add(works(&"d")).unwrap();
    assert!(handle.remove("d") && !handle.remove("d"));
    assert!(handle.eject("a", SECOND) && handle.restore("a"));
    assert!(!handle.eject("d", SECOND) && !handle.restore("d"));
    assert_eq!(
        log.take(),
        [
            "e: balancer added \"d\"",
            "e: balancer removed \"d\"",
            "e: balancer ejected \"a\": by_hand",
            "e: balancer restored \"a\"",
        ]
    );
    for key in ["a", "b"] {
        handle.eject(key, SECOND);
    }
    handle.restore("a");
    assert_eq!(
        log.take(),
        [
            "e: balancer ejected \"a\": by_hand",
            "e: panic begins in priority 0",
            "e: balancer ejected \"b\": by_hand",
            "e: panic is over in priority 0",
            "e: balancer restored \"a\"",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_balancer_tells_when_calls_move_to_another_priority() {
    let log = Log::default();
    let config = Balance::config("f").on_event(log.listener());
    let endpoints = [works(&"near"), works(&"far").priority(1)];
    let balance = config.build(endpoints).unwrap();
    balance.handle().eject("near", SECOND);
    balance.handle().remove("near");
    assert_eq!(
        log.take(),
        [
            "f: failover: priority 0 ceases to get calls",
            "f: failover: priority 1 begins to get calls",
            "f: balancer ejected \"near\": by_hand",
            "f: balancer removed \"near\"",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_balancer_tells_what_a_health_check_finds() {
    let (balance, log) = balanced("h", &["a", "b", "c"]);
    let first = AtomicUsize::new(0);
    let check = HealthCheck::new(move |_: Works| {
        let fails = first.fetch_add(1, Ordering::Relaxed) == 0;
        ready(if fails { Err("down".into()) } else { Ok(()) })
    });
    let _checked = balance
        .check_health(check.rise(1).interval(SECOND))
        .unwrap();
    sleep(5 * SECOND).await;
    let lines = log.take();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].ends_with(" unhealthy"), "{lines:?}");
    assert!(lines[1].ends_with(" healthy"), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_listener_of_a_balancer_may_use_its_handle_and_call_it() {
    let slot: Arc<OnceLock<Balance<Works>>> = Arc::default();
    let (called, balance) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&slot));
    let count = Arc::clone(&called);
    let config = Balance::config("g").on_event(move |_| {
        let balance = balance.get().unwrap();
        drop(balance.handle().endpoints());
        if count.fetch_add(1, Ordering::Relaxed) == 0 {
            balance.handle().restore("b");
        }
        drop(balance.clone().oneshot("ok").now_or_never());
    });
    let balance = config.build(["a", "b"].iter().map(works)).unwrap();
    let balance = slot.get_or_init(|| balance);
    balance.handle().remove("a");
    assert_eq!(called.load(Ordering::Relaxed), 2);
}
