//~ `String` does not answer requests of type `u32`
//~ this is not the answer of a fallback
//~ write `fallback::value(answer)`

use buttress::{BoxError, FallbackLayer};
use tower::service_fn;

async fn count(_: u32) -> Result<String, BoxError> {
    Ok("12".to_owned())
}

fn main() {
    let layer = FallbackLayer::new("inventory", "unknown".to_owned());
    let _ = layer.wrap::<u32, _>(service_fn(count));
}
