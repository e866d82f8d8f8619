//! Layers for each key.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use crate::common;
use crate::recorded;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::future::{Ready, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::debugging::DebuggingRecorder;
use buttress::circuit_breaker::State;
use buttress::stack::StandardLayer;
use buttress::{
    BoxError, CircuitBreakerLayer, Error, ErrorKind, Evictable, KeyedLayer, Rate, RateLimitLayer,
    TimeoutLayer, keyed, standard,
};
use common::{End, Plan, Probe, Task};
use proptest::prelude::*;
use tokio::time::{Instant, advance};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// A limit of calls for ever: its state matters as soon as one call was let through.
#[derive(Clone, Debug)]
struct LimitLayer(Arc<Limit>);

#[derive(Debug)]
struct Limit {
    /// Which layer value it is.
    id: u64,
    used: AtomicU32,
    most: u32,
    /// Whether it says that it may be forgotten, and how often it was asked.
    is_forgettable: AtomicBool,
    asked: Arc<AtomicU32>,
}

impl LimitLayer {
    fn new(most: u32) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        Self(Arc::new(Limit {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            used: AtomicU32::new(0),
            most,
            is_forgettable: AtomicBool::new(false),
            asked: Arc::default(),
        }))
    }

    /// Remembers nothing.
    fn forgettable(asked: &Arc<AtomicU32>) -> Self {
        Self::asked(true, asked)
    }

    fn asked(is_forgettable: bool, asked: &Arc<AtomicU32>) -> Self {
        Self(Arc::new(Limit {
            id: 0,
            used: AtomicU32::new(0),
            most: u32::MAX,
            is_forgettable: AtomicBool::new(is_forgettable),
            asked: Arc::clone(asked),
        }))
    }

    fn forgive(&self) {
        self.0.is_forgettable.store(true, Ordering::Relaxed);
    }
}

impl Evictable for LimitLayer {
    fn is_evictable(&self, _now: Instant) -> bool {
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        self.0.is_forgettable.load(Ordering::Relaxed) || self.0.used.load(Ordering::Relaxed) == 0
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = LimitService<S>;

    fn layer(&self, inner: S) -> LimitService<S> {
        LimitService {
            limit: Arc::clone(&self.0),
            inner,
        }
    }
}

/// Answers with the layer value that it belongs to.
struct LimitService<S> {
    limit: Arc<Limit>,
    inner: S,
}

impl<S: Service<u64, Response = u64, Error = BoxError>> Service<u64> for LimitService<S> {
    type Response = u64;
    type Error = BoxError;
    type Future = Ready<Result<u64, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, _request: u64) -> Self::Future {
        let used = self.limit.used.fetch_add(1, Ordering::Relaxed);
        let allowed = used < self.limit.most;
        ready(if allowed {
            Ok(self.limit.id)
        } else {
            Err("limited".into())
        })
    }
}

async fn echo(request: u64) -> Result<u64, BoxError> {
    Ok(request)
}

/// One call, which has its answer at the first poll.
fn call<S>(service: &S, request: u64) -> Result<u64, Error>
where
    S: Service<u64, Response = u64, Error = Error> + Clone,
{
    let mut cx = Context::from_waker(Waker::noop());
    match pin!(service.clone().call(request)).poll(&mut cx) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("has to wait"),
    }
}

#[tokio::test(start_paused = true)]
async fn one_key_does_not_suffer_from_another() {
    let inner = service_fn(async |(tenant, fails): (&'static str, bool)| {
        if fails {
            Err("down".into())
        } else {
            Ok::<_, BoxError>(tenant)
        }
    });
    let layer = KeyedLayer::new(
        "tenants",
        |request: &(&'static str, bool)| request.0,
        |_: &&'static str| {
            let timeout = TimeoutLayer::new("tenants", SECOND);
            (CircuitBreakerLayer::new("tenants"), timeout)
        },
    );
    let client = layer.wrap(inner);
    for _ in 0..20 {
        client.clone().oneshot(("noisy", true)).await.unwrap_err();
        client.clone().oneshot(("quiet", false)).await.unwrap();
    }
    let error = client.clone().oneshot(("noisy", false)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CircuitOpen);
    assert_eq!(client.oneshot(("quiet", false)).await.unwrap(), "quiet");

    let handle = layer.handle();
    assert_eq!((handle.name(), handle.keys()), ("tenants", 2));
    let (breaker, _) = handle.get(&"noisy").unwrap();
    assert_eq!(breaker.handle().state(), State::Open);
    assert!(handle.get(&"unknown").is_none() && handle.overflow(&"unknown").is_none());
    breaker.handle().reset();
    let again = layer.layer(inner).oneshot(("noisy", false)).await;
    assert_eq!(
        again.unwrap(),
        "noisy",
        "services of one layer share its keys"
    );
}

