//! A cache in another process as fallback: while the service is down, an async function reads the last answer from it.
//!
//! `cargo run --example cached_answer`

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buttress::fallback::{self, Failed};
use buttress::{BoxError, FallbackLayer, standard};
use tokio::time::{sleep, timeout};
use tower::{ServiceBuilder, service_fn};

const MS: Duration = Duration::from_millis(1);

/// Replaces a client of Redis or of another cache.
#[derive(Clone, Default)]
struct Cache(Arc<Mutex<HashMap<&'static str, String>>>);

impl Cache {
    async fn get(&self, item: &str) -> Option<String> {
        sleep(2 * MS).await;
        self.0.lock().ok()?.get(item).cloned()
    }

    async fn put(&self, item: &'static str, answer: String) {
        sleep(2 * MS).await;
        if let Ok(mut answers) = self.0.lock() {
            answers.insert(item, answer);
        }
    }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    let is_up = Arc::new(AtomicBool::new(true));
    let cache = Cache::default();

    let (up, cached) = (Arc::clone(&is_up), cache.clone());
    let stock = service_fn(move |item: &'static str| {
        let (up, cached) = (Arc::clone(&up), cached.clone());
        async move {
            if !up.load(Ordering::Relaxed) {
                return Err::<_, BoxError>("connection reset".into());
            }
            let answer = format!("12 {item}");
            // Written in a task, so that no caller waits for the cache.
            tokio::spawn(
                async move { cached.put(item, format!("12 {item}, some time ago")).await },
            );
            Ok(answer)
        }
    });

    // The recipe. `None` means that the cache has no answer, is down or is too slow. The caller then gets the failure.
    let last_answer = move |item: &'static str, _: Failed<'_, String>| {
        let cache = cache.clone();
        async move { timeout(50 * MS, cache.get(item)).await.ok()? }
    };
    let client = ServiceBuilder::new()
        .layer(FallbackLayer::new(
            "stock",
            fallback::from_request_async(last_answer),
        ))
        .layer(
            standard("stock")
                .deadline(1_000 * MS)
                .concurrency_limit(50)
                .build()?,
        )
        .service(stock);

    let ask = async |item| {
        let result = client.send(item).await;
        match &result {
            Ok(answer) => println!("  {item}: {answer}"),
            Err(error) => println!("  {item}: error: {error:#}"),
        }
        result.ok()
    };
    println!("the service is up");
    assert_eq!(ask("bolts").await.as_deref(), Some("12 bolts"));
    sleep(10 * MS).await;
    println!("the service is down");
    is_up.store(false, Ordering::Relaxed);
    let old = ask("bolts").await;
    assert_eq!(old.as_deref(), Some("12 bolts, some time ago"));
    assert_eq!(ask("nuts").await, None, "was never asked for");
    Ok(())
}
