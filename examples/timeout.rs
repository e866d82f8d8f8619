//! Ends an attempt that hangs, so that there is time for another attempt, and ends the operation at its deadline.
//!
//! `cargo run --example timeout`

use std::time::Duration;

use buttress::{Attempt, BoxError, Deadline, DeadlineLayer, ErrorKind, RetryLayer, TimeoutLayer};
use tokio::time::{Instant, sleep};
use tower::{ServiceBuilder, service_fn};

const MS: Duration = Duration::from_millis(1);

/// A service that hangs in the first attempt, and for some words in every attempt.
async fn search(word: &'static str) -> Result<String, BoxError> {
    let attempt = Attempt::current().map_or(1, Attempt::number);
    // A real client sends the deadline on, as a header or as the timeout of a statement, because work after the
    // deadline is useless.
    let left = Deadline::current().ok_or("no deadline")?.remaining();
    println!("  attempt {attempt}, {} ms left", left.as_millis());
    if attempt == 1 || word == "lost" {
        sleep(60_000 * MS).await;
    }
    Ok(format!("12 {word}"))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let client = ServiceBuilder::new()
        .layer(DeadlineLayer::new("search", 700 * MS)) // what a caller is willing to wait
        .layer(RetryLayer::new("search"))
        .layer(TimeoutLayer::new("search", 250 * MS)) // one attempt
        .service(service_fn(search));

    for word in ["bolts", "lost"] {
        println!("search for {word}");
        let start = Instant::now();
        let result = client.send(word).await;
        let took = start.elapsed();
        match &result {
            Ok(answer) => println!("  {answer}, after {} ms", took.as_millis()),
            Err(error) => println!("  error: {error:#}, after {} ms", took.as_millis()),
        }

        // Without the layers this would take a minute.
        assert!(took < 10_000 * MS);
        let Err(error) = result else { continue };
        // The error is the timeout of the last attempt, if there was no time for another attempt, or the deadline.
        let kind = Some(error.kind());
        let expected = [ErrorKind::Timeout, ErrorKind::DeadlineExceeded];
        assert!(word == "lost" && kind.is_some_and(|kind| expected.contains(&kind)));
    }
    Ok(())
}
