//~ TimeoutConfig: buttress::hints::CallBuildFirst<

use std::time::Duration;

use buttress::{BoxError, TimeoutLayer};
use tower::{ServiceBuilder, service_fn};

async fn count(_: u32) -> Result<u32, BoxError> {
    Ok(12)
}

fn main() {
    let _ = ServiceBuilder::new()
        .layer(TimeoutLayer::config("inventory", Duration::from_secs(1)))
        .service(service_fn(count));
}
