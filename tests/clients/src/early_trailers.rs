//! Servers of gRPC that tell each failure in trailers, after a head without a status, over real sockets.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use buttress::circuit_breaker::State;
use buttress::http::{HttpReplay, ReplayBody, ReplayBodyLayer, RespondLayer, grpc};
use buttress::tonic::Client;
use buttress::{Backoff, Jitter};
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::time::Duration;
use tonic::Code;
use tonic::body::Body;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::ServiceBuilder;
use tower::util::MapResponseLayer;

use crate::feed::feed;

/// The answer to a call that has failed.
fn unavailable(message: &'static [u8]) -> Response<Body> {
    let (source, body) = feed();
    source.send(message);
    source.trailers("grpc-status", "14");
    let answer = Response::builder().header("content-type", "application/grpc");
    answer.body(Body::new(body)).unwrap()
}

/// A channel to a server that answers the first `bad` calls as unavailable, and the number of calls that it gets.
async fn channel(bad: u32, message: &'static [u8]) -> (Channel, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let calls: Arc<AtomicU32> = Arc::default();
    let seen = Arc::clone(&calls);
    let answers = MapResponseLayer::new(move |answer| {
        if seen.fetch_add(1, Ordering::SeqCst) < bad {
            unavailable(message)
        } else {
            answer
        }
    });
    let (_, service) = tonic_health::server::health_reporter();
    let server = Server::builder().layer(answers).add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap();
    (channel.connect_lazy(), calls)
}

fn stack() -> grpc::GrpcStandardLayer {
    let stack = grpc::standard("health")
        .replay(HttpReplay::new().idempotent_paths(|path| path.ends_with("/Check")))
        .retry(|retry| {
            retry.backoff(Backoff::constant(Duration::from_millis(1)).jitter(Jitter::None))
        })
        .concurrency_limit(50);
    stack.build().unwrap()
}

/// The recipe of the README, as far as it matters here.
macro_rules! health {
    ($stack:expr, $client:expr) => {{
        let channel = ServiceBuilder::new()
            .layer(RespondLayer::for_clients())
            .layer(ReplayBodyLayer::new())
            .layer($stack.clone())
            .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
            .service($client);
        HealthClient::new(channel)
    }};
}

#[tokio::test]
async fn a_call_that_fails_in_its_trailers_is_sent_again_by_default() {
    for message in [&[] as &[u8], &[0; 5]] {
        let (channel, calls) = channel(1, message).await;
        let mut health = health!(stack(), Client::new(channel));
        let answer = health.check(HealthCheckRequest::default()).await;
        assert_eq!((answer.is_ok(), calls.load(Ordering::SeqCst)), (true, 2));
    }
}

#[tokio::test]
async fn a_call_that_fails_in_all_its_attempts_fails_as_the_server_says() {
    let (channel, calls) = channel(u32::MAX, &[0; 5]).await;
    let stack = stack();
    let mut health = health!(stack, Client::new(channel));
    for calls_made in [3, 6] {
        let error = health
            .check(HealthCheckRequest::default())
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{error:?}");
        assert_eq!(calls.load(Ordering::SeqCst), calls_made);
    }
    let handle = stack.handle();
    assert_eq!(handle.bulkhead().unwrap().in_flight(), 0);
    assert_eq!(handle.circuit_breaker().unwrap().state(), State::Closed);
}

/// Streams of a server that says nothing for a while, and of one that breaks them off.
#[tokio::test]
async fn a_stream_passes_as_it_is() {
    let (channel, calls) = channel(1, &[0; 5]).await;
    let mut health = health!(stack(), Client::new(channel));
    let mut watched = health
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    // The message that was looked at, and then the status.
    assert!(watched.message().await.unwrap().is_some());
    assert_eq!(
        watched.message().await.unwrap_err().code(),
        Code::Unavailable
    );
    assert_eq!(calls.load(Ordering::SeqCst), 1, "not idempotent");
}
