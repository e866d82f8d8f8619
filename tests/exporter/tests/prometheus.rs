//! The alerts and the dashboard of `examples/ops` in a real Prometheus, which scrapes calls of this process.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use std::{env, fs, process};

use buttress::balance::{Endpoint, LeastLoaded, OutlierEjection};
use buttress::{Balance, BoxError, Rate, standard};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tower::{ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// Whether the service of the stack `outage` fails.
static IS_DOWN: AtomicBool = AtomicBool::new(false);

/// A Prometheus with a folder of its own, on a free port. It ends with this value.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

impl Prometheus {
    /// Starts it with the rules of `examples/ops`, whose waits are shorter, and scrapes every second.
    fn start(target: SocketAddr) -> Self {
        let folder = env::temp_dir().join(format!("buttress-prometheus-{}", process::id()));
        fs::create_dir(&folder).unwrap();
        let rules = ops("alerts.yml").replace("for: 1m", "for: 2s");
        fs::write(
            folder.join("alerts.yml"),
            rules.replace("for: 5m", "for: 2s"),
        )
        .unwrap();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [alerts.yml]\n\
             scrape_configs:\n  \
               - job_name: test\n    \
                 static_configs: [{{ targets: ['{target}'] }}]\n"
        );
        fs::write(folder.join("prometheus.yml"), config).unwrap();
        let address = free_address();
        let child = Command::new("prometheus")
            .arg(format!(
                "--config.file={}",
                folder.join("prometheus.yml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            address,
            folder,
        }
    }

    /// Returns the labels of the series that a query finds, each as the text that `promtool` prints.
    async fn query(&self, query: &str) -> Vec<String> {
        let output = tokio::process::Command::new("promtool")
            .args([
                "query",
                "instant",
                &format!("http://{}", self.address),
                query,
            ])
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().filter(|line| !line.is_empty());
        lines.map(str::to_owned).collect()
    }

    /// Returns the alerts that fire, with the name of their layers.
    async fn alerts(&self) -> BTreeSet<(String, String)> {
        let fires = self.query("ALERTS{alertstate=\"firing\"}").await;
        let label = |line: &str, label: &str| {
            let found = line.split_once(&format!("{label}=\""));
            let (_, rest) = found.unwrap_or_else(|| panic!("{line}"));
            rest.split('"').next().unwrap().to_owned()
        };
        let pair = |line: &String| (label(line, "alertname"), label(line, " name"));
        fires.iter().map(pair).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended, and its folder may be gone.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// Returns whether Prometheus is installed. Without it the tests do nothing, but fail in CI.
fn is_installed() -> bool {
    let runs = |program: &str| {
        let version = Command::new(program).arg("--version").output();
        version.is_ok_and(|version| version.status.success())
    };
    let is_installed = runs("prometheus") && runs("promtool");
    if !is_installed {
        let advice = "Prometheus is not installed: apt install prometheus";
        assert!(env::var_os("CI").is_none(), "{advice}");
        println!("nothing is tested. {advice}");
    }
    is_installed
}

/// Returns a file of `examples/ops`.
fn ops(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/ops");
    fs::read_to_string(folder.join(name)).unwrap()
}

/// Returns the queries of the dashboard, for all names.
fn queries() -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_str(&ops("dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let queries = targets
        .flatten()
        .map(|target| target["expr"].as_str().unwrap());
    queries
        .map(|query| {
            query
                .replace("$name", ".*")
                .replace("$__rate_interval", "1m")
        })
        .collect()
}

/// Answers after 20 ms, unless it is down.
async fn answer((): ()) -> Result<(), BoxError> {
    sleep(20 * MS).await;
    if IS_DOWN.load(Ordering::SeqCst) {
        return Err("down".into());
    }
    Ok(())
}

async fn healthy((): ()) -> Result<(), BoxError> {
    sleep(20 * MS).await;
    Ok(())
}

/// One replica of three is slow.
async fn replica(delay: Duration) -> Result<(), BoxError> {
    sleep(delay).await;
    Ok(())
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

/// Waits until these alerts fire, and checks that no others do.
async fn these_alerts_fire(prometheus: &Prometheus, right: &[(&str, &str)]) {
    let pair = |(alert, name): &(&str, &str)| ((*alert).to_owned(), (*name).to_owned());
    let right: BTreeSet<_> = right.iter().map(pair).collect();
    // A service that is down for 1.5 s may use the whole budget, and retries add load for as long.
    let possible = [
        ("ButtressRetryBudgetEmpty", "outage"),
        ("ButtressRetriesAddLoad", "outage"),
    ];
    let possible: BTreeSet<_> = possible.iter().map(pair).collect();
    let began = Instant::now();
    loop {
        let fires = prometheus.alerts().await;
        let others: Vec<_> = fires
            .iter()
            .filter(|alert| !right.contains(alert))
            .collect();
        assert!(
            others.iter().all(|alert| possible.contains(alert)),
            "{others:?}"
        );
        if fires.is_superset(&right) {
            break;
        }
        assert!(began.elapsed() < 40 * SECOND, "{fires:?}");
        sleep(SECOND).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_alert_fires_in_its_phase_and_no_panel_is_empty() {
    if !is_installed() {
        return;
    }
    let target = free_address();
    PrometheusBuilder::new()
        .with_http_listener(target)
        .set_buckets(&[0.01, 0.05, 0.1, 0.5, 1.0])
        .unwrap()
        .install()
        .unwrap();

    let well = standard("healthy")
        .concurrency_limit(50)
        .hedge(|hedge| hedge);
    let well = well.rate_limit(Rate::per_second(1_000), |limit| limit);
    let well = well.build().unwrap().wrap(service_fn(healthy));
    let burst = standard("burst").concurrency_limit(50).build().unwrap();
    let burst = burst.wrap(service_fn(healthy));
    let outage = standard("outage").concurrency_limit(500).build().unwrap();
    let outage = outage.wrap(service_fn(answer));
    let is_slow = Arc::new(AtomicU32::new(20));
    let replicas = Balance::config("replicas")
        .endpoint_metrics(5)
        .outlier_ejection(OutlierEjection::new())
        .choose(LeastLoaded)
        .build(["a", "b", "c"].map(|key| {
            let slow = Arc::clone(&is_slow);
            Endpoint::new(
                key,
                service_fn(move |()| {
                    let delay = if key == "c" {
                        slow.load(Ordering::SeqCst)
                    } else {
                        20
                    };
                    replica(delay * MS)
                }),
            )
        }))
        .unwrap();

    let traffic = tokio::spawn({
        let (well, burst, outage, replicas) = (
            well.clone(),
            burst.clone(),
            outage.clone(),
            replicas.clone(),
        );
        async move {
            let mut ticks = interval(10 * MS);
            // After a stall of the machine, calls that were missed must not come as a burst.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            let mut calls = JoinSet::new();
            loop {
                ticks.tick().await;
                let (well, burst, outage) = (well.clone(), burst.clone(), outage.clone());
                let replicas = replicas.clone();
                calls.spawn(async move { drop(well.send(()).await) });
                calls.spawn(async move { drop(burst.send(()).await) });
                calls.spawn(async move { drop(outage.send(()).await) });
                calls.spawn(async move { drop(replicas.oneshot(()).await) });
                while calls.try_join_next().is_some() {}
            }
        }
    });
    let prometheus = Prometheus::start(target);

    // All is well: all queries of the dashboard find something, and nothing fires.
    no_query_is_empty(&prometheus).await;
    sleep(3 * SECOND).await;
    assert_eq!(prometheus.alerts().await, BTreeSet::new(), "healthy");

    // A burst of 300 on a limit of 50, an outage of 1.5 s, and one slow replica.
    let calls = (0..300).map(|_| burst.clone().oneshot(()));
    let results = calls.collect::<JoinSet<_>>().join_all().await;
    let refused = results.iter().filter(|result| result.is_err()).count();
    assert!(refused >= 100, "{refused}");
    is_slow.store(1_000, Ordering::SeqCst);
    IS_DOWN.store(true, Ordering::SeqCst);
    sleep(SECOND * 3 / 2).await;
    IS_DOWN.store(false, Ordering::SeqCst);

    let right = [
        ("ButtressCallsRefused", "burst"),
        ("ButtressBreakerOpened", "outage"),
        ("ButtressCallsFail", "outage"),
        ("ButtressCallsRefused", "outage"),
        ("ButtressEndpointSlow", "replicas"),
    ];
    these_alerts_fire(&prometheus, &right).await;
    traffic.abort();
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
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&text)
        );
    }
}
