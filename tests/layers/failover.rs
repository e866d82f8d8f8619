//! The priority groups of the balancer.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::float_cmp)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::debugging::{DebugValue, DebuggingRecorder};
use buttress::balance::{
    Ask, Choose, Config, ConsistentHash, Endpoint, EndpointState, Endpoints, Failover, Handle,
    HealthCheck, LeastLoaded, OutlierEjection, PowerOfChoices, RoundRobin, WeightedRandom,
};
use buttress::discover::{Target, Watch};
use buttress::{
    Availability, Backoff, Balance, BoxError, CircuitBreakerLayer, ConfigError, Error, HedgeLayer,
    Outcome, RetryLayer, classify_fn,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

type Client = BoxCloneSyncService<u32, String, BoxError>;

/// Answers with its name at once.
fn server(name: &str) -> Client {
    let name = name.to_owned();
    Client::new(service_fn(move |_| {
        std::future::ready(Ok::<_, BoxError>(name.clone()))
    }))
}

fn down(name: &str) -> Client {
    let name = name.to_owned();
    Client::new(service_fn(move |_| {
        std::future::ready(Err(BoxError::from(format!("{name} is down"))))
    }))
}

/// An endpoint whose priority is in its name: `p` for primary, `s` for standby, `f` for far.
fn endpoint(name: &str) -> Endpoint<Client> {
    let priority = "psf".find(&name[..1]).unwrap();
    Endpoint::new(name, server(name)).priority(priority.try_into().unwrap())
}

fn balance(names: &[&str]) -> Balance<Client> {
    let config = Balance::config("search").seed(1);
    config
        .build(names.iter().map(|name| endpoint(name)))
        .unwrap()
}

/// How many percent of 2,000 calls, made at one time, go to each group.
async fn percent<S>(balance: &S) -> BTreeMap<char, u32>
where
    S: Service<u32, Response = String, Error = Error> + Clone,
{
    let mut counts = BTreeMap::new();
    for request in 0..2_000 {
        let name = balance.clone().oneshot(request).await.unwrap();
        *counts.entry(name.chars().next().unwrap()).or_default() += 1;
    }
    for count in counts.values_mut() {
        *count = (*count + 10) / 20;
    }
    counts
}

/// Says that these percentages go to the primary, the standby and the far group, more or less.
#[track_caller]
fn assert_near(counts: &BTreeMap<char, u32>, expected: [u32; 3]) {
    let counts = ['p', 's', 'f'].map(|group| counts.get(&group).copied().unwrap_or(0));
    let is_near = |(count, expected): (&u32, u32)| match expected {
        0 | 100 => *count == expected,
        _ => count.abs_diff(expected) <= 4,
    };
    let are_near = counts.iter().zip(expected).all(is_near);
    assert!(are_near, "{counts:?} is not {expected:?}");
}

/// The share of each group in percent, as the handle shows it.
fn shares<S>(handle: &Handle<S>) -> Vec<u32> {
    let groups = handle.groups().into_iter();
    groups
        .map(|group| (100.0 * group.share).round() as u32)
        .collect()
}

fn refused_field<T>(built: Result<T, ConfigError>) -> &'static str {
    built.err().expect("it makes no sense").field()
}

const ALL: [&str; 9] = ["p0", "p1", "p2", "p3", "s0", "s1", "f0", "f1", "f2"];

#[tokio::test(start_paused = true)]
async fn while_the_primaries_are_well_they_get_all_calls() {
    // In no order, because that is how they come.
    let balance = balance(&["f0", "s0", "p0", "s1", "p1"]);
    assert_near(&percent(&balance).await, [100, 0, 0]);
    let groups = balance.handle().groups();
    let priorities = groups.iter().map(|group| (group.priority, group.endpoints));
    assert_eq!(priorities.collect::<Vec<_>>(), [(0, 2), (1, 2), (2, 1)]);
    assert_eq!(shares(&balance.handle()), [100, 0, 0]);
    assert_eq!(balance.handle().endpoint("s1").unwrap().priority, 1);
}

