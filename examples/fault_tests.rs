//! Tests of your own service with injected faults, in virtual time: a list of faults replaces the client of the
//! service.
//!
//! `cargo run --example fault_tests`

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use Fault::{Fails, Hangs, Late};
use buttress::stack::{Handle, StandardService};
use buttress::{BoxError, ErrorKind, standard};
use tokio::time::{Instant, sleep};
use tower::service_fn;
use tower::util::BoxCloneSyncService;

const MS: Duration = Duration::from_millis(1);

/// The client of the stock service, or its replacement in a test.
type Client = BoxCloneSyncService<&'static str, u32, BoxError>;

/// The service under test.
struct Orders {
    stock: StandardService<Client>,
    handle: Handle,
}

impl Orders {
    fn new(client: Client) -> Result<Self, BoxError> {
        let stack = standard("stock")
            .timeout(300 * MS)
            .deadline(1_000 * MS)
            .concurrency_limit(10)
            .seed(1) // the same waits in each run
            .build()?;
        Ok(Self {
            stock: stack.wrap(client),
            handle: stack.handle(),
        })
    }

    /// Accepts an order unconfirmed if the stock service does not answer.
    async fn order(&self, item: &'static str, count: u32) -> Result<&'static str, &'static str> {
        match self.stock.send(item).await {
            Ok(left) if left >= count => Ok("ordered"),
            Ok(_) => Err("sold out"),
            Err(error) if error.kind() == ErrorKind::CircuitOpen => Err("come back later"),
            Err(_) => Ok("ordered, to be confirmed"),
        }
    }
}

/// A fault of one attempt. After the last fault in the list, attempts succeed.
#[derive(Clone, Copy)]
enum Fault {
    Fails,
    Hangs,
    Late(Duration),
}

/// Makes `Orders` over a stock of 12 with these faults, one for each attempt.
fn orders(faults: impl IntoIterator<Item = Fault>) -> Orders {
    let faults = Arc::new(Mutex::new(VecDeque::from_iter(faults)));
    let stock = service_fn(move |_item| {
        let fault = faults
            .lock()
            .expect("nobody panics with the lock")
            .pop_front();
        async move {
            match fault {
                Some(Fails) => return Err::<_, BoxError>("connection reset".into()),
                Some(Hangs) => sleep(Duration::from_secs(3_600)).await,
                Some(Late(time)) => sleep(time).await,
                None => sleep(5 * MS).await,
            }
            Ok(12)
        }
    });
    Orders::new(Client::new(stock)).expect("the settings are valid")
}

// In a file of tests, each of these has `#[tokio::test(start_paused = true)]`.

async fn one_failure_is_not_seen_by_the_customer() {
    let orders = orders([Fails]);
    assert_eq!(orders.order("bolts", 10).await, Ok("ordered"));
    assert_eq!(orders.order("bolts", 13).await, Err("sold out"));
}

async fn a_customer_waits_for_a_second_at_most() {
    for faults in [[Hangs; 3], [Fails; 3], [Late(299 * MS), Hangs, Hangs]] {
        let orders = orders(faults);
        let began = Instant::now();
        assert!(orders.order("bolts", 10).await.is_ok());
        assert!(began.elapsed() <= 1_000 * MS);
    }
}

async fn orders_are_refused_while_the_stock_is_down_and_taken_afterwards() {
    let orders = orders([Fails; 40]);
    while orders.order("bolts", 10).await != Err("come back later") {}
    let began = Instant::now();
    assert_eq!(orders.order("bolts", 10).await, Err("come back later"));
    assert_eq!(began.elapsed(), Duration::ZERO, "at once");
    sleep(Duration::from_secs(600)).await;
    while orders.order("bolts", 10).await != Ok("ordered") {
        sleep(Duration::from_secs(1)).await;
    }
}

async fn the_state_of_a_part_can_be_set() {
    let orders = orders([]);
    let breaker = orders.handle.circuit_breaker().expect("is on");
    breaker.force_open();
    assert_eq!(orders.order("bolts", 10).await, Err("come back later"));
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    let began = Instant::now();
    one_failure_is_not_seen_by_the_customer().await;
    a_customer_waits_for_a_second_at_most().await;
    orders_are_refused_while_the_stock_is_down_and_taken_afterwards().await;
    the_state_of_a_part_can_be_set().await;
    println!(
        "4 tests passed, in {} s of virtual time",
        began.elapsed().as_secs()
    );
}
