//~ buttress::hints::CallBuildFirst<

use buttress::{BoxError, standard};
use tower::service_fn;

async fn count(_: u32) -> Result<u32, BoxError> {
    Ok(12)
}

fn main() {
    let _ = standard("inventory").unlimited().wrap(service_fn(count));
}
