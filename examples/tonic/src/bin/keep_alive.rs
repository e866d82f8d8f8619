//! Keep-alive of HTTP/2: pings notice a connection that has died silently, and calls go on over a new connection.
//!
//! A proxy between client and server stops forwarding, like a firewall that has forgotten a connection.
//!
//! `cargo run --package example-tonic --bin keep_alive`

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use buttress::http::HttpReplay;
use buttress::{BoxError, grpc};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const MS: Duration = Duration::from_millis(1);

type Client = HealthClient<grpc::Client>;

/// The recipe. The times are short for this demonstration: 10 s and 2 s are usual.
fn client(server: SocketAddr, keep_alive: bool) -> Result<Client, BoxError> {
    let mut channel = Endpoint::from_shared(format!("http://{server}"))?;
    if keep_alive {
        channel = channel
            .http2_keep_alive_interval(300 * MS)
            .keep_alive_timeout(300 * MS)
            .keep_alive_while_idle(true); // also while no call waits, so that the next one finds a good connection
    }
    let client = grpc::client("health")
        .replay(HttpReplay::new().idempotent_paths(|path| path.ends_with("/Check")))
        .timeout(200 * MS)
        .concurrency_limit(10)
        // Calls that time out would open it, but the connection is the subject here.
        .no_circuit_breaker()
        .wrap(channel.connect_lazy())?;
    Ok(HealthClient::new(client))
}

/// Forwards connections until they are cut. Connections that are open then stay open, but no longer transport data. New
/// connections work.
async fn forward(
    listener: TcpListener,
    server: SocketAddr,
    cut: watch::Receiver<()>,
    opened: Arc<AtomicU32>,
) {
    while let Ok((mut near, _)) = listener.accept().await {
        opened.fetch_add(1, Ordering::Relaxed);
        let mut cut = cut.clone();
        cut.mark_unchanged();
        tokio::spawn(async move {
            let mut far = TcpStream::connect(server).await?;
            tokio::select! {
                end = copy_bidirectional(&mut near, &mut far) => end.map(drop),
                _ = cut.changed() => {
                    drop(cut);
                    sleep(Duration::from_secs(3_600)).await;
                    Ok(())
                }
            }
        });
    }
}

/// Calls until an answer comes. Returns the time that this took, at most `patience`.
async fn until_answered(client: &mut Client, patience: Duration) -> Option<Duration> {
    let began = Instant::now();
    while began.elapsed() < patience {
        match client.check(HealthCheckRequest::default()).await {
            Ok(_) => return Some(began.elapsed()),
            Err(status) => println!(
                "    {:4} ms: {}",
                began.elapsed().as_millis(),
                status.message()
            ),
        }
    }
    None
}

/// Cuts the open connections, and waits until no byte passes.
async fn cut(cuts: &watch::Sender<()>) -> Result<(), BoxError> {
    cuts.send(())?;
    while cuts.receiver_count() > 1 {
        sleep(MS).await;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let server = listener.local_addr()?;
    let (_reporter, health) = tonic_health::server::health_reporter();
    let health = Server::builder().add_service(health);
    tokio::spawn(health.serve_with_incoming(TcpIncoming::from(listener)));

    for keep_alive in [false, true] {
        println!("{} keep-alive", if keep_alive { "with" } else { "without" });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let mut client = client(listener.local_addr()?, keep_alive)?;
        let (cuts, on_cut) = watch::channel(());
        let opened = Arc::default();
        tokio::spawn(forward(listener, server, on_cut, Arc::clone(&opened)));

        client.check(HealthCheckRequest::default()).await?;
        println!("  the connection is cut");
        cut(&cuts).await?;
        if !keep_alive {
            let answered = until_answered(&mut client, 2_000 * MS).await;
            println!("  no answer in 2 s");
            assert!(answered.is_none());
            assert_eq!(opened.load(Ordering::Relaxed), 1);
            continue;
        }
        let answered = until_answered(&mut client, 10_000 * MS).await;
        let took = answered.ok_or("it is noticed")?.as_millis();
        println!("  an answer after {took} ms, over a new connection");
        assert!(opened.load(Ordering::Relaxed) >= 2);

        println!("  the connection is cut, while there are no calls");
        cut(&cuts).await?;
        sleep(2_000 * MS).await;
        client.check(HealthCheckRequest::default()).await?;
        println!("  the first call after a while is answered");
    }
    Ok(())
}
