//! A standard stack for each shard of a database: one shard is down and its breaker is open, but other calls go on.
//!
//! `cargo run --example shards`

use std::time::Duration;

use buttress::stack::StandardLayer;
use buttress::{Availability, BoxError, KeyedLayer, standard};
use tokio::time::sleep;
use tower::service_fn;

const SHARDS: u64 = 4;
const MS: Duration = Duration::from_millis(1);

#[derive(Clone)]
struct Query {
    customer: u64,
}

impl Query {
    fn shard(&self) -> u64 {
        self.customer % SHARDS
    }
}

/// The recipe: each shard has its own retries, budget, circuit breaker and limits. All have one name, the label of
/// their metrics. The settings are the same for all shards, so the first call shows a mistake in them.
fn stack() -> StandardLayer {
    standard("orders")
        .timeout(100 * MS)
        .deadline(500 * MS)
        .concurrency_limit(20)
        .build()
        .expect("the settings are valid")
}

/// A client of all shards. The third shard hangs.
async fn query(query: Query) -> Result<u64, BoxError> {
    sleep(if query.shard() == 2 {
        60_000 * MS
    } else {
        3 * MS
    })
    .await;
    Ok(query.customer)
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    let shards = KeyedLayer::new("shards", Query::shard, |_shard: &u64| stack());
    let orders = shards.wrap(service_fn(query));

    let mut results = [[0; 3]; SHARDS as usize];
    for customer in 0..2_000 {
        let query = Query { customer };
        let of = &mut results[query.shard() as usize];
        match orders.send(query).await {
            Ok(_) => of[0] += 1,
            Err(error) if error.is_rejection() => of[2] += 1,
            Err(_) => of[1] += 1,
        }
    }
    for (shard, [answered, failed, refused]) in results.into_iter().enumerate() {
        let stack = shards
            .handle()
            .get(&(shard as u64))
            .ok_or("has had calls")?;
        let is_available = stack.handle().is_available();
        println!(
            "shard {shard}: {answered:3} answered, {failed:3} failed, {refused:3} refused; available: {is_available}"
        );
        if shard == 2 {
            assert!(failed < 50 && refused > 400, "refused at once");
        } else {
            assert_eq!(answered, 500);
        }
    }
    Ok(())
}
