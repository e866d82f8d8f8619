//! A tonic server in one expression. It inherits the deadlines of its callers, has a concurrency limit whose refusals
//! tell clients when to try again, a stream that outlasts the deadline, and a drain that finishes the calls in flight.
//!
//! The service is the health service of `tonic-health`, so no code has to be generated.
//!
//! `cargo run --package example-tonic --bin tonic_server`

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use buttress::http::HttpStreams;
use buttress::http::server::Handle;
use buttress::{BoxError, bulkhead, grpc};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::HealthReporter;

const MS: Duration = Duration::from_millis(1);

/// A server that runs until it is told to stop.
struct Running {
    address: SocketAddr,
    handle: Handle,
    reporter: HealthReporter,
    stop: oneshot::Sender<()>,
    /// Returns `true` if all calls were over in time.
    task: JoinHandle<bool>,
}

/// The recipe.
async fn open() -> Result<Running, BoxError> {
    let protect = grpc::server("health")
        .deadline(200 * MS) // no caller holds a permit for longer
        .streaming(HttpStreams::new().paths(|path| path.ends_with("/Watch"))) // but for these
        .concurrency_limit(1)
        .build()?;
    let handle = protect.handle();
    let (reporter, health) = tonic_health::server::health_reporter();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let server = Server::builder()
        .http2_keepalive_interval(Some(60_000 * MS)) // ends streams whose clients are gone
        .layer(protect)
        .add_service(health)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), handle.drained());
    let (stop, stopped) = oneshot::channel::<()>(); // in place of SIGTERM
    let running = handle.clone();
    let task = tokio::spawn(async move {
        let stopped = async { stopped.await.unwrap_or_default() };
        let ended = running.run_until(stopped, 20_000 * MS, server).await;
        ended.is_some()
    });
    Ok(Running {
        address,
        handle,
        reporter,
        stop,
        task,
    })
}

/// Prints the error of a refused call.
fn tell(status: &Status) -> Code {
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    println!(
        "  {:?}: {}, pushback in ms: {pushback:?}",
        status.code(),
        status.message()
    );
    status.code()
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = open().await?;
    let address = format!("http://{}", server.address);
    let mut client = HealthClient::new(Endpoint::from_shared(address)?.connect_lazy());
    let request = HealthCheckRequest::default;

    println!("a call");
    let answer = client.check(request()).await?.into_inner();
    println!("  {:?}", answer.status());

    println!("a call beside a stream, which holds the only permit");
    let mut stream = client.watch(request()).await?.into_inner();
    let message = stream.message().await?.ok_or("goes on")?;
    println!("  the stream: {:?}", message.status());
    let bulkhead = server.handle.bulkhead();
    assert_eq!(bulkhead.map_or(0, bulkhead::Handle::in_flight), 1);
    let Err(status) = client.check(request()).await else {
        return Err("it is one too many".into());
    };
    assert_eq!(tell(&status), Code::Unavailable);

    println!("the stream outlasts the deadline");
    sleep(300 * MS).await;
    let changed = ServingStatus::NotServing;
    server.reporter.set_service_status("", changed).await;
    let message = stream.message().await?.ok_or("goes on")?;
    println!("  the stream: {:?}", message.status());

    println!("the server is told to stop");
    drop(server.stop);
    while server.handle.is_ready() {
        sleep(MS).await;
    }
    let Err(status) = client.check(request()).await else {
        return Err("it takes no more calls".into());
    };
    assert_eq!(tell(&status), Code::Unavailable);
    assert!(!server.task.is_finished(), "the stream is in flight");
    drop(stream);
    drop(client);
    assert!(server.task.await?, "all calls were over in time");
    println!("  it has ended, {} in flight", server.handle.in_flight());
    Ok(())
}
