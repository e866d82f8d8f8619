use buttress::http::{BodyTimeoutLayer, is_idempotent};
use buttress::reqwest::Client;
use buttress::{BoxError, Error, Replay};
use reqwest::{ClientBuilder, Request, Response};
use tower::util::BoxCloneSyncService;
use tower::ServiceBuilder;

#[derive(Clone)]
struct TryClone;

impl Replay<Request> for TryClone {
    fn copy(&self, request: &Request) -> Option<Request> {
        request.try_clone()
    }

    fn is_idempotent(&self, request: &Request) -> bool {
        is_idempotent(request.method(), request.headers())
    }
}

fn search(builder: ClientBuilder) -> Result<BoxCloneSyncService<Request, Response, Error>, BoxError> {
    let service = ServiceBuilder::new()
        .map_response(|response: http::Response<_>| Response::from(response.map(reqwest::Body::wrap)))
        .layer(buttress::http::standard("search").replay(TryClone).concurrency_limit(50).build()?)
        .layer(BodyTimeoutLayer::new("search")) // ends a body that is silent for 30 s
        .map_response(http::Response::<reqwest::Body>::from)
        .service(Client::build(builder)?); // says whether a request was sent
    Ok(BoxCloneSyncService::new(service))
}