#[tokio::test(start_paused = true)]
async fn calls_spill_over_as_the_healthy_share_falls_and_come_back_slowly() {
    let balance = balance(&ALL);
    let handle = balance.handle();
    handle.eject("p0", 60 * SECOND);
    assert_near(&percent(&balance).await, [100, 0, 0]);
    handle.eject("p1", 60 * SECOND);
    assert_near(&percent(&balance).await, [70, 30, 0]);
    assert_eq!(handle.groups()[0].healthy, 0.5);
    handle.eject("p2", 60 * SECOND);
    handle.eject("s0", 60 * SECOND);
    assert_near(&percent(&balance).await, [35, 65, 0]);
    handle.eject("s1", 60 * SECOND);
    assert_near(&percent(&balance).await, [35, 0, 65]);
    handle.eject("p3", 60 * SECOND);
    assert_near(&percent(&balance).await, [0, 0, 100]);
    sleep(61 * SECOND).await;
    assert_near(&percent(&balance).await, [0, 0, 100]);
    sleep(9 * SECOND + 15 * SECOND).await;
    assert_near(&percent(&balance).await, [50, 50, 0]);
    sleep(15 * SECOND).await;
    assert_near(&percent(&balance).await, [100, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_first_call_after_a_pause_sees_all_that_time_has_changed() {
    let balance = balance(&["p0", "p1", "s0"]);
    let handle = balance.handle();
    for (key, seconds) in [("p0", 60), ("p1", 62)] {
        handle.eject(key, seconds * SECOND);
    }
    assert_near(&percent(&balance).await, [0, 100, 0]);
    // Held until 70 s since the first one is back; with one of two it could have had up to 70 %.
    sleep(85 * SECOND).await;
    assert_eq!(shares(&handle), [50, 50], "a look");
    assert_near(&percent(&balance).await, [50, 50, 0]);
    sleep(100 * SECOND).await;
    assert_near(&percent(&balance).await, [100, 0, 0]);
    handle.eject("p0", 60 * SECOND);
    sleep(50 * SECOND).await;
    handle.eject("p1", SECOND);
    sleep(2 * SECOND).await;
    assert_near(&percent(&balance).await, [0, 100, 0]);
    sleep(8_900 * MS).await;
    assert_near(&percent(&balance).await, [0, 100, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_changes_after_a_pause_does_not_count_for_the_time_before() {
    let balance = balance(&["p0", "p1", "s0"]);
    let handle = balance.handle();
    handle.eject("p0", 10 * SECOND);
    handle.eject("p1", Duration::MAX);
    sleep(50 * SECOND).await;
    handle.restore("p1");
    assert_eq!(shares(&handle), [70, 30], "one was not back before");
    assert_near(&percent(&balance).await, [70, 30, 0]);
}

#[tokio::test(start_paused = true)]
async fn each_step_of_coming_back_is_seen_while_calls_go_on() {
    let balance = balance(&["p0", "s0"]);
    let handle = balance.handle();
    handle.eject("p0", SECOND);
    let mut seen = Vec::new();
    for _ in 0..44 {
        seen.push(percent(&balance).await.get(&'p').copied().unwrap_or(0));
        sleep(SECOND).await;
    }
    assert!(seen[..11].iter().all(|share| *share == 0), "{seen:?}");
    assert!(
        seen[12..41].windows(4).all(|four| four[0] < four[3]),
        "{seen:?}"
    );
    assert!(seen[41..].iter().all(|share| *share == 100), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn calls_do_not_go_to_and_fro_with_a_primary_that_comes_and_goes() {
    let balance = balance(&["p0", "p1", "s0"]);
    let handle = balance.handle();
    for _ in 0..20 {
        handle.eject("p0", 5 * SECOND);
        assert_near(&percent(&balance).await, [70, 30, 0]);
        sleep(10 * SECOND).await;
        assert_near(&percent(&balance).await, [70, 30, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn every_policy_chooses_within_the_group() {
    async fn run<P>(policy: P)
    where
        P: Choose<u32> + Clone + Send + Sync + 'static,
    {
        let config = Balance::config("search").seed(1).choose(policy);
        let mut endpoints = ALL.map(endpoint).to_vec();
        endpoints.push(Endpoint::new("p4", server("p4")).weight(8.0));
        endpoints.push(Endpoint::new("s2", server("s2")).weight(100.0).priority(1));
        let balance = config.build(endpoints).unwrap();
        let handle = balance.handle();
        assert_near(&percent(&balance).await, [100, 0, 0]);
        handle.eject("p4", 60 * SECOND);
        assert_near(&percent(&balance).await, [47, 53, 0]);
        for key in ["p0", "p1", "p2", "p3", "s0", "s1", "s2"] {
            handle.eject(key, 60 * SECOND);
        }
        assert_near(&percent(&balance).await, [0, 0, 100]);
    }
    run(PowerOfChoices).await;
    run(RoundRobin).await;
    run(WeightedRandom).await;
    run(LeastLoaded).await;
    run(ConsistentHash::by(|request: &u32| *request)).await;
}

/// Chooses the first, and says what it saw: the keys, and the greatest weight.
#[derive(Clone, Default)]
struct Spy(Arc<Mutex<Vec<(String, f64)>>>);

impl Choose<u32> for Spy {
    fn choose(&self, _: &u32, endpoints: &mut Endpoints<'_>) -> usize {
        let keys: String = (0..endpoints.len())
            .map(|place| endpoints.key(place))
            .collect();
        self.0.lock().unwrap().push((keys, endpoints.max_weight()));
        0
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_sees_one_group_and_no_other() {
    let spy = Spy::default();
    let config = Balance::config("search").choose(spy.clone());
    let endpoints = [endpoint("s0").weight(5.0), endpoint("p0"), endpoint("p1")];
    let balance = config.build(endpoints).unwrap();
    balance.clone().oneshot(1).await.unwrap();
    balance.handle().eject("p0", SECOND);
    balance.handle().eject("p1", SECOND);
    balance.clone().oneshot(1).await.unwrap();
    let seen = spy.0.lock().unwrap().clone();
    assert_eq!(seen, [("p0p1".to_owned(), 1.0), ("s0".to_owned(), 5.0)]);
}

/// Says what it was told to say.
#[derive(Clone, Default)]
struct Switch(Arc<AtomicBool>);

impl Switch {
    fn turn(&self, is_on: bool) {
        self.0.store(is_on, Ordering::Relaxed);
    }
}

impl Availability for Switch {
    fn is_available(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_not_available_counts_against_its_group_after_a_while() {
    let switches = [Switch::default(), Switch::default()];
    let mut endpoints = vec![endpoint("s0")];
    for (key, switch) in ["p0", "p1"].into_iter().zip(&switches) {
        switch.turn(true);
        endpoints.push(endpoint(key).available(switch.clone()));
    }
    let balance = Balance::config("search").seed(1).build(endpoints).unwrap();
    let handle = balance.handle();
    for _ in 0..5 {
        switches[0].turn(false);
        assert_near(&percent(&balance).await, [100, 0, 0]);
        sleep(900 * MS).await;
        switches[0].turn(true);
        assert_near(&percent(&balance).await, [100, 0, 0]);
        sleep(SECOND).await;
    }
    switches[0].turn(false);
    for _ in 0..6 {
        drop(percent(&balance).await);
        sleep(300 * MS).await;
    }
    assert_near(&percent(&balance).await, [70, 30, 0]);
    assert_eq!(handle.groups()[0].healthy, 0.5);
    switches[1].turn(false);
    assert_near(&percent(&balance).await, [0, 100, 0]);
    assert_eq!(shares(&handle), [70, 30], "though this takes a while");
    sleep(SECOND).await;
    drop(percent(&balance).await);
    sleep(SECOND).await;
    drop(percent(&balance).await);
    assert_eq!(shares(&handle), [0, 100]);
    for switch in &switches {
        switch.turn(true);
    }
    assert_near(&percent(&balance).await, [0, 100, 0]);
    sleep(SECOND).await;
    drop(percent(&balance).await);
    sleep(40 * SECOND).await;
    assert_near(&percent(&balance).await, [100, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_group_with_no_endpoint_to_offer_leaves_its_calls_to_the_others_at_once() {
    let breakers = ["p0", "p1"].map(CircuitBreakerLayer::new);
    let primaries = breakers.each_ref().map(|breaker| {
        let key = breaker.handle().name();
        Endpoint::new(
            key,
            Client::new(breaker.wrap(server(key)).map_err(Into::into)),
        )
        .available(breaker.handle())
    });
    let mut endpoints = primaries.to_vec();
    endpoints.extend(["s0", "f0"].map(endpoint));
    let balance = Balance::config("search").seed(1).build(endpoints).unwrap();
    for breaker in &breakers {
        breaker.handle().force_open();
    }
    assert_near(&percent(&balance).await, [0, 100, 0]);
    balance.handle().eject("s0", 60 * SECOND);
    assert_near(&percent(&balance).await, [0, 0, 100]);
    balance.handle().eject("f0", 60 * SECOND);
    breakers[1].handle().force_closed();
    assert_near(&percent(&balance).await, [100, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_the_only_primary_refuses_is_retried_at_the_standby() {
    let breaker = CircuitBreakerLayer::new("p0");
    let primary = Client::new(breaker.wrap(server("p0")).map_err(Into::into));
    let endpoints = [Endpoint::new("p0", primary), endpoint("s0")];
    let balance = Balance::config("search").seed(1).build(endpoints).unwrap();
    breaker.handle().force_open();
    let config = RetryLayer::config("search").backoff(Backoff::constant(MS));
    let client = config.build().unwrap().wrap(balance.clone());
    for _ in 0..300 {
        assert_eq!(client.clone().oneshot(1).await.unwrap(), "s0");
        sleep(10 * MS).await;
    }
    breaker.handle().force_closed();
    sleep(SECOND).await;
    assert_eq!(client.oneshot(1).await.unwrap(), "p0");
}

#[tokio::test(start_paused = true)]
async fn a_retry_and_a_hedge_go_to_the_next_group_if_this_one_has_no_other_endpoint() {
    let endpoints = [
        Endpoint::new("p0", down("p0")),
        endpoint("s0"),
        endpoint("f0"),
    ];
    let config = Balance::config("search").no_outlier_ejection();
    let balance = config.build(endpoints).unwrap();
    let retry = RetryLayer::config("search").backoff(Backoff::constant(MS));
    let client = retry.build().unwrap().wrap(balance);
    for _ in 0..10 {
        assert_eq!(client.clone().oneshot(1).await.unwrap(), "s0");
    }
    let hanging = Client::new(service_fn(|_| std::future::pending()));
    let endpoints = [Endpoint::new("p0", hanging), endpoint("s0")];
    let balance = Balance::config("search").build(endpoints).unwrap();
    let hedge = HedgeLayer::config("search").delay(10 * MS).build();
    let client = hedge.unwrap().wrap(balance);
    let answer = timeout(SECOND, client.oneshot(1)).await;
    assert_eq!(answer.expect("not where the first went").unwrap(), "s0");
}

#[tokio::test(start_paused = true)]
async fn the_few_that_are_in_are_overrun_only_if_no_other_group_can_help() {
    let balance = balance(&["p0", "p1", "p2", "p3", "s0", "s1"]);
    let handle = balance.handle();
    for key in ["p1", "p2", "p3"] {
        handle.eject(key, 60 * SECOND);
    }
    let is_selectable = |key| handle.endpoint(key).unwrap().is_selectable;
    assert!(is_selectable("p0") && !is_selectable("p1"), "no panic");
    handle.eject("s0", 60 * SECOND);
    assert!(!is_selectable("p1"), "all are enough: 35 % and 70 %");
    handle.eject("s1", 60 * SECOND);
    assert!(
        is_selectable("p1") && is_selectable("s0"),
        "panic in both groups"
    );
    assert_near(&percent(&balance).await, [100, 0, 0]);
    handle.restore("s0");
    handle.restore("s1");
    handle.eject("p0", 30 * SECOND);
    assert!(!is_selectable("p0"));
    assert_near(&percent(&balance).await, [0, 100, 0]);
    for key in ["s0", "s1"] {
        handle.eject(key, 60 * SECOND);
    }
    assert_near(&percent(&balance).await, [0, 100, 0]);
    sleep(31 * SECOND).await;
    assert_near(&percent(&balance).await, [100, 0, 0]);
}

/// Makes calls for so many seconds, 100 in each group of them.
async fn load<S: Service<u32, Error = Error> + Clone>(balance: &S, seconds: u32) {
    for _ in 0..seconds {
        for request in 0..100 {
            drop(balance.clone().oneshot(request).await);
        }
        sleep(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_group_is_judged_by_itself_and_keeps_half_of_its_endpoints() {
    let bad = |key| Endpoint::new(key, down(key));
    let mut endpoints = vec![bad("p0"), bad("p1")];
    endpoints.extend(["p2", "p3", "s0", "s1", "s2", "s3", "s4"].map(endpoint));
    let rule = OutlierEjection::new().consecutive_failures(3);
    let rule = rule.base_ejection_time(60 * SECOND);
    let config = Balance::config("search").outlier_ejection(rule);
    let config = config.choose(RoundRobin);
    let balance = config.build(endpoints).unwrap();
    let handle = balance.handle();
    for key in ["s0", "s1", "s2", "s3"] {
        handle.eject(key, Duration::MAX);
    }
    load(&balance, 5).await;
    let out = |group: char| {
        let all = handle.endpoints().into_iter();
        let out = all.filter(|one| one.state == EndpointState::Ejected);
        out.filter(|one| one.key.starts_with(group)).count()
    };
    assert_eq!(out('p'), 2, "those of the standby take up no room here");
    // All primaries fail, the others do not: at least half of each group stays in.
    let endpoints = ["p0", "p1", "p2", "p3"].map(|key| Endpoint::new(key, down(key)));
    for endpoint in endpoints {
        handle.add(endpoint).unwrap();
    }
    load(&balance, 20).await;
    assert_eq!(out('p'), 2);
}

#[tokio::test(start_paused = true)]
async fn a_standby_takes_over_when_health_checks_fail_and_the_primary_comes_back() {
    let sick = Arc::new(Mutex::new(Vec::new()));
    let endpoints = ["p0", "p1", "s0"].map(|key| {
        let sick = Arc::clone(&sick);
        let client = Client::new(service_fn(move |_| {
            let is_sick = sick.lock().unwrap().contains(&key);
            let answer = if is_sick {
                Err("down".into())
            } else {
                Ok(key.to_owned())
            };
            std::future::ready(answer)
        }));
        Endpoint::new(key, client).priority(u8::from(key == "s0"))
    });
    let config = Balance::config("search").seed(1).no_outlier_ejection();
    let check = HealthCheck::new(Ask::new(|| 0))
        .interval(SECOND)
        .fall(1)
        .rise(1);
    let balance = config
        .build(endpoints)
        .unwrap()
        .check_health(check)
        .unwrap();
    sleep(MS).await;
    assert_near(&percent(&balance).await, [100, 0, 0]);
    sick.lock().unwrap().extend(["p0", "p1"]);
    // Too few for the group to see that it fails.
    for request in 0..4 {
        balance.clone().oneshot(request).await.unwrap_err();
    }
    sleep(2 * SECOND).await;
    assert_near(&percent(&balance).await, [0, 100, 0]);
    assert_eq!(balance.handle().groups()[0].healthy, 0.0);
    assert!(balance.handle().endpoint("p0").unwrap().failure_share > 0.1);
    sick.lock().unwrap().clear();
    sleep(2 * SECOND).await;
    let status = balance.handle().endpoint("p0").unwrap();
    assert_eq!(status.failure_share, 0.0, "the probe shows that it works");
    sleep(8 * SECOND).await;
    assert_near(&percent(&balance).await, [0, 100, 0]);
    sleep(32 * SECOND).await;
    assert_near(&percent(&balance).await, [100, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn endpoints_come_and_go_and_change_their_priority() {
    let balance = balance(&["s0"]);
    let handle = balance.handle();
    assert_near(&percent(&balance).await, [0, 100, 0]);
    handle.add(endpoint("f0")).unwrap();
    handle.add(endpoint("p0")).unwrap();
    handle.add(endpoint("p1")).unwrap();
    assert_near(&percent(&balance).await, [100, 0, 0]);
    assert_eq!(shares(&handle), [100, 0, 0]);
    for key in ["p0", "s0", "f0", "p1"] {
        assert_eq!(&*handle.endpoint(key).unwrap().key, key);
        handle.reweigh(key, 2.0).unwrap();
    }
    handle.remove("p0");
    assert_near(&percent(&balance).await, [100, 0, 0]);
    handle.remove("p1");
    assert_near(&percent(&balance).await, [0, 100, 0]);
    handle
        .add(Endpoint::new("f0", server("f0")).priority(0))
        .unwrap();
    assert_near(&percent(&balance).await, [0, 100, 0]);
    sleep(25 * SECOND).await;
    assert_near(&percent(&balance).await, [0, 50, 50]);
    handle.remove("s0");
    assert_near(&percent(&balance).await, [0, 0, 100]);
    assert_eq!(shares(&handle), [100]);
    let odd = handle.add(Endpoint::new("x", server("x")).priority(8));
    assert_eq!(refused_field(odd), "priority");
}

#[tokio::test(start_paused = true)]
async fn priorities_are_discovered() {
    let list = |names: [&str; 2]| names.map(|name| (name.to_owned(), ())).to_vec();
    let (sender, receiver) = watch::channel(list(["s0", "p0"]));
    let source = Watch::new(receiver, |name: &String, ()| endpoint(name));
    let config = Balance::config("search").seed(1);
    let balance = config.discover_endpoints(source).unwrap();
    sleep(MS).await;
    assert_near(&percent(&balance).await, [100, 0, 0]);
    sender.send(list(["s0", "f0"])).unwrap();
    sleep(MS).await;
    assert_near(&percent(&balance).await, [0, 100, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_availability_of_endpoints_is_asked_without_a_lock() {
    /// Asks the balancer that asks it.
    struct Curious(Arc<Mutex<Option<Handle<Client>>>>);
    impl Availability for Curious {
        fn is_available(&self) -> bool {
            let handle = self.0.lock().unwrap().clone();
            handle.is_none_or(|handle| handle.groups().len() == 2 && handle.restore("p0"))
        }
    }
    let handle = Arc::default();
    let curious = endpoint("p0").available(Curious(Arc::clone(&handle)));
    let balance = Balance::new("search", [curious, endpoint("s0")]).unwrap();
    *handle.lock().unwrap() = Some(balance.handle());
    for _ in 0..5 {
        assert_near(&percent(&balance).await, [100, 0, 0]);
        sleep(SECOND).await;
    }
    *handle.lock().unwrap() = None;
}

#[tokio::test(start_paused = true)]
async fn with_a_seed_the_choices_repeat() {
    let run = || async {
        let balance = balance(&ALL);
        balance.handle().eject("p0", 60 * SECOND);
        balance.handle().eject("p1", 60 * SECOND);
        let mut names = String::new();
        for request in 0..500 {
            names += &balance.clone().oneshot(request).await.unwrap();
        }
        names
    };
    assert_eq!(run().await, run().await);
}

#[test]
fn a_failover_that_makes_no_sense_is_refused() {
    let config = |failover| Balance::config("search").failover(failover);
    let build = |config: Config| config.build([endpoint("p0")]);
    let new = Failover::new;
    assert_eq!(
        refused_field(build(config(new().overprovisioning_factor(0.9)))),
        "overprovisioning_factor"
    );
    assert_eq!(
        refused_field(build(config(new().failback_delay(Duration::MAX)))),
        "failback_delay"
    );
    assert_eq!(
        refused_field(build(config(new().failback_ramp(Duration::MAX)))),
        "failback_ramp"
    );
    let odd = Balance::new("search", [endpoint("p0").priority(8)]);
    assert_eq!(refused_field(odd), "priority");
    assert_ne!(config(new()), config(new().overprovisioning_factor(1.0)));
}

#[test]
fn the_share_of_each_group_is_reported_where_there_are_several() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let gauges = || {
        let rows = snapshotter.snapshot().into_iter();
        let rows = rows.filter(|(key, ..)| key.name() == "buttress_priority_share");
        let row = rows.map(|(key, value)| {
            let priority = key.labels().nth(1).unwrap().value().to_owned();
            match value {
                DebugValue::Gauge(share) => (priority, share),
                _ => panic!("a gauge"),
            }
        });
        row.collect::<BTreeMap<_, _>>()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let alone = Balance::new("grouped", [endpoint("p0")]).unwrap();
            alone.clone().oneshot(1).await.unwrap();
            assert_eq!(gauges(), BTreeMap::new(), "there is one group");
            drop(alone);
            let balance = Balance::new("grouped", ["p0", "p1", "f0"].map(endpoint)).unwrap();
            let handle = balance.handle();
            let now = |p, f| BTreeMap::from([("0".to_owned(), p), ("2".to_owned(), f)]);
            assert_eq!(gauges(), now(1.0, 0.0));
            handle.eject("p0", SECOND);
            let shares = gauges();
            assert!((shares["0"] - 0.7).abs() < 1e-9 && (shares["2"] - 0.3).abs() < 1e-9);
            sleep(100 * SECOND).await;
            balance.clone().oneshot(1).await.unwrap();
            assert_eq!(gauges(), now(1.0, 0.0));
            handle.remove("p0");
            handle.remove("p1");
            assert_eq!(gauges(), now(0.0, 1.0));
            drop((handle, balance));
            assert_eq!(gauges(), now(0.0, 0.0));
        });
    });
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_overloaded_is_left_alone_for_as_long_as_it_says() {
    let classify = classify_fn(|result: Result<&String, &Error>| match result {
        Ok(name) if name.ends_with("busy") => Outcome::Overload {
            retry_after: Some(20 * SECOND),
        },
        Ok(name) if name.ends_with("gone") => Outcome::Overload {
            retry_after: Some(Duration::MAX),
        },
        _ => Outcome::Success,
    });
    let build = |names: &[&str]| {
        let config = Balance::config("search").choose(RoundRobin);
        let config = config.no_outlier_ejection().classify(classify);
        config
            .build(names.iter().map(|name| endpoint(name)))
            .unwrap()
    };
    let counts = async |balance: &Balance<Client, RoundRobin, _>| {
        let mut counts = BTreeMap::<String, u32>::new();
        for request in 0..100 {
            let name = balance.clone().oneshot(request).await.unwrap();
            *counts.entry(name).or_default() += 1;
        }
        counts
    };
    let balance = build(&["p0 busy", "p1", "p2", "p3 gone", "s0"]);
    let seen = counts(&balance).await;
    assert_eq!([seen["p0 busy"], seen["p3 gone"]], [1, 1], "{seen:?}");
    sleep(19 * SECOND).await;
    let seen = counts(&balance).await;
    assert_eq!(seen.get("p0 busy"), None, "{seen:?}");
    sleep(2 * SECOND).await;
    let seen = counts(&balance).await;
    assert_eq!(seen["p0 busy"], 1, "{seen:?}");
    assert_eq!(seen.get("p3 gone"), None, "{seen:?}");
    sleep(280 * SECOND).await;
    let seen = counts(&balance).await;
    assert_eq!(seen["p3 gone"], 1, "not for ever");

    let busy = build(&["p0 busy", "p1 busy", "p2 busy", "s0"]);
    let seen = counts(&busy).await;
    assert_eq!(seen.get("s0"), None, "not at once");
    let counts_of_busy = ["p0 busy", "p1 busy", "p2 busy"].map(|key| seen[key]);
    let still = counts_of_busy.iter().filter(|count| **count > 1).count();
    assert_eq!(still, 2, "only half of a group is left alone: {seen:?}");
    sleep(SECOND).await;
    let seen = counts(&busy).await;
    assert!(seen["s0"] > 0, "a group that refuses all calls is down");
    let alone = build(&["p0 busy"]);
    assert_eq!(counts(&alone).await["p0 busy"], 100);
}

/// An endpoint that works until its switch is turned on, and then ends its calls by `wrong`.
fn breakable<F>(name: &str, switch: &Switch, wrong: fn() -> F) -> Endpoint<Client>
where
    F: Future<Output = Result<String, BoxError>> + Send + 'static,
{
    let (switch, key) = (switch.clone(), name.to_owned());
    let service = Client::new(service_fn(move |_| {
        let (is_broken, key) = (switch.is_available(), key.clone());
        async move { if is_broken { wrong().await } else { Ok(key) } }
    }));
    Endpoint::new(name, service).priority(u8::from(!name.starts_with('p')))
}

async fn refuse() -> Result<String, BoxError> {
    Err("connection refused".into())
}

/// Begins so many calls, one each 10 ms, and drops those that take 5 s.
async fn begin_calls(balance: &Balance<Client>, calls: u32) {
    for request in 0..calls {
        let call = timeout(5 * SECOND, balance.send(request));
        tokio::spawn(async move { drop(call.await) });
        sleep(10 * MS).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_fails_or_hangs_loses_its_calls_without_a_health_check() {
    async fn run<F>(wrong: fn() -> F)
    where
        F: Future<Output = Result<String, BoxError>> + Send + 'static,
    {
        let switch = Switch::default();
        let mut endpoints = ["p0", "p1", "p2"]
            .map(|name| breakable(name, &switch, wrong))
            .to_vec();
        endpoints.push(endpoint("s0"));
        let balance = Balance::config("search").seed(1).build(endpoints).unwrap();
        let handle = balance.handle();
        begin_calls(&balance, 100).await;
        assert_eq!(shares(&handle), [100, 0]);
        switch.turn(true);
        begin_calls(&balance, 80).await;
        assert_eq!(shares(&handle), [0, 100]);
        switch.turn(false);
        begin_calls(&balance, 5_500).await;
        assert_eq!(shares(&handle), [100, 0]);
    }
    run(refuse).await;
    run(std::future::pending).await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_between_calls_beside_a_few_long_ones_is_no_hang() {
    let slow = |name: &'static str| {
        let service = service_fn(move |request: u32| async move {
            sleep(if request == 0 { 30 * SECOND } else { 20 * MS }).await;
            Ok(name.to_owned())
        });
        Endpoint::new(name, Client::new(service)).priority(u8::from(!name.starts_with('p')))
    };
    let config = Balance::config("search").choose(RoundRobin);
    let balance = config.build(["p0", "p1", "s0"].map(slow)).unwrap();
    let begin = |request| {
        let balance = balance.clone();
        tokio::spawn(async move { balance.send(request).await.unwrap() })
    };
    let long: Vec<_> = (0..6).map(|_| begin(0)).collect();
    for _ in 0..5 {
        let burst: Vec<_> = (0..24).map(|_| begin(1)).collect();
        for call in burst {
            assert_ne!(call.await.unwrap(), "s0");
        }
        sleep(5 * SECOND).await;
    }
    assert!(long.iter().all(|call| !call.is_finished()));
    assert_eq!(shares(&balance.handle()), [100, 0]);
}

#[tokio::test(start_paused = true)]
async fn errors_by_chance_move_no_calls_of_a_small_group() {
    let random = Arc::new(Mutex::new(SmallRng::seed_from_u64(1)));
    let fails_some = |name: &'static str| {
        let random = Arc::clone(&random);
        let service = service_fn(move |_| {
            let fails = random.lock().unwrap().random::<f64>() < 0.1;
            async move {
                sleep(5 * MS).await;
                if fails {
                    refuse().await
                } else {
                    Ok(name.to_owned())
                }
            }
        });
        Endpoint::new(name, Client::new(service)).priority(u8::from(!name.starts_with('p')))
    };
    let endpoints = ["p0", "p1", "s0", "s1"].map(fails_some);
    let balance = Balance::config("search").seed(1).build(endpoints).unwrap();
    for request in 0..20_000 {
        let call = balance.send(request);
        tokio::spawn(async move { drop(call.await) });
        sleep(5 * MS).await;
        assert_eq!(shares(&balance.handle()), [100, 0], "{request}");
    }
}

#[tokio::test(start_paused = true)]
async fn further_attempts_of_requests_that_fail_everywhere_move_no_calls() {
    let fails_some = |name: &'static str| {
        let service = service_fn(move |request: u32| async move {
            if request % 2 == 0 {
                return refuse().await;
            }
            Ok(name.to_owned())
        });
        Endpoint::new(name, Client::new(service)).priority(u8::from(!name.starts_with('p')))
    };
    let endpoints = ["p0", "p1", "p2", "s0"].map(fails_some);
    let balance = Balance::config("search").seed(1).build(endpoints).unwrap();
    let retry = RetryLayer::config("search").backoff(Backoff::constant(MS));
    let client = retry.no_budget().build().unwrap().wrap(balance.clone());
    for request in 0..3_000 {
        drop(client.clone().oneshot(request).await);
        sleep(10 * MS).await;
        // Of three attempts of such a request, each fails: counted alike they would be 75 %.
        assert!(shares(&balance.handle())[0] >= 90, "{request}");
    }
    let endpoints = balance.handle().endpoints().into_iter();
    assert_eq!(endpoints.map(|endpoint| endpoint.ejections).sum::<u32>(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_goes_to_another_group_that_is_no_standby_if_its_own_has_failed_a_fifth() {
    for (is_standby, is_discovered) in [(false, false), (true, false), (false, true), (true, true)]
    {
        let fails_some = |name: &'static str| {
            let service = service_fn(move |request: u32| async move {
                if name != "s0" && request % 3 == 0 {
                    return refuse().await;
                }
                Ok(name.to_owned())
            });
            Endpoint::new(name, Client::new(service)).priority(u8::from(name == "s0"))
        };
        // One of four that works is enough.
        let config = Balance::config("search").seed(1);
        let config = config.failover(Failover::new().overprovisioning_factor(10.0));
        let names = ["p0", "p1", "p2", "p3", "s0"];
        let balance = if is_discovered {
            let (list, targets) =
                watch::channel(names.map(|name| (name, Target::new(name))).to_vec());
            let source = Watch::new(targets, move |_: &&str, name: &&'static str| {
                fails_some(name)
            });
            let balance = config.discover_endpoints(source).unwrap();
            sleep(MS).await;
            if is_standby {
                list.send_modify(|list| list[4].1.standby = true);
                sleep(MS).await;
            }
            balance
        } else {
            let mut endpoints = names.map(fails_some);
            if is_standby {
                endpoints[4] = endpoints[4].clone().standby();
            }
            config.build(endpoints).unwrap()
        };
        let retry = RetryLayer::config("search").backoff(Backoff::constant(MS));
        let client = retry.no_budget().build().unwrap().wrap(balance.clone());
        for request in 0..300 {
            let result = client.clone().oneshot(request).await;
            match request % 3 {
                0 if request < 30 => {}
                0 if is_standby => drop(result.unwrap_err()),
                0 => assert_eq!(result.unwrap(), "s0"),
                _ => assert!(result.unwrap().starts_with('p')),
            }
            sleep(10 * MS).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn if_all_groups_are_down_calls_go_where_they_went_last() {
    let balance = balance(&["p0", "s0", "f0"]);
    let handle = balance.handle();
    for (key, expected) in [
        ("p0", [0, 100, 0]),
        ("s0", [0, 0, 100]),
        ("f0", [0, 0, 100]),
    ] {
        handle.eject(key, 60 * SECOND);
        assert_near(&percent(&balance).await, expected);
    }
    handle.restore("s0");
    assert_near(&percent(&balance).await, [0, 100, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_threshold_of_panic_can_be_set() {
    for (threshold, is_panic) in [(50, true), (26, true), (25, false), (0, false)] {
        let config = Balance::config("search").panic_threshold(threshold);
        let balance = config
            .build(["p0", "p1", "p2", "p3"].map(endpoint))
            .unwrap();
        let handle = balance.handle();
        for key in ["p1", "p2", "p3"] {
            handle.eject(key, 60 * SECOND);
        }
        let is_selectable = handle.endpoint("p1").unwrap().is_selectable;
        assert_eq!(is_selectable, is_panic, "{threshold}");
    }
    let refused = Balance::config("search").panic_threshold(101);
    assert_eq!(
        refused_field(refused.build([endpoint("p0")])),
        "panic_threshold"
    );
}
