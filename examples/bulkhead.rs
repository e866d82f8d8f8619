//! Bounds the calls in flight to a service that gets twice its capacity.
//!
//! `cargo run --release --example bulkhead` (4 s)

use std::sync::Arc;
use std::time::Duration;

use buttress::bulkhead::{Aimd, Limit};
use buttress::{BoxError, BulkheadLayer, Cause, Error, ErrorKind, TimeoutLayer};
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt, service_fn};

const MS: Duration = Duration::from_millis(1);

type Client = BoxCloneSyncService<u32, u32, BoxError>;

/// A service with four workers that take 20 ms for each call: 200 calls a second.
fn inventory() -> Client {
    let workers = Arc::new(Semaphore::new(4));
    Client::new(service_fn(move |item: u32| {
        let workers = Arc::clone(&workers);
        async move {
            let _worker = workers.acquire().await?;
            sleep(20 * MS).await;
            Ok::<_, BoxError>(item)
        }
    }))
}

/// Permits `limit` calls in flight. A few more calls may wait, for 20 to 100 ms.
fn protected(limit: impl Into<Limit>) -> Result<(BulkheadLayer, Client), BoxError> {
    let bulkhead = BulkheadLayer::config("inventory", limit)
        .queue(50)
        .build()?;
    let client = ServiceBuilder::new()
        .layer(bulkhead.clone())
        .layer(TimeoutLayer::new("inventory", 400 * MS)) // inside, so that the limit can learn from it
        .service(inventory());
    Ok((bulkhead, Client::new(client.map_err(Into::into))))
}

/// Makes 400 calls a second for a second, and returns the 99th percentile of the answers, in ms.
async fn overload(what: &str, client: Client) -> u128 {
    let mut arrivals = interval(MS * 5 / 2);
    arrivals.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut calls = Vec::new();
    for item in 0..400 {
        arrivals.tick().await;
        let (client, began) = (client.clone(), Instant::now());
        calls.push(tokio::spawn(async move {
            (client.oneshot(item).await, began.elapsed())
        }));
    }
    let (mut answers, mut full, mut late, mut failed) = (Vec::new(), 0, 0, 0);
    for call in calls {
        match call.await.expect("does not panic") {
            (Ok(_), latency) => answers.push(latency),
            (Err(error), _) => match Error::find(error.as_ref()).map(Cause::kind) {
                Some(ErrorKind::BulkheadFull) => full += 1,
                Some(ErrorKind::QueueTimeout) => late += 1,
                _ => failed += 1,
            },
        }
    }
    answers.sort_unstable();
    let [p50, p99] = [50, 99].map(|share| answers[answers.len() * share / 100].as_millis());
    println!(
        "{what:16} {:3} answers (p50 {p50:4} ms, p99 {p99:4} ms), {full:3} full, {late:3} queue timeout, {failed:3} failed",
        answers.len(),
    );
    p99
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let unlimited = overload("no limit", inventory()).await;
    let (_, client) = protected(6)?;
    let limited = overload("limit 6", client).await;
    // An adaptive limit: a call that takes longer than 60 ms is a sign of overload.
    let (bulkhead, client) = protected(Aimd::between(2, 100).slow_calls(60 * MS))?;
    let adaptive = overload("adaptive limit", client).await;
    println!("it found a limit of {}", bulkhead.handle().limit());
    assert!(
        limited < unlimited / 4 && adaptive < unlimited / 4,
        "those who are served do not wait for the others"
    );
    Ok(())
}
