use buttress::http::{BodyTimeoutLayer, is_idempotent};
use buttress::{ConfigError, Error, Replay};
use reqwest::{Request, Response};
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

fn search(client: reqwest::Client) -> Result<BoxCloneSyncService<Request, Response, Error>, ConfigError> {
    let service = ServiceBuilder::new()
        .map_response(|response: http::Response<_>| Response::from(response.map(reqwest::Body::wrap)))
        .layer(buttress::http::standard("search").replay(TryClone).concurrency_limit(50).build()?)
        .layer(BodyTimeoutLayer::new("search")) // ends a body at the deadline, or when it is silent for 30 s
        .map_response(http::Response::<reqwest::Body>::from)
        .service(client);
    Ok(BoxCloneSyncService::new(service))
}
