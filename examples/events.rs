//! Logs the decisions of a stack, one line for each: a retry, and the opening of a breaker as a warning.
//!
//! `cargo run --example events`

use std::future::ready;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use buttress::BoxError;
use buttress::circuit_breaker::State;
use buttress::event::EventKind;
use tower::service_fn;

/// Fails if the number of the call is below `until`.
fn inventory(call: u32, until: u32) -> Result<&'static str, BoxError> {
    if call < until {
        return Err("connection reset".into());
    }
    Ok("12 bolts")
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&lines);
    let stack = buttress::standard("inventory")
        .concurrency_limit(20)
        .circuit_breaker(|breaker| breaker.consecutive_failures(5))
        .seed(7)
        .on_event(move |event| {
            let level = match event.kind {
                EventKind::Transition(change) if change.to == State::Open => "WARN",
                EventKind::Transition(_) => "INFO",
                _ => "DEBUG",
            };
            println!("{level} {event}");
            let mut lines = log.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push(event.to_string());
        })
        .build()?;

    // The first attempt fails, the second one succeeds.
    let calls = Arc::new(AtomicU32::new(0));
    let client = stack.wrap(service_fn(move |until: u32| {
        ready(inventory(calls.fetch_add(1, Ordering::Relaxed), until))
    }));
    client.send(1).await?;
    let retry = {
        let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].clone()
    };
    assert!(retry.starts_with("inventory: retry 1 in "), "{retry}");
    assert!(retry.ends_with("connection reset"), "{retry}");

    // The service is down: the breaker opens, and the next call is refused.
    for _ in 0..3 {
        drop(client.send(u32::MAX).await);
    }
    let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    let has = |text: &str| lines.iter().any(|line| line.contains(text));
    assert!(
        has("circuit breaker closed -> open: consecutive_failures"),
        "{lines:?}"
    );
    assert!(has("gave up"), "{lines:?}");
    assert!(
        has("circuit_breaker refused a call: circuit_open"),
        "{lines:?}"
    );
    Ok(())
}
