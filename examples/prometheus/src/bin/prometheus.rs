//! Metrics of the standard stack, scraped as Prometheus scrapes them.
//!
//! `cargo run --package example-prometheus --bin prometheus`

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use buttress::BoxError;
use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tokio::time::sleep;
use tower::service_fn;

const MS: Duration = Duration::from_millis(1);

static CALLS: AtomicUsize = AtomicUsize::new(0);

/// A service that fails now and then.
async fn inventory(item: &'static str) -> Result<String, BoxError> {
    sleep(2 * MS).await;
    match CALLS.fetch_add(1, Ordering::Relaxed) % 10 {
        3 => Err("reset".into()),
        _ => Ok(format!("12 {item}")),
    }
}

/// Scrapes the metrics once.
async fn scrape(url: Uri) -> Result<String, BoxError> {
    let http = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let mut attempts = 0;
    let response = loop {
        attempts += 1;
        match http.get(url.clone()).await {
            // The exporter may still be starting.
            Err(error) if error.is_connect() && attempts < 100 => sleep(10 * MS).await,
            response => break response?,
        }
    };
    let text = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(text.to_vec())?)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A free port. In production, use the port that Prometheus knows.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    PrometheusBuilder::new()
        .with_http_listener(address)
        // Histograms need buckets. Without buckets they become summaries, which cannot be added up over several
        // processes.
        .set_buckets_for_metric(
            Matcher::Prefix("buttress_".into()),
            &[
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
            ],
        )?
        .install()?;

    let client = buttress::standard("inventory")
        .timeout(100 * MS)
        .deadline(1_000 * MS)
        .concurrency_limit(20)
        .build()?
        .wrap(service_fn(inventory));
    for _ in 0..50 {
        client.send("bolts").await?;
    }

    let text = scrape(format!("http://{address}/metrics").parse()?).await?;
    let ours = |line: &&str| line.starts_with("buttress_") && !line.contains("_bucket{");
    for line in text.lines().filter(ours) {
        println!("{line}");
    }
    let value = |series: &str, labels: &[&str]| {
        let mut lines = text.lines().filter(|line| line.starts_with(series));
        let line = lines.find(|line| labels.iter().all(|label| line.contains(label)))?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    let operations = value(
        "buttress_calls_total",
        &["stage=\"operation\"", "outcome=\"success\""],
    );
    assert_eq!(operations, Some(50.0));
    let retried = value("buttress_retry_decisions_total", &["decision=\"retried\""]);
    assert!(retried >= Some(1.0));
    let attempts = value(
        "buttress_call_duration_seconds_count",
        &["stage=\"attempt\""],
    );
    assert!(attempts >= Some(1.0));
    assert_eq!(
        value("buttress_breaker_state", &["state=\"closed\""]),
        Some(1.0)
    );
    assert_eq!(value("buttress_limit", &["layer=\"bulkhead\""]), Some(20.0));
    Ok(())
}
