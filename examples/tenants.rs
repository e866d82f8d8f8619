//! A limit for each tenant, by its plan: a tenant that asks for too much is refused, and the others do not notice.
//!
//! `cargo run --example tenants`

use std::time::Duration;

use buttress::{BoxError, BulkheadLayer, KeyedLayer, Rate, RateLimitLayer};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tower::service_fn;

struct Request {
    tenant: &'static str,
    has_paid: bool,
}

/// Takes 50 ms.
async fn search(_: Request) -> Result<&'static str, BoxError> {
    sleep(Duration::from_millis(50)).await;
    Ok("12 bolts")
}

/// The key: a tenant, and the part of its plan that determines its layers.
type Key = (&'static str, bool);

/// The recipe. All layers have one name, the label of their metrics. A tenant is never a label.
fn limits((_tenant, has_paid): &Key) -> (RateLimitLayer, BulkheadLayer) {
    let (rate, calls) = if *has_paid { (50, 10) } else { (5, 2) };
    (
        RateLimitLayer::new("tenants", Rate::per_second(rate)),
        BulkheadLayer::new("tenants", calls),
    )
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    let layer = KeyedLayer::new(
        "tenants",
        |request: &Request| (request.tenant, request.has_paid),
        limits,
    );
    let service = layer.wrap(service_fn(search));

    // Ten seconds with this number of calls in each second. bee keeps to its plan; ant and cat exceed their plans.
    let tenants = [("ant", false, 100), ("bee", false, 4), ("cat", true, 100)];
    let loads = tenants.map(|(tenant, has_paid, calls)| {
        let service = service.clone();
        tokio::spawn(async move {
            let mut ticks = interval(Duration::from_secs(1) / calls);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut answers = Vec::new();
            for _ in 0..10 * calls {
                ticks.tick().await;
                answers.push(tokio::spawn(service.send(Request { tenant, has_paid })));
            }
            let (mut answered, mut refused) = (0, 0);
            for answer in answers {
                match answer.await.expect("no call panics") {
                    Ok(_) => answered += 1,
                    Err(error) if error.is_rejection() => refused += 1,
                    Err(error) => panic!("{error:#}"),
                }
            }
            (answered, refused)
        })
    });
    let mut answered = Vec::new();
    for ((tenant, ..), load) in tenants.iter().zip(loads) {
        let (good, refused) = load.await?;
        println!("{tenant}: {good:4} answered, {refused:4} refused");
        answered.push(good);
    }
    assert!((45..60).contains(&answered[0]), "5 a second, and a burst");
    assert_eq!(answered[1], 40, "never notices the others");
    assert!(
        (490..560).contains(&answered[2]),
        "50 a second, and a burst"
    );
    assert_eq!(layer.handle().keys(), 3);
    Ok(())
}
