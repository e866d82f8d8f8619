//! A scripted service, a population of callers, and the report of their losses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use buttress::http::HttpReplay;
use buttress::http::grpc::{self, GrpcStandard};
use buttress::{BoxError, Deadline};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tower::{Service, ServiceExt, service_fn};

pub(crate) type Body = Full<Bytes>;

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn answer(status: u16) -> Response<Body> {
    Response::builder()
        .status(status)
        .body(Body::default())
        .unwrap()
}

pub(crate) fn request(method: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri("http://service/");
    request.body(Body::default()).unwrap()
}

/// A request for `path`, which the script of a service may look at.
pub(crate) fn get(path: &str) -> Request<Body> {
    let request = Request::builder().uri(format!("http://service{path}"));
    request.body(Body::default()).unwrap()
}

/// The standard stack for gRPC, for requests that are copied by `Clone`.
pub(crate) fn grpc(name: &str) -> GrpcStandard {
    let stack = grpc::standard(name).unlimited().seed(1);
    stack.replay(HttpReplay::new())
}

/// The number of requests that have reached a service.
#[derive(Clone, Default)]
pub(crate) struct Sent(Arc<AtomicU32>);

impl Sent {
    pub(crate) fn count(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// A service that answers each request after a time: `script` gets the request and the time since the service was made.
pub(crate) fn service<F, B>(
    script: F,
) -> (
    impl Service<Request<B>, Response = Response<Body>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static,
    Sent,
)
where
    F: Fn(&Request<B>, Duration) -> (Duration, Response<Body>) + Clone + Send + Sync + 'static,
    B: Send + 'static,
{
    let (began, sent) = (Instant::now(), Sent::default());
    let seen = sent.clone();
    let service = service_fn(move |request: Request<B>| {
        seen.0.fetch_add(1, Relaxed);
        let (time, answer) = script(&request, began.elapsed());
        async move {
            sleep(time).await;
            Ok::<_, BoxError>(answer)
        }
    });
    (service, sent)
}

/// The patience of a caller.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    Full,
    /// The caller brings a deadline.
    Deadline(Duration),
    /// The caller drops its call.
    Drops(Duration),
}

/// The losses of the callers with full patience.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU32,
    lost: AtomicU32,
}

impl Losses {
    /// The share of honest calls that were lost, in percent.
    pub(crate) fn percent(&self) -> f64 {
        let (calls, lost) = (self.0.calls.load(Relaxed), self.0.lost.load(Relaxed));
        assert!(calls > 0, "no honest call");
        f64::from(lost) * 100.0 / f64::from(calls)
    }

    fn count(&self, is_good: bool) {
        self.0.calls.fetch_add(1, Relaxed);
        self.0.lost.fetch_add(u32::from(!is_good), Relaxed);
    }
}

/// Pseudo-random numbers from 0 to 1 (`SplitMix64`).
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    pub(crate) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((word ^ (word >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Calls `client` 100 times a second. `caller` chooses the request and the patience of each caller by a random number from
/// 0 to 1. Returns when all calls are over.
pub(crate) async fn call_for<S>(
    client: &S,
    time: Duration,
    seed: u64,
    caller: impl Fn(f64) -> (Request<Body>, Patience),
) -> Losses
where
    S: Service<Request<Body>, Response: Answer, Future: Send, Error: Send> + Clone + Send + 'static,
{
    let (losses, mut draws, began) = (Losses::default(), Draws(seed), Instant::now());
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..(time.as_millis() / 10) as u32 {
        sleep_until(began + 10 * MS * number).await;
        let (request, patience) = caller(draws.next());
        let call = client.clone().oneshot(request);
        let losses = losses.clone();
        calls.spawn(async move {
            match patience {
                Patience::Full => losses.count(call.await.is_ok_and(|answer| answer.is_good())),
                Patience::Deadline(time) => drop(Deadline::after(time).scope(call).await),
                Patience::Drops(time) => drop(timeout(time, call).await),
            }
        });
    }
    while calls.join_next().await.is_some() {}
    losses
}

/// An answer that is good or not.
pub(crate) trait Answer: Send {
    fn is_good(&self) -> bool;
}

impl<B: Send> Answer for Response<B> {
    fn is_good(&self) -> bool {
        self.status().is_success()
    }
}
