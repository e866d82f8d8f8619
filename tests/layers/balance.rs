//! The balancer.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::float_cmp)]

use crate::common;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::pending;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::debugging::{DebugValue, DebuggingRecorder};
use buttress::balance::{
    Ask, Choose, ConsistentHash, Endpoint, EndpointState, Handle, HealthCheck, LeastLoaded,
    LoadMetric, OutlierEjection, PowerOfChoices, RoundRobin, WeightedRandom,
};
use buttress::discover::{Dns, Restartable, Target, Watch};
use buttress::{
    Availability, Backoff, Balance, BoxError, BulkheadLayer, CircuitBreakerLayer, ConfigError,
    Deadline, Error, ErrorKind, HedgeLayer, Mode, Outcome, RetryLayer, classify_fn,
};
use common::{End, Plan, Probe, Task};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, advance, sleep, timeout};
use tower::discover::Change;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

type Client = BoxCloneSyncService<u32, String, BoxError>;

/// Answers with its name after a time, or fails.
fn server(name: &str, takes: Duration, fails: bool) -> Client {
    let name = name.to_owned();
    Client::new(service_fn(move |_| {
        let name = name.clone();
        async move {
            sleep(takes).await;
            if fails {
                return Err(BoxError::from(format!("{name} is down")));
            }
            Ok(name)
        }
    }))
}

fn endpoint(name: &str) -> Endpoint<Client> {
    Endpoint::new(name, server(name, MS, false))
}

/// Never answers.
fn hanging(name: &str) -> Endpoint<Client> {
    Endpoint::new(name, Client::new(service_fn(|_| pending())))
}

fn kind<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    let kind = result.err()?.kind();
    (kind != ErrorKind::Service).then_some(kind)
}

/// How many of `calls` calls, one after the other, each endpoint answers.
async fn shares<S>(balance: &S, calls: u32) -> BTreeMap<String, u32>
where
    S: Service<u32, Response = String, Error = Error> + Clone,
{
    let mut counts = BTreeMap::new();
    for request in 0..calls {
        let name = match balance.clone().oneshot(request).await {
            Ok(name) => name,
            Err(error) => error.service_error().expect("has failed").to_string(),
        };
        *counts.entry(name).or_default() += 1;
    }
    counts
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn assert_send_sync<T: Clone + Send + Sync>(_: &T) {}

fn refused_field<T>(built: Result<T, ConfigError>) -> &'static str {
    built.err().expect("it makes no sense").field()
}