#[test]
fn the_least_recently_used_key_makes_room() {
    let asked = Arc::default();
    let layer = KeyedLayer::config("lru", u64::clone, move |_| LimitLayer::forgettable(&asked))
        .max_keys(2)
        .build()
        .unwrap();
    let (client, handle) = (layer.wrap(service_fn(echo)), layer.handle());
    for key in [1, 2, 1, 3] {
        call(&client, key).unwrap();
    }
    assert_eq!(handle.keys(), 2);
    assert!(handle.get(&2).is_none() && handle.get(&1).is_some() && handle.get(&3).is_some());
}

#[test]
fn a_key_with_something_against_it_is_never_forgotten_and_the_rest_share_one_layer() {
    let layer = KeyedLayer::config("never", u64::clone, |_| LimitLayer::new(1))
        .max_keys(2)
        .overflow([LimitLayer::new(1)])
        .build()
        .unwrap();
    let (client, handle) = (layer.wrap(service_fn(echo)), layer.handle());
    for key in [1, 2] {
        call(&client, key).unwrap();
    }
    let common = call(&client, 3).unwrap();
    assert_eq!(handle.overflow(&3).unwrap().0.id, common);
    for key in 1..100 {
        call(&client, key).unwrap_err();
    }
    assert_eq!(handle.keys(), 2);

    handle.get(&1).unwrap().forgive();
    assert_ne!(call(&client, 3).unwrap(), common, "there is a place now");
    assert!(handle.get(&1).is_none());
    call(&client, 2).unwrap_err();
}

#[test]
fn the_common_layer_can_be_given() {
    let common = LimitLayer::new(3);
    let layer = KeyedLayer::config("given", u64::clone, |_| LimitLayer::new(1))
        .max_keys(1)
        .overflow([common.clone()])
        .build()
        .unwrap();
    let client = layer.wrap(service_fn(echo));
    call(&client, 1).unwrap();
    for key in [2, 3, 4] {
        assert_eq!(call(&client, key).unwrap(), common.0.id);
    }
    call(&client, 5).unwrap_err();
}

#[test]
fn keys_without_a_slot_share_parts_by_their_hash() {
    let parts = |seed| -> Vec<u64> {
        let layer = KeyedLayer::config("parts", u64::clone, |_| LimitLayer::new(1))
            .max_keys(1)
            .overflow((0..16).map(|_| LimitLayer::new(u32::MAX)))
            .seed(seed)
            .build()
            .unwrap();
        let client = layer.wrap(service_fn(echo));
        call(&client, 0).unwrap();
        let parts: Vec<_> = (1..1_001).map(|key| call(&client, key).unwrap()).collect();
        for (key, part) in (1..1_001).zip(&parts) {
            assert_eq!(call(&client, key).unwrap(), *part, "always the same");
            assert_eq!(layer.handle().overflow(&key).unwrap().0.id, *part);
        }
        let first = *parts.iter().min().unwrap();
        parts.into_iter().map(|part| part - first).collect()
    };
    let (one, same, other) = (parts(1), parts(1), parts(2));
    assert_eq!(one, same, "a seed repeats them");
    assert_ne!(one, other);
    for part in 0..16 {
        let keys = one.iter().filter(|of_key| **of_key == part).count();
        assert!(
            (30..100).contains(&keys),
            "{keys} of 1,000 keys in one of 16 parts"
        );
    }
}

