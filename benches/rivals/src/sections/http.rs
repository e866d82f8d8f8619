//! Requests of hyper's client to a server on loopback, whose connections are kept alive.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service, ServiceExt};

use crate::rivals::{mix, ours, resilience};
use crate::row::{Kind, Row, Section};
use crate::services::Failed;

type Get = Request<Full<Bytes>>;

const ROUNDS: usize = 151;
const ANSWER: &[u8] = br#"{"item":"bolt","in_stock":12}"#;

/// Is turned by this thread, as is hyper's side of the connections.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(runtime);

fn runtime() -> Runtime {
    let built = Builder::new_current_thread().enable_all().build();
    built.expect("the system has a poll")
}

/// These are made on demand, since they start a server.
pub(crate) fn sections() -> Vec<Section> {
    let server = serve();
    let section = |title, concurrency| Section {
        title,
        kind: Kind::Http,
        note: "CPU time of the client's thread for one GET over HTTP/1.1, head and body read. The server and its connections are on \
               another thread.",
        rounds: ROUNDS,
        rows: rows(At {
            server,
            concurrency,
        }),
    };
    vec![
        section("HTTP, one request at a time", 1),
        section("HTTP, 64 requests at a time", 64),
    ]
}

#[derive(Clone, Copy, Debug)]
struct At {
    server: SocketAddr,
    concurrency: u32,
}

fn rows(at: At) -> Vec<Row> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let hyper: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let theirs = resilience::six_layers().layer(hyper.clone().map_err(|_| Failed));
    vec![
        row("–", "hyper alone", at, hyper.clone()),
        row(
            "tower",
            "six layers with governor and recloser",
            at,
            mix::six_layers().layer(hyper.clone()),
        ),
        row(
            "buttress",
            "http::standard",
            at,
            ours::http(|it| it).wrap::<Get, _>(hyper.clone()),
        ),
        row(
            "buttress",
            "http::standard, the same six parts",
            at,
            ours::http(ours::six_parts).wrap::<Get, _>(hyper),
        ),
        row("tower-resilience", "six layers", at, theirs.clone()),
        row("tower-resilience", "six layers, no recorder", at, theirs).without_recorder(),
    ]
}

fn row<S, B>(by: &'static str, name: &'static str, at: At, service: S) -> Row
where
    S: Service<Get, Response = Response<B>, Error: Send, Future: Send> + Clone + Send + 'static,
    B: Body<Data: Send, Error: Send> + Send + 'static,
{
    let uri: Uri = format!("http://{}/items/bolt", at.server)
        .parse()
        .expect("an address makes an URI");
    // The request and its copy.
    let inner = size_of::<ResponseFuture>() + 2 * size_of::<Get>();
    let future = size_of::<S::Future>().cast_signed() - inner.cast_signed();
    Row::new(by, name, future, move |calls| {
        let of_each = calls.div_ceil(at.concurrency);
        let start = cpu_time();
        RUNTIME.block_on(async {
            let task = |_| tokio::spawn(get(service.clone(), uri.clone(), of_each));
            let tasks: Vec<_> = (0..at.concurrency).map(task).collect();
            for task in tasks {
                task.await.expect("does not panic");
            }
        });
        // As if exactly so many calls had been made.
        let share = f64::from(calls) / f64::from(of_each * at.concurrency);
        cpu_time().saturating_sub(start).mul_f64(share)
    })
}

/// Makes so many requests, one after the other.
async fn get<S, B>(mut service: S, uri: Uri, calls: u32)
where
    S: Service<Get, Response = Response<B>>,
    B: Body,
{
    for _ in 0..calls {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = uri.clone();
        assert!(poll_fn(|context| service.poll_ready(context)).await.is_ok());
        let Ok(response) = service.call(request).await else {
            panic!("there is no answer");
        };
        let body = response.into_body().collect().await;
        assert!(body.is_ok_and(|body| body.to_bytes() == ANSWER));
    }
}

/// Spent by this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.try_into().expect("is not negative")
}

/// Starts a server on a thread of its own.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it is bound");
    listener.set_nonblocking(true).expect("a socket can be");
    thread::spawn(move || {
        runtime().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("it is a socket");
            loop {
                let (stream, _) = listener.accept().await.expect("there is room for sockets");
                stream.set_nodelay(true).expect("a socket can be");
                let answer = hyper::service::service_fn(async |_: Request<Incoming>| {
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(ANSWER))))
                });
                let served = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                // An error means that the client is gone.
                tokio::spawn(async { drop(served.await) });
            }
        });
    });
    address
}
