//! Another answer in place of a failed call: when the service is down, callers get the last known answer from a cache.
//!
//! `cargo run --example fallback`

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buttress::fallback::{self, Failed};
use buttress::{
    BoxError, CircuitBreakerLayer, FallbackLayer, MeasureLayer, RetryLayer, TimeoutLayer,
};
use tower::{ServiceBuilder, service_fn};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let is_up = Arc::new(AtomicBool::new(true));
    let last_seen = Arc::new(Mutex::new(HashMap::new()));

    let (up, seen) = (Arc::clone(&is_up), Arc::clone(&last_seen));
    let stock = service_fn(move |item: &'static str| {
        let (up, seen) = (Arc::clone(&up), Arc::clone(&seen));
        async move {
            if !up.load(Ordering::Relaxed) {
                return Err::<_, BoxError>("connection reset".into());
            }
            let answer = format!("12 {item}");
            seen.lock()
                .map_err(|_| "poisoned")?
                .insert(item, answer.clone());
            Ok(answer)
        }
    });

    // `None` means that there is no other answer. The caller then gets the failure.
    let stale = move |item: &'static str, failed: Failed<'_, String>| {
        let why = match failed.kind() {
            Some(kind) => format!("{kind:?}"),
            None => "failed".to_owned(),
        };
        let answer = last_seen.lock().ok()?.get(item).cloned()?;
        Some(format!("{answer}, as of some time ago ({why})"))
    };

    // The fallback is outside all layers that may still save the call. The inner measure counts the failures that it
    // hides.
    let client = ServiceBuilder::new()
        .layer(MeasureLayer::operation("stock"))
        .layer(FallbackLayer::new("stock", fallback::from_request(stale)))
        .layer(MeasureLayer::operation("stock without fallback"))
        .layer(RetryLayer::new("stock"))
        .layer(
            CircuitBreakerLayer::config("stock")
                .consecutive_failures(4)
                .build()?,
        )
        .layer(TimeoutLayer::new("stock", Duration::from_millis(100)))
        .service(stock);

    let ask = |item| {
        let client = client.clone();
        async move {
            let result = client.send(item).await;
            match &result {
                Ok(answer) => println!("  {item}: {answer}"),
                Err(error) => println!("  {item}: error: {error:#}"),
            }
            result.is_ok()
        }
    };
    println!("the service is up");
    assert!(ask("bolts").await);
    println!("the service is down");
    is_up.store(false, Ordering::Relaxed);
    for item in ["bolts", "bolts", "bolts", "nuts"] {
        // There is no earlier answer for nuts.
        assert_eq!(ask(item).await, item == "bolts");
    }
    Ok(())
}
