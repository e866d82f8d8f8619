use std::time::Duration;

use buttress::{BoxError, TimeoutLayer};
use tower::util::BoxService;

fn wrap(client: BoxService<u32, u32, BoxError>) {
    let _ = TimeoutLayer::new("inventory", Duration::from_secs(1)).wrap::<u32, _>(client);
}

fn main() {}
