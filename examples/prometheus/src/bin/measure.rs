//! Counts calls as callers see them and as the service sees them. The difference shows the effect of the layers.
//!
//! `cargo run --package example-prometheus --bin measure`

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use buttress::{BoxError, MeasureLayer, RetryLayer, TimeoutLayer};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::time::sleep;
use tower::{ServiceBuilder, service_fn};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Any recorder of the `metrics` facade works. A server would offer this one at `/metrics`.
    let metrics = PrometheusBuilder::new().install_recorder()?;

    // One call in ten fails with a reset, and one in ten hangs.
    let calls = Arc::new(AtomicU32::new(0));
    let stock = service_fn(move |item: &'static str| {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        async move {
            match call % 10 {
                3 => return Err::<_, BoxError>("connection reset".into()),
                7 => sleep(Duration::from_secs(60)).await,
                _ => sleep(Duration::from_millis(1)).await,
            }
            Ok(format!("12 {item}"))
        }
    });

    let client = ServiceBuilder::new()
        .layer(MeasureLayer::operation("stock")) // what callers see
        .layer(RetryLayer::new("stock"))
        .layer(TimeoutLayer::new("stock", Duration::from_millis(100)))
        .layer(MeasureLayer::attempt("stock")) // what the service sees
        .service(stock);
    for _ in 0..50 {
        client.send("bolts").await?;
    }

    let text = metrics.render();
    let shown = [
        "buttress_calls_total",
        "buttress_call_duration_seconds_sum",
        "buttress_retry_decisions_total",
        "buttress_timeouts_total",
    ];
    let is_shown = |line: &&str| shown.iter().any(|metric| line.starts_with(metric));
    let mut lines: Vec<_> = text.lines().filter(is_shown).collect();
    lines.sort_unstable();
    println!("{}", lines.join("\n"));

    let calls = |stage: &str| -> u32 {
        let stage = format!("stage=\"{stage}\"");
        text.lines()
            .filter(|line| line.starts_with("buttress_calls_total{") && line.contains(&stage))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok())
            .sum()
    };
    let (operations, attempts) = (calls("operation"), calls("attempt"));
    println!("{operations} operations took {attempts} attempts");
    assert!(operations == 50 && attempts > operations);
    Ok(())
}
