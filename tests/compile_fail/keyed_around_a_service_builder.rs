//~ does not say whether it may be forgotten, so there cannot be one for each key
//~ a tuple of them with the outermost first

use std::time::Duration;

use buttress::{CircuitBreakerLayer, TimeoutLayer, KeyedLayer};
use tower::ServiceBuilder;

fn main() {
    let _ = KeyedLayer::new(
        "tenants",
        |request: &u32| *request,
        |_: &u32| {
            ServiceBuilder::new()
                .layer(CircuitBreakerLayer::new("tenants"))
                .layer(TimeoutLayer::new("tenants", Duration::from_secs(1)))
        },
    );
}