#[test]
fn a_long_key_shares_a_part_although_there_are_slots() {
    let key = |length: &usize| "a".repeat(*length);
    let layer = KeyedLayer::config("long", key, |_| TimeoutLayer::new("long", SECOND))
        .max_key_size(100)
        .build()
        .unwrap();
    let mut client = layer.wrap(service_fn(async |_: usize| Ok::<_, BoxError>(())));
    for length in [99, 100, 101, 300_000] {
        drop(client.call(length));
    }
    let handle = layer.handle();
    assert_eq!((handle.keys(), handle.overflowed()), (2, 0));
    assert!(handle.get(&key(&100)).is_some() && handle.get(&key(&101)).is_none());
    assert!(handle.overflow(&key(&101)).is_some() && handle.overflow(&key(&300_000)).is_some());
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_not_forgiven_by_eviction() {
    let layer = KeyedLayer::config(
        "open",
        |request: &(u64, bool)| request.0,
        |_: &u64| {
            CircuitBreakerLayer::config("open")
                .consecutive_failures(1)
                .build()
                .unwrap()
        },
    )
    .max_keys(2)
    .build()
    .unwrap();
    let client = layer.wrap(service_fn(async |(_, fails): (u64, bool)| {
        if fails {
            Err("down".into())
        } else {
            Ok::<_, BoxError>(())
        }
    }));
    let ask = |key, fails| client.clone().oneshot((key, fails));
    ask(1, true).await.unwrap_err();
    for key in 2..50 {
        ask(key, false).await.unwrap();
    }
    ask(1, false).await.unwrap_err();
    layer.handle().get(&1).unwrap().handle().force_closed();
    advance(500 * SECOND).await;
    for key in 2..50 {
        ask(key, false).await.unwrap();
    }
    assert!(
        layer.handle().get(&1).is_some(),
        "an operator's word is not forgotten"
    );
}

/// A request: its key, and whether it fails.
type Request = (u32, bool);
type Inner = BoxCloneSyncService<Request, (), BoxError>;

/// Sends key 1 these requests, changes its layers, and lets many other keys come for its only place. Returns its
/// layers, and why the next request is refused.
async fn kept<L>(
    make: impl Fn() -> L,
    fail: &[bool],
    change: impl FnOnce(&L),
) -> (L, Option<ErrorKind>)
where
    L: Layer<Inner, Service: Service<Request, Response = (), Error = Error>> + Evictable + Clone,
{
    let inner = service_fn(
        async |(_, fails): Request| {
            if fails { Err("down".into()) } else { Ok(()) }
        },
    );
    let layer = KeyedLayer::config("parts", |request: &Request| request.0, |_: &u32| make());
    let layer = layer.max_keys(1).build().unwrap();
    let client = layer.wrap(Inner::new(inner));
    let ask = |key, fails| client.clone().oneshot((key, fails));
    for &fails in fail {
        assert_eq!(ask(1, fails).await.is_err(), fails);
    }
    // What is not spoiled has recovered, and an open time is not over.
    advance(SECOND).await;
    change(&layer.handle().get(&1).unwrap());
    for key in 2..50 {
        ask(key, false).await.unwrap();
    }
    let kept = layer.handle().get(&1).expect("key 1 has kept its place");
    let refused = ask(1, false).await.err();
    (kept, refused.map(|error| error.kind()))
}

#[tokio::test(start_paused = true)]
async fn a_key_with_several_layers_is_kept_for_what_one_of_them_remembers() {
    let breaker = || {
        let breaker = CircuitBreakerLayer::config("parts").consecutive_failures(1);
        breaker.build().unwrap()
    };
    let timeout = || TimeoutLayer::new("parts", SECOND);
    let (_, refused) = kept(|| (breaker(), timeout()), &[true], |_| ()).await;
    assert_eq!(refused, Some(ErrorKind::CircuitOpen));
    let (_, refused) = kept(|| (timeout(), breaker()), &[true], |_| ()).await;
    assert_eq!(refused, Some(ErrorKind::CircuitOpen));
}

#[tokio::test(start_paused = true)]
async fn a_key_with_a_standard_stack_is_kept_for_what_one_part_remembers() {
    let stack = |rate| {
        let stack = standard("parts").no_retry();
        let stack = stack.circuit_breaker(|breaker| breaker.consecutive_failures(1));
        let stack = stack.rate_limit(rate, |limit| limit.burst(60));
        stack.concurrency_limit(9).build().unwrap()
    };
    let (hourly, ample) = (Rate::per_hour(60), Rate::per_second(1_000));
    let (_, refused) = kept(|| stack(ample), &[true], |_| ()).await;
    assert_eq!(refused, Some(ErrorKind::CircuitOpen));
    let (_, refused) = kept(|| stack(hourly), &[false; 60], |_| ()).await;
    assert_eq!(refused, Some(ErrorKind::RateLimited));
    let limit = |stack: &StandardLayer| stack.handle().bulkhead().unwrap().clone();
    let change = |stack: &StandardLayer| limit(stack).set_limit(1).unwrap();
    let (stack, refused) = kept(|| stack(ample), &[false], change).await;
    assert_eq!((limit(&stack).limit(), refused), (1, None));
}

#[tokio::test(start_paused = true)]
async fn a_key_with_a_call_in_flight_keeps_its_layer() {
    let probe = Probe::new(&[Plan::answer(0, End::Held)]);
    let breaker = |_: &u32| CircuitBreakerLayer::new("in flight");
    let layer = KeyedLayer::config("in flight", |request: &u32| *request, breaker)
        .max_keys(1)
        .idle(SECOND)
        .build()
        .unwrap();
    let client = layer.wrap(probe.clone());
    let mut held = Box::pin(client.clone().oneshot(1));
    assert!(Task::default().poll(&mut held).is_pending());
    advance(2 * SECOND).await;
    client.clone().oneshot(2).await.unwrap();
    assert!(layer.handle().get(&1).is_some() && layer.handle().get(&2).is_none());
    drop(held);
    assert_eq!(probe.seen().held, 0);
    client.clone().oneshot(2).await.unwrap();
    assert!(layer.handle().get(&1).is_none() && layer.handle().get(&2).is_some());

    let not_polled = client.clone().call(2);
    client.clone().oneshot(3).await.unwrap();
    assert!(
        layer.handle().get(&2).is_some(),
        "also before its first poll"
    );
    let calls = probe.calls();
    drop(not_polled);
    assert_eq!(probe.calls(), calls, "it was not made");
}

#[tokio::test(start_paused = true)]
async fn idle_keys_are_dropped_by_the_calls_that_come_by() {
    let layer = KeyedLayer::config("idle", u64::clone, |_| LimitLayer::new(9))
        .max_keys(8)
        .idle(10 * SECOND)
        .build()
        .unwrap();
    let (client, handle) = (layer.wrap(service_fn(echo)), layer.handle());
    let ids = [1, 2, 3].map(|key| call(&client, key).unwrap());
    handle.get(&1).unwrap().forgive();
    handle.get(&2).unwrap().forgive();
    advance(10 * SECOND).await;
    assert_eq!(call(&client, 3).unwrap(), ids[2]);
    assert_eq!(handle.keys(), 3, "not idle for long enough");
    advance(SECOND / 1_000).await;
    assert_eq!(
        call(&client, 1).unwrap(),
        ids[0],
        "a key that is used again is not idle"
    );
    call(&client, 3).unwrap();
    assert_eq!(handle.keys(), 2);
    assert!(handle.get(&2).is_none());
    advance(20 * SECOND).await;
    call(&client, 1).unwrap();
    call(&client, 1).unwrap();
    assert!(handle.get(&3).is_some(), "it has something against it");
}

#[test]
fn a_flood_of_a_million_keys_stays_bounded_in_space_and_in_time_per_call() {
    for (is_forgettable, calls) in [(true, 1_000_000), (false, 100_000)] {
        let asked = Arc::new(AtomicU32::new(0));
        let made = AtomicU32::new(0);
        let layer = KeyedLayer::config("flood", u64::clone, |_| {
            made.fetch_add(1, Ordering::Relaxed);
            let layer = LimitLayer::asked(is_forgettable, &asked);
            layer.0.used.store(1, Ordering::Relaxed);
            layer
        })
        .max_keys(1_024)
        .build()
        .unwrap();
        let client = layer.wrap(service_fn(echo));
        // The multiplication mixes: no key comes twice.
        let keys = (1..=calls).map(|n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut most_asked = 0;
        for (n, key) in keys.enumerate() {
            let before = asked.load(Ordering::Relaxed);
            call(&client, key).unwrap();
            most_asked = most_asked.max(asked.load(Ordering::Relaxed) - before);
            if n % 10_000 == 0 {
                assert!(layer.handle().keys() <= 1_024);
            }
        }
        assert_eq!(layer.handle().keys(), 1_024);
        assert!(most_asked <= 32, "looked at {most_asked} keys");
        let overflow_parts = 64;
        let expected = if is_forgettable {
            1_000_000
        } else {
            1_024 + overflow_parts
        };
        assert_eq!(made.load(Ordering::Relaxed), expected);
        let overflowed = if is_forgettable { 0 } else { 100_000 - 1_024 };
        assert_eq!(layer.handle().overflowed(), overflowed);
    }
}

/// A rate limit for each tenant, one a second with a burst of 5, in virtual time.
struct Tenants<S> {
    client: S,
    handle: keyed::Handle<u64, RateLimitLayer>,
    random: u64,
}

fn tenants(
    seed: u64,
    max_keys: Option<u32>,
) -> Tenants<impl Service<u64, Response = u64, Error = Error> + Clone> {
    let make = |_: &u64| {
        let limit = RateLimitLayer::config("tenants", Rate::per_second(1));
        limit.burst(5).build().unwrap()
    };
    let mut config = KeyedLayer::config("tenants", u64::clone, make).seed(seed);
    if let Some(keys) = max_keys {
        config = config.max_keys(keys);
    }
    let layer = config.build().unwrap();
    Tenants {
        client: layer.wrap(service_fn(echo)),
        handle: layer.handle(),
        random: seed,
    }
}

impl<S: Service<u64, Response = u64, Error = Error> + Clone> Tenants<S> {
    fn passes(&self, tenant: u64) -> bool {
        call(&self.client, tenant).is_ok()
    }

    /// A call by a tenant that comes once.
    fn flood(&mut self) {
        // Splitmix: no number comes twice.
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        self.passes(mixed | 1 << 63);
    }

    /// Lets `regular` tenants call every 2 s for `millis`, beside so many others a millisecond that come once. Returns
    /// the share of the regular calls that pass.
    async fn run(&mut self, regular: u64, millis: u64, flood: u64) -> f64 {
        let (mut calls, mut passed) = (0, 0);
        for milli in 0..millis {
            (0..flood).for_each(|_| self.flood());
            for tenant in (0..regular).filter(|tenant| tenant * 2_000 / regular == milli % 2_000) {
                calls += 1;
                passed += u32::from(self.passes(tenant));
            }
            advance(SECOND / 1_000).await;
        }
        f64::from(passed) / f64::from(calls)
    }
}

#[tokio::test(start_paused = true)]
async fn regular_tenants_pass_under_a_flood_of_random_ones_that_began_with_them() {
    for seed in 1..4 {
        let mut tenants = tenants(seed, None);
        let passed = tenants.run(20, 20_000, 5).await;
        println!("{passed:.3} of the regular calls pass");
        assert!(passed >= 0.95, "{passed}");
    }
}

#[tokio::test(start_paused = true)]
async fn tenants_that_were_there_before_a_flood_do_not_notice_it_however_few_slots_there_are() {
    for (slots, flood, millis) in [(64, 5, 8_000), (1_024, 5, 8_000), (1_024, 50, 2_000)] {
        let mut tenants = tenants(1, Some(slots));
        assert!(tenants.run(20, 4_001, 0).await >= 1.0);
        let passed = tenants.run(20, millis, flood).await;
        println!("{slots} slots, {flood} random tenants a millisecond: {passed:.3} pass");
        assert!(passed >= 0.95, "{passed}");
        assert!(tenants.handle.overflowed() > 0, "slots are short");
        assert!(tenants.handle.keys() <= slots as usize);
    }
}

#[tokio::test(start_paused = true)]
async fn clients_within_their_limits_are_refused_only_where_slots_are_short_and_that_is_seen() {
    let mut ample = tenants(1, None);
    assert!(ample.run(5_000, 10_000, 0).await >= 1.0);
    assert_eq!(ample.handle.overflowed(), 0);

    let mut short = tenants(1, Some(1_024));
    let passed = short.run(5_000, 10_000, 0).await;
    println!("{:.3} are refused with 1,024 slots", 1.0 - passed);
    assert!((0.35..0.55).contains(&passed), "{passed}");
    assert!(short.handle.overflowed() > 0);
}

#[test]
fn all_places_can_be_filled_however_the_keys_are_spread() {
    for most in [1, 7, 8, 9, 100, 1_000] {
        let layer = KeyedLayer::config("filled", u64::clone, |_| LimitLayer::new(1))
            .max_keys(most)
            .build()
            .unwrap();
        let client = layer.wrap(service_fn(echo));
        for key in 0..u64::from(most) {
            call(&client, key).unwrap();
        }
        assert_eq!(layer.handle().keys(), most as usize);
        assert_eq!(layer.handle().overflowed(), 0, "{most}");
    }
}

#[test]
fn a_key_that_can_go_is_found_in_whatever_shard_it_is() {
    for _ in 0..100 {
        let layer = KeyedLayer::config("found", u64::clone, |_| LimitLayer::new(1))
            .max_keys(16)
            .build()
            .unwrap();
        let (client, handle) = (layer.wrap(service_fn(echo)), layer.handle());
        for key in 0..16 {
            call(&client, key).unwrap();
        }
        handle.get(&7).unwrap().forgive();
        call(&client, 16).unwrap();
        assert!(handle.get(&7).is_none() && handle.get(&16).is_some());
        assert_eq!(handle.overflowed(), 0);
    }
}

#[test]
fn calls_that_meet_at_a_new_key_share_one_layer() {
    let barrier = Barrier::new(2);
    let layer = KeyedLayer::new("meet", u64::clone, |_| {
        barrier.wait();
        LimitLayer::new(1)
    });
    let client = layer.wrap(service_fn(echo));
    let results = std::thread::scope(|scope| {
        let call = || scope.spawn(|| call(&client, 1).is_ok());
        [call(), call()].map(|thread| thread.join().unwrap())
    });
    assert_ne!(results[0], results[1], "one limit for both");
    assert_eq!(layer.handle().keys(), 1);
}

#[test]
fn no_key_ever_has_two_layers_in_use_however_many_threads_there_are() {
    /// Which layer value is in use for each key, and how often.
    type InUse = Mutex<BTreeMap<u64, (u64, u32)>>;

    static IN_USE: InUse = Mutex::new(BTreeMap::new());
    const COMMON: u64 = u64::MAX;

    /// Notes which layer value a call goes through. Forgettable at any time: only being in use keeps it.
    #[derive(Clone)]
    struct Noted(u64);

    impl Evictable for Noted {
        fn is_evictable(&self, _now: Instant) -> bool {
            true
        }
    }

    impl<S> Layer<S> for Noted {
        type Service = NotedService;

        fn layer(&self, _inner: S) -> NotedService {
            NotedService(self.0)
        }
    }

    struct NotedService(u64);

    impl Service<u64> for NotedService {
        type Response = u64;
        type Error = Infallible;
        type Future = Ready<Result<u64, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, key: u64) -> Self::Future {
            if self.0 != COMMON {
                let mut in_use = IN_USE.lock().unwrap();
                let (id, calls) = in_use.entry(key).or_insert((self.0, 0));
                assert!(
                    *calls == 0 || *id == self.0,
                    "two layers of key {key} in use"
                );
                (*id, *calls) = (self.0, *calls + 1);
            }
            ready(Ok(self.0))
        }
    }

    const MOST: usize = 16;
    let ids = AtomicU64::new(0);
    let layer = KeyedLayer::config("threads", u64::clone, |_| {
        Noted(ids.fetch_add(1, Ordering::Relaxed))
    })
    .max_keys(MOST as u32)
    .overflow([Noted(COMMON)])
    .build()
    .unwrap();
    let client = layer.wrap(service_fn(echo));
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (client, layer) = (&client, &layer);
            scope.spawn(move || {
                let mut random = thread + 1;
                let mut in_flight = Vec::new();
                for _ in 0..20_000 {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let key = (random >> 33) % 40;
                    let mut call = Box::pin(client.clone().call(key));
                    let mut cx = Context::from_waker(Waker::noop());
                    let Poll::Ready(Ok(id)) = call.as_mut().poll(&mut cx) else {
                        panic!("answers at once");
                    };
                    in_flight.push((key, id, call));
                    if in_flight.len() > 3 {
                        let (key, id, call) = in_flight.swap_remove(random as usize % 3);
                        if id != COMMON {
                            IN_USE.lock().unwrap().get_mut(&key).unwrap().1 -= 1;
                        }
                        drop(call);
                    }
                    assert!(layer.handle().keys() <= MOST);
                }
                for (key, id, _call) in in_flight {
                    if id != COMMON {
                        IN_USE.lock().unwrap().get_mut(&key).unwrap().1 -= 1;
                    }
                }
            });
        }
    });
    assert!(ids.into_inner() > 1_000, "keys came and went");
}

