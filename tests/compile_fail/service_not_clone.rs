//~ cannot be wrapped for requests of type `u32`
//~ needs `Service<u32> + Clone`, with an error that is `Into<BoxError> + 'static`
//~ can be shared through `tower::buffer::Buffer::new(service, 64)`

use std::time::Duration;

use buttress::{BoxError, TimeoutLayer};
use tower::util::BoxService;

fn wrap(client: BoxService<u32, u32, BoxError>) {
    let _ = TimeoutLayer::new("inventory", Duration::from_secs(1)).wrap::<u32, _>(client);
}

fn main() {}
