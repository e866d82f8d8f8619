//! Sends copies of slow calls: the tail of the latencies shrinks, for a few per cent more calls.
//!
//! `cargo run --example hedge` (4 s)

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use buttress::{BoxError, HedgeLayer};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt, service_fn};

const MS: Duration = Duration::from_millis(1);

type Client = BoxCloneSyncService<u32, u32, BoxError>;

/// Makes calls for 1.2 s, from 40 callers, and returns the 99th percentile and the calls sent per call made.
async fn load(what: &str, client: &Client, sent: &AtomicU32) -> (Duration, f64) {
    sent.store(0, Ordering::Relaxed);
    let start = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..40 {
        let client = client.clone();
        callers.spawn(async move {
            let mut latencies = Vec::new();
            while start.elapsed() < 1200 * MS {
                let began = Instant::now();
                client.clone().oneshot(7).await?;
                latencies.push(began.elapsed());
            }
            Ok::<_, BoxError>(latencies)
        });
    }
    let callers = callers.join_all().await.into_iter();
    let mut latencies: Vec<_> = callers.flatten().flatten().collect();
    latencies.sort_unstable();
    let [p50, p99] = [50, 99].map(|share| latencies[latencies.len() * share / 100]);
    let ratio = f64::from(sent.load(Ordering::Relaxed)) / latencies.len() as f64;
    println!(
        "{what:22} {} calls, p50 {:3} ms, p99 {:3} ms, {:.1} % more calls sent",
        latencies.len(),
        p50.as_millis(),
        p99.as_millis(),
        100.0 * (ratio - 1.0)
    );
    (p99, ratio)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Several replicas behind one address, which are slow for 3 % of the calls.
    let sent = Arc::new(AtomicU32::new(0));
    let replicas = service_fn({
        let sent = Arc::clone(&sent);
        move |_item: u32| {
            let call = sent.fetch_add(1, Ordering::Relaxed);
            let takes = if call % 33 == 0 { 200 * MS } else { 10 * MS };
            async move {
                sleep(takes).await;
                Ok::<_, BoxError>(call)
            }
        }
    });
    let bare = Client::new(replicas.clone());
    // The percentile must leave out more calls than are slow. The default, the 98th, suits about 1 % of slow calls.
    let hedge = HedgeLayer::config("stock").percentile(0.95).build()?;
    let hedged = Client::new(hedge.wrap(replicas).map_err(Into::into));

    let (bare_p99, _) = load("bare", &bare, &sent).await;
    load("hedged, first second", &hedged, &sent).await; // it learns the usual latency
    let (p99, ratio) = load("hedged", &hedged, &sent).await;
    println!("a copy is sent after {:.1?}", hedge.handle().delay());
    assert!(p99 < bare_p99 / 2, "the tail is shorter");
    assert!(ratio < 1.1, "for a few per cent more calls");
    Ok(())
}
