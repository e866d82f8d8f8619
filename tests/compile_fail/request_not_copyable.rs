//~ requests of type `Order` cannot be copied by `ByClone`
//~ derive `Clone` for the request, or give the layer's configuration `.replay(|request: &Order| ...)`

use buttress::{BoxError, RetryLayer};
use tower::service_fn;

struct Order;

async fn send(_: Order) -> Result<(), BoxError> {
    Ok(())
}

fn main() {
    let _ = RetryLayer::new("orders").wrap::<Order, _>(service_fn(send));
}
