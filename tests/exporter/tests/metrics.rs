//! What a recorder gets to see.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

#[path = "../../stack/mod.rs"]
mod stack;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::future::pending;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use buttress::balance::{Ask, Endpoint, HealthCheck, LeastLoaded, OutlierEjection, RoundRobin};
use buttress::circuit_breaker::{self, Handle, State};
use buttress::discover::Watch;
use buttress::event::EventKind;
use buttress::{
    Backoff, Balance, BoxError, Budget, BulkheadLayer, ByClone, CircuitBreakerLayer, Classify,
    Deadline, DeadlineLayer, Error, ErrorsAreFailures, FallbackLayer, HedgeLayer, Jitter,
    KeyedLayer, MeasureLayer, Mode, Outcome, Pushback, Rate, RateLimitLayer, Replay, RetryLayer,
    TimeoutLayer, bulkhead, fallback, hedge, metrics_list, rate_limit, retry, standard,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use metrics_util::debugging::DebuggingRecorder;
use stack::stack;
use tokio::task::JoinSet;
use tokio::time::{advance, sleep, timeout};
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// Answers a request with the word that it is.
async fn echo(word: &'static str) -> Result<&'static str, BoxError> {
    match word {
        "hangs" => pending().await,
        "slow" => sleep(2 * SECOND).await,
        _ => {}
    }
    Ok(word)
}

/// Judges answers by their word, and copies requests unless their word forbids it.
#[derive(Clone, Copy)]
struct ByWord;

impl Classify<&'static str> for ByWord {
    fn classify(&self, result: Result<&&'static str, &Error>) -> Outcome {
        match result {
            Ok(&("ok" | "slow")) => Outcome::Success,
            Ok(&"ignored") => Outcome::Ignored,
            Ok(&"overload") => Outcome::Overload { retry_after: None },
            _ => Outcome::Failure,
        }
    }

    fn pushback(&self, result: Result<&&'static str, &Error>) -> Option<Pushback> {
        match result {
            Ok(&"overload") => Some(Pushback::RetryAfter(60 * SECOND)),
            Ok(&"pushback") => Some(Pushback::DoNotRetry),
            Ok(&"tomorrow") => Some(Pushback::RetryAfter(Duration::MAX)),
            _ => None,
        }
    }
}

impl Replay<&'static str> for ByWord {
    fn copy(&self, word: &&'static str) -> Option<&'static str> {
        Some(*word).filter(|word| *word != "not copyable")
    }

    fn is_idempotent(&self, word: &&'static str) -> bool {
        *word != "not idempotent"
    }
}

/// The name of the layers that are to report everything.
const NAME: &str = "inventory";

fn breaker() -> circuit_breaker::Config<ByWord> {
    CircuitBreakerLayer::config(NAME).classify(ByWord)
}

/// A breaker that rejects everything, or would.
fn open_breaker(mode: Mode) -> CircuitBreakerLayer<ByWord> {
    let layer = breaker().mode(mode).build().unwrap();
    layer.handle().force_open();
    layer
}

async fn every_retry_decision() {
    let config = || {
        RetryLayer::config(NAME)
            .replay(ByWord)
            .classify(ByWord)
            .backoff(Backoff::constant(SECOND).jitter(Jitter::None))
    };
    let with =
        |config: retry::Config<ByWord, ByWord>| config.build().unwrap().layer(service_fn(echo));
    for word in [
        "fails",
        "overload",
        "ignored",
        "pushback",
        "tomorrow",
        "not copyable",
        "not idempotent",
    ] {
        with(config()).oneshot(word).await.unwrap();
    }
    let empty = Budget::config(NAME).initial(0).build().unwrap();
    with(config().budget(&empty))
        .oneshot("fails")
        .await
        .unwrap();

    let soon = Deadline::after(SECOND / 2);
    soon.scope(with(config()).oneshot("fails")).await.unwrap();
    let over = Deadline::after(Duration::ZERO);
    over.scope(with(config()).oneshot("ok")).await.unwrap_err();

    let outer = config().build().unwrap();
    outer.layer(with(config())).oneshot("fails").await.unwrap();
    let rejecting = open_breaker(Mode::Enforce).layer(service_fn(echo));
    outer.layer(rejecting).oneshot("ok").await.unwrap_err();
}

async fn every_change_of_a_breaker() {
    let share = breaker().build().unwrap();
    let service = share.layer(service_fn(echo));
    for _ in 0..20 {
        service.clone().oneshot("fails").await.unwrap();
    }
    sleep(3 * SECOND).await;
    service.clone().oneshot("fails").await.unwrap();
    sleep(3 * SECOND).await;
    for _ in 0..5 {
        service.clone().oneshot("ok").await.unwrap();
    }
    assert_eq!(share.handle().state(), State::Closed);

    let in_a_row = breaker().consecutive_failures(1).build().unwrap();
    in_a_row
        .layer(service_fn(echo))
        .oneshot("fails")
        .await
        .unwrap();

    let slow = breaker()
        .slow_calls(SECOND, 0.5)
        .min_calls(3)
        .build()
        .unwrap();
    for _ in 0..3 {
        slow.layer(service_fn(echo)).oneshot("slow").await.unwrap();
    }

    let observed = open_breaker(Mode::Observe);
    observed
        .layer(service_fn(echo))
        .oneshot("ok")
        .await
        .unwrap();
    observed.handle().reset();
}

async fn every_end_of_a_call() {
    let deadline = DeadlineLayer::new(NAME, SECOND).layer(service_fn(echo));
    deadline.clone().oneshot("hangs").await.unwrap_err();
    let over = Deadline::after(Duration::ZERO);
    over.scope(deadline.oneshot("ok")).await.unwrap_err();
    let attempt = TimeoutLayer::new(NAME, SECOND).layer(service_fn(echo));
    attempt.oneshot("hangs").await.unwrap_err();
    let all = standard(NAME).no_circuit_breaker().no_measure().unlimited();
    let all = all.response_timeout(SECOND).no_timeout();
    let all = all.classify(ByWord).replay(ByWord).build().unwrap();
    let all = all.layer(service_fn(echo));
    all.clone().oneshot("hangs").await.unwrap_err();
    all.oneshot("overload").await.unwrap();

    let measured = standard(NAME).no_circuit_breaker().unlimited().no_retry();
    let measured = measured.timeout(SECOND).classify(ByWord).build().unwrap();
    let measured = measured.layer(service_fn(echo));
    measured.oneshot("hangs").await.unwrap_err();
    let observed = standard(NAME).no_circuit_breaker().unlimited().no_retry();
    let observed = observed.timeout(SECOND).timeout_mode(Mode::Observe);
    let observed = observed.build().unwrap().layer(service_fn(echo));
    observed.oneshot("slow").await.unwrap();
    for measure in [MeasureLayer::operation(NAME), MeasureLayer::attempt(NAME)] {
        let measure = measure.classify(ByWord);
        let service = measure.layer(service_fn(echo));
        for word in ["ok", "fails", "overload", "ignored"] {
            service.clone().oneshot(word).await.unwrap();
        }
        timeout(SECOND, service.oneshot("hangs")).await.unwrap_err();
        let rejecting = open_breaker(Mode::Enforce).layer(service_fn(echo));
        measure.layer(rejecting).oneshot("ok").await.unwrap_err();
    }
}

async fn every_end_of_a_wait_for_tokens() {
    let build = |set: &dyn Fn(rate_limit::Config) -> rate_limit::Config| {
        set(RateLimitLayer::config(NAME, Rate::per_second(1)).burst(1))
            .cost(|word: &&'static str| if *word == "costly" { 2 } else { 1 })
            .build()
            .unwrap()
    };
    for mode in [Mode::Enforce, Mode::Observe] {
        let service = build(&|limit| limit.mode(mode)).layer(service_fn(echo));
        for word in ["ok", "ok", "costly"] {
            drop(service.clone().oneshot(word).await);
        }
    }
    let service = build(&|limit| limit.max_wait(10 * SECOND)).layer(service_fn(echo));
    for _ in 0..2 {
        service.clone().oneshot("ok").await.unwrap();
    }
    timeout(SECOND / 2, service.clone().oneshot("ok"))
        .await
        .unwrap_err();
    // Which has its place, and then less time than it thought.
    let mut waits = tokio_test::task::spawn(Box::pin(service.oneshot("ok")));
    assert!(waits.poll().is_pending());
    let over = Deadline::after(Duration::ZERO);
    over.scope(waits.into_inner()).await.unwrap_err();
}

async fn every_end_of_a_wait_for_a_permit() {
    let build = |set: fn(bulkhead::Config) -> bulkhead::Config| {
        let layer = set(BulkheadLayer::config(NAME, 1)).build().unwrap();
        layer.layer(service_fn(echo))
    };
    for service in [
        build(|limit| limit),
        build(|limit| limit.mode(Mode::Observe)),
    ] {
        let mut held = tokio_test::task::spawn(service.clone().oneshot("hangs"));
        assert!(held.poll().is_pending());
        drop(service.oneshot("ok").await);
    }
    let service = build(|limit| limit.queue(1));
    let mut held = tokio_test::task::spawn(service.clone().oneshot("hangs"));
    assert!(held.poll().is_pending());
    service.clone().oneshot("ok").await.unwrap_err();
    let soon = Deadline::after(SECOND / 100);
    soon.scope(service.clone().oneshot("ok")).await.unwrap_err();
    let soon = timeout(SECOND / 100, service.clone().oneshot("ok"));
    soon.await.unwrap_err();
    let mut waits = tokio_test::task::spawn(service.oneshot("ok"));
    assert!(waits.poll().is_pending());
    drop(held);
    waits.await.unwrap();
}

async fn every_end_of_a_hedge() {
    let build = |set: &dyn Fn(hedge::Config) -> hedge::Config| {
        let config = set(HedgeLayer::config(NAME).delay(SECOND));
        config.classify(ByWord).build().unwrap()
    };
    let counted = || {
        let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
        service_fn(move |words: [&'static str; 2]| {
            let call = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            echo(words[call as usize % 2])
        })
    };
    let with = |words| build(&|hedge| hedge).layer(counted()).oneshot(words);
    with(["hangs", "ok"]).await.unwrap();
    with(["slow", "hangs"]).await.unwrap();
    with(["slow", "fails"]).await.unwrap();
    let empty = Budget::config(NAME).initial(0).build().unwrap();
    let denied = build(&|hedge| hedge.budget(&empty));
    denied
        .layer(service_fn(echo))
        .oneshot("slow")
        .await
        .unwrap();
    let slowed = build(&|hedge| hedge.delay(SECOND / 2).slowdown(1.0 + f64::EPSILON));
    let service = slowed.layer(service_fn(async |takes: u64| {
        sleep(Duration::from_millis(takes)).await;
        Ok::<_, BoxError>("ok")
    }));
    for _ in 0..300 {
        service.clone().oneshot(10).await.unwrap();
    }
    for takes in [400, 400, 600] {
        let calls = (0..40).map(|_| service.clone().oneshot(takes));
        for result in calls.collect::<JoinSet<_>>().join_all().await {
            result.unwrap();
        }
    }
}

async fn every_event_of_a_key() {
    let keys = |most| {
        KeyedLayer::config(
            NAME,
            |word: &&'static str| (*word).to_owned(),
            |_: &String| BulkheadLayer::new(NAME, 5),
        )
        .max_keys(most)
        .max_key_size(5)
        .idle(SECOND)
        .build()
        .unwrap()
    };
    let layer = keys(1);
    let service = layer.layer(service_fn(echo));
    service.clone().oneshot("ok").await.unwrap();
    let mut held = tokio_test::task::spawn(service.clone().oneshot("hangs"));
    assert!(held.poll().is_pending());
    service.clone().oneshot("ok").await.unwrap();
    drop(held);
    assert!(layer.handle().remove(&"hangs".to_owned()));
    service.clone().oneshot("too long").await.unwrap();
    service.clone().oneshot("ok").await.unwrap();
    advance(2 * SECOND).await;
    service.clone().oneshot("fails").await.unwrap();
}

async fn every_end_of_a_fallback() {
    let failing =
        || service_fn(async |_: &'static str| Err::<&'static str, BoxError>("down".into()));
    let value = FallbackLayer::new(NAME, fallback::value("unknown"));
    value.layer(failing()).oneshot("ok").await.unwrap();
    let none = FallbackLayer::new(NAME, fallback::from_failure(|_| None::<&'static str>));
    none.layer(failing()).oneshot("ok").await.unwrap_err();
    let second = |replay: ByWord| {
        FallbackLayer::config(NAME, fallback::service(failing()))
            .replay(replay)
            .build()
            .unwrap()
    };
    let service = second(ByWord).layer(failing());
    service.clone().oneshot("ok").await.unwrap_err();
    service.clone().oneshot("not copyable").await.unwrap_err();
    let over = Deadline::after(Duration::ZERO);
    over.scope(service.oneshot("ok")).await.unwrap_err();
}

async fn every_change_of_a_balancer() {
    let (_list, list) = tokio::sync::watch::channel(vec![(0_u8, 0_u8)]);
    let found = Watch::new(list, |_: &u8, _: &u8| service_fn(echo));
    let found = Balance::config(NAME).discover(found).unwrap();
    let found = found.check_health(HealthCheck::new(Ask::new(|| "ok")));
    found.unwrap().oneshot("ok").await.unwrap();

    let endpoint = |key: u8| Endpoint::new(key, service_fn(echo));
    let groups = (0..8).map(|key| endpoint(key).priority(key));
    let groups = Balance::new(NAME, groups).unwrap();
    let handle = groups.handle();
    handle.eject("1", SECOND);
    for key in 0..8_u8 {
        handle.remove(&key.to_string());
    }
    groups.oneshot("ok").await.unwrap_err();

    for mode in [Mode::Enforce, Mode::Observe] {
        for rule in [
            OutlierEjection::new(),
            OutlierEjection::new().consecutive_failures(1),
        ] {
            let broken = service_fn(|_| async { Err("broken".into()) });
            let broken = Endpoint::new("2", BoxCloneSyncService::new(broken));
            let well = |key: u8| Endpoint::new(key, BoxCloneSyncService::new(service_fn(echo)));
            let config = Balance::config(NAME).outlier_ejection(rule.mode(mode));
            let config = config.choose(RoundRobin);
            let balance = config.build([well(0), well(1), broken]).unwrap();
            for _ in 0..61 {
                // It fails where it was broken on purpose.
                drop(balance.clone().oneshot("ok").await);
                sleep(SECOND / 5).await;
            }
        }
    }
}

async fn every_end_of_a_call_to_an_endpoint() {
    let breaker = open_breaker(Mode::Enforce);
    let endpoint = Endpoint::new("a", BoxCloneSyncService::new(service_fn(echo)));
    let refusing = breaker.layer(service_fn(echo)).map_err(BoxError::from);
    let refusing = BoxCloneSyncService::new(refusing);
    let config = || {
        let config = Balance::config(NAME).endpoint_metrics(1).classify(ByWord);
        config.choose(LeastLoaded)
    };
    let balance = config().build([endpoint]).unwrap();
    for word in ["ok", "fails", "overload", "ignored"] {
        balance.clone().oneshot(word).await.unwrap();
    }
    timeout(SECOND, balance.clone().oneshot("hangs"))
        .await
        .unwrap_err();
    let handle = balance.handle();
    handle.add(Endpoint::new("a", refusing.clone())).unwrap();
    balance.clone().oneshot("ok").await.unwrap_err();
    handle.add(Endpoint::new("b", refusing)).unwrap();
    handle.remove("a");
    balance.oneshot("ok").await.unwrap_err();
}

/// The contract with dashboards and alerts: type and unit, name, and all values of all labels.
const METRICS: &str = "
counter buttress_breaker_openings_total name=inventory
gauge buttress_breaker_state name=inventory state=closed,half_open,open
counter buttress_breaker_transitions_total cause=consecutive_failures,failure_share,forced,\
    open_time_over,probes_failed,probes_succeeded,reset,slow_calls name=inventory \
    to=closed,half_open,open
gauge buttress_budget_capacity name=inventory
gauge buttress_budget_tokens name=inventory
histogram/s buttress_call_duration_seconds name=inventory \
    outcome=cancelled,failure,ignored,overload,rejected,success,timeout stage=attempt,operation
counter buttress_calls_total name=inventory \
    outcome=cancelled,failure,ignored,overload,rejected,success,timeout stage=attempt,operation
gauge buttress_discovery_running name=inventory
counter buttress_ejections_total method=consecutive_failures,leave_one_out mode=enforce,observe \
    name=inventory
counter buttress_endpoint_calls_total endpoint=a,other name=inventory \
    outcome=cancelled,failure,ignored,overload,rejected,success
gauge buttress_endpoint_in_flight endpoint=a,other name=inventory
gauge/s buttress_endpoint_latency_seconds endpoint=a,other name=inventory
gauge buttress_endpoint_ready endpoint=a,other name=inventory
gauge buttress_endpoints name=inventory state=ejected,ready,slow_start,unhealthy
counter buttress_fallbacks_total name=inventory result=answered,deadline,failed,no_answer,not_copyable
gauge buttress_health_check_running name=inventory
gauge/s buttress_hedge_delay_seconds name=inventory
counter buttress_hedges_total name=inventory \
    result=denied_budget,denied_slowdown,failed,lost,won
gauge buttress_in_flight layer=bulkhead name=inventory
counter buttress_key_events_total event=added,evicted,expired,overflowed,oversized,removed name=inventory
gauge buttress_keys name=inventory
gauge buttress_limit layer=bulkhead name=inventory
gauge buttress_priority_share name=inventory priority=0,1,2,3,4,5,6,7
gauge buttress_queue_depth layer=bulkhead,rate_limit name=inventory
histogram/s buttress_queue_wait_seconds layer=bulkhead,rate_limit name=inventory \
    result=admitted,cancelled,deadline,rejected,timeout
gauge buttress_rate_limit_burst name=inventory
gauge buttress_rate_limit_per_second name=inventory
gauge buttress_rate_limit_tokens name=inventory
counter buttress_rejections_total layer=balance,bulkhead,circuit_breaker,deadline,rate_limit,retry \
    mode=enforce,observe name=inventory reason=bulkhead_full,circuit_open,deadline_exceeded,\
    no_endpoints,queue_timeout,rate_limited,too_costly
counter buttress_retry_decisions_total decision=budget,deadline,exhausted,nested,not_copyable,\
    not_idempotent,not_retryable,pushback,rejected,response_timeout,retried,retry_after \
    name=inventory
histogram/s buttress_retry_delay_seconds name=inventory source=backoff,retry_after
gauge/s buttress_timeout_seconds layer=deadline,response_timeout,timeout name=inventory
counter buttress_timeouts_total layer=deadline,response_timeout,timeout mode=enforce,observe \
    name=inventory
";

#[tokio::test(start_paused = true)]
async fn every_metric_has_its_documented_name_type_and_labels_and_no_others() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    every_retry_decision().await;
    every_change_of_a_breaker().await;
    every_end_of_a_call().await;
    every_end_of_a_wait_for_tokens().await;
    every_end_of_a_wait_for_a_permit().await;
    every_end_of_a_hedge().await;
    every_event_of_a_key().await;
    every_end_of_a_fallback().await;
    every_change_of_a_balancer().await;
    every_end_of_a_call_to_an_endpoint().await;

    let list = metrics_list().iter();
    let helps: BTreeMap<_, _> = list.map(|metric| (metric.name, metric.help)).collect();
    let mut labels = BTreeMap::<_, BTreeMap<_, BTreeSet<_>>>::new();
    for (key, unit, description, _) in recorder.snapshotter().snapshot().into_vec() {
        let kind = format!("{:?}", key.kind()).to_lowercase();
        let unit = unit.map_or(String::new(), |unit| {
            format!("/{}", unit.as_canonical_label())
        });
        let (name, series) = key.key().clone().into_parts();
        assert_eq!(
            description.as_deref(),
            helps.get(name.as_str()).copied(),
            "{name:?}"
        );
        let labels = labels.entry((name, kind + &unit)).or_default();
        for label in series {
            let (key, value) = label.into_parts();
            labels.entry(key).or_default().insert(value.to_string());
        }
    }
    let mut seen = String::from("\n");
    for ((name, kind), labels) in labels {
        write!(seen, "{kind} {}", name.as_str()).unwrap();
        for (key, values) in labels {
            let values: Vec<_> = values.into_iter().collect();
            write!(seen, " {key}={}", values.join(",")).unwrap();
        }
        seen.push('\n');
    }
    assert_eq!(seen, METRICS, "\n{seen}");
}

#[test]
fn the_table_has_every_metric_with_its_labels_and_no_others() {
    let of_table = metrics_list().iter().map(|metric| {
        let labels = BTreeSet::from_iter([&["name"], metric.labels].concat());
        let unit = if metric.name.ends_with("_seconds") {
            "/s"
        } else {
            ""
        };
        let kind = format!("{:?}{unit}", metric.kind).to_lowercase();
        (metric.name, kind, labels)
    });
    let lines = METRICS.lines().filter(|line| !line.is_empty());
    let recorded = lines.map(|line| {
        let mut words = line.split(' ');
        let (kind, name) = (words.next().unwrap(), words.next().unwrap());
        let labels = words.map(|label| label.split_once('=').unwrap().0);
        (name, kind.to_owned(), labels.collect())
    });
    assert_eq!(of_table.collect::<BTreeSet<_>>(), recorded.collect());
    assert_eq!(
        metrics_list().len(),
        METRICS.trim().lines().count(),
        "each once"
    );
}

#[test]
fn the_guide_lists_the_table() {
    let page = include_str!("../../../src/guide/metrics.md");
    let (_, rows) = page.split_once("\n|---|---|\n").unwrap();
    let (rows, _) = rows.split_once("\n\n").unwrap();
    let listed = rows.split('`').skip(1).step_by(2);
    let table = metrics_list().iter().map(|metric| match metric.labels {
        [] => metric.name.to_owned(),
        labels => format!("{}{{{}}}", metric.name, labels.join(",")),
    });
    let table: Vec<_> = table.collect();
    let listed: Vec<_> = listed.map(str::to_owned).collect();
    assert_eq!(BTreeSet::from_iter(&listed), BTreeSet::from_iter(&table));
    assert_eq!(listed.len(), table.len(), "each once");
}

/// The pages that say which metrics there are.
const PAGES: [&str; 11] = [
    include_str!("../../../src/balance/mod.rs"),
    include_str!("../../../src/budget/mod.rs"),
    include_str!("../../../src/bulkhead/mod.rs"),
    include_str!("../../../src/circuit_breaker/mod.rs"),
    include_str!("../../../src/fallback/mod.rs"),
    include_str!("../../../src/hedge/mod.rs"),
    include_str!("../../../src/keyed/mod.rs"),
    include_str!("../../../src/measure/mod.rs"),
    include_str!("../../../src/rate_limit/mod.rs"),
    include_str!("../../../src/retry/mod.rs"),
    include_str!("../../../src/timeout/mod.rs"),
];

#[test]
fn the_pages_name_every_metric_and_each_of_its_labels_and_no_others() {
    let named_in = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| c != '_' && !c.is_ascii_lowercase());
        words
            .filter(|word| word.starts_with("buttress_"))
            .map(str::to_owned)
            .collect()
    };
    let pages = PAGES.concat();
    let docs: Vec<_> = pages
        .lines()
        .filter(|line| line.starts_with("//!"))
        .collect();
    assert_eq!(named_in(&docs.join("\n")), named_in(METRICS));
    for metric in METRICS.lines().filter(|line| !line.is_empty()) {
        let (name, labels) = metric.split_once(' ').unwrap().1.split_once(' ').unwrap();
        let rows: Vec<_> = docs.iter().filter(|line| line.contains(name)).collect();
        for label in labels.split(' ') {
            let (label, _values) = label.split_once('=').unwrap();
            let is_named = rows.iter().any(|row| row.contains(label));
            assert!(is_named, "{label} of {name}");
        }
    }
}

/// As many calls as it takes until the budget has published its gauges.
const CALLS: usize = 16;

fn prometheus() -> PrometheusBuilder {
    PrometheusBuilder::new().set_buckets(&[1.0]).unwrap()
}

/// All samples that an exporter shows, in the order of the alphabet.
fn samples(exporter: &PrometheusHandle) -> Vec<String> {
    let text = exporter.render();
    let lines = text.lines().filter(|line| !line.is_empty());
    let mut samples: Vec<_> = lines
        .filter(|line| !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    samples.sort();
    samples
}

/// The samples of the full stack after these successful calls.
fn samples_of(calls: usize, name: &str, tokens: u32) -> Vec<String> {
    let samples = format!(
        r#"buttress_breaker_openings_total{{name="NAME"}} 0
buttress_breaker_state{{name="NAME",state="closed"}} 1
buttress_breaker_state{{name="NAME",state="half_open"}} 0
buttress_breaker_state{{name="NAME",state="open"}} 0
buttress_budget_capacity{{name="NAME"}} 100
buttress_budget_tokens{{name="NAME"}} {tokens}
buttress_call_duration_seconds_bucket{{name="NAME",stage="attempt",outcome="success",le="+Inf"}} {calls}
buttress_call_duration_seconds_bucket{{name="NAME",stage="attempt",outcome="success",le="1"}} {calls}
buttress_call_duration_seconds_bucket{{name="NAME",stage="operation",outcome="success",le="+Inf"}} {calls}
buttress_call_duration_seconds_bucket{{name="NAME",stage="operation",outcome="success",le="1"}} {calls}
buttress_call_duration_seconds_count{{name="NAME",stage="attempt",outcome="success"}} {calls}
buttress_call_duration_seconds_count{{name="NAME",stage="operation",outcome="success"}} {calls}
buttress_call_duration_seconds_sum{{name="NAME",stage="attempt",outcome="success"}} 0
buttress_call_duration_seconds_sum{{name="NAME",stage="operation",outcome="success"}} 0
buttress_calls_total{{name="NAME",stage="attempt",outcome="failure"}} 0
buttress_calls_total{{name="NAME",stage="attempt",outcome="overload"}} 0
buttress_calls_total{{name="NAME",stage="attempt",outcome="rejected"}} 0
buttress_calls_total{{name="NAME",stage="attempt",outcome="success"}} {calls}
buttress_calls_total{{name="NAME",stage="attempt",outcome="timeout"}} 0
buttress_calls_total{{name="NAME",stage="operation",outcome="failure"}} 0
buttress_calls_total{{name="NAME",stage="operation",outcome="overload"}} 0
buttress_calls_total{{name="NAME",stage="operation",outcome="rejected"}} 0
buttress_calls_total{{name="NAME",stage="operation",outcome="success"}} {calls}
buttress_calls_total{{name="NAME",stage="operation",outcome="timeout"}} 0
buttress_rejections_total{{name="NAME",layer="circuit_breaker",reason="circuit_open",mode="enforce"}} 0
buttress_rejections_total{{name="NAME",layer="deadline",reason="deadline_exceeded",mode="enforce"}} 0
buttress_retry_decisions_total{{name="NAME",decision="budget"}} 0
buttress_retry_decisions_total{{name="NAME",decision="deadline"}} 0
buttress_retry_decisions_total{{name="NAME",decision="exhausted"}} 0
buttress_retry_decisions_total{{name="NAME",decision="retried"}} 0
buttress_timeout_seconds{{name="NAME",layer="deadline"}} 10
buttress_timeout_seconds{{name="NAME",layer="timeout"}} 2
buttress_timeouts_total{{name="NAME",layer="deadline",mode="enforce"}} 0
buttress_timeouts_total{{name="NAME",layer="timeout",mode="enforce"}} 0"#
    );
    samples
        .replace("NAME", name)
        .lines()
        .map(str::to_owned)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_recorder_may_be_installed_before_the_layers_are_built() {
    let recorder = prometheus().build_recorder();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let layers = stack("before", ByClone, ErrorsAreFailures).unwrap();
    layers.layer(service_fn(echo)).oneshot("ok").await.unwrap();
    assert_eq!(samples(&recorder.handle()), samples_of(1, "before", 41));
}

#[test]
fn a_timeout_that_only_observes_has_its_counter_from_the_start() {
    let recorder = prometheus().build_recorder();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let stack = standard("watched").unlimited().timeout_mode(Mode::Observe);
    let _stack = stack.build().unwrap();
    let counter = r#"buttress_timeouts_total{name="watched",layer="timeout",mode="observe"} 0"#;
    let samples = samples(&recorder.handle());
    assert!(samples.iter().any(|line| line == counter), "{samples:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_recorder_may_be_installed_after_the_layers_were_built_and_used() {
    let layers = stack("after", ByClone, ErrorsAreFailures).unwrap();
    let service = layers.layer(service_fn(echo));
    service.clone().oneshot("ok").await.unwrap();
    let recorder = prometheus().build_recorder();
    let _installed = metrics::set_default_local_recorder(&recorder);
    for _ in 0..CALLS {
        service.clone().oneshot("ok").await.unwrap();
    }
    assert_eq!(samples(&recorder.handle()), samples_of(CALLS, "after", 57));
}

#[tokio::test(start_paused = true)]
async fn series_that_an_exporter_has_dropped_as_idle_come_back() {
    let recorder = prometheus()
        .idle_timeout(MetricKindMask::ALL, Some(Duration::from_nanos(1)))
        .build_recorder();
    let exporter = recorder.handle();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let layers = stack("idle", ByClone, ErrorsAreFailures).unwrap();
    let service = layers.layer(service_fn(echo));
    service.clone().oneshot("ok").await.unwrap();
    assert_eq!(samples(&exporter), samples_of(1, "idle", 41));
    assert_eq!(samples(&exporter), [""; 0], "idle since it was last asked");
    advance(6 * SECOND).await;
    for _ in 0..CALLS {
        service.clone().oneshot("ok").await.unwrap();
    }
    assert_eq!(samples(&exporter), samples_of(CALLS, "idle", 57));
}

#[tokio::test(start_paused = true)]
async fn a_series_that_was_dropped_as_idle_comes_back_while_others_are_in_use() {
    let recorder = prometheus()
        .idle_timeout(MetricKindMask::ALL, Some(Duration::from_nanos(1)))
        .build_recorder();
    let exporter = recorder.handle();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let layers = (
        MeasureLayer::attempt("partly idle"),
        CircuitBreakerLayer::new("partly idle"),
    );
    let breaker = layers.1.handle();
    let service = layers.layer(service_fn(|fails: bool| async move {
        if fails { Err("down") } else { Ok(()) }
    }));
    let rare = async || {
        assert!(service.clone().oneshot(true).await.is_err());
        breaker.force_open();
        assert!(service.clone().oneshot(false).await.is_err());
        breaker.reset();
    };
    rare().await;
    // Asked twice, the exporter drops what was not updated in between.
    exporter.render();
    exporter.render();
    for _ in 0..10 {
        advance(SECOND).await;
        service.clone().oneshot(false).await.unwrap();
    }
    rare().await;
    let page = exporter.render();
    assert!(page.contains(r#"outcome="failure"} 1"#), "{page}");
    assert!(page.contains("buttress_rejections_total{"), "{page}");
}

/// The samples of endpoints with this name.
fn endpoint_samples(exporter: &PrometheusHandle, name: &str) -> Vec<String> {
    let of_name = format!(r#"{{name="{name}","#);
    let samples = samples(exporter).into_iter();
    let samples = samples.filter_map(|sample| {
        let sample = sample.strip_prefix("buttress_endpoint_")?;
        sample
            .contains(&of_name)
            .then(|| sample.replace(&of_name, "{"))
    });
    samples.collect()
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_reported_if_asked_for_and_only_so_many_by_their_keys() {
    let recorder = prometheus().build_recorder();
    let exporter = recorder.handle();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let endpoint = |key: &str| Endpoint::new(key, service_fn(echo));
    let keys = || ["a", "b", "c", "d"].map(endpoint);
    let silent = Balance::new("silent", keys()).unwrap();
    silent.oneshot("ok").await.unwrap();
    assert_eq!(endpoint_samples(&exporter, "silent"), [""; 0]);

    let config = Balance::config("labelled").endpoint_metrics(2);
    let config = config.choose(RoundRobin);
    let balance = config.build(keys()).unwrap();
    let mut calls: Vec<_> = (0..4)
        .map(|_| tokio_test::task::spawn(balance.clone().oneshot("slow")))
        .collect();
    assert!(calls.iter_mut().all(|call| call.poll().is_pending()));
    let handle = balance.handle();
    handle.eject("c", SECOND);
    let expected = |endpoint: &str, calls: u32, in_flight: u32, latency: u32, ready: u32| {
        let success = (calls > 0)
            .then(|| format!(r#"calls_total{{endpoint="{endpoint}",outcome="success"}} {calls}"#));
        let gauges = [
            format!(r#"in_flight{{endpoint="{endpoint}"}} {in_flight}"#),
            format!(r#"latency_seconds{{endpoint="{endpoint}"}} {latency}"#),
            format!(r#"ready{{endpoint="{endpoint}"}} {ready}"#),
        ];
        success.into_iter().chain(gauges)
    };
    let shows = |of_each: [(&str, u32, u32, u32, u32); 3]| {
        let rows = of_each.map(|(key, calls, in_flight, latency, ready)| {
            expected(key, calls, in_flight, latency, ready)
        });
        let mut rows: Vec<_> = rows.into_iter().flatten().collect();
        rows.sort();
        assert_eq!(endpoint_samples(&exporter, "labelled"), rows);
    };
    shows([("a", 0, 1, 0, 1), ("b", 0, 1, 0, 1), ("other", 0, 2, 0, 1)]);

    advance(2 * SECOND).await;
    assert!(calls.iter_mut().all(|call| call.poll().is_ready()));
    drop(calls);
    handle.eject("a", SECOND);
    shows([("a", 1, 0, 2, 0), ("b", 1, 0, 2, 1), ("other", 2, 0, 2, 2)]);

    let mut hangs = tokio_test::task::spawn(balance.clone().oneshot("hangs"));
    while handle.endpoint("b").unwrap().in_flight == 0 {
        hangs = tokio_test::task::spawn(balance.clone().oneshot("hangs"));
        assert!(hangs.poll().is_pending());
    }
    advance(SECOND).await;
    handle.remove("a");
    handle.remove("b");
    let samples = endpoint_samples(&exporter, "labelled");
    let is_there = |row: &str| samples.iter().any(|sample| sample == row);
    assert!(is_there(r#"ready{endpoint="a"} 0"#), "{samples:#?}");
    assert!(
        is_there(r#"latency_seconds{endpoint="a"} 0"#),
        "{samples:#?}"
    );
    assert!(is_there(r#"ready{endpoint="b"} 0"#), "{samples:#?}");
    assert!(is_there(r#"in_flight{endpoint="b"} 1"#), "{samples:#?}");
    drop(hangs);
    let samples = endpoint_samples(&exporter, "labelled");
    let idle = r#"in_flight{endpoint="b"} 0"#;
    assert!(samples.iter().any(|sample| sample == idle), "{samples:#?}");
    handle.add(endpoint("e")).unwrap();
    let samples = endpoint_samples(&exporter, "labelled");
    let has = r#"ready{endpoint="e"} 1"#;
    assert!(samples.iter().any(|sample| sample == has), "{samples:#?}");
}

/// How many breakers of this name are closed, open and half-open.
fn states(exporter: &PrometheusHandle, name: &str) -> [u32; 3] {
    let samples = samples(exporter);
    ["closed", "open", "half_open"].map(|state| {
        let series = format!(r#"buttress_breaker_state{{name="{name}",state="{state}"}} "#);
        let mut values = samples
            .iter()
            .filter_map(|sample| sample.strip_prefix(&series));
        values.next().unwrap().parse().unwrap()
    })
}

#[tokio::test(start_paused = true)]
async fn breakers_of_one_name_are_counted_by_state_until_they_are_dropped() {
    let recorder = prometheus().build_recorder();
    let exporter = recorder.handle();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let breaker = || CircuitBreakerLayer::new("counted");
    let [first, second, third] = [breaker(), breaker(), breaker()];
    first.layer(service_fn(echo)).oneshot("ok").await.unwrap();
    assert_eq!(states(&exporter, "counted"), [3, 0, 0]);
    second.handle().force_open();
    assert_eq!(states(&exporter, "counted"), [2, 1, 0]);
    drop(second);
    assert_eq!(states(&exporter, "counted"), [2, 0, 0]);
    drop((first, third));
    assert_eq!(states(&exporter, "counted"), [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn attempts_are_counted_as_attempts_and_the_operation_once() {
    let recorder = prometheus().build_recorder();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let layers = stack("retried", ByClone, ByWord).unwrap();
    let service = service_fn(async |_: &'static str| {
        let number = buttress::Attempt::current().unwrap().number();
        Ok::<_, BoxError>(if number == 3 { "ok" } else { "fails" })
    });
    layers.layer(service).oneshot("").await.unwrap();
    let mut calls = samples(&recorder.handle());
    calls.retain(|sample| sample.starts_with("buttress_calls_total") && !sample.ends_with(" 0"));
    let expected = [
        r#"buttress_calls_total{name="retried",stage="attempt",outcome="failure"} 2"#,
        r#"buttress_calls_total{name="retried",stage="attempt",outcome="success"} 1"#,
        r#"buttress_calls_total{name="retried",stage="operation",outcome="success"} 1"#,
    ];
    assert_eq!(calls, expected);
}

#[tokio::test(start_paused = true)]
async fn gauges_of_limits_and_budgets_are_sums_over_all_of_one_name() {
    let recorder = prometheus().build_recorder();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let exporter = recorder.handle();
    let seen = |metric: &str| {
        let sample = format!("buttress_{metric}{{name=\"summed\"}} ");
        let samples = samples(&exporter);
        let value = samples.iter().find_map(|line| line.strip_prefix(&sample));
        value.unwrap().parse::<u32>().unwrap()
    };
    let limit = |rate, burst| {
        let config = RateLimitLayer::config("summed", Rate::per_second(rate));
        config.burst(burst).build().unwrap()
    };
    let one = limit(10, 4);
    let other = limit(30, 6);
    assert_eq!(seen("rate_limit_per_second"), 40);
    assert_eq!(seen("rate_limit_burst"), 10);
    assert_eq!(seen("rate_limit_tokens"), 10, "before the first call");
    other.handle().set_rate(Rate::per_second(50)).unwrap();
    for _ in 0..4 {
        other.wrap(service_fn(echo)).oneshot("ok").await.unwrap();
    }
    sleep(SECOND / 5).await;
    one.wrap(service_fn(echo)).oneshot("ok").await.unwrap();
    assert_eq!(seen("rate_limit_per_second"), 60);
    drop(one);
    assert_eq!(seen("rate_limit_burst"), 6);
    drop(other);
    assert_eq!(seen("rate_limit_tokens"), 0);

    let budget = |initial| Budget::config("summed").initial(initial).build().unwrap();
    let budgets = [budget(2), budget(3)];
    assert_eq!(seen("budget_tokens"), 50);
    let by_layer = RetryLayer::new("summed");
    assert_eq!(
        seen("budget_tokens"),
        90,
        "what the layer needs, before a call"
    );
    drop(by_layer);
    drop(budgets);
    assert_eq!(seen("budget_tokens"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_listener_may_steer_the_breaker_that_it_listens_to() {
    let handle = Arc::new(OnceLock::<Handle>::new());
    let breaker = Arc::clone(&handle);
    let layer = CircuitBreakerLayer::config("steered")
        .consecutive_failures(1)
        .classify(ByWord)
        .on_event(move |event| {
            let breaker = breaker.get().unwrap();
            if matches!(event.kind, EventKind::Transition(change) if change.to == State::Open) {
                breaker.reset();
            }
        })
        .build()
        .unwrap();
    handle.set(layer.handle()).unwrap();
    let service = layer.layer(service_fn(echo));
    service.clone().oneshot("fails").await.unwrap();
    assert_eq!(layer.handle().state(), State::Closed);
    service.oneshot("ok").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_panics_leaves_the_breaker_working() {
    let recorder = prometheus().build_recorder();
    let exporter = recorder.handle();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let layer = CircuitBreakerLayer::config("panics")
        .consecutive_failures(1)
        .classify(ByWord)
        .on_event(|_| panic!("the listener"))
        .build()
        .unwrap();
    let service = layer.layer(service_fn(echo));
    for word in ["fails", "ok", "ok", "ok", "ok", "ok", "ok"] {
        assert_eq!(service.clone().oneshot(word).await.unwrap(), word);
        sleep(3 * SECOND).await;
    }
    assert_eq!(layer.handle().state(), State::Closed);
    assert_eq!(states(&exporter, "panics"), [1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_newer_parts_report_to_a_recorder_that_is_installed_before_or_after_them() {
    for is_late in [false, true] {
        let name = if is_late { "all after" } else { "all before" };
        let recorder = prometheus().build_recorder();
        let mut installed = (!is_late).then(|| metrics::set_default_local_recorder(&recorder));
        let layer = standard(name)
            .hedge(|hedge| hedge.delay(SECOND))
            .rate_limit(Rate::per_second(1), |limit| {
                limit.burst(100).max_wait(SECOND)
            })
            .bulkhead(7, |bulkhead| bulkhead.queue(5))
            .build()
            .unwrap();
        let service = layer.layer(service_fn(echo));
        service.clone().oneshot("ok").await.unwrap();
        installed.get_or_insert_with(|| metrics::set_default_local_recorder(&recorder));
        // One of 31 looks whether it is time to publish gauges.
        for _ in 0..40 {
            service.clone().oneshot("ok").await.unwrap();
        }
        advance(2 * SECOND).await;
        service.clone().oneshot("ok").await.unwrap();
        layer.handle().rate_limit().unwrap().pause(SECOND / 2);
        service.clone().oneshot("ok").await.unwrap();
        let samples = samples(&recorder.handle());
        for (metric, labels, value) in [
            ("limit", r#",layer="bulkhead""#, 7),
            ("in_flight", r#",layer="bulkhead""#, 0),
            ("queue_depth", r#",layer="bulkhead""#, 0),
            ("queue_depth", r#",layer="rate_limit""#, 0),
            ("hedge_delay_seconds", "", 1),
        ] {
            let sample = format!(r#"buttress_{metric}{{name="{name}"{labels}}} {value}"#);
            assert!(samples.contains(&sample), "{sample} in {samples:#?}");
        }
        drop(installed);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_thousand_cancelled_calls_every_level_is_back_at_zero() {
    let recorder = prometheus().build_recorder();
    let exporter = recorder.handle();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let layer = standard("storm")
        .timeout(SECOND)
        .hedge(|hedge| hedge.delay(SECOND / 10))
        .rate_limit(Rate::per_second(200), |limit| {
            limit.burst(10).max_wait(SECOND)
        })
        .bulkhead(10, |bulkhead| bulkhead.queue(20).queue_wait(SECOND / 2))
        .seed(1)
        .classify(ByWord)
        .build()
        .unwrap();
    let handle = layer.handle();
    let (limit, bulkhead) = (handle.rate_limit().unwrap(), handle.bulkhead().unwrap());
    let service = layer.layer(service_fn(echo));
    let mut calls = std::collections::VecDeque::new();
    let (mut waited, mut queued) = (0, 0);
    for number in 0..1_000_u64 {
        let word = ["hangs", "slow", "fails", "hangs", "overload"][number as usize % 5];
        let mut call = tokio_test::task::spawn(service.clone().oneshot(word));
        if call.poll().is_pending() {
            calls.push_back(call);
        }
        if number % 3 == 0 {
            advance(Duration::from_millis(number % 17)).await;
        }
        calls.retain_mut(|call| !call.is_woken() || call.poll().is_pending());
        waited = waited.max(limit.waiting());
        queued = queued.max(bulkhead.queued());
        while calls.len() > 40 {
            let place = number as usize * 7 % calls.len();
            drop(calls.remove(place));
        }
    }
    assert!(
        waited > 0 && queued > 0,
        "{waited} for tokens, {queued} for permits"
    );
    drop(calls);
    assert_eq!((bulkhead.in_flight(), bulkhead.queued()), (0, 0));
    assert_eq!((limit.waiting(), handle.budget().in_flight()), (0, 0));
    let samples = samples(&exporter);
    for (metric, layer) in [
        ("in_flight", "bulkhead"),
        ("queue_depth", "bulkhead"),
        ("queue_depth", "rate_limit"),
    ] {
        let sample = format!(r#"buttress_{metric}{{name="storm",layer="{layer}"}} 0"#);
        assert!(samples.contains(&sample), "{sample} in {samples:#?}");
    }
}
