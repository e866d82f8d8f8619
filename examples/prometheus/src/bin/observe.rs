//! Tests settings on real traffic: counts the calls that a limit would reject, and rejects none.
//!
//! `cargo run --package example-prometheus --bin observe`

use std::time::Duration;

use buttress::{BoxError, BulkheadLayer, ConfigError, Error, Mode};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt, service_fn};

type Client = BoxCloneSyncService<usize, usize, Error>;

fn bulkhead(limit: usize, mode: Mode) -> Result<BulkheadLayer, ConfigError> {
    // The name is the label of the metrics.
    BulkheadLayer::config(format!("stock, limit {limit}"), limit)
        .mode(mode)
        .build()
}

/// Makes this number of calls at the same time, and returns the number of answers.
async fn burst(client: &Client, calls: usize) -> usize {
    let calls: JoinSet<_> = (0..calls)
        .map(|item| client.clone().oneshot(item))
        .collect();
    let results = calls.join_all().await;
    results.iter().filter(|result| result.is_ok()).count()
}

/// Returns the number of calls that a limit has rejected in this mode, as a dashboard would show it.
fn rejected(metrics: &PrometheusHandle, limit: usize, mode: &str) -> usize {
    let labels = [
        format!("name=\"stock, limit {limit}\""),
        format!("mode=\"{mode}\""),
    ];
    let text = metrics.render();
    let counters = text.lines().filter(|line| {
        line.starts_with("buttress_rejections_total")
            && labels.iter().all(|label| line.contains(label))
    });
    counters
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let metrics = PrometheusBuilder::new().install_recorder()?;
    let stock = service_fn(|item: usize| async move {
        sleep(Duration::from_millis(100)).await;
        Ok::<_, BoxError>(item)
    });

    // Layers that only observe can be nested, one for each setting.
    let observed = ServiceBuilder::new()
        .layer(bulkhead(5, Mode::Observe)?)
        .layer(bulkhead(20, Mode::Observe)?)
        .layer(bulkhead(40, Mode::Observe)?)
        .service(stock);
    let observed = Client::new(observed);
    let usual = [3, 8, 12, 15, 6];
    for calls in usual {
        assert_eq!(burst(&observed, calls).await, calls, "every call passes");
    }
    println!("{} calls, all answered", usual.iter().sum::<usize>());
    for limit in [5, 20, 40] {
        let rejected = rejected(&metrics, limit, "observe");
        println!("  a limit of {limit:2} would have rejected {rejected}");
    }

    // The lowest limit that would not reject usual traffic.
    let limits = [5, 20, 40].into_iter();
    let mut enough = limits.filter(|&limit| rejected(&metrics, limit, "observe") == 0);
    let limit = enough.next().ok_or("all limits are too small")?;
    let enforced = Client::new(bulkhead(limit, Mode::Enforce)?.wrap(stock));
    for calls in [15, 50] {
        let answered = burst(&enforced, calls).await;
        println!("a limit of {limit}, enforced: {answered} of {calls} calls at once answered");
        assert_eq!(answered, calls.min(limit));
    }
    assert_eq!(limit, 20);
    assert_eq!(rejected(&metrics, limit, "enforce"), 50 - limit);
    Ok(())
}
