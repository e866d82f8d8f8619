//~ cannot be copied by `HttpReplay`
//~ a `ReplayBodyLayer` around the layer makes a `ReplayBody` of a body that is streamed

use buttress::BoxError;
use http::{Request, Response};
use tower::{ServiceBuilder, service_fn};

struct Streamed;

async fn send(_: Request<Streamed>) -> Result<Response<String>, BoxError> {
    Ok(Response::new(String::new()))
}

fn main() {
    let stack = buttress::http::standard("orders").unlimited().build().unwrap();
    let client = ServiceBuilder::new().layer(stack).service(service_fn(send));
    let _ = client.send(Request::new(Streamed));
}
