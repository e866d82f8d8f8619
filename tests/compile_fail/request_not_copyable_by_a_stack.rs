//~ requests of type `Order` cannot be copied by `ByClone`
//~ `.replay(Never)` to never send a request twice

use buttress::{BoxError, standard};
use tower::service_fn;

struct Order;

async fn send(_: Order) -> Result<(), BoxError> {
    Ok(())
}

fn main() {
    let stack = standard("orders").unlimited().build().unwrap();
    let _ = stack.wrap(service_fn(send));
}