#[tokio::test(start_paused = true)]
async fn calls_are_spread_over_all_endpoints() {
    let names = ["a", "b", "c", "d"];
    let config = Balance::config("search").seed(1);
    let balance = config.build(names.map(endpoint)).unwrap();
    assert_send_sync(&balance);
    let counts = shares(&balance, 1_000).await;
    assert_eq!(counts.len(), 4);
    assert!(counts.values().all(|count| *count > 150), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn one_endpoint_gets_all_calls_and_two_share_them() {
    let one = Balance::new("search", [endpoint("a")]).unwrap();
    assert_eq!(shares(&one, 100).await["a"], 100);
    let two = Balance::config("search").seed(1);
    let two = two.build([endpoint("a"), endpoint("b")]).unwrap();
    let counts = shares(&two, 1_000).await;
    assert!(counts.values().all(|count| *count > 400), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_fast_does_not_attract_calls() {
    let mut endpoints: Vec<_> = (0..9)
        .map(|n| Endpoint::new(n, server(&n.to_string(), 20 * MS, false)))
        .collect();
    endpoints.push(Endpoint::new("bad", server("bad", MS, true)));
    let balance = Balance::config("search").seed(1).build(endpoints).unwrap();
    let counts = shares(&balance, 10_000).await;
    let bad = counts["bad is down"];
    assert!(bad < 60, "{bad} of 10,000 calls");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_whose_responses_are_failures_does_not_attract_calls() {
    let classify = classify_fn(|result: Result<&String, &Error>| match result {
        Ok(name) if name != "bad" => Outcome::Success,
        _ => Outcome::Failure,
    });
    let config = Balance::config("search").seed(1).classify(classify);
    let slow = |name| Endpoint::new(name, server(name, 20 * MS, false));
    let bad = Endpoint::new("bad", server("bad", MS, false));
    let balance = config.build([slow("a"), slow("b"), bad]).unwrap();
    let bad = shares(&balance, 10_000).await["bad"];
    assert!(bad < 200, "{bad} of 10,000 calls");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_is_avoided_while_its_calls_are_in_flight() {
    let config = Balance::config("search").seed(1);
    let balance = config
        .build([hanging("a"), endpoint("b"), endpoint("c")])
        .unwrap();
    let mut waiting = Vec::new();
    for request in 0..1_000 {
        let mut call = Box::pin(balance.clone().oneshot(request));
        if poll(&mut call).is_pending() {
            advance(2 * MS).await;
            if poll(&mut call).is_pending() {
                waiting.push(call);
            }
        }
    }
    assert!(waiting.len() < 5, "{}", waiting.len());
    let status = balance.handle().endpoint("a").unwrap();
    assert_eq!(status.in_flight as usize, waiting.len());
    assert!(status.latency > SECOND, "{status:?}");
    drop(waiting);
    let status = balance.handle().endpoint("a").unwrap();
    assert_eq!(status.in_flight, 0, "cancelled calls give back their place");
    assert!(
        status.latency > SECOND,
        "and say that it is slow: {status:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_endpoint_gives_back_its_place() {
    let client = Client::new(service_fn(|_| async { panic!("the endpoint panics") }));
    let balance = Balance::new("search", [Endpoint::new("a", client)]).unwrap();
    let call = tokio::spawn(balance.clone().oneshot(1));
    assert!(call.await.is_err());
    assert_eq!(balance.handle().endpoint("a").unwrap().in_flight, 0);
}

/// An endpoint whose readiness fails once, and then comes at the second poll.
#[derive(Clone)]
struct Shaky {
    has_failed: Arc<AtomicBool>,
    polls: u32,
}

impl Service<u32> for Shaky {
    type Response = String;
    type Error = BoxError;
    type Future = std::future::Ready<Result<String, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if !self.has_failed.swap(true, Ordering::Relaxed) {
            return Poll::Ready(Err("not ready".into()));
        }
        self.polls += 1;
        if self.polls == 1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u32) -> Self::Future {
        assert!(self.polls > 1, "called before it is ready");
        std::future::ready(Ok("shaky".into()))
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_is_the_outcome_of_a_call_and_no_more() {
    let has_failed = Arc::default();
    let shaky = Shaky {
        has_failed,
        polls: 0,
    };
    let balance = Balance::new("search", [Endpoint::new("a", shaky)]).unwrap();
    balance.clone().oneshot(1).await.unwrap_err();
    for _ in 0..3 {
        assert_eq!(balance.clone().oneshot(1).await.unwrap(), "shaky");
    }
}

/// Says what it was told to say.
#[derive(Clone, Default)]
struct Switch(Arc<AtomicBool>);

impl Availability for Switch {
    fn is_available(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_not_available_is_chosen_only_if_no_other_is() {
    let (a, b) = (Switch::default(), Switch::default());
    b.0.store(true, Ordering::Relaxed);
    let endpoints = [
        endpoint("a").available(a.clone()),
        endpoint("b").available(b.clone()),
    ];
    let balance = Balance::new("search", endpoints).unwrap();
    assert_eq!(shares(&balance, 100).await["b"], 100);
    b.0.store(false, Ordering::Relaxed);
    assert_eq!(shares(&balance, 100).await.len(), 2, "better than none");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_refuses_a_call_is_left_alone_and_a_retry_goes_elsewhere() {
    let breaker = CircuitBreakerLayer::new("a");
    let broken = server("a", MS, true);
    let a = Endpoint::new("a", Client::new(breaker.wrap(broken).map_err(Into::into)));
    let balance = Balance::new("search", [a, endpoint("b")]).unwrap();
    let handle = balance.handle();
    let mut retry = RetryLayer::config("search");
    retry = retry.backoff(Backoff::constant(MS));
    let client = retry.build().unwrap().wrap(balance.clone());
    breaker.handle().force_open();
    assert_eq!(shares(&client, 50).await["b"], 50);
    let status = handle.endpoint("a").unwrap();
    assert!(!status.is_selectable, "{status:?}");
    assert_eq!(status.failure_share.to_bits(), 0, "a refusal is no failure");
    assert_eq!(status.in_flight, 0);

    handle.remove("b");
    let refused = client.oneshot(1).await;
    assert_eq!(kind(refused), Some(ErrorKind::CircuitOpen), "nowhere else");
}

#[tokio::test(start_paused = true)]
async fn a_balancer_with_a_classifier_is_called_in_a_spawned_task() {
    fn judge(_: Result<&String, &Error>) -> Outcome {
        Outcome::Success
    }
    async fn echo(request: u32) -> Result<String, BoxError> {
        Ok(request.to_string())
    }
    let endpoints = || [Endpoint::new("a", service_fn(echo))];
    let balance = Balance::config("search").classify(judge).build(endpoints());
    let balance = balance.unwrap();
    let call = tokio::spawn(async move { balance.oneshot(1).await });
    assert_eq!(call.await.unwrap().unwrap(), "1");

    let by_closure = classify_fn(|result: Result<&String, &Error>| judge(result));
    let config = Balance::config("search").classify(by_closure);
    let balance = config.build(endpoints()).unwrap();
    let call = tokio::spawn(balance.clone().oneshot(2));
    assert_eq!(call.await.unwrap().unwrap(), "2");
    let boxed = BoxCloneSyncService::new(balance.clone());
    let call = tokio::spawn(async move { boxed.oneshot(3).await });
    assert_eq!(call.await.unwrap().unwrap(), "3");
    let mut balance = balance;
    let call = tokio::spawn(async move { balance.call(4).await });
    assert_eq!(call.await.unwrap().unwrap(), "4");
}

/// Counts its calls and fails them.
fn failing(count: &Arc<AtomicU32>) -> Client {
    let count = Arc::clone(count);
    Client::new(service_fn(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Err("down".into()) }
    }))
}

#[tokio::test(start_paused = true)]
async fn a_retry_does_not_go_where_the_last_attempts_went() {
    let counts: [Arc<AtomicU32>; 3] = Default::default();
    let endpoint = |n: usize| Endpoint::new(n, failing(&counts[n]));
    let config = Balance::config("search")
        .failure_penalty(Duration::ZERO)
        .measure(LoadMetric::InFlight);
    let balance = config.build([0, 1, 2].map(endpoint)).unwrap();
    for calls in 1..50 {
        let retry = RetryLayer::config("search").max_attempts(3).build();
        retry
            .unwrap()
            .wrap(balance.clone())
            .oneshot(1)
            .await
            .unwrap_err();
        let seen = counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        assert_eq!(seen, [calls; 3], "each attempt went to another endpoint");
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_endpoints_the_attempts_take_turns() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let endpoint = |n: u32| {
        let seen = Arc::clone(&seen);
        let down = service_fn(move |_: u32| {
            seen.lock().unwrap().push(n);
            async { Err::<String, _>(BoxError::from("down")) }
        });
        Endpoint::new(n, down)
    };
    let config = Balance::config("search").failure_penalty(Duration::ZERO);
    let balance = config
        .measure(LoadMetric::InFlight)
        .build([0, 1].map(endpoint));
    let balance = balance.unwrap();
    for _ in 0..50 {
        let retry = RetryLayer::config("search").max_attempts(3).build();
        let call = retry.unwrap().wrap(balance.clone()).oneshot(1);
        call.await.unwrap_err();
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        assert_eq!(seen, [seen[0], 1 - seen[0], seen[0]]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_goes_to_another_endpoint() {
    // By its load alone, the first one would get both attempts.
    let balance = Balance::config("search").measure(LoadMetric::InFlight);
    let balance = balance
        .build([hanging("a"), endpoint("b").weight(0.01)])
        .unwrap();
    for _ in 0..50 {
        let hedge = HedgeLayer::config("search").delay(10 * MS).build();
        let client = hedge.unwrap().wrap(balance.clone());
        let answer = timeout(SECOND, client.oneshot(1)).await;
        assert_eq!(answer.expect("not where the first went").unwrap(), "b");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_in_the_queue_of_one_endpoint_is_hedged_at_another() {
    let limit = BulkheadLayer::config("a", 1).queue(10).build().unwrap();
    let stuck = service_fn(|_| pending::<Result<String, BoxError>>());
    let a = Endpoint::new("a", Client::new(limit.wrap(stuck).map_err(Into::into)));
    let balance = Balance::config("search").measure(LoadMetric::InFlight);
    let balance = balance.build([a, endpoint("b").weight(0.01)]).unwrap();
    let mut first = Box::pin(balance.clone().oneshot(1));
    assert!(poll(&mut first).is_pending(), "it has the only permit");
    let hedge = HedgeLayer::config("search").delay(10 * MS).build();
    let client = hedge.unwrap().wrap(balance);
    let answer = timeout(SECOND, client.oneshot(1)).await;
    assert_eq!(answer.expect("not where the first went").unwrap(), "b");
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_added_removed_replaced_and_reweighed_in_use() {
    let config = Balance::config("search").slow_start(Duration::ZERO).seed(1);
    let balance = config.build([endpoint("a")]).unwrap();
    let mut used = balance.clone();
    let handle = balance.handle();
    handle.add(endpoint("b")).unwrap();
    handle.add(endpoint("c")).unwrap();
    let counts = shares(&balance, 300).await;
    assert_eq!(counts.len(), 3, "an older handle sees new endpoints");

    assert!(handle.remove("a"));
    assert!(!handle.remove("a"));
    handle
        .add(Endpoint::new("b", server("b2", MS, false)))
        .unwrap();
    let counts = shares(&balance, 300).await;
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["b2", "c"]);

    assert!(handle.reweigh("c", 10.0).unwrap());
    assert!(!handle.reweigh("gone", 10.0).unwrap());
    assert_eq!(refused_field(handle.reweigh("c", f64::NAN)), "weight");
    assert_eq!(
        refused_field(handle.add(endpoint("d").weight(0.0))),
        "weight"
    );
    let keys = handle.endpoints().into_iter().map(|status| status.key);
    assert_eq!(keys.collect::<Vec<_>>().len(), 2);
    assert!(used.ready().await.unwrap().call(1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_on_a_replaced_endpoint_finish_and_are_not_counted_for_the_new_one() {
    let old = Endpoint::new("a", server("old", SECOND, false));
    let balance = Balance::new("search", [old]).unwrap();
    let handle = balance.handle();
    let call = tokio::spawn(balance.clone().oneshot(1));
    sleep(MS).await;
    assert_eq!(handle.endpoint("a").unwrap().in_flight, 1);
    handle
        .add(Endpoint::new("a", server("new", MS, false)))
        .unwrap();
    assert_eq!(handle.endpoint("a").unwrap().in_flight, 0);
    let removed = tokio::spawn(balance.clone().oneshot(1));
    tokio::task::yield_now().await;
    handle.remove("a");
    assert_eq!(call.await.unwrap().unwrap(), "old");
    assert_eq!(removed.await.unwrap().unwrap(), "new");
    assert_eq!(handle.endpoints(), []);
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_begins_like_its_peers_and_gets_a_growing_share() {
    let peer = |name| Endpoint::new(name, server(name, 100 * MS, false));
    let config = Balance::config("search").seed(1).slow_start(100 * SECOND);
    let balance = config.build(["a", "b", "c"].map(peer)).unwrap();
    let handle = balance.handle();
    handle.add(peer("soon")).unwrap();
    let soon = handle.endpoint("soon").unwrap();
    assert_eq!(
        soon.state,
        EndpointState::Ready,
        "the others are new as well"
    );
    handle.remove("soon");
    advance(100 * SECOND).await;
    shares(&balance, 20).await;
    handle.add(peer("d")).unwrap();
    let new = handle.endpoint("d").unwrap();
    assert_eq!(new.state, EndpointState::SlowStart);
    assert!(new.latency > 80 * MS && new.latency < 120 * MS, "{new:?}");
    assert_eq!(handle.endpoint("a").unwrap().state, EndpointState::Ready);
    advance(100 * SECOND).await;
    assert_eq!(handle.endpoint("d").unwrap().state, EndpointState::Ready);
}

/// The share of `d` in 2,000 calls that come in groups of 40, each of them answered when all have come.
async fn share_of_d<P>(balance: &Balance<Client, P>) -> f64
where
    P: Choose<u32> + Clone + Send + 'static,
{
    let handle = balance.handle();
    let mut sent = 0;
    for _ in 0..50 {
        let mut calls: Vec<_> = (0..40)
            .map(|request| Box::pin(balance.clone().oneshot(request)))
            .collect();
        for call in &mut calls {
            assert!(poll(call).is_pending());
        }
        sent += handle.endpoint("d").unwrap().in_flight;
        for call in calls {
            call.await.unwrap();
        }
    }
    f64::from(sent) / 2_000.0
}

async fn assert_d_starts_slowly<P>(policy: P)
where
    P: Choose<u32> + Clone + std::fmt::Debug + Send + 'static,
{
    let case = format!("{policy:?}");
    let config = Balance::config("search").slow_start(100 * SECOND).seed(1);
    let balance = config
        .choose(policy)
        .build(["a", "b", "c"].map(endpoint))
        .unwrap();
    let handle = balance.handle();
    for call in 0..100 {
        balance.clone().oneshot(call).await.unwrap();
    }
    advance(100 * SECOND).await;
    handle.add(endpoint("d")).unwrap();
    for round in ["new", "back from an ejection"] {
        let began = share_of_d(&balance).await;
        assert!(began > 0.0 && began < 0.1, "{case}, {round}: {began}");
        advance(50 * SECOND).await;
        let half = share_of_d(&balance).await;
        assert!(half > 0.1 && half < 0.2, "{case}, {round}: {half}");
        advance(50 * SECOND).await;
        let whole = share_of_d(&balance).await;
        assert!((whole - 0.25).abs() < 0.03, "{case}, {round}: {whole}");
        handle.eject("d", 10 * SECOND);
        assert_eq!(share_of_d(&balance).await, 0.0, "{case}");
        advance(10 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn in_slow_start_an_endpoint_gets_a_share_that_grows_with_time() {
    assert_d_starts_slowly(PowerOfChoices).await;
    assert_d_starts_slowly(WeightedRandom).await;
}

#[tokio::test(start_paused = true)]
async fn without_an_endpoint_a_call_waits_and_is_then_refused() {
    let balance = Balance::new("search", [endpoint("a")]).unwrap();
    balance.handle().remove("a");
    let began = Instant::now();
    let refused = balance.clone().oneshot(1).await;
    assert_eq!(kind(refused), Some(ErrorKind::NoEndpoints));
    assert_eq!(began.elapsed(), SECOND);
    let refused = balance.clone().oneshot(1).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "balancer \"search\" has no endpoint within 1.0s: none is known"
    );
    let shortage = refused.shortage().unwrap();
    assert_eq!((shortage.known, shortage.waited), (0, SECOND));

    let began = Instant::now();
    let deadline = Deadline::after(100 * MS);
    let refused = deadline.scope(balance.clone().oneshot(1)).await;
    assert_eq!(kind(refused), Some(ErrorKind::NoEndpoints));
    assert_eq!(began.elapsed(), 100 * MS);

    let config = Balance::config("search").max_wait(Duration::ZERO);
    let impatient = config.build([endpoint("a")]).unwrap();
    impatient.handle().remove("a");
    assert_eq!(
        kind(impatient.oneshot(1).await),
        Some(ErrorKind::NoEndpoints)
    );
    assert_eq!(began.elapsed(), 100 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_what_there_is_if_no_endpoint_would_take_the_call() {
    let breakers = ["a", "b"].map(CircuitBreakerLayer::new);
    let [a, b] = &breakers;
    let behind = |layer: &CircuitBreakerLayer, name: &str| {
        Endpoint::new(
            name,
            Client::new(layer.wrap(server(name, MS, false)).map_err(Into::into)),
        )
    };
    let endpoints = [
        behind(a, "a"),
        behind(b, "b").available(b.handle()),
        endpoint("c"),
        endpoint("d"),
    ];
    let config = Balance::config("search").choose(RoundRobin);
    let balance = config.build(endpoints).unwrap();
    let handle = balance.handle();
    a.handle().force_open();
    let refused = balance.clone().oneshot(1).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::CircuitOpen);
    assert_eq!(refused.shortage(), None, "others would have taken it");

    handle.eject("c", SECOND);
    handle.eject("d", SECOND);
    b.handle().force_open();
    let refused = loop {
        // One of those that are ejected may get it.
        if let Err(refused) = balance.clone().oneshot(1).await {
            break refused;
        }
    };
    let shortage = refused.shortage().unwrap();
    assert_eq!((shortage.balancer, shortage.known), ("search", 4));
    assert_eq!((shortage.ejected, shortage.unavailable), (2, 2));
    let says = "is open; no endpoint of \"search\" takes calls: of 4 known, 2 are ejected, 2 are not available";
    assert!(refused.to_string().ends_with(says), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_is_sent_as_soon_as_there_is_an_endpoint() {
    let balance = Balance::new("search", [endpoint("a")]).unwrap();
    let handle = balance.handle();
    handle.remove("a");
    let began = Instant::now();
    let call = tokio::spawn(balance.clone().oneshot(1));
    let given_up = tokio::spawn(balance.clone().oneshot(1));
    sleep(500 * MS).await;
    given_up.abort();
    handle.add(endpoint("b")).unwrap();
    assert_eq!(call.await.unwrap().unwrap(), "b");
    assert_eq!(began.elapsed(), 501 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_wakes_the_task_that_polled_last_and_nobody_who_has_gone() {
    let balance = Balance::new("search", [endpoint("a")]).unwrap();
    let handle = balance.handle();
    handle.remove("a");
    let (former, last, gone) = (Task::default(), Task::default(), Task::default());
    let mut call = Box::pin(balance.clone().oneshot(1));
    assert!(former.poll(&mut call).is_pending());
    assert!(last.poll(&mut call).is_pending());
    assert!(former.is_forgotten());
    let mut given_up = Box::pin(balance.clone().oneshot(2));
    assert!(gone.poll(&mut given_up).is_pending());
    assert!(!gone.is_forgotten());
    drop(given_up);
    assert!(gone.is_forgotten());
    handle.add(endpoint("b")).unwrap();
    assert!(last.was_woken());
    assert!(!former.was_woken() && !gone.was_woken());
    assert_eq!(call.await.unwrap(), "b");
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_keeps_no_other_call_waiting_for_an_endpoint() {
    struct Panics;

    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            std::panic::resume_unwind(Box::new("the waker panics"));
        }
    }

    let balance = Balance::new("search", [endpoint("a")]).unwrap();
    let handle = balance.handle();
    handle.remove("a");
    let panics = Waker::from(Arc::new(Panics));
    let mut first = Box::pin(balance.clone().oneshot(1));
    let polled = first.as_mut().poll(&mut Context::from_waker(&panics));
    assert!(polled.is_pending());
    let (task, mut second) = (Task::default(), Box::pin(balance.clone().oneshot(2)));
    assert!(task.poll(&mut second).is_pending());
    let add = || handle.add(endpoint("b"));
    let added = std::panic::catch_unwind(std::panic::AssertUnwindSafe(add));
    assert!(added.is_err());
    assert!(task.was_woken());
    assert_eq!(first.await.unwrap(), "b");
    assert_eq!(second.await.unwrap(), "b");
}

/// A stream of changes that a test sends.
struct Changes(mpsc::UnboundedReceiver<Result<Change<String, Client>, BoxError>>);

impl futures_core::Stream for Changes {
    type Item = Result<Change<String, Client>, BoxError>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

#[allow(clippy::unnecessary_wraps, reason = "items of a stream that can fail")]
fn insert(name: &str) -> Result<Change<String, Client>, BoxError> {
    Ok(Change::Insert(name.to_owned(), server(name, MS, false)))
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_discovered_without_traffic_and_through_errors() {
    let (send, changes) = mpsc::unbounded_channel();
    let config = Balance::config("search").seed(1);
    let balance = config.discover(Changes(changes)).unwrap();
    let handle = balance.handle();
    let count = || handle.endpoints().len();
    send.send(insert("a")).unwrap();
    send.send(insert("b")).unwrap();
    sleep(MS).await;
    assert_eq!(count(), 2);
    send.send(Err("the registry is down".into())).unwrap();
    send.send(insert("c")).unwrap();
    send.send(Ok(Change::Remove("a".into()))).unwrap();
    sleep(SECOND).await;
    assert_eq!(
        shares(&balance, 100).await.keys().collect::<Vec<_>>(),
        ["b", "c"]
    );
    drop(send);
    sleep(MS).await;
    assert!(!handle.is_discovering());
    assert_eq!(count(), 2, "the last that were known");
}

/// A registry that fails at each poll but those that bring this endpoint.
#[derive(Clone, Default)]
struct Failing {
    brings: Arc<Mutex<Option<&'static str>>>,
    polled: Arc<Mutex<Vec<Instant>>>,
}

impl futures_core::Stream for Failing {
    type Item = Result<Change<String, Client>, BoxError>;

    fn poll_next(self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.polled.lock().unwrap().push(Instant::now());
        let found = self.brings.lock().unwrap().take();
        Poll::Ready(Some(found.map_or(Err("down".into()), insert)))
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_fails_is_asked_less_and_less_often_until_it_finds_something() {
    let registry = Failing::default();
    let config = Balance::config("search");
    let balance = config.discover(registry.clone()).unwrap();
    let handle = balance.handle();
    let pass = async |seconds: u32| {
        // In steps: a task that never sleeps would keep the clock from moving by itself.
        for _ in 0..20 * seconds {
            advance(50 * MS).await;
        }
        std::mem::take(&mut *registry.polled.lock().unwrap())
    };
    let polled = pass(10).await.len();
    assert!((7..=8).contains(&polled), "asked {polled} times in 10 s");
    let polled = pass(600).await;
    let gaps = polled.windows(2).map(|pair| pair[1] - pair[0]);
    let longest = gaps.max().unwrap();
    assert!(longest >= 30 * SECOND, "{longest:?}");
    assert!(longest < 31 * SECOND, "{longest:?}");
    assert!(polled.len() > 19, "asked {} times in 600 s", polled.len());

    *registry.brings.lock().unwrap() = Some("a");
    let polled = pass(70).await;
    assert_eq!(handle.endpoints().len(), 1);
    assert_eq!(polled[0], polled[1], "whether there is more");
    let gap = polled[2] - polled[1];
    assert!(gap >= 100 * MS && gap < 200 * MS, "{gap:?}");
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_found_by_dns_and_outlive_a_resolver_that_fails() {
    let answers = Arc::new(Mutex::new(Ok(vec![1, 2])));
    let resolver = {
        let answers = Arc::clone(&answers);
        move |_host: String, port: u16| {
            let answer: Result<Vec<u8>, &str> = answers.lock().unwrap().clone();
            async move {
                let hosts = answer?.into_iter();
                Ok(hosts
                    .map(|host| SocketAddr::from(([10, 0, 0, host], port)))
                    .collect())
            }
        }
    };
    let dns = Dns::config("search.internal", 80)
        .resolver(resolver)
        .seed(1);
    let dns = dns
        .build(|address| server(&address.to_string(), MS, false))
        .unwrap();
    let balance = Balance::config("search").seed(1).discover(dns).unwrap();
    assert_send_sync(&balance);
    let found = shares(&balance, 100).await;
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        ["10.0.0.1:80", "10.0.0.2:80"]
    );
    *answers.lock().unwrap() = Ok(vec![2, 3]);
    sleep(10 * SECOND).await;
    *answers.lock().unwrap() = Err("no name server answers");
    sleep(60 * SECOND).await;
    let found = shares(&balance, 100).await;
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        ["10.0.0.2:80", "10.0.0.3:80"]
    );
    assert!(balance.handle().is_discovering());
}

#[tokio::test(start_paused = true)]
async fn endpoints_follow_a_list_that_somebody_else_keeps() {
    let (list, endpoints) = watch::channel(vec![("a", 1.0)]);
    let source = Watch::new(endpoints, |name: &&str, weight: &f64| {
        endpoint(name).weight(*weight)
    });
    let config = Balance::config("search").seed(1);
    let balance = config.discover_endpoints(source).unwrap();
    let handle = balance.handle();
    assert_eq!(shares(&balance, 10).await["a"], 10);
    list.send_replace(vec![("b", 2.0), ("c", 1.0)]);
    sleep(MS).await;
    assert!(handle.endpoint("a").is_none());
    assert_eq!(handle.endpoint("b").unwrap().weight, 2.0);
    assert!(handle.endpoint("c").is_some());
    drop(list);
    sleep(MS).await;
    assert!(!handle.is_discovering());
    assert_eq!(handle.endpoints().len(), 2, "the last that were known");
}

#[tokio::test(start_paused = true)]
async fn discovery_ends_with_the_last_handle() {
    let (send, changes) = mpsc::unbounded_channel();
    let balance = Balance::config("search")
        .discover(Changes(changes))
        .unwrap();
    let handle = balance.clone().handle();
    drop(balance);
    sleep(MS).await;
    send.send(insert("a")).unwrap();
    sleep(MS).await;
    assert_eq!(handle.endpoints().len(), 1);
    drop(handle);
    sleep(MS).await;
    assert!(send.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_panics_leaves_the_endpoints_as_they_are() {
    /// After so many endpoints.
    struct Panics(u32);

    impl futures_core::Stream for Panics {
        type Item = Result<Change<String, Client>, BoxError>;

        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Self::Item>> {
            let Some(left) = self.0.checked_sub(1) else {
                std::panic::resume_unwind(Box::new("the stream panics"));
            };
            self.0 = left;
            Poll::Ready(Some(insert(&left.to_string())))
        }
    }

    for found in [1, 3, 300] {
        let balance = Balance::config("search").discover(Panics(found)).unwrap();
        sleep(MS).await;
        assert!(!balance.handle().is_discovering());
        assert_eq!(balance.handle().endpoints().len(), found as usize);
        balance.oneshot(1).await.unwrap();
    }
    let broken = Balance::config("search").discover(Panics(0)).unwrap();
    assert_eq!(kind(broken.oneshot(1).await), Some(ErrorKind::NoEndpoints));
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_are_discovered_one_after_the_other_begin_together() {
    let (send, changes) = mpsc::unbounded_channel();
    let config = Balance::config("search").seed(1);
    let balance = config.discover(Changes(changes)).unwrap();
    for name in ["a", "b", "c", "d"] {
        send.send(insert(name)).unwrap();
        sleep(2 * MS).await;
    }
    let mut counts = BTreeMap::<String, u32>::new();
    for request in 0..1_000 {
        let call = tokio::spawn(balance.clone().oneshot(request));
        sleep(MS).await;
        *counts.entry(call.await.unwrap().unwrap()).or_default() += 1;
    }
    // And not 10 times as much for the first of them.
    assert!(counts.values().all(|count| *count > 200), "{counts:?}");
    sleep(10 * SECOND).await;
    send.send(insert("late")).unwrap();
    sleep(MS).await;
    let late = balance.handle().endpoint("late").unwrap();
    assert_eq!(late.state, EndpointState::SlowStart);
    for name in ["a", "b", "c", "d", "late"] {
        send.send(Ok(Change::Remove(name.into()))).unwrap();
    }
    sleep(MS).await;
    assert_eq!(balance.handle().endpoints().len(), 0);
    send.send(insert("a")).unwrap();
    sleep(MS).await;
    send.send(insert("b")).unwrap();
    sleep(MS).await;
    let all = balance.handle().endpoints();
    assert!(
        all.iter()
            .all(|status| status.state == EndpointState::Ready)
    );
}

/// Steers its balancer when it is dropped, once.
#[derive(Clone)]
struct Steers(Arc<OnceLock<Handle<Steers>>>, Arc<AtomicBool>);

impl Service<u32> for Steers {
    type Response = u32;
    type Error = BoxError;
    type Future = std::future::Ready<Result<u32, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        std::future::ready(Ok(request))
    }
}

impl Drop for Steers {
    fn drop(&mut self) {
        if self.1.swap(false, Ordering::Relaxed) {
            self.0.get().unwrap().remove("unknown");
        }
    }
}

#[test]
fn a_service_is_dropped_without_a_lock() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let _context = runtime.enter();
        let service = Steers(Arc::default(), Arc::default());
        let endpoint = |key| Endpoint::new(key, service.clone());
        let (send, changes) = mpsc::unbounded_channel();
        let balance = Balance::config("search")
            .discover_endpoints(FromChannel(changes))
            .unwrap();
        assert!(service.0.set(balance.handle()).is_ok());
        let steer = |steers: &dyn Fn(&Handle<Steers>)| {
            service.1.store(true, Ordering::Relaxed);
            steers(&balance.handle());
            assert!(!service.1.load(Ordering::Relaxed), "it was dropped");
        };
        balance.handle().add(endpoint("a")).unwrap();
        steer(&|handle| handle.add(endpoint("a")).unwrap());
        steer(&|handle| assert!(!handle.remove("b")));
        steer(&|handle| assert!(handle.remove("a")));
        // One that is left out, and one that comes and goes in one batch.
        send.send(Change::Insert("b", endpoint("b").weight(0.0)))
            .unwrap();
        send.send(Change::Insert("c", endpoint("c"))).unwrap();
        send.send(Change::Remove("c")).unwrap();
        steer(&|_| runtime.block_on(async { tokio::task::yield_now().await }));
        done.send(()).unwrap();
    });
    is_done.recv_timeout(60 * SECOND).expect("no deadlock");
}

/// A stream of endpoints that a test sends.
struct FromChannel<S>(mpsc::UnboundedReceiver<Change<&'static str, Endpoint<S>>>);

impl<S> futures_core::Stream for FromChannel<S> {
    type Item = Result<Change<&'static str, Endpoint<S>>, BoxError>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|change| change.map(Ok))
    }
}

/// Finds so many endpoints, all at once, and then no more.
struct Burst(std::ops::Range<u32>);

impl futures_core::Stream for Burst {
    type Item = Result<Change<String, Client>, BoxError>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        let Some(n) = self.0.next() else {
            return Poll::Pending;
        };
        Poll::Ready(Some(insert(&n.to_string())))
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_changes_leaves_room_for_calls() {
    let balance = Balance::config("search").discover(Burst(0..10_000));
    let balance = balance.unwrap();
    let mut turns = 0;
    while balance.handle().endpoints().len() < 10_000 {
        tokio::task::yield_now().await;
        turns += 1;
        let mut call = Box::pin(balance.clone().oneshot(1));
        assert!(poll(&mut call).is_pending(), "it is sent");
        let endpoints = balance.handle().endpoints();
        assert!(endpoints.iter().any(|status| status.in_flight > 0));
    }
    assert!(turns > 20, "{turns} turns of other tasks");
}

#[test]
fn calls_and_changes_on_several_threads_do_not_disturb_each_other() {
    let client = |n: u32| service_fn(move |_: u32| std::future::ready(Ok::<_, BoxError>(n)));
    let endpoint = |n: u32| Endpoint::new(n, client(n));
    let balance = Balance::new("search", (0..8).map(endpoint)).unwrap();
    let handle = balance.handle();
    let is_over = AtomicBool::new(false);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (mut client, is_over, runtime) = (balance.clone(), &is_over, runtime.handle());
            scope.spawn(move || {
                let _context = runtime.enter();
                let mut request = thread;
                while !is_over.load(Ordering::Relaxed) {
                    request += 1;
                    if request % 7 == 0 {
                        client = client.clone();
                    }
                    let mut call = Box::pin(client.call(request));
                    if request % 5 > 0 {
                        assert!(matches!(poll(&mut call), Poll::Ready(Ok(n)) if n < 16));
                    }
                }
            });
        }
        let _context = runtime.enter();
        for round in 0..3_000u32 {
            // Endpoint 0 stays.
            handle.add(endpoint(1 + round % 15)).unwrap();
            handle.remove(&(1 + round * 7 % 15).to_string());
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let endpoints = handle.endpoints();
    assert!(
        endpoints.iter().all(|status| status.in_flight == 0),
        "{endpoints:?}"
    );
}

#[test]
fn steering_by_several_threads_under_load_loses_no_endpoint_and_no_call() {
    const KEYS: u32 = 12;
    let recorder = DebuggingRecorder::new();
    let service = |key: u32| {
        service_fn(move |request: u32| async move {
            match request % 4 {
                0 => pending().await,
                1 if key % 3 == 0 => Err(BoxError::from("down")),
                _ => Ok(key),
            }
        })
    };
    let endpoint = |key: u32| Endpoint::new(key, service(key)).priority((key % 5 / 4) as u8);
    let rule = OutlierEjection::new().interval(MS).consecutive_failures(3);
    let rule = rule.base_ejection_time(MS).max_ejection_time(5 * MS);
    let config = Balance::config("steered").outlier_ejection(rule);
    let config = config.endpoint_metrics(3).slow_start(MS);
    let balance = config.build((0..KEYS).map(endpoint)).unwrap();
    let handle = balance.handle();
    let is_over = AtomicBool::new(false);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let present = std::thread::scope(|scope| {
        let (runtime, recorder, is_over) = (runtime.handle(), &recorder, &is_over);
        for thread in 0..2 {
            let mut client = balance.clone();
            scope.spawn(move || {
                let _context = runtime.enter();
                metrics::with_local_recorder(recorder, || {
                    let mut request = thread;
                    let mut hanging = VecDeque::new();
                    while !is_over.load(Ordering::Relaxed) {
                        request += 1;
                        if request % 7 == 0 {
                            client = client.clone();
                        }
                        let mut call = Box::pin(client.call(request));
                        if poll(&mut call).is_pending() {
                            hanging.push_back(call);
                        }
                        if hanging.len() > 5 {
                            hanging.pop_front();
                        }
                    }
                });
            });
        }
        // Each of these has keys of its own.
        let steers = [0, 1].map(|parity| {
            let (handle, endpoint) = (&handle, &endpoint);
            scope.spawn(move || {
                let _context = runtime.enter();
                let mut random = SmallRng::seed_from_u64(u64::from(parity));
                let mut present: BTreeSet<_> = (0..KEYS).filter(|key| key % 2 == parity).collect();
                for _ in 0..3_000 {
                    let key = 2 * random.random_range(0..KEYS / 2) + parity;
                    let (name, is_known) = (key.to_string(), present.contains(&key));
                    match random.random_range(0..6) {
                        0 | 1 => {
                            handle.add(endpoint(key)).unwrap();
                            present.insert(key);
                        }
                        2 => assert_eq!(handle.remove(&name), present.remove(&key)),
                        3 => assert_eq!(handle.reweigh(&name, 2.0).unwrap(), is_known),
                        4 => assert_eq!(handle.eject(&name, MS), is_known),
                        _ => assert_eq!(handle.restore(&name), is_known),
                    }
                }
                present
            })
        });
        let present = steers.map(std::thread::ScopedJoinHandle::join);
        is_over.store(true, Ordering::Relaxed);
        let present = present.into_iter().flat_map(Result::unwrap);
        present.collect::<BTreeSet<_>>()
    });
    let _context = runtime.enter();
    for status in handle.endpoints() {
        assert_eq!(status.in_flight, 0, "{status:?}");
    }
    let known = handle.endpoints().into_iter();
    let known: BTreeSet<u32> = known.map(|status| status.key.parse().unwrap()).collect();
    assert_eq!(known, present);
    // Those that have gone have no call either.
    let mut gauges = 0;
    for (key, value) in recorder.snapshotter().snapshot() {
        if key.name() == "buttress_endpoint_in_flight" {
            assert_eq!(value, DebugValue::Gauge(0.0), "{key:?}");
            gauges += 1;
        }
    }
    assert!(gauges > 3, "{gauges}");
}

#[tokio::test(start_paused = true)]
async fn other_policies_choose_as_their_names_say() {
    let names = ["a", "b", "c"];
    let config = Balance::config("search").choose(RoundRobin);
    let counts = shares(&config.build(names.map(endpoint)).unwrap(), 300).await;
    assert!(counts.values().all(|count| *count == 100), "{counts:?}");
    let config = Balance::config("search").choose(LeastLoaded);
    let busy = hanging("b");
    let balance = config
        .measure(LoadMetric::InFlight)
        .build([endpoint("a"), busy]);
    let balance = balance.unwrap();
    let mut first: Vec<_> = (0..2)
        .map(|n| Box::pin(balance.clone().oneshot(n)))
        .collect();
    assert!(first.iter_mut().all(|call| poll(call).is_pending()));
    let handle = balance.handle();
    assert!(
        handle
            .endpoints()
            .iter()
            .all(|status| status.in_flight == 1)
    );
    let by_key = ConsistentHash::by(|request: &u32| request % 2);
    let config = Balance::config("search").choose(by_key);
    let balance = config.build(names.map(endpoint)).unwrap();
    let one = balance.clone().oneshot(1).await.unwrap();
    for request in 0..10 {
        assert_eq!(balance.clone().oneshot(2 * request + 1).await.unwrap(), one);
    }
}

#[tokio::test(start_paused = true)]
async fn balancers_of_one_configuration_take_turns_by_themselves() {
    let config = Balance::config("search").choose(RoundRobin);
    let build = |names: [&str; 2]| config.clone().build(names.map(endpoint)).unwrap();
    let (one, two) = (build(["a", "b"]), build(["c", "d"]));
    for _ in 0..2 {
        for (balance, names) in [(&one, ["a", "b"]), (&two, ["c", "d"])] {
            let turns = shares(balance, 1).await;
            let clone = shares(&balance.clone(), 1).await;
            let seen: Vec<_> = turns.keys().chain(clone.keys()).collect();
            assert_eq!(seen, names);
        }
    }
    // One call to each, again and again.
    for expected in [["a", "c"], ["b", "d"], ["a", "c"]] {
        let first = one.clone().oneshot(1).await.unwrap();
        assert_eq!([first, two.clone().oneshot(1).await.unwrap()], expected);
    }
}

/// Counts how often it is asked.
struct Asked(Arc<AtomicU32>, bool);

impl Availability for Asked {
    fn is_available(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed);
        self.1
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_looks_at_few_of_many_endpoints_also_if_half_of_them_take_no_calls() {
    let asked = Arc::new(AtomicU32::new(0));
    let endpoint = |key: u32| {
        let service = service_fn(|_: u32| std::future::ready(Ok::<_, BoxError>(String::new())));
        Endpoint::new(key, service).available(Asked(Arc::clone(&asked), key % 2 == 0))
    };
    let balance = Balance::new("search", (0..1_000).map(endpoint)).unwrap();
    shares(&balance, 1_000).await;
    let looks = asked.load(Ordering::Relaxed) / 1_000;
    assert!(looks < 10, "{looks}");
}

#[tokio::test(start_paused = true)]
async fn with_a_seed_the_choices_repeat() {
    let run = async |seed| {
        let config = Balance::config("search").seed(seed);
        let balance = config.build(["a", "b", "c", "d"].map(endpoint)).unwrap();
        let mut chosen = VecDeque::new();
        for request in 0..100 {
            chosen.push_back(balance.clone().oneshot(request).await.unwrap());
        }
        chosen
    };
    assert_eq!(run(1).await, run(1).await);
    assert_ne!(run(1).await, run(2).await);
}

#[test]
fn configurations_that_make_no_sense_are_refused() {
    let build = |endpoints: Vec<Endpoint<Client>>| Balance::new("search", endpoints);
    assert_eq!(refused_field(build(vec![])), "endpoints");
    assert_eq!(
        refused_field(build(vec![endpoint("a"), endpoint("a")])),
        "endpoints"
    );
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
        assert_eq!(
            refused_field(build(vec![endpoint("a").weight(weight)])),
            "weight"
        );
    }
    let config = || Balance::config("search");
    let field = |config: buttress::balance::Config| refused_field(config.build([endpoint("a")]));
    assert_eq!(field(Balance::config("")), "name");
    assert_eq!(
        field(config().latency_decay(Duration::ZERO)),
        "latency_decay"
    );
    assert_eq!(
        field(config().failure_decay(Duration::MAX)),
        "failure_decay"
    );
    assert_eq!(
        field(config().failure_penalty(Duration::MAX)),
        "failure_penalty"
    );
    assert_eq!(field(config().slow_start(Duration::MAX)), "slow_start");
    assert_eq!(field(config().max_wait(Duration::MAX)), "max_wait");
    for most in [0, 1_001] {
        assert_eq!(field(config().endpoint_metrics(most)), "endpoint_metrics");
    }
    let rule = OutlierEjection::new().max_ejection_percent(60);
    assert_eq!(
        field(config().outlier_ejection(rule)),
        "max_ejection_percent"
    );
    let (_, changes) = mpsc::unbounded_channel();
    assert_eq!(
        refused_field(config().discover(Changes(changes))),
        "discover"
    );
    assert_eq!(config(), config());
    assert_ne!(config(), config().seed(1));
}

#[test]
fn endpoints_and_refusals_are_reported() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let gauges = || {
        let rows = snapshotter.snapshot().into_iter();
        let row = rows.filter_map(|(key, value)| {
            let labels: Vec<_> = key.labels().map(|label| label.value().to_owned()).collect();
            let value = match value {
                DebugValue::Counter(count) => count as f64,
                DebugValue::Gauge(level) => level,
                DebugValue::Histogram(_) => return None,
            };
            (value > 0.0).then(|| (format!("{} {labels:?}", key.name()), value))
        });
        row.collect::<BTreeMap<_, _>>()
    };
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let balance = Balance::new("gauged", [endpoint("a"), endpoint("b")]).unwrap();
            let handle = balance.handle();
            advance(10 * SECOND).await;
            handle.add(endpoint("c")).unwrap();
            let seen = gauges();
            assert_eq!(seen["buttress_endpoints [\"gauged\", \"ready\"]"], 2.0);
            assert_eq!(seen["buttress_endpoints [\"gauged\", \"slow_start\"]"], 1.0);
            handle.eject("b", SECOND);
            assert_eq!(
                gauges()["buttress_endpoints [\"gauged\", \"ejected\"]"],
                1.0
            );
            for key in ["a", "b", "c"] {
                handle.remove(key);
            }
            balance.oneshot(1).await.unwrap_err();
            let seen = gauges();
            assert_eq!(seen.len(), 1, "{seen:?}");
            let (refused, count) = seen.first_key_value().unwrap();
            assert!(
                refused.starts_with("buttress_rejections_total"),
                "{refused}"
            );
            assert!(refused.contains("no_endpoints"), "{refused}");
            assert_eq!(*count, 1.0);
            handle.add(endpoint("d")).unwrap();
            drop(handle);
            assert_eq!(gauges().len(), 0, "there is no balancer any more");
            for (mode, out) in [(Mode::Enforce, Some(1.0)), (Mode::Observe, None)] {
                let rule = OutlierEjection::new().mode(mode);
                let balance = partly_broken(&["a", "b", "c"], &["c"], rule);
                load(&balance, 11).await;
                let seen = gauges();
                let mode = format!("{mode:?}").to_lowercase();
                let count = format!(
                    "buttress_ejections_total [\"ejecting\", \"leave_one_out\", \"{mode}\"]"
                );
                assert_eq!(seen.get(&count), Some(&1.0), "{seen:?}");
                let gauge = seen.get("buttress_endpoints [\"ejecting\", \"ejected\"]");
                assert_eq!(gauge.copied(), out);
            }
        });
    });
}

/// Makes 100 calls in each second, one after the other, and counts the answers.
async fn load(balance: &Balance<Client>, seconds: u32) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for _ in 0..seconds {
        for (name, count) in shares(balance, 100).await {
            *counts.entry(name).or_default() += count;
        }
        sleep(SECOND).await;
    }
    counts
}

fn out(handle: &Handle<Client>) -> Vec<String> {
    let all = handle.endpoints().into_iter();
    let mut out: Vec<_> = all
        .filter(|endpoint| endpoint.state == EndpointState::Ejected)
        .map(|endpoint| endpoint.key.to_string())
        .collect();
    out.sort();
    out
}

/// Endpoints of which these are broken, and chosen as often as the others, by a measure that does not see failures.
fn partly_broken(names: &[&str], broken: &[&str], ejection: OutlierEjection) -> Balance<Client> {
    let endpoints = names.iter().map(|name| {
        let fails = broken.contains(name);
        Endpoint::new(name, server(name, MS, fails))
    });
    let config = Balance::config("ejecting").measure(LoadMetric::InFlight);
    let config = config.outlier_ejection(ejection);
    config.seed(1).build(endpoints).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_is_ejected_and_comes_back_slowly() {
    let broken = Arc::new(AtomicBool::new(true));
    let client = {
        let broken = Arc::clone(&broken);
        Client::new(service_fn(move |_| {
            let fails = broken.load(Ordering::Relaxed);
            async move {
                sleep(MS).await;
                if fails {
                    return Err(BoxError::from("c is down"));
                }
                Ok("c".to_owned())
            }
        }))
    };
    let endpoints = [endpoint("a"), endpoint("b"), Endpoint::new("c", client)];
    // Else its load would cost it nearly all calls before that.
    let config = Balance::config("search").measure(LoadMetric::InFlight);
    let balance = config.seed(1).build(endpoints).unwrap();
    let handle = balance.handle();
    load(&balance, 11).await;
    assert_eq!(out(&handle), ["c"], "by default");
    let status = handle.endpoint("c").unwrap();
    assert_eq!((status.failure_share, status.ejections), (0.0, 1));
    assert!(!status.is_selectable);
    let seen = load(&balance, 10).await;
    assert_eq!(seen.len(), 2, "it gets no calls: {seen:?}");
    broken.store(false, Ordering::Relaxed);
    while out(&handle) == ["c"] {
        sleep(SECOND).await;
    }
    assert_eq!(
        handle.endpoint("c").unwrap().state,
        EndpointState::SlowStart
    );
    let seen = load(&balance, 40).await;
    assert!(seen["c"] > 500, "{seen:?}");
    assert_eq!(handle.endpoint("c").unwrap().state, EndpointState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_failing_endpoint_that_gets_too_few_calls_to_be_ejected_shows_its_failures() {
    let in_a_row = OutlierEjection::new().consecutive_failures(5);
    for (rule, is_ejected) in [(OutlierEjection::new(), false), (in_a_row, true)] {
        let config = Balance::config("lone").seed(1).outlier_ejection(rule);
        let down = Endpoint::new("c", server("c", MS, true));
        let balance = config.build([endpoint("a"), endpoint("b"), down]).unwrap();
        let handle = balance.handle();
        let (mut failed, mut was_ejected) = (0, false);
        for request in 0..6_000 {
            let has_failed = balance.clone().oneshot(request).await.is_err();
            failed += u32::from(has_failed);
            let status = handle.endpoint("c").unwrap();
            if has_failed && !is_ejected {
                assert!(status.failure_share > 0.25, "{status:?}");
                assert!(status.load > 10.0 * handle.endpoint("a").unwrap().load);
            }
            sleep(100 * MS).await;
            let status = handle.endpoint("c").unwrap();
            was_ejected |= status.state == EndpointState::Ejected;
        }
        assert_eq!(was_ejected, is_ejected);
        if !is_ejected {
            assert!((20..60).contains(&failed), "{failed} of 6000");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_of_a_tenth_of_the_weight_gets_its_share_from_a_lone_caller() {
    let endpoint = |name| Endpoint::new(name, server(name, 10 * MS, false));
    let canary = endpoint("canary").weight(0.1);
    let config = Balance::config("search").seed(1);
    let balance = config.build([endpoint("main"), canary]).unwrap();
    let shares = shares(&balance, 10_000).await;
    // 909 by weight.
    assert!((800..1_020).contains(&shares["canary"]), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lone_caller_shares_its_calls_between_endpoints_of_nearly_the_same_latency() {
    let endpoints = [("one", 100), ("other", 105)]
        .map(|(name, millis)| Endpoint::new(name, server(name, millis * MS, false)));
    let balance = Balance::config("search").seed(1).build(endpoints).unwrap();
    let shares = shares(&balance, 2_000).await;
    assert!(shares.values().all(|calls| *calls > 900), "{shares:?}");
}

/// A caller gives up after 50 ms, or is hedged then and answered 10 ms later.
#[tokio::test(start_paused = true)]
async fn the_loser_of_a_hedge_counts_as_slow_as_its_endpoint_was_silent() {
    let hangs = Client::new(service_fn(|_| pending()));
    for (is_hedged, expected) in [(true, [120, 2 * 20_120]), (false, [50, 50])] {
        let endpoints = [
            Endpoint::new("hangs", hangs.clone()),
            Endpoint::new("works", server("works", 10 * MS, false)),
        ];
        let balance = Balance::config("search").seed(1).build(endpoints).unwrap();
        let handle = balance.handle();
        let hedge = HedgeLayer::config("search").delay(50 * MS).build().unwrap();
        let hedged = hedge.wrap(balance.clone());
        for expected in expected {
            while handle.endpoint("hangs").unwrap().latency < 49 * MS {
                if is_hedged {
                    hedged.clone().oneshot(1).await.unwrap();
                } else {
                    drop(timeout(50 * MS, balance.clone().oneshot(1)).await);
                }
            }
            let latency = handle.endpoint("hangs").unwrap().latency;
            let near = expected * MS / 100;
            assert!(
                latency.abs_diff(expected * MS) <= near,
                "{latency:?}, {expected} ms"
            );
            sleep(20 * SECOND).await;
        }
    }
}

/// How a call to `c` goes.
#[derive(Clone, Copy)]
enum AtC {
    Hangs,
    Fails,
}

/// `a` and `b`, which answer at once, and `c`, to which each of these things happens once; then it answers.
fn with_c(ejection: OutlierEjection, at_c: &Arc<Mutex<VecDeque<AtC>>>) -> Balance<Client> {
    let answers = |name| Client::new(service_fn(move |_| async move { Ok(String::from(name)) }));
    let at_c = Arc::clone(at_c);
    let c = service_fn(move |_| {
        let next = at_c.lock().unwrap().pop_front();
        async move {
            match next {
                None => Ok("c".to_owned()),
                Some(AtC::Hangs) => pending().await,
                Some(AtC::Fails) => Err("c is down".into()),
            }
        }
    });
    let endpoints = [
        ("a", answers("a")),
        ("b", answers("b")),
        ("c", Client::new(c)),
    ];
    let config = Balance::config("search").measure(LoadMetric::InFlight);
    let config = config.outlier_ejection(ejection).seed(1);
    let endpoints = endpoints.map(|(name, client)| Endpoint::new(name, client));
    config.build(endpoints).unwrap()
}

/// Makes calls until `c` has nothing left to do, and gives up those that have no answer at once.
fn give_up(balance: &Balance<Client>, at_c: &Mutex<VecDeque<AtC>>) {
    for request in 0..1_000 {
        if at_c.lock().unwrap().is_empty() {
            return;
        }
        let mut call = Box::pin(balance.clone().oneshot(request));
        drop(poll(&mut call));
    }
    panic!("c gets no calls");
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_given_up_are_no_failures_in_a_row() {
    let at_c = Arc::default();
    let five = OutlierEjection::new().consecutive_failures(5);
    let balance = with_c(five, &at_c);
    at_c.lock().unwrap().extend([AtC::Hangs; 10]);
    give_up(&balance, &at_c);
    assert!(out(&balance.handle()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_does_not_end_a_row_of_failures() {
    let at_c = Arc::default();
    let five = OutlierEjection::new().consecutive_failures(5);
    let balance = with_c(five, &at_c);
    at_c.lock().unwrap().extend([AtC::Fails; 4]);
    at_c.lock().unwrap().push_back(AtC::Hangs);
    give_up(&balance, &at_c);
    assert!(out(&balance.handle()).is_empty());
    at_c.lock().unwrap().push_back(AtC::Fails);
    give_up(&balance, &at_c);
    assert_eq!(out(&balance.handle()), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_whose_calls_are_given_up_is_no_outlier() {
    let at_c = Arc::default();
    let balance = with_c(OutlierEjection::new(), &at_c);
    for _ in 0..110 {
        at_c.lock().unwrap().extend([AtC::Hangs; 10]);
        give_up(&balance, &at_c);
        advance(100 * MS).await;
    }
    assert!(out(&balance.handle()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn at_least_half_of_the_endpoints_stay_in() {
    let names = ["a", "b", "c", "d", "e", "f"];
    for (count, broken, ejected) in [(1, 1, 0), (2, 1, 1), (2, 2, 0), (3, 1, 1), (6, 4, 3)] {
        let rule = OutlierEjection::new().base_ejection_time(Duration::from_secs(30));
        let rule = if broken == count {
            rule
        } else {
            rule.consecutive_failures(5)
        };
        let balance = partly_broken(&names[..count], &names[..broken], rule);
        load(&balance, 15).await;
        let out = out(&balance.handle());
        assert_eq!(out.len(), ejected, "{broken} of {count}: {out:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_observes_or_none_ejects_nobody() {
    let rule = OutlierEjection::new().mode(Mode::Observe);
    let balance = partly_broken(&["a", "b", "c"], &["c"], rule);
    let seen = load(&balance, 25).await;
    assert!(out(&balance.handle()).is_empty());
    assert!(seen["c is down"] > 500, "{seen:?}");
    let endpoints = [
        endpoint("a"),
        endpoint("b"),
        Endpoint::new("c", server("c", MS, true)),
    ];
    let balance = Balance::config("search")
        .no_outlier_ejection()
        .build(endpoints)
        .unwrap();
    load(&balance, 25).await;
    assert!(out(&balance.handle()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_ejected_and_restored_by_hand() {
    let names = ["a", "b", "c"];
    let balance = Balance::config("search")
        .seed(1)
        .build(names.map(endpoint))
        .unwrap();
    let handle = balance.handle();
    assert!(handle.eject("a", 60 * SECOND));
    assert!(!handle.eject("nobody", SECOND) && !handle.restore("nobody"));
    handle.eject("a", SECOND);
    sleep(2 * SECOND).await;
    assert_eq!(shares(&balance, 100).await.get("a"), None);
    assert!(handle.restore("a"));
    assert_eq!(
        handle.endpoint("a").unwrap().state,
        EndpointState::SlowStart
    );
    sleep(11 * SECOND).await;
    assert!(shares(&balance, 100).await["a"] > 10);
    handle.eject("b", Duration::MAX);
    sleep(1_000_000 * SECOND).await;
    assert_eq!(shares(&balance, 100).await.get("b"), None);
}

#[tokio::test(start_paused = true)]
async fn with_less_than_half_of_the_endpoints_in_calls_go_to_all_until_that_is_over() {
    let names = ["a", "b", "c", "d"];
    let balance = Balance::config("search")
        .seed(1)
        .build(names.map(endpoint))
        .unwrap();
    let handle = balance.handle();
    for (key, seconds) in [("a", 10), ("b", 20), ("c", 30)] {
        handle.eject(key, seconds * SECOND);
    }
    assert_eq!(shares(&balance, 200).await.len(), 4, "panic");
    sleep(10 * SECOND).await;
    let seen = shares(&balance, 200).await;
    assert_eq!(
        seen.keys().collect::<Vec<_>>(),
        ["a", "d"],
        "half is enough"
    );
}

/// Endpoints that answer calls always, and probes (requests of 0) unless they are among the sick.
fn probed(names: &[&str]) -> (Balance<Client>, Arc<Mutex<Vec<String>>>) {
    let sick = Arc::new(Mutex::new(Vec::new()));
    let endpoints = names.iter().map(|name| {
        let (name, sick) = ((*name).to_owned(), Arc::clone(&sick));
        let key = name.clone();
        let client = Client::new(service_fn(move |request: u32| {
            let fails = request == 0 && sick.lock().unwrap().contains(&name);
            let answer = if fails { None } else { Some(name.clone()) };
            async move { answer.ok_or_else(|| BoxError::from("not serving")) }
        }));
        Endpoint::new(key, client)
    });
    let balance = Balance::config("search").seed(1).build(endpoints).unwrap();
    let balance = balance.check_health(HealthCheck::new(Ask::new(|| 0)));
    (balance.unwrap(), sick)
}

/// The endpoints that get calls.
async fn called(balance: &Balance<Client>) -> String {
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..100 {
        names.insert(balance.clone().oneshot(1).await.unwrap());
    }
    names.into_iter().collect()
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_its_health_check_gets_no_calls_until_it_works_again() {
    let (balance, sick) = probed(&["a", "b", "c"]);
    let handle = balance.handle();
    sick.lock().unwrap().push("c".to_owned());
    assert_eq!(called(&balance).await, "abc", "not asked yet");
    sleep(MS).await;
    assert_eq!(called(&balance).await, "ab", "the first probe decides");
    let state = |key| handle.endpoint(key).unwrap().state;
    assert_eq!(state("c"), EndpointState::Unhealthy);
    sick.lock().unwrap().clear();
    sleep(12 * SECOND).await;
    assert_eq!(state("c"), EndpointState::SlowStart);
    sleep(10 * SECOND).await;
    assert_eq!(called(&balance).await, "abc");
    sick.lock().unwrap().push("a".to_owned());
    sleep(9 * SECOND).await;
    assert_eq!(state("a"), EndpointState::Ready, "one or two failures");
    sleep(8 * SECOND).await;
    assert_eq!(called(&balance).await, "bc");
    let fails = Client::new(service_fn(|_| async { Err(BoxError::from("no")) }));
    handle.add(Endpoint::new("d", fails)).unwrap();
    sleep(MS).await;
    assert_eq!(state("d"), EndpointState::Unhealthy, "asked at once");
}

#[tokio::test(start_paused = true)]
async fn a_health_check_waits_until_the_endpoint_is_ready_and_calls_it_then() {
    let late = Plan::readiness(2, common::GOOD);
    let works = [Probe::new(&[]), Probe::new(&[late; 9])];
    let never = Probe::new(&[Plan::readiness(0, End::Error); 9]);
    let endpoints = works.iter().chain([&never]).enumerate();
    let endpoints = endpoints.map(|(key, probe)| Endpoint::new(key, probe.clone()));
    let balance = Balance::config("search").seed(1).build(endpoints).unwrap();
    let balance = balance.check_health(HealthCheck::new(Ask::new(|| 0)));
    let handle = balance.as_ref().unwrap().handle();
    // Two intervals, the jitter of the second included.
    sleep(11 * SECOND).await;
    let states = handle.endpoints().into_iter().map(|status| status.state);
    let (ready, unhealthy) = (EndpointState::Ready, EndpointState::Unhealthy);
    assert_eq!(states.collect::<Vec<_>>(), [ready, ready, unhealthy]);
    assert!(works.iter().all(|probe| probe.calls() >= 2));
    assert_eq!(never.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn with_less_than_half_of_the_endpoints_healthy_health_is_ignored() {
    let (balance, sick) = probed(&["a", "b", "c"]);
    sick.lock().unwrap().extend(["a", "b"].map(str::to_owned));
    sleep(MS).await;
    assert_eq!(called(&balance).await, "abc");
    sick.lock().unwrap().pop();
    sleep(25 * SECOND).await;
    assert_eq!(called(&balance).await, "bc");
}

#[tokio::test(start_paused = true)]
async fn a_health_check_ends_no_ejection() {
    let (balance, sick) = probed(&["a", "b", "c"]);
    let handle = balance.handle();
    sick.lock().unwrap().push("c".to_owned());
    sleep(MS).await;
    handle.eject("c", 60 * SECOND);
    handle.restore("c");
    let state = || handle.endpoint("c").unwrap().state;
    assert_eq!(state(), EndpointState::Unhealthy, "restored, and still so");
    handle.eject("c", 60 * SECOND);
    sick.lock().unwrap().clear();
    sleep(30 * SECOND).await;
    assert_eq!(state(), EndpointState::Ejected);
    sleep(31 * SECOND).await;
    assert_eq!(state(), EndpointState::SlowStart);
}

#[tokio::test(start_paused = true)]
async fn a_health_check_ends_with_the_last_handle() {
    let token = Arc::new(());
    let held = Arc::clone(&token);
    let probe = move |_: Client| {
        let held = Arc::clone(&held);
        async move {
            pending::<()>().await;
            drop(held);
            Ok(())
        }
    };
    let balance = Balance::new("search", [endpoint("a")]).unwrap();
    let balance = balance.check_health(HealthCheck::new(probe)).unwrap();
    let handle = balance.handle();
    drop(balance);
    sleep(100 * MS).await;
    assert!(Arc::strong_count(&token) > 1, "there is a handle");
    drop(handle);
    sleep(MS).await;
    assert_eq!(Arc::strong_count(&token), 1);
}

#[test]
fn a_health_check_that_makes_no_sense_is_refused() {
    let balance = || Balance::new("search", [endpoint("a")]).unwrap();
    let check = || HealthCheck::new(Ask::new(|| 0));
    let odd = balance().check_health(check().fall(0));
    assert_eq!(refused_field(odd), "fall");
    let nowhere = balance().check_health(check());
    assert_eq!(refused_field(nowhere), "check_health");
}

#[tokio::test(start_paused = true)]
async fn nothing_of_an_endpoint_is_left_when_its_balancer_is_gone() {
    struct Kept(Arc<()>);
    impl Availability for Kept {
        fn is_available(&self) -> bool {
            Arc::strong_count(&self.0) > 0
        }
    }
    let token = Arc::new(());
    let endpoint = endpoint("a").available(Kept(Arc::clone(&token)));
    let balance = Balance::new("search", [endpoint]).unwrap();
    balance.clone().oneshot(1).await.unwrap();
    drop(balance);
    assert_eq!(Arc::strong_count(&token), 1);
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_is_called_or_cloned_keeps_no_removed_endpoint_alive() {
    let token = Arc::new(Mutex::new(()));
    let kept = Arc::clone(&token);
    let client = Client::new(service_fn(move |_| {
        let kept = Arc::clone(&kept);
        async move {
            drop(kept);
            Ok(String::new())
        }
    }));
    let balance = Balance::new("search", [Endpoint::new("a", client), endpoint("b")]).unwrap();
    balance.handle().remove("a");
    assert!(Arc::strong_count(&token) > 1, "an idle handle keeps it");
    drop(balance.clone());
    assert_eq!(Arc::strong_count(&token), 1);
}

// What works without calls goes on: after panics in code of the user, and when its runtime has ended.

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap()
}

/// The name that a call on a new runtime gets, or why there is none.
fn called_elsewhere(balance: &Balance<Client>) -> Result<String, Option<ErrorKind>> {
    let answer = runtime().block_on(balance.clone().oneshot(1));
    answer.map_err(|error| Some(error.kind()))
}

fn client(name: &str) -> Client {
    server(name, Duration::ZERO, false)
}

#[test]
fn a_list_is_read_again_on_the_next_runtime_before_a_call_chooses() {
    let names = |names: &[&'static str]| names.iter().map(|name| (*name, ())).collect::<Vec<_>>();
    let (list, receiver) = watch::channel(names(&["a", "b"]));
    let made = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&made);
    let source = Watch::new(receiver, move |name: &&str, ()| {
        seen.lock().unwrap().push((*name).to_owned());
        client(name)
    });
    let balance = runtime().block_on(async {
        let balance = Balance::config("search").max_wait(Duration::ZERO);
        let balance = balance.discover(source).unwrap();
        sleep(MS).await;
        balance.clone().oneshot(1).await.unwrap();
        balance
    });
    let handle = balance.handle();
    assert!(!handle.is_discovering());
    // More than are made at once.
    let mut many: Vec<(&'static str, ())> = (0..300)
        .map(|n| (&*String::leak(format!("c{n}")), ()))
        .collect();
    list.send_replace(many.clone());
    for _ in 0..3 {
        let name = called_elsewhere(&balance).unwrap();
        assert!(name.starts_with('c'), "{name} has left the list");
        assert_eq!(handle.endpoints().len(), 300);
    }
    many.truncate(1);
    list.send_replace(many);
    made.lock().unwrap().clear();
    assert_eq!(called_elsewhere(&balance).as_deref(), Ok("c0"));
    assert_eq!(*made.lock().unwrap(), ["c0"], "anew on the new runtime");
    // And the next runtime follows the list.
    runtime().block_on(async {
        balance.clone().oneshot(1).await.unwrap();
        assert!(handle.is_discovering());
        list.send_replace(names(&["d"]));
        sleep(MS).await;
        assert_eq!(balance.clone().oneshot(1).await.unwrap(), "d");
    });
    drop(list);
    let stopped = Err(Some(ErrorKind::DiscoveryStopped));
    assert_eq!(called_elsewhere(&balance), stopped, "nobody knows them");
}

#[test]
fn many_calls_on_the_next_runtime_start_discovery_once() {
    let lookups = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&lookups);
    let dns = Dns::config("search", 80).resolver(move |_, port| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))]))
    });
    let dns = dns.build(|address| client(&address.to_string())).unwrap();
    let balance = runtime().block_on(async {
        let balance = Balance::config("search").discover(dns).unwrap();
        balance.clone().oneshot(1).await.unwrap();
        balance
    });
    lookups.store(0, Ordering::Relaxed);
    runtime().block_on(async {
        let calls: Vec<_> = (0..50)
            .map(|call| tokio::spawn(balance.clone().oneshot(call)))
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap(), "10.0.0.1:80");
        }
        assert_eq!(lookups.load(Ordering::Relaxed), 1);
        sleep(60 * SECOND).await;
        assert!(lookups.load(Ordering::Relaxed) > 10);
    });
}

#[test]
fn a_stream_that_depends_on_no_runtime_goes_on_elsewhere() {
    let (send, changes) = mpsc::unbounded_channel();
    send.send(insert("a")).unwrap();
    let balance = runtime().block_on(async {
        let balance = Balance::config("search")
            .discover(Changes(changes))
            .unwrap();
        assert_eq!(balance.clone().oneshot(1).await.unwrap(), "a");
        balance
    });
    assert_eq!(called_elsewhere(&balance).as_deref(), Ok("a"));
    send.send(insert("b")).unwrap();
    send.send(Ok(Change::Remove("a".into()))).unwrap();
    assert_eq!(called_elsewhere(&balance).as_deref(), Ok("b"));
    drop(send);
    let stopped = Err(Some(ErrorKind::DiscoveryStopped));
    assert_eq!(called_elsewhere(&balance), stopped, "the feeder has gone");
    assert_eq!(called_elsewhere(&balance), stopped, "and stays so");
}

#[test]
fn a_stream_that_has_ended_before_its_runtime_is_final() {
    let (send, changes) = mpsc::unbounded_channel();
    send.send(insert("a")).unwrap();
    drop(send);
    let balance = runtime().block_on(async {
        let balance = Balance::config("search")
            .discover(Changes(changes))
            .unwrap();
        sleep(MS).await;
        balance
    });
    assert!(!balance.handle().is_discovering());
    assert_eq!(called_elsewhere(&balance).as_deref(), Ok("a"));
}

/// Finds one endpoint, and polls a timer of the runtime that it was made on.
struct Timed(Option<&'static str>, std::pin::Pin<Box<tokio::time::Sleep>>);

impl Timed {
    fn new(name: &'static str) -> Self {
        Self(Some(name), Box::pin(sleep(SECOND)))
    }
}

impl futures_core::Stream for Timed {
    type Item = Result<Change<String, Client>, BoxError>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        if let Some(name) = self.0.take() {
            return Poll::Ready(Some(insert(name)));
        }
        assert!(self.1.as_mut().poll(cx).is_pending());
        Poll::Pending
    }
}

#[test]
fn a_stream_that_dies_with_its_runtime_fails_calls_unless_it_can_begin_anew() {
    let run = |restartable: bool| {
        let mut names = ["a", "b", "c"].into_iter();
        let balance = runtime().block_on(async {
            let config = Balance::config("search");
            let balance = if restartable {
                let source = Restartable::new(move || Timed::new(names.next().unwrap()));
                config.discover(source).unwrap()
            } else {
                config.discover(Timed::new("a")).unwrap()
            };
            assert_eq!(balance.clone().oneshot(1).await.unwrap(), "a");
            balance
        });
        [called_elsewhere(&balance), called_elsewhere(&balance)]
    };
    assert_eq!(run(true), [Ok("b".to_owned()), Ok("c".to_owned())]);
    let stopped = || Err(Some(ErrorKind::DiscoveryStopped));
    assert_eq!(run(false), [stopped(), stopped()]);
}

#[test]
fn a_call_outside_of_a_runtime_does_not_go_to_endpoints_of_another_day() {
    let (list, receiver) = watch::channel(vec![("a", ())]);
    let source = Watch::new(receiver, |name: &&str, ()| client(name));
    let balance = runtime().block_on(async {
        let balance = Balance::config("search").discover(source).unwrap();
        balance.clone().oneshot(1).await.unwrap();
        balance
    });
    let Poll::Ready(Err(error)) = poll(&mut Box::pin(balance.clone().oneshot(1))) else {
        panic!("there is no runtime to start discovery on");
    };
    assert_eq!(
        error.to_string(),
        "discovery of balancer \"search\" has stopped because its runtime has ended, use a source that can restart"
    );
    assert_eq!(called_elsewhere(&balance).as_deref(), Ok("a"));
    drop(list);
}

#[test]
fn health_checks_go_on_on_the_next_runtime() {
    let (balance, sick) = runtime().block_on(async {
        let (balance, sick) = probed(&["a", "b", "c"]);
        sleep(MS).await;
        assert_eq!(called(&balance).await, "abc");
        (balance, sick)
    });
    let handle = balance.handle();
    assert!(!handle.is_checking_health());
    sick.lock().unwrap().push("c".to_owned());
    runtime().block_on(async {
        balance.clone().oneshot(1).await.unwrap();
        assert!(handle.is_checking_health());
        sleep(MS).await;
        assert_eq!(called(&balance).await, "ab");
    });
}

#[test]
fn tasks_that_run_and_tasks_that_do_not_are_reported() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let gauges = || {
        let snapshot = snapshotter.snapshot().into_iter();
        let gauges = snapshot.filter_map(|(key, value)| match value {
            DebugValue::Gauge(value) if key.name().ends_with("_running") => {
                Some((key.name().to_owned(), value))
            }
            _ => None,
        });
        gauges.collect::<BTreeMap<_, _>>()
    };
    let running = |discovery: f64, health_check: f64| {
        let gauges = [
            ("buttress_discovery_running", discovery),
            ("buttress_health_check_running", health_check),
        ];
        gauges.map(|(name, value)| (name.to_owned(), value)).into()
    };
    metrics::with_local_recorder(&recorder, || {
        let fixed = Balance::new("fixed", [endpoint("a")]).unwrap();
        assert!(gauges().is_empty());
        drop(fixed);
        let (list, receiver) = watch::channel(vec![("a", ())]);
        let source = Watch::new(receiver, |name: &&str, ()| client(name));
        let balance = runtime().block_on(async {
            let balance = Balance::config("running").discover(source).unwrap();
            let balance = balance.check_health(HealthCheck::new(Ask::new(|| 0)));
            assert_eq!(gauges(), running(1.0, 1.0), "when it is built");
            balance.unwrap()
        });
        assert_eq!(gauges(), running(0.0, 0.0));
        runtime().block_on(async {
            balance.clone().oneshot(1).await.unwrap();
            assert_eq!(gauges(), running(1.0, 1.0));
            drop(list);
            sleep(MS).await;
            assert_eq!(
                gauges()["buttress_discovery_running"],
                0.0,
                "the list is final"
            );
        });
    });
}

/// A service whose parts panic when they are told to.
#[derive(Default)]
struct Fragile {
    name: String,
    clone_panics: Arc<AtomicBool>,
    drop_panics: Arc<AtomicBool>,
}

impl Fragile {
    fn new(name: &str) -> Self {
        let mut service = Self::default();
        name.clone_into(&mut service.name);
        service
    }

    fn endpoint(&self) -> Endpoint<Self> {
        Endpoint::new(&self.name, self.clone())
    }
}

fn panic_if(flag: &AtomicBool) {
    if flag.load(Ordering::Relaxed) {
        std::panic::resume_unwind(Box::new("code of the user panics"));
    }
}

impl Clone for Fragile {
    fn clone(&self) -> Self {
        panic_if(&self.clone_panics);
        Self {
            name: self.name.clone(),
            clone_panics: Arc::clone(&self.clone_panics),
            drop_panics: Arc::clone(&self.drop_panics),
        }
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic_if(&self.drop_panics);
        }
    }
}

impl Service<u32> for Fragile {
    type Response = String;
    type Error = BoxError;
    type Future = std::future::Ready<Result<String, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u32) -> Self::Future {
        std::future::ready(Ok(self.name.clone()))
    }
}

/// The names of the endpoints that were asked since the last look.
type Probed = Arc<Mutex<BTreeSet<String>>>;

#[tokio::test(start_paused = true)]
async fn health_checks_survive_services_and_probes_that_panic() {
    /// Panics when it is dropped.
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("the future panics when it is dropped"));
        }
    }
    let names = ["good", "clone", "drop", "call", "future", "future_drop"];
    let services = names.map(Fragile::new);
    let probed = Probed::default();
    let asked = Arc::clone(&probed);
    let probe = move |service: Fragile| {
        let name = service.name.clone();
        asked.lock().unwrap().insert(name.clone());
        panic_if(&AtomicBool::new(name == "call"));
        async move {
            let _service = service;
            let _panics = (name == "future_drop").then(|| Panics);
            panic_if(&AtomicBool::new(name == "future"));
            sleep(MS).await;
            Ok(())
        }
    };
    let endpoints = services.each_ref().map(Fragile::endpoint);
    let balance = Balance::new("search", endpoints).unwrap();
    let balance = balance.check_health(HealthCheck::new(probe)).unwrap();
    let handle = balance.handle();
    services[1].clone_panics.store(true, Ordering::Relaxed);
    services[2].drop_panics.store(true, Ordering::Relaxed);
    for _ in 0..20 {
        sleep(10 * SECOND).await;
        let probed = std::mem::take(&mut *probed.lock().unwrap());
        let expected: BTreeSet<_> = names.into_iter().filter(|name| *name != "clone").collect();
        assert!(probed.iter().map(String::as_str).eq(expected), "{probed:?}");
        assert!(handle.is_checking_health());
        for name in names {
            let is_unhealthy = handle.endpoint(name).unwrap().state == EndpointState::Unhealthy;
            assert_eq!(is_unhealthy, name != "good", "{name}");
        }
    }
    services[1].clone_panics.store(false, Ordering::Relaxed);
    services[2].drop_panics.store(false, Ordering::Relaxed);
    sleep(30 * SECOND).await;
    assert_ne!(
        handle.endpoint("clone").unwrap().state,
        EndpointState::Unhealthy
    );
}

#[tokio::test(start_paused = true)]
async fn a_health_check_survives_a_classifier_that_panics() {
    let balance = Balance::new("search", [endpoint("a"), endpoint("b"), endpoint("c")]).unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let classify = move |_: Result<&String, &Error>| -> Outcome {
        counted.fetch_add(1, Ordering::Relaxed);
        std::panic::resume_unwind(Box::new("the classifier panics"))
    };
    let ask = Ask::new(|| 0).classify(classify_fn(classify));
    let balance = balance.check_health(HealthCheck::new(ask)).unwrap();
    sleep(60 * SECOND).await;
    assert!(calls.load(Ordering::Relaxed) >= 30);
    assert_eq!(shares(&balance, 300).await.len(), 3, "all are unhealthy");
}

#[tokio::test(start_paused = true)]
async fn discovery_survives_services_that_panic_when_they_are_cloned_or_dropped() {
    let (send, changes) = mpsc::unbounded_channel();
    let balance = Balance::config("search").discover(Found(changes)).unwrap();
    let handle = balance.handle();
    let keys = || {
        let keys = handle.endpoints().into_iter();
        keys.map(|status| status.key.to_string())
            .collect::<BTreeSet<_>>()
    };
    let (clone_panics, drop_panics) = (Fragile::new("a"), Fragile::new("b"));
    for service in [clone_panics.clone(), drop_panics.clone(), Fragile::new("c")] {
        send.send(Ok(Change::Insert(service.name.clone(), service)))
            .unwrap();
    }
    sleep(MS).await;
    assert_eq!(keys().len(), 3);
    clone_panics.clone_panics.store(true, Ordering::Relaxed);
    send.send(Ok(Change::Insert("d".into(), Fragile::new("d"))))
        .unwrap();
    send.send(Ok(Change::Remove("c".into()))).unwrap();
    sleep(SECOND).await;
    assert!(!handle.is_discovering(), "it cannot change the endpoints");
    clone_panics.clone_panics.store(false, Ordering::Relaxed);
    sleep(30 * SECOND).await;
    assert_eq!(keys(), ["a", "b", "d"].map(str::to_owned).into());
    assert!(handle.is_discovering());
    // Two clones at a time: a second panic while the first one unwinds would end the process.
    drop_panics.drop_panics.store(true, Ordering::Relaxed);
    let other = balance.clone();
    send.send(Ok(Change::Remove("b".into()))).unwrap();
    send.send(Ok(Change::Insert("e".into(), Fragile::new("e"))))
        .unwrap();
    sleep(SECOND).await;
    assert_eq!(keys(), ["a", "d", "e"].map(str::to_owned).into());
    for handle in [other, balance] {
        assert_ne!(handle.oneshot(1).await.unwrap(), "b");
    }
    drop_panics.drop_panics.store(false, Ordering::Relaxed);
    assert!(handle.is_discovering());
}

/// Endpoints that a test finds.
struct Found(mpsc::UnboundedReceiver<Result<Change<String, Fragile>, BoxError>>);

impl futures_core::Stream for Found {
    type Item = Result<Change<String, Fragile>, BoxError>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

/// A registry that panics each time, or once for each endpoint that it has found.
struct Panicking(Failing, bool);

impl futures_core::Stream for Panicking {
    type Item = Result<Change<String, Client>, BoxError>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        self.1 = !self.1;
        let found = self.0.brings.lock().unwrap().take();
        if let Some(found) = found {
            return Poll::Ready(Some(insert(found)));
        }
        if self.1 {
            return Poll::Pending;
        }
        self.0.polled.lock().unwrap().push(Instant::now());
        std::panic::resume_unwind(Box::new("the registry panics"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_panics_is_polled_less_and_less_often_and_goes_on() {
    let registry = Failing::default();
    let source = Panicking(registry.clone(), false);
    let balance = Balance::config("search").discover(source).unwrap();
    let handle = balance.handle();
    // The first look comes at once; a stream that waits is polled once more.
    sleep(400 * SECOND).await;
    let polled = registry.polled.lock().unwrap().clone();
    let pauses: Vec<_> = polled
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_millis())
        .collect();
    let expected = [
        100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000,
    ];
    for (pause, expected) in pauses.iter().zip(expected) {
        assert!(pause.abs_diff(expected) < 10, "{pauses:?}");
    }
    assert!(pauses.len() >= 11, "{pauses:?}");
    *registry.brings.lock().unwrap() = Some("a");
    sleep(31 * SECOND).await;
    assert_eq!(handle.endpoints().len(), 1);
    assert_eq!(balance.oneshot(1).await.unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn weights_are_discovered_and_changed_without_a_new_service() {
    let list = |weight: f64, priority: u8| {
        let target = Target::new("a").weight(weight).priority(priority).zone("z");
        vec![("a", target), ("b", "b".into())]
    };
    let (sender, receiver) = watch::channel(list(2.0, 0));
    let made = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&made);
    let source = Watch::new(receiver, move |_: &&str, name: &&str| {
        counted.fetch_add(1, Ordering::Relaxed);
        server(name, 10 * MS, false)
    });
    let balance = Balance::config("search").discover(source).unwrap();
    let handle = balance.handle();
    shares(&balance, 100).await;
    let a = || handle.endpoint("a").unwrap();
    assert_eq!(
        (a().weight, a().priority, a().zone.as_deref()),
        (2.0, 0, Some("z"))
    );
    assert_eq!(handle.endpoint("b").unwrap().zone, None);
    sender.send_replace(list(5.0, 0));
    sleep(MS).await;
    assert_eq!(a().weight, 5.0);
    assert!(a().latency > 5 * MS, "what is known of it stays");
    sender.send_replace(list(5_000.0, 0));
    sleep(MS).await;
    assert_eq!(a().weight, 5.0, "out of range");
    sender.send_replace(list(5.0, 1));
    sleep(MS).await;
    assert_eq!((a().weight, a().priority), (5.0, 1));
    assert_eq!(made.load(Ordering::Relaxed), 2, "each once");
    assert_eq!(shares(&balance, 100).await["b"], 100, "it is a standby now");
}

#[tokio::test(start_paused = true)]
async fn properties_of_a_list_count_more_than_those_of_the_endpoint() {
    let list = vec![("a", Target::new(()).weight(3.0)), ("b", ().into())];
    let (_sender, receiver) = watch::channel(list);
    let source = Watch::new(receiver, |name: &&str, (): &()| endpoint(name).weight(2.0));
    let balance = Balance::config("search")
        .discover_endpoints(source)
        .unwrap();
    let handle = balance.handle();
    sleep(MS).await;
    assert_eq!(handle.endpoint("a").unwrap().weight, 3.0);
    assert_eq!(handle.endpoint("b").unwrap().weight, 2.0);
}

#[tokio::test(start_paused = true)]
async fn weighted_round_robin_is_exact_without_the_heaviest_and_in_slow_start() {
    let weights = [("a", 50.0), ("b", 1.0), ("c", 1.0), ("d", 1.0)];
    let endpoints = weights.map(|(name, weight)| endpoint(name).weight(weight));
    let config = Balance::config("search").choose(RoundRobin);
    let balance = config.build(endpoints).unwrap();
    let handle = balance.handle();
    let next = async || balance.clone().oneshot(1).await.unwrap();
    for _ in 0..10 {
        let mut counts = BTreeMap::new();
        for _ in 0..53 {
            *counts.entry(next().await).or_insert(0) += 1;
        }
        assert_eq!(counts.into_values().collect::<Vec<_>>(), [50, 1, 1, 1]);
    }
    handle.eject("a", 60 * SECOND);
    let mut calls = String::new();
    for _ in 0..300 {
        calls += &next().await;
    }
    let turns: Vec<_> = calls.as_bytes().windows(3).collect();
    assert!(!calls.contains('a'), "{calls}");
    assert!(
        turns
            .iter()
            .all(|turn| turn.iter().collect::<BTreeSet<_>>().len() == 3),
        "one after the other: {calls}"
    );
    for name in ["a", "b", "c", "d"] {
        handle.eject(name, SECOND);
        handle.restore(name);
        assert_eq!(
            handle.endpoint(name).unwrap().state,
            EndpointState::SlowStart
        );
    }
    // Calls of 1 ms in the middle of a step of the slow start.
    advance(3_500 * MS).await;
    let counts = shares(&balance, 106).await;
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [100, 2, 2, 2]);
}
