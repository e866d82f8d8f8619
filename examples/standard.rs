//! The standard stack as a field of your own client, and the state in its handle after some failures.
//!
//! `cargo run --example standard`

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use buttress::stack::{Handle, StandardService};
use buttress::{Availability, BoxError, ByClone, Classify, Error, Outcome, Rate};
use tokio::time::sleep;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

const MS: Duration = Duration::from_millis(1);

/// Answers are status codes. A `reqwest::Client` needs no box.
type Transport = BoxCloneSyncService<&'static str, u16, BoxError>;

/// Decides which answers are failures. It is a type and not a closure, so that a field can name it.
#[derive(Clone)]
struct ByStatus;

impl Classify<u16> for ByStatus {
    fn classify(&self, result: Result<&u16, &Error>) -> Outcome {
        match result {
            Ok(429) => Outcome::Throttled { retry_after: None },
            Ok(500..) | Err(_) => Outcome::Failure,
            Ok(_) => Outcome::Success,
        }
    }
}

/// Cheap to clone: the clones share the state of the stack.
#[derive(Clone)]
struct Stock {
    service: StandardService<Transport, ByClone, ByStatus>,
    handle: Handle,
}

impl Stock {
    fn new(transport: Transport) -> Result<Self, BoxError> {
        let stack = buttress::standard("stock")
            .timeout(200 * MS) // one attempt
            .deadline(1000 * MS) // the whole answer
            .classify(ByStatus)
            .hedge(|hedge| hedge.delay(50 * MS))
            .circuit_breaker(|breaker| breaker.consecutive_failures(12).open_for(800 * MS))
            .rate_limit(Rate::per_second(500), |rate| rate.max_wait(100 * MS))
            .bulkhead(20, |bulkhead| bulkhead.queue(20))
            .build()?;
        Ok(Self {
            service: stack.wrap(transport),
            handle: stack.handle(),
        })
    }

    /// Prints the state of the parts, as a status page would.
    fn print(&self) -> Option<()> {
        let breaker = self.handle.circuit_breaker()?;
        let (bulkhead, rate) = (self.handle.bulkhead()?, self.handle.rate_limit()?);
        println!("  breaker: {:?}", breaker.state());
        println!("  budget: {} tokens", self.handle.budget().tokens());
        println!("  rate limit: {} calls left at once", rate.available());
        let (in_flight, limit) = (bulkhead.in_flight(), bulkhead.limit());
        println!("  bulkhead: {in_flight} of {limit} in flight");
        Some(())
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let status = Arc::new(AtomicU16::new(200));
    let stock = Stock::new(Transport::new(service_fn({
        let status = Arc::clone(&status);
        move |_item| {
            let status = status.load(Ordering::Relaxed);
            async move {
                sleep(2 * MS).await;
                Ok::<_, BoxError>(status)
            }
        }
    })))?;

    for now in [200, 503, 200] {
        println!("the service answers {now}");
        status.store(now, Ordering::Relaxed);
        // The breaker is open for about 0.8 s. Then it admits a few calls as probes.
        while !stock.handle.is_available() {
            sleep(50 * MS).await;
        }
        let mut last = Ok(0);
        for _ in 0..60 {
            last = stock.service.send("bolts").await;
        }
        match &last {
            Ok(status) => println!("  last answer: {status}"),
            Err(error) => println!("  last answer: {error:#}"),
        }
        stock.print().ok_or("all parts are there")?;
        assert_eq!(last.is_ok(), now == 200);
        assert_eq!(stock.handle.is_available(), now == 200);
    }
    Ok(())
}
