use std::time::Duration;

use buttress::BoxError;
use buttress::http::{
    BodyTimeoutLayer, HttpReplay, PropagateDeadlineLayer, ReplayBody, ReplayBodyLayer, RespondLayer, grpc,
};
use buttress::tonic::Client;
use http::Request;
use tonic::body::Body;
use tonic::transport::Endpoint;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient}; // or what you generate
use tower::ServiceBuilder;

async fn check(address: String) -> Result<(), BoxError> {
    // Pings find a connection that has died without a word, which every call would otherwise go on using.
    let endpoint = Endpoint::from_shared(address)?
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true);
    let stack = grpc::standard("health")
        // All methods of gRPC are POST: say which may be acted on twice.
        .replay(HttpReplay::new().idempotent_paths(|path| path.ends_with("/Check")))
        .timeout(Duration::from_millis(300))
        .deadline(Duration::from_secs(2))
        .concurrency_limit(50)
        .build()?;
    let channel = ServiceBuilder::new()
        .layer(RespondLayer::for_clients()) // callers see `Unavailable`, not `Unknown`
        .layer(ReplayBodyLayer::new()) // keeps of a body what another attempt needs
        .layer(stack)
        .layer(BodyTimeoutLayer::new("health")) // ends answers that are silent for 30 s
        .layer(PropagateDeadlineLayer::new("health")) // `grpc-timeout`
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
        .service(Client::new(endpoint.connect_lazy())); // says whether a request was sent
    let mut client = HealthClient::new(channel);
    client.check(HealthCheckRequest::default()).await?;
    Ok(())
}
