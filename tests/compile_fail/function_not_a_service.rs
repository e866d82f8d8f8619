//~ cannot be wrapped for requests of type
//~ an async function becomes a service by `tower::service_fn(function)`

use buttress::{BoxError, standard};

async fn count(_: u32) -> Result<u32, BoxError> {
    Ok(12)
}

fn main() {
    let _ = standard("inventory").unlimited().build().unwrap().wrap(count);
}
