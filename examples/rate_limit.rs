//! Keeps to the rate that a service allows: calls above the rate are rejected, or wait for their turn.
//!
//! `cargo run --example rate_limit`

use std::time::Duration;

use buttress::{BoxError, Error, Outcome, Rate, RateLimitLayer, classify_fn};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::service_fn;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    // Stands for any service that is `Clone`: an HTTP client, a gRPC channel, a function.
    let search = service_fn(|request: &'static str| async move {
        Ok::<_, BoxError>(match request {
            "too many" => 429,
            _ => 200,
        })
    });

    println!("20 calls a second, in bursts of 5; calls above that are rejected");
    let layer = RateLimitLayer::config("search", Rate::per_second(20))
        .burst(5)
        .build()?;
    let client = layer.wrap(search);
    let mut passed = 0;
    for _ in 0..7 {
        passed += show(&client.send("bolts").await);
    }
    assert!((5..7).contains(&passed));

    println!("\nthe same, but calls wait for up to 200 ms");
    let layer = RateLimitLayer::config("search", Rate::per_second(20)).burst(5);
    let layer = layer.max_wait(Duration::from_millis(200)).build()?;
    let client = layer.wrap(search);
    let (start, mut calls) = (Instant::now(), JoinSet::new());
    for _ in 0..11 {
        calls.spawn(client.send("bolts"));
    }
    let mut passed = 0;
    while let Some(result) = calls.join_next().await {
        print!("after {:>3} ms: ", start.elapsed().as_millis());
        passed += show(&result?);
    }
    assert!((6..11).contains(&passed));

    println!("\na service that answers 429, try again in 300 ms");
    let layer = RateLimitLayer::config("search", Rate::per_second(20))
        .one_quota()
        .classify(classify_fn(|answer: Result<&u16, &Error>| match answer {
            Ok(429) => Outcome::Throttled {
                // In a real answer, this is the header `Retry-After`.
                retry_after: Some(Duration::from_millis(300)),
            },
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Failure,
        }))
        .build()?;
    let client = layer.wrap(search);
    let mut passed = 0;
    for request in ["bolts", "too many", "bolts"] {
        passed += show(&client.send(request).await);
    }
    assert_eq!(passed, 2);
    Ok(())
}

/// Prints a result, and returns 1 if the call was answered.
fn show(result: &Result<u16, Error>) -> u32 {
    match result {
        Ok(status) => println!("{status}"),
        Err(error) => match error.retry_after() {
            Some(wait) => println!("rejected, may come again in {wait:.0?}"),
            None => println!("{error}"),
        },
    }
    u32::from(result.is_ok())
}
