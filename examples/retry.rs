//! Repeats failed calls, and bounds the extra load during an outage.
//!
//! `cargo run --example retry`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use buttress::{BoxError, RetryLayer};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt, service_fn};

type Client = BoxCloneSyncService<u32, u32, BoxError>;

/// A service that fails every fifth call, or all calls.
#[derive(Default)]
struct Stock {
    calls: AtomicU32,
    is_out: AtomicBool,
}

impl Stock {
    async fn answer(self: Arc<Self>, item: u32) -> Result<u32, BoxError> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(1)).await;
        if call % 5 == 0 || self.is_out.load(Ordering::Relaxed) {
            return Err("connection reset".into());
        }
        Ok(item)
    }
}

/// Makes 1000 calls, from 100 callers, and returns the share that succeeded and the attempts per call.
async fn load(what: &str, client: &Client, stock: &Stock) -> (f64, f64) {
    stock.calls.store(0, Ordering::Relaxed);
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let client = client.clone();
        callers.spawn(async move {
            let mut answers = 0;
            for item in 0..10 {
                answers += u32::from(client.clone().oneshot(item).await.is_ok());
            }
            answers
        });
    }
    let answers: u32 = callers.join_all().await.into_iter().sum();
    let attempts = stock.calls.load(Ordering::Relaxed);
    let (share, attempts) = (f64::from(answers) / 1e3, f64::from(attempts) / 1e3);
    println!(
        "{what:28} {:5.1} % succeed, {attempts:.2} attempts per call",
        100.0 * share
    );
    (share, attempts)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let stock = Arc::new(Stock::default());
    let service = service_fn({
        let stock = Arc::clone(&stock);
        move |item| Arc::clone(&stock).answer(item)
    });
    let bare = Client::new(service.clone());
    // A retry does harm if the service must not act twice. `.replay(..)` sets the requests that may be sent again.
    let retry = RetryLayer::new("stock").wrap(service.clone());
    let retry = Client::new(retry.map_err(Into::into));
    let no_budget = RetryLayer::config("stock without a budget").no_budget();
    let no_budget = Client::new(no_budget.build()?.wrap(service).map_err(Into::into));

    println!("every fifth call fails");
    let (bare_share, _) = load("  bare", &bare, &stock).await;
    let (share, _) = load("  retry", &retry, &stock).await;

    println!("every call fails");
    stock.is_out.store(true, Ordering::Relaxed);
    let (_, without) = load("  retry without a budget", &no_budget, &stock).await;
    // The first retries use up the tokens of earlier successes.
    load("  retry, as it begins", &retry, &stock).await;
    let (_, attempts) = load("  retry, as it goes on", &retry, &stock).await;

    assert!(bare_share < 0.85 && share > 0.9, "retries help");
    assert!(
        without > 2.9 && attempts < 1.05,
        "the budget keeps the load down"
    );
    Ok(())
}
