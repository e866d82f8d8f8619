//! A Prometheus that runs the rules of `examples/ops`.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, fs, process};

/// A Prometheus with a folder of its own, on a free port. It ends with this value.
pub(crate) struct Prometheus {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

/// Returns an address whose port is free.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

impl Prometheus {
    /// Starts it with the rules of `examples/ops`, whose waits are shorter, and scrapes every second.
    pub(crate) fn start(target: SocketAddr) -> Self {
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
    pub(crate) async fn query(&self, query: &str) -> Vec<String> {
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
    pub(crate) async fn alerts(&self) -> BTreeSet<(String, String)> {
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
pub(crate) fn is_installed() -> bool {
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
pub(crate) fn ops(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/ops");
    fs::read_to_string(folder.join(name)).unwrap()
}

/// Returns the queries of the dashboard, for all names.
pub(crate) fn queries() -> Vec<String> {
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
