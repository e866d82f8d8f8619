use std::time::Duration;

use buttress::{ConfigError, hyper};
use buttress::http::{BodyTimeout, BodyTimeoutLayer, HttpStandardService};
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tower::Layer;

type Inventory = HttpStandardService<BodyTimeout<hyper::Client<Client<HttpConnector, Full<Bytes>>>>>;

fn inventory() -> Result<Inventory, ConfigError> {
    // Says whether a request was sent, so that others than GET can be tried again, too.
    let client = hyper::Client::new(Client::builder(TokioExecutor::new()).build_http());
    // Ends a body that is silent for 30 s.
    let client = BodyTimeoutLayer::new("inventory").layer(client);
    let stack = buttress::http::standard("inventory")
        .timeout(Duration::from_millis(300)) // until the head of the response
        .deadline(Duration::from_secs(2)) // until the end of its body
        .concurrency_limit(50)
        .build()?;
    Ok(stack.wrap(client))
}

async fn stock(inventory: &Inventory, uri: Uri) -> Result<Bytes, tower::BoxError> {
    let request = Request::get(uri).body(Full::default())?;
    let response = inventory.send(request).await?;
    Ok(response.into_body().collect().await?.to_bytes())
}
