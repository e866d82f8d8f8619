//! Rejects calls while a service is down: calls fail at once, and a few probes detect its recovery.
//!
//! `cargo run --example circuit_breaker`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use buttress::circuit_breaker::State;
use buttress::event::EventKind;
use buttress::{BoxError, CircuitBreakerLayer, TimeoutLayer};
use tokio::time::{Instant, sleep};
use tower::{ServiceBuilder, service_fn};

const MS: Duration = Duration::from_millis(1);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let start = Instant::now();
    let is_up = Arc::new(AtomicBool::new(true));
    let stock = service_fn({
        let is_up = Arc::clone(&is_up);
        move |item: &'static str| {
            let takes = if is_up.load(Ordering::Relaxed) {
                MS
            } else {
                60_000 * MS
            };
            async move {
                sleep(takes).await;
                Ok::<_, BoxError>(format!("12 {item}"))
            }
        }
    });

    let breaker = CircuitBreakerLayer::config("stock")
        .consecutive_failures(5) // besides the share of failures, which needs 20 calls
        .open_for(300 * MS)
        .on_event(move |event| {
            let EventKind::Transition(change) = event.kind else {
                return;
            };
            let at = start.elapsed().as_millis();
            let (from, to, cause) = (change.from, change.to, change.cause);
            println!("{at:5} ms: {from:?} -> {to:?} ({cause:?})");
        })
        .build()?;
    let handle = breaker.handle();
    let client = ServiceBuilder::new()
        .layer(breaker)
        .layer(TimeoutLayer::new("stock", 50 * MS)) // inside, so that a call which hangs is a failure
        .service(stock);

    // One call every 10 ms. The service is up, hangs for a while, and is up again.
    let (mut answered, mut failed, mut rejected) = (0, 0, 0);
    let (mut waited, mut waited_open) = (Duration::ZERO, Duration::ZERO);
    for phase in ["up", "down", "up"] {
        println!(
            "{:5} ms: the service is {phase}",
            start.elapsed().as_millis()
        );
        is_up.store(phase == "up", Ordering::Relaxed);
        let began = Instant::now();
        // The last phase goes on until the breaker has detected the recovery.
        while began.elapsed() < 700 * MS || (phase == "up" && handle.state() != State::Closed) {
            let called = Instant::now();
            match client.send("bolts").await {
                Ok(_) => answered += 1,
                Err(error) if error.is_rejection() => {
                    rejected += 1;
                    waited_open += called.elapsed();
                }
                Err(_) => {
                    failed += 1;
                    waited += called.elapsed();
                }
            }
            sleep(10 * MS).await;
        }
    }
    assert!(failed >= 5 && rejected > 0);
    let (waited, waited_open) = (waited / failed, waited_open / rejected);
    println!(
        "{answered} answers; {failed} failures, after {waited:.1?} each; {rejected} rejected, after {waited_open:.1?} each"
    );
    assert!(waited_open < waited / 2);
    Ok(())
}
