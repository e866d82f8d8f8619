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
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Duration, timeout};
use tonic::Code;
use tonic::body::Body;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::ServiceBuilder;
use tower::util::MapResponseLayer;

use crate::feed::{Feed, Source, feed};

/// A message without content.
const EMPTY: &[u8] = &[0; 5];

/// An answer with this body.
fn answer(body: Feed) -> Response<Body> {
    let answer = Response::builder().header("content-type", "application/grpc");
    answer.body(Body::new(body)).unwrap()
}

/// A channel to a server whose first `bad` calls fail after this message, and the number of calls that it gets.
async fn channel(bad: u32, message: &'static [u8]) -> (Channel, Arc<AtomicU32>) {
    let unavailable = move || {
        let (source, body) = feed();
        source.send(message);
        source.trailers("grpc-status", "14");
        answer(body)
    };
    serve(bad, unavailable).await
}

/// A channel to a server that gives this answer to the first `bad` calls, and the number of calls that it gets.
async fn serve(
    bad: u32,
    answer: impl Fn() -> Response<Body> + Clone + Send + Sync + 'static,
) -> (Channel, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let calls: Arc<AtomicU32> = Arc::default();
    let seen = Arc::clone(&calls);
    let answers = MapResponseLayer::new(move |good| {
        if seen.fetch_add(1, Ordering::SeqCst) < bad {
            answer()
        } else {
            good
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
    for message in [&[], EMPTY] {
        let (channel, calls) = channel(1, message).await;
        let mut health = health!(stack(), Client::new(channel));
        let answer = health.check(HealthCheckRequest::default()).await;
        assert_eq!((answer.is_ok(), calls.load(Ordering::SeqCst)), (true, 2));
    }
}

#[tokio::test]
async fn a_call_that_fails_in_all_its_attempts_fails_as_the_server_says() {
    let (channel, calls) = channel(u32::MAX, EMPTY).await;
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

#[tokio::test]
async fn a_stream_passes_as_it_comes() {
    for is_message_early in [true, false] {
        let (sources, mut streams) = unbounded_channel::<Source>();
        let stream = move || {
            let (source, body) = feed();
            if is_message_early {
                source.send(EMPTY);
            }
            sources.send(source).unwrap();
            answer(body)
        };
        let (channel, calls) = serve(1, stream).await;
        let mut health = health!(stack(), Client::new(channel));
        let watch = health.watch(HealthCheckRequest::default());
        // The server goes on only after the head has passed.
        let head = timeout(Duration::from_secs(30), watch).await;
        let mut watched = head.expect("a head").unwrap().into_inner();
        let source = streams.recv().await.unwrap();
        if !is_message_early {
            source.send(EMPTY);
        }
        assert!(watched.message().await.unwrap().is_some());
        source.trailers("grpc-status", "14");
        let error = watched.message().await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
        assert_eq!(calls.load(Ordering::SeqCst), 1, "not idempotent");
    }
}
