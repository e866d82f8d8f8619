//~ cannot be wrapped for requests of type `u32`
//~ an error converts into `BoxError` if it implements `std::error::Error` and is `Send + Sync + 'static`

use std::time::Duration;

use buttress::TimeoutLayer;
use tower::{ServiceBuilder, service_fn};

struct Unknown;

async fn count(_: u32) -> Result<u32, Unknown> {
    Err(Unknown)
}

fn main() {
    let inventory = ServiceBuilder::new()
        .layer(TimeoutLayer::new("inventory", Duration::from_secs(1)))
        .service(service_fn(count));
    let _ = inventory.send(1);
}
