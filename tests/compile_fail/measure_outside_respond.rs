//~ this server must answer every request, but a layer of buttress returns an error
//~ put `buttress::http::RespondLayer::for_servers()` (feature `http`) outside all layers of buttress, also outside a `MeasureLayer`

use std::convert::Infallible;

use buttress::MeasureLayer;
use buttress::http::RespondLayer;
use http::{Request, Response};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceBuilder};

type Route = BoxCloneSyncService<Request<String>, Response<String>, Infallible>;

/// As axum takes it.
fn add<L>(_layer: L)
where
    L: Layer<Route>,
    L::Service: Service<Request<String>, Error: Into<Infallible>>,
{
}

fn main() {
    let layers = ServiceBuilder::new()
        .layer(MeasureLayer::operation("inventory"))
        .layer(RespondLayer::for_servers());
    add(layers);
}
