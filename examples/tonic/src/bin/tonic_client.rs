//! A tonic client behind the standard stack for gRPC: retried calls, the deadline that the service receives, streams
//! that hold their permit, and the codes that the generated client returns.
//!
//! The service is the health service of `tonic-health`, so no code has to be generated.
//!
//! `cargo run --package example-tonic --bin tonic_client`

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use buttress::http::{HttpReplay, HttpStreams};
use buttress::stack::Handle;
use buttress::{Availability, BoxError, Rate, bulkhead, grpc};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::HealthReporter;

const MS: Duration = Duration::from_millis(1);

/// The generated client, over the stack.
type Client = HealthClient<grpc::Client>;

/// The recipe.
fn client(
    server: SocketAddr,
    change: impl FnOnce(grpc::Config) -> grpc::Config,
) -> Result<(Client, Handle), BoxError> {
    // Pings find a connection that has died silently. Without pings, all calls would go on using it. Servers in Go and
    // C++ must be configured to permit pings.
    let channel = Endpoint::from_shared(format!("http://{server}"))?
        .http2_keep_alive_interval(10_000 * MS)
        .keep_alive_timeout(2_000 * MS)
        .keep_alive_while_idle(true)
        .connect_lazy();
    // All methods of gRPC are POST, so name the idempotent methods.
    let replay = HttpReplay::new()
        .idempotent_paths(|path| path == "/grpc.health.v1.Health/Check")
        .grpc_previous_attempts();
    let config = grpc::client("health")
        .replay(replay)
        .timeout(300 * MS)
        .deadline(1_000 * MS) // the server is told of it, in `grpc-timeout`
        .streaming(HttpStreams::new().paths(|path| path.ends_with("/Watch"))) // goes on for longer
        .body_timeout(|body| body.stream_idle(5_000 * MS)) // the longest silence in a stream
        .concurrency_limit(10);
    let client = change(config).wrap(channel)?;
    let handle = client.handle();
    Ok((HealthClient::new(client), handle))
}

fn about(service: &str) -> HealthCheckRequest {
    let service = service.to_owned();
    HealthCheckRequest { service }
}

fn in_flight(handle: &Handle) -> usize {
    let bulkhead = handle.bulkhead();
    bulkhead.map_or(0, bulkhead::Handle::in_flight)
}

/// Headers of the attempts that reached the server: `grpc-timeout` and `grpc-previous-rpc-attempts`.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// A server that is not available for the first request.
async fn open(seen: &Seen) -> Result<(SocketAddr, HealthReporter), BoxError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let seen = Arc::clone(seen);
    let flaky = move |request: tonic::Request<()>| {
        let header = |name| match request.metadata().get(name) {
            Some(value) => value.to_str().unwrap_or("?").to_owned(),
            None => "-".to_owned(),
        };
        let carried = (header("grpc-timeout"), header("grpc-previous-rpc-attempts"));
        let mut seen = seen.lock().expect("nobody panics with the lock");
        seen.push(carried);
        match seen.len() {
            1 => Err(Status::unavailable("is starting")),
            _ => Ok(request),
        }
    };
    let server = Server::builder().add_service(InterceptedService::new(health, flaky));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    Ok((address, reporter))
}

/// Prints the result that the caller gets.
fn tell(status: &Status, began: Instant) -> Code {
    let took = began.elapsed().as_millis();
    println!(
        "  {:?} after {took} ms: {}",
        status.code(),
        status.message()
    );
    status.code()
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let seen = Seen::default();
    let (server, reporter) = open(&seen).await?;
    let (mut health, handle) = client(server, |config| config)?;

    println!("a call that is answered with `Unavailable` at first");
    let answer = health.check(about("")).await?.into_inner();
    println!("  {:?}", answer.status());
    let attempts = seen.lock().expect("nobody panics with the lock").clone();
    for (timeout, previous) in &attempts {
        println!("  carried grpc-timeout: {timeout}, grpc-previous-rpc-attempts: {previous}");
    }
    assert_eq!(attempts.len(), 2);
    assert!(attempts[0].0 != "-" && attempts[1].0 != attempts[0].0);
    assert_eq!((&*attempts[0].1, &*attempts[1].1), ("-", "1"));

    println!("a call that the service answers with a mistake of the caller's");
    let began = Instant::now();
    let Err(status) = health.check(about("nobody")).await else {
        return Err("there is no such service".into());
    };
    assert_eq!(tell(&status, began), Code::NotFound);

    println!("a stream");
    let mut stream = health.watch(about("")).await?.into_inner();
    for _ in 0..2 {
        let message = stream.message().await?.ok_or("goes on")?;
        println!("  {:?}, {} in flight", message.status(), in_flight(&handle));
        assert_eq!(in_flight(&handle), 1);
        let changed = ServingStatus::NotServing;
        reporter.set_service_status("", changed).await;
    }
    drop(stream);
    println!("  dropped, {} in flight", in_flight(&handle));
    assert_eq!(in_flight(&handle), 0);

    println!("a server that does not answer");
    // The listener takes connections, but no server reads from them.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (mut late, _) = client(silent.local_addr()?, grpc::Config::no_timeout)?;
    let began = Instant::now();
    let Err(status) = late.check(about("")).await else {
        return Err("it does not answer".into());
    };
    assert_eq!(tell(&status, began), Code::DeadlineExceeded);
    assert!(began.elapsed() < 1_200 * MS);

    println!("a server that is gone, behind a circuit breaker that opens after three failures");
    drop(silent);
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = gone.local_addr()?;
    drop(gone);
    let (mut health_of_gone, handle) = client(address, |config| {
        config.circuit_breaker(|breaker| breaker.consecutive_failures(3))
    })?;
    for _ in 0..2 {
        let began = Instant::now();
        let Err(status) = health_of_gone.check(about("")).await else {
            return Err("it is gone".into());
        };
        assert_eq!(tell(&status, began), Code::Unavailable);
    }
    assert!(!handle.is_available());

    println!("two calls at once where ten a second are allowed");
    let (mut metered, _) = client(server, |config| {
        config.rate_limit(Rate::per_second(10), |limit| limit.burst(1))
    })?;
    metered.check(about("")).await?;
    let began = Instant::now();
    let Err(status) = metered.check(about("")).await else {
        return Err("it is one too many".into());
    };
    assert_eq!(tell(&status, began), Code::ResourceExhausted);
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    println!("  pushback in ms: {pushback:?}");
    assert!(pushback.is_some());
    Ok(())
}
