//~ bodies of type `Streamed` do not say how they are copied
//~ let your client send bodies of type `buttress::http::ReplayBody<Streamed>`
//~ implement `TryCopyBody` for it

use buttress::BoxError;
use http::{Request, Response};
use tower::service_fn;

struct Streamed;

async fn send(_: Request<Streamed>) -> Result<Response<String>, BoxError> {
    Ok(Response::new(String::new()))
}

fn main() {
    let client = buttress::http::client("orders").unlimited().wrap(service_fn(send)).unwrap();
    let _ = client.send(Request::new(Streamed));
}