proptest! {
    #[test]
    fn nobody_is_forgiven_and_places_are_never_more_than_allowed(
        most in 1_u32..20,
        limit in 1_u32..4,
        steps in prop::collection::vec((0_u64..30, any::<bool>()), 1..300),
    ) {
        let layer = KeyedLayer::config("model", u64::clone, |_| LimitLayer::new(limit))
            .max_keys(most)
            .build()
            .unwrap();
        let (client, handle) = (layer.wrap(service_fn(echo)), layer.handle());
        // How often each layer value was used.
        let mut used: HashMap<u64, u32> = HashMap::new();
        let mut of_key: HashMap<u64, u64> = HashMap::new();
        for (key, forgive) in steps {
            let before = handle.get(&key).map(|layer| layer.0.id);
            // A key that has used its layer and was not forgiven still has the same one.
            prop_assert!(of_key.get(&key).is_none_or(|id| Some(*id) == before));
            let result = call(&client, key);
            let now = handle.get(&key);
            let layer = now.clone().or_else(|| handle.overflow(&key)).unwrap();
            let count = used.entry(layer.0.id).or_default();
            *count += 1;
            prop_assert_eq!(result.is_ok(), *count <= limit);
            if let Some(own) = now {
                if forgive {
                    own.forgive();
                }
                if own.0.is_forgettable.load(Ordering::Relaxed) {
                    of_key.remove(&key);
                } else {
                    of_key.insert(key, own.0.id);
                }
            } else {
                prop_assert_eq!(handle.keys(), most as usize, "there was a place");
            }
            prop_assert!(handle.keys() <= most as usize);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_users_code_leaves_the_layer_whole() {
    let key = |request: &u64| {
        assert_ne!(*request, 13, "the key panics");
        *request
    };
    let make = |key: &u64| {
        assert_ne!(*key, 14, "the layer of the key panics");
        LimitLayer::new(1)
    };

    let layer = KeyedLayer::config("panics", key, make)
        .max_keys(2)
        .build()
        .unwrap();
    let client = layer.wrap(service_fn(echo));
    for request in [13, 14, 14, 14] {
        catch_unwind(AssertUnwindSafe(|| call(&client, request))).unwrap_err();
    }
    assert_eq!(layer.handle().keys(), 0);
    for request in [1, 2] {
        call(&client, request).unwrap();
    }
    assert_eq!(layer.handle().overflowed(), 0, "no place was lost");
    catch_unwind(AssertUnwindSafe(|| call(&client, 14))).unwrap_err();
    call(&client, 3).unwrap();

    let probe = Probe::new(&[Plan {
        panics_in_call: true,
        ..Plan::GOOD
    }]);
    let breaker = |_: &u32| CircuitBreakerLayer::new("panics");
    let layer = KeyedLayer::config("panics", |_: &u32| (), move |()| breaker(&0)).max_keys(1);
    let layer = layer.build().unwrap();
    let client = layer.wrap(probe.clone());
    assert!(
        tokio::spawn(client.clone().oneshot(1))
            .await
            .unwrap_err()
            .is_panic()
    );
    client.oneshot(1).await.unwrap();
    assert_eq!(probe.seen().held, 0);
}

#[test]
fn the_users_code_may_come_back_to_the_keys() {
    type Client = tower::util::BoxCloneSyncService<u64, u64, Error>;

    static CLIENT: Mutex<Option<Client>> = Mutex::new(None);
    let layer = KeyedLayer::new("comes back", u64::clone, |key| {
        let client = CLIENT.lock().unwrap().clone();
        if let Some(client) = client.filter(|_| *key > 0) {
            call(&client, key - 1).unwrap();
        }
        LimitLayer::new(1)
    });
    *CLIENT.lock().unwrap() = Some(Client::new(layer.layer(service_fn(echo))));
    call(&layer.layer(service_fn(echo)), 5).unwrap();
    assert_eq!(layer.handle().keys(), 6);
}

/// Leaves the service as it is: not one that waits for readiness by itself.
#[derive(Clone)]
struct Through;

impl Evictable for Through {
    fn is_evictable(&self, _now: Instant) -> bool {
        true
    }
}

impl<S> Layer<S> for Through {
    type Service = S;

    fn layer(&self, inner: S) -> S {
        inner
    }
}

#[tokio::test(start_paused = true)]
async fn the_inner_service_is_made_ready_within_the_call() {
    async fn check<L>(layer: L)
    where
        L: Layer<Probe, Service: Service<u32, Response = common::Response>>,
        <L::Service as Service<u32>>::Error: Into<BoxError> + 'static,
        L: Evictable + Clone,
    {
        let probe = Probe::new(&[
            Plan::readiness(2, common::GOOD),
            Plan::readiness(0, End::Error),
            Plan::readiness(0, End::Held),
        ]);
        let layer = KeyedLayer::new("ready", |request: &u32| *request, |_| layer.clone());
        let mut client = layer.wrap(probe.clone());
        for _ in 0..3 {
            let ready = poll_fn(|cx| Poll::Ready(client.poll_ready(cx))).await;
            assert!(matches!(ready, Poll::Ready(Ok(()))));
        }
        assert_eq!(probe.seen().ready_polls, 0, "an idle handle holds nothing");
        client.call(1).await.unwrap();
        assert_eq!((probe.calls(), probe.seen().held), (1, 0));
        let error = client.call(1).await.unwrap_err();
        assert_eq!(
            error.service_error().unwrap().to_string(),
            "connection reset",
            "one call's error, not the end"
        );
        let task = Task::default();
        let mut waits = Box::pin(client.call(1));
        assert!(task.poll(&mut waits).is_pending());
        assert_eq!(probe.calls(), 1);
        drop(waits);
        assert!(task.is_forgotten());
        client.call(1).await.unwrap();
    }

    check(CircuitBreakerLayer::new("ready")).await;
    check(Through).await;
}

#[tokio::test(start_paused = true)]
async fn a_removed_key_begins_afresh_and_its_calls_end_as_they_began() {
    let probe = Probe::new(&[Plan::answer(0, End::Held)]);
    let breaker = |_: &u32| CircuitBreakerLayer::new("removed");
    let layer = KeyedLayer::new("removed", |request: &u32| *request, breaker);
    let client = layer.wrap(probe.clone());
    let mut held = Box::pin(client.clone().oneshot(1));
    let task = Task::default();
    assert!(task.poll(&mut held).is_pending());
    layer.handle().get(&1).unwrap().handle().force_open();
    client.clone().oneshot(1).await.unwrap_err();
    assert!(layer.handle().remove(&1) && !layer.handle().remove(&1));
    client.clone().oneshot(1).await.unwrap();
    probe.let_go();
    assert!(matches!(task.poll(&mut held), Poll::Ready(Ok(_))));
}

#[tokio::test(start_paused = true)]
async fn keys_are_counted_and_never_become_labels() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let seen = || {
        let rows = recorded::rows(&snapshotter);
        let mut seen: Vec<_> = rows
            .map(|row| {
                assert_eq!(row.label("name"), Some("counted"));
                (row.title(), row.value as u64)
            })
            // Other tests of the process may have layers of this name.
            .filter(|(title, _)| title.starts_with("buttress_key"))
            .collect();
        seen.sort_by(|one, other| one.0.cmp(&other.0));
        seen
    };
    let layer = KeyedLayer::config("counted", u64::clone, |_| LimitLayer::new(1))
        .max_keys(2)
        .idle(SECOND)
        .build()
        .unwrap();
    let (client, handle) = (layer.wrap(service_fn(echo)), layer.handle());
    for key in [1, 2, 3, 4] {
        call(&client, key).unwrap_or_default();
    }
    handle.get(&1).unwrap().forgive();
    call(&client, 5).unwrap();
    handle.get(&2).unwrap().forgive();
    advance(2 * SECOND).await;
    call(&client, 5).unwrap_err();
    handle.remove(&5);
    call(&client, 6).unwrap();
    let expected = [
        ("buttress_key_events_total added", 4),
        ("buttress_key_events_total evicted", 1),
        ("buttress_key_events_total expired", 1),
        ("buttress_key_events_total overflowed", 2),
        ("buttress_key_events_total removed", 1),
        ("buttress_keys", 1),
    ]
    .map(|(words, value)| (words.to_owned(), value));
    assert_eq!(seen(), expected);
    drop((layer, client, handle));
    assert_eq!(seen().last().unwrap().1, 0);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let config = |name: &str| KeyedLayer::config(name, u64::clone, |_| LimitLayer::new(1));
    let field = |built: Result<_, buttress::ConfigError>| {
        let error = built.map(drop).unwrap_err();
        assert_eq!(error.layer(), "keyed");
        error.field()
    };
    assert_eq!(field(config("").build()), "name");
    for keys in [0, u32::MAX] {
        assert_eq!(field(config("a").max_keys(keys).build()), "max_keys");
        assert_eq!(
            field(config("a").max_key_size(keys).build()),
            "max_key_size"
        );
    }
    for parts in [0, 65_537] {
        let parts = (0..parts).map(|_| LimitLayer::new(1));
        assert_eq!(field(config("a").overflow(parts).build()), "overflow");
    }
    for idle in [Duration::ZERO, Duration::MAX] {
        assert_eq!(field(config("a").idle(idle).build()), "idle");
    }
}

#[test]
fn requests_need_not_be_sync_and_keys_need_not_be_either() {
    fn send_and_sync<T: Send + Sync>(_: &T) {}
    fn send<T: Send>(_: &T) {}

    type Request = std::cell::Cell<u64>;

    let layer = KeyedLayer::new(
        "bounds",
        |request: &Request| std::cell::Cell::new(request.get()).into_inner(),
        |_: &u64| CircuitBreakerLayer::new("bounds"),
    );
    let mut client = layer.wrap(service_fn(async |_: Request| Ok::<_, BoxError>(())));
    send_and_sync(&layer);
    send_and_sync(&client);
    send_and_sync(&layer.handle());
    send(&client.call(Request::new(1)));
}
