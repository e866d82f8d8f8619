//! The alerts and the dashboard of `examples/ops` in a real Prometheus, which scrapes calls of this process.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

mod server;
mod stacks;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

use server::{Prometheus, free_address, is_installed, ops, queries};
use stacks::{Fault, Traffic};

const SECOND: Duration = Duration::from_secs(1);

/// Alerts, each with the name of its layers.
type Alerts = BTreeSet<(String, String)>;

fn alerts<const N: usize>(pairs: [(&str, &str); N]) -> Alerts {
    let owned = |(alert, name): (&str, &str)| (alert.to_owned(), name.to_owned());
    pairs.into_iter().map(owned).collect()
}

/// Waits until each query of the dashboard finds something.
async fn no_query_is_empty(prometheus: &Prometheus) {
    let began = Instant::now();
    let mut empty = queries();
    assert!(empty.len() > 20, "{}", empty.len());
    while !empty.is_empty() {
        assert!(began.elapsed() < 60 * SECOND, "no data for {empty:#?}");
        sleep(SECOND).await;
        let mut still = Vec::new();
        for query in empty {
            if prometheus.query(&query).await.is_empty() {
                still.push(query);
            }
        }
        empty = still;
    }
}

/// Waits until these alerts fire, and checks that none fires that is neither among them nor among `possible`.
async fn these_alerts_fire(prometheus: &Prometheus, right: &Alerts, possible: &Alerts) {
    let began = Instant::now();
    loop {
        let fires = prometheus.alerts().await;
        let wrong: Vec<_> = fires
            .iter()
            .filter(|alert| !right.contains(alert))
            .collect();
        let is_possible = wrong.iter().all(|alert| possible.contains(alert));
        assert!(is_possible, "{wrong:?}");
        if fires.is_superset(right) {
            break;
        }
        let missing: Vec<_> = right.difference(&fires).collect();
        assert!(began.elapsed() < 60 * SECOND, "missing: {missing:?}");
        sleep(SECOND).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_alert_fires_in_its_phase_and_no_panel_is_empty() {
    if !is_installed() {
        return;
    }
    let target = free_address();
    let exporter = PrometheusBuilder::new().with_http_listener(target);
    let exporter = exporter.set_buckets(&[0.01, 0.05, 0.1, 0.5, 1.0]).unwrap();
    exporter.install().unwrap();

    let (outage, replica) = (Arc::new(Fault::default()), Arc::new(Fault::default()));
    let failing = Arc::new(Fault::default());
    let mut traffic = Traffic::default();
    traffic.healthy();
    let burst = traffic.burst();
    traffic.outage(&outage);
    traffic.replicas("replicas", &replica);
    traffic.replicas("failing", &failing);
    traffic.fallback(&failing);
    let discovered = traffic.discovered();
    let prometheus = Prometheus::start(target);

    // All is well: all queries of the dashboard find something, and nothing fires.
    no_query_is_empty(&prometheus).await;
    sleep(3 * SECOND).await;
    assert_eq!(prometheus.alerts().await, Alerts::new(), "healthy");

    // A burst of 300 on a limit of 50, an outage of 1.5 s, and one slow replica.
    let calls = (0..300).map(|_| burst.clone().oneshot(()));
    let results = calls.collect::<JoinSet<_>>().join_all().await;
    let refused = results.iter().filter(|result| result.is_err()).count();
    assert!(refused >= 100, "{refused}");
    replica.delay.store(1_000, Ordering::SeqCst);
    outage.failing.store(10, Ordering::SeqCst);
    sleep(SECOND * 3 / 2).await;
    outage.failing.store(0, Ordering::SeqCst);
    let mut right = alerts([
        ("ButtressCallsRefused", "burst"),
        ("ButtressBreakerOpened", "outage"),
        ("ButtressCallsFail", "outage"),
        ("ButtressCallsRefused", "outage"),
        ("ButtressEndpointSlow", "replicas"),
    ]);
    // A service that is down for 1.5 s may use the whole budget, and retries add load for as long.
    let mut possible = alerts([
        ("ButtressRetryBudgetEmpty", "outage"),
        ("ButtressRetriesAddLoad", "outage"),
    ]);
    these_alerts_fire(&prometheus, &right, &possible).await;

    // A slow service, a failing replica and discovery that ends, among others. The first alerts still fire, since they
    // look back for 5 minutes, except for one that looks back for a minute.
    let passing = ("ButtressCallsFail".to_owned(), "outage".to_owned());
    right.remove(&passing);
    possible.insert(passing);
    failing.failing.store(10, Ordering::SeqCst);
    drop(discovered);
    let (slow, flaky) = (Arc::new(Fault::default()), Arc::new(Fault::default()));
    slow.delay.store(1_000, Ordering::SeqCst);
    flaky.failing.store(3, Ordering::SeqCst);
    traffic.slow(&slow);
    traffic.flaky(&flaky);
    traffic.fill_a_limit();
    right.extend(alerts([
        ("ButtressCallsFail", "slow"),
        ("ButtressTimeouts", "slow"),
        ("ButtressRetryBudgetEmpty", "slow"),
        ("ButtressRetriesAddLoad", "flaky"),
        ("ButtressLimitNear", "full"),
        ("ButtressEndpointEjected", "failing"),
        ("ButtressEndpointsOut", "failing"),
        ("ButtressEndpointsOutOfDate", "discovered"),
        ("ButtressFallbackAnswers", "fallback"),
        ("ButtressCallsFail", "hidden"),
    ]));
    possible.extend(alerts([
        ("ButtressRetriesAddLoad", "slow"),
        ("ButtressRetryBudgetEmpty", "flaky"),
        ("ButtressCallsFail", "flaky"),
    ]));
    these_alerts_fire(&prometheus, &right, &possible).await;

    // Each alert has fired.
    let fired: BTreeSet<_> = right.iter().map(|(alert, _)| alert.as_str()).collect();
    let rules = ops("alerts.yml");
    let all = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    assert_eq!(fired, all.collect());
}

#[test]
fn the_rules_are_valid_and_pass_their_tests() {
    if !is_installed() {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/ops");
    for arguments in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ] {
        let output = Command::new("promtool")
            .args(arguments)
            .current_dir(&folder)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(output.status.success(), "{text}");
    }
}

#[test]
fn the_guide_names_each_alert_and_each_metric_of_the_rules_is_in_the_list() {
    let (rules, dashboard) = (ops("alerts.yml"), ops("dashboard.json"));
    let guide = include_str!("../../../../src/guide/metrics.md");
    let alerts = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    for alert in alerts {
        assert!(guide.contains(&format!("| `{alert}` |")), "{alert}");
    }
    let list = buttress::metrics_list();
    let text = rules + &dashboard;
    let words = text.split(|letter: char| !(letter.is_ascii_lowercase() || "_:".contains(letter)));
    // A recorded series has a colon in its name.
    let metrics = words.filter(|word| word.starts_with("buttress_") && !word.contains(':'));
    for metric in metrics.map(|word| word.trim_end_matches("_bucket")) {
        let is_known = list.iter().any(|known| known.name == metric);
        assert!(is_known || metric == "buttress_recorded", "{metric}");
    }
}
