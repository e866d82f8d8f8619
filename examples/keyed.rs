//! A circuit breaker for each tenant: one tenant's database is down, and the other tenants are not affected.
//!
//! `cargo run --example keyed`

use std::time::Duration;

use buttress::circuit_breaker::State;
use buttress::{BoxError, CircuitBreakerLayer, KeyedLayer, TimeoutLayer};
use tokio::time::{Instant, sleep};
use tower::service_fn;

struct Request {
    tenant: &'static str,
}

/// The database of each tenant. The database of "crow" hangs.
async fn query(request: Request) -> Result<&'static str, BoxError> {
    if request.tenant == "crow" {
        sleep(Duration::from_secs(60)).await;
    }
    sleep(Duration::from_millis(1)).await;
    Ok("3 orders")
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A breaker and a timeout for each tenant, with the breaker outermost. All have one name, the label of their
    // metrics.
    let layer = KeyedLayer::new(
        "tenants",
        |request: &Request| request.tenant,
        |_tenant: &&str| {
            (
                CircuitBreakerLayer::new("tenants"),
                TimeoutLayer::new("tenants", Duration::from_millis(50)),
            )
        },
    );
    let client = layer.wrap(service_fn(query));

    for tenant in ["ant", "bee", "crow"] {
        let start = Instant::now();
        let (mut answered, mut timed_out, mut rejected) = (0, 0, 0);
        for _ in 0..40 {
            match client.send(Request { tenant }).await {
                Ok(_) => answered += 1,
                Err(error) if error.is_rejection() => rejected += 1,
                Err(_) => timed_out += 1,
            }
        }
        let millis = start.elapsed().as_millis();
        println!(
            "{tenant:5} {answered:2} answered, {timed_out:2} timed out, {rejected:2} rejected at once; {millis} ms"
        );
        assert_eq!(rejected > 0, tenant == "crow");
    }

    // The handle returns the layers of a key.
    let handle = layer.handle();
    for tenant in ["ant", "bee", "crow"] {
        if let Some((breaker, _timeout)) = handle.get(&tenant) {
            let state = breaker.handle().state();
            println!("the breaker of {tenant} is {state:?}");
            assert_eq!(state == State::Open, tenant == "crow");
        }
    }
    Ok(())
}
