use std::net::SocketAddr;

use buttress::ConfigError;
use buttress::balance::Endpoint;
use buttress::http::{AddOrigin, AddOriginLayer, Balance, StandardService, balance, standard};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;

type Search = StandardService<Balance<AddOrigin<Client<HttpConnector, Full<Bytes>>>>>;

fn search(replicas: Vec<SocketAddr>) -> Result<Search, ConfigError> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let of = |replica| Endpoint::new(replica, AddOriginLayer::http(replica).wrap(client.clone()));
    let replicas = balance("search").build(replicas.into_iter().map(of))?;
    // The balancer leaves alone who fails; a breaker over all of them would open because of some.
    let stack = standard("search").no_circuit_breaker().concurrency_limit(200).build()?;
    Ok(stack.wrap(replicas))
}
