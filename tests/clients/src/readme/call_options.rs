use std::time::Duration;

use buttress::http::{Client, IDEMPOTENCY_KEY};
use buttress::{BoxError, CallOptions, client, hyper};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::{self, connect::HttpConnector};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

type Shop = Client<hyper::Client<legacy::Client<HttpConnector, Full<Bytes>>>>;

/// A report takes longer than other answers, and is too expensive to be made twice.
async fn report(shop: &Shop, uri: &str) -> Result<StatusCode, BoxError> {
    let patient = CallOptions::new().timeout(Duration::from_secs(30)).no_retry();
    let request = Request::get(uri).extension(patient).body("")?;
    Ok(shop.send(request).await?.status())
}

/// An order is sent again, because the shop knows it by its key.
async fn order(shop: &Shop, uri: &str, key: &str) -> Result<StatusCode, BoxError> {
    let request = Request::post(uri).header(IDEMPOTENCY_KEY, key).body("12 bolts")?;
    Ok(shop.send(request).await?.status())
}

/// A gRPC call that is useless after 5 s, and that may be made again.
async fn check(health: &mut HealthClient<buttress::grpc::Client>) -> Result<i32, tonic::Status> {
    let options = CallOptions::new().deadline(Duration::from_secs(5)).idempotent(true);
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    request.extensions_mut().insert(options);
    Ok(health.check(request).await?.into_inner().status)
}

/// A query that is useless after a second.
async fn query(db: &client::Client) -> Result<String, BoxError> {
    let soon = CallOptions::new().deadline(Duration::from_secs(1));
    let row = db.with(soon).run(async || Ok::<_, std::io::Error>("12 bolts"));
    Ok(row.await?.to_owned())
}
