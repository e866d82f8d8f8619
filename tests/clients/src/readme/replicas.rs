use std::net::SocketAddr;

use buttress::{ConfigError, hyper};
use buttress::balance::Endpoint;
use buttress::http::{
    AddOrigin, AddOriginLayer, HttpBalance, BodyTimeout, BodyTimeoutLayer, HttpStandardService, balance, standard,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tower::Layer;

type Replica = AddOrigin<BodyTimeout<hyper::Client<Client<HttpConnector, Full<Bytes>>>>>;
type Search = HttpStandardService<HttpBalance<Replica>>;

fn search(replicas: Vec<SocketAddr>) -> Result<Search, ConfigError> {
    let client = hyper::Client::new(Client::builder(TokioExecutor::new()).build_http());
    let client = BodyTimeoutLayer::new("search").layer(client);
    let of = |replica| Endpoint::new(replica, AddOriginLayer::http(replica).layer(client.clone()));
    let replicas = balance("search").build(replicas.into_iter().map(of))?;
    // The balancer avoids replicas that fail; a breaker around it would open for all because of some.
    let stack = standard("search").no_circuit_breaker().concurrency_limit(200).build()?;
    Ok(stack.wrap(replicas))
}
