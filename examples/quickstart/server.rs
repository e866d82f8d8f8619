//! `stock` and `payments`: real hyper servers on loopback, with a capacity of their own.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::script::{Contract, Health, Random};

/// A server that makes each order of a client once: it books a reservation or a payment.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    desk: Arc<Desk>,
    listening: Listening,
    /// Holds the places of the workers that are gone.
    absent: Option<JoinHandle<Option<OwnedSemaphorePermit>>>,
}

#[derive(Debug)]
enum Listening {
    Open(JoinHandle<()>),
    /// Keeps the port for the time when the server comes back.
    Closed(TcpSocket),
    Moving,
}

/// State that the connections of one server share.
#[derive(Debug)]
struct Desk {
    workers: Arc<Semaphore>,
    health: Mutex<Health>,
    seed: u64,
    quota: Mutex<Quota>,
    ledger: Mutex<Ledger>,
}

/// A bucket of the requests that the contract allows. It holds those of a tenth of a second.
#[derive(Debug)]
struct Quota {
    per_second: f64,
    left: f64,
    filled: Instant,
}

impl Quota {
    fn new(contract: Contract) -> Self {
        let per_second = f64::from(contract.per_second);
        Self {
            per_second,
            left: per_second / 10.0,
            filled: Instant::now(),
        }
    }

    fn take(&mut self) -> bool {
        let now = Instant::now();
        let new = (now - self.filled).as_secs_f64() * self.per_second;
        self.left = (self.left + new).min(self.per_second / 10.0);
        self.filled = now;
        let allowed = self.left >= 1.0;
        if allowed {
            self.left -= 1.0;
        }
        allowed
    }
}

/// The books of a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// Keys that have been seen.
    keys: HashSet<HeaderValue>,
    /// Number of requests for each order.
    requests: HashMap<u64, u64>,
    /// Number of bookings of each order. Bookings ignore the keys, so it shows if the keys fail.
    pub(crate) bookings: HashMap<u64, u32>,
    /// Requests that were answered from the books, because their key was known.
    pub(crate) repeats: u64,
    /// Requests that were answered 429.
    pub(crate) refused: u64,
}

impl Ledger {
    fn book(&mut self, order: u64, key: Option<HeaderValue>) {
        let is_known = key.is_some_and(|key| !self.keys.insert(key));
        if is_known {
            self.repeats += 1;
        } else {
            *self.bookings.entry(order).or_default() += 1;
        }
    }

    /// Orders that were booked more than once.
    pub(crate) fn booked_twice(&self) -> usize {
        self.bookings.values().filter(|&&times| times > 1).count()
    }
}

impl Server {
    /// Opens a server on a free port.
    pub(crate) async fn open(seed: u64, contract: Contract) -> io::Result<Self> {
        let socket = bind((Ipv4Addr::LOCALHOST, 0).into()).await?;
        let mut server = Self {
            address: socket.local_addr()?,
            desk: Arc::new(Desk {
                workers: Arc::new(Semaphore::new(Health::Healthy.workers())),
                health: Mutex::new(Health::Healthy),
                seed,
                quota: Mutex::new(Quota::new(contract)),
                ledger: Mutex::default(),
            }),
            listening: Listening::Closed(socket),
            absent: None,
        };
        server.turn(Health::Healthy).await?;
        Ok(server)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes how the server is doing from now on.
    pub(crate) async fn turn(&mut self, health: Health) -> io::Result<()> {
        *lock(&self.desk.health) = health;
        if let Some(absent) = self.absent.take() {
            absent.abort();
            // The workers come back with it.
            drop(absent.await);
        }
        let absent = Health::Healthy.workers() - health.workers();
        if absent > 0 {
            let workers = Arc::clone(&self.desk.workers);
            // Each of them goes when the work at hand is done.
            self.absent = Some(tokio::spawn(async move {
                workers.acquire_many_owned(absent as u32).await.ok()
            }));
        }
        self.listening = match std::mem::replace(&mut self.listening, Listening::Moving) {
            Listening::Open(accepting) if health == Health::Refused => {
                accepting.abort();
                // The listener and all connections go with the task.
                drop(accepting.await);
                Listening::Closed(bind(self.address).await?)
            }
            Listening::Closed(socket) if health != Health::Refused => {
                let listener = socket.listen(1024)?;
                Listening::Open(tokio::spawn(accept(listener, Arc::clone(&self.desk))))
            }
            unchanged => unchanged,
        };
        Ok(())
    }

    /// Waits for the work that has been begun, then shows the books.
    pub(crate) async fn audit(&self) -> Ledger {
        let all = Health::Healthy.workers() as u32;
        drop(self.desk.workers.acquire_many(all).await);
        lock(&self.desk.ledger).clone()
    }
}

/// Binds without listening: connections are refused, and nobody else gets the port.
async fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let mut tries = 0;
    loop {
        let socket = TcpSocket::new_v4()?;
        // The port is wanted again while its old connections linger. On Windows the option means
        // something else, and is not needed.
        socket.set_reuseaddr(cfg!(not(windows)))?;
        match socket.bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < 100 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            bound => return bound.map(|()| socket),
        }
    }
}

async fn accept(listener: TcpListener, desk: Arc<Desk>) {
    // Dropped with this task, which closes every connection.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // Most likely too many open files: some will be closed in a moment.
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let desk = Arc::clone(&desk);
        connections.spawn(async move {
            let serve = service_fn(|request| serve(Arc::clone(&desk), request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), serve);
            // An error means that the client has gone, which is its right.
            drop(connection.await);
        });
    }
}

/// Answers one request, as servers do: it queues for a worker, and what has been accepted is done
/// even if nobody waits for the answer any more. So a client that gives up on a payment does not
/// know whether it is made, and what clients have given up on is still in the way of the others.
async fn serve(
    desk: Arc<Desk>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let key = request.headers().get("idempotency-key").cloned();
    let Some(order) = order_number(request).await else {
        return Ok(answer(StatusCode::BAD_REQUEST));
    };
    if !lock(&desk.quota).take() {
        lock(&desk.ledger).refused += 1;
        let mut refusal = answer(StatusCode::TOO_MANY_REQUESTS);
        let in_a_second = HeaderValue::from_static("1");
        refusal
            .headers_mut()
            .insert(http::header::RETRY_AFTER, in_a_second);
        return Ok(refusal);
    }
    // A task of its own, because this one ends with the connection.
    match tokio::spawn(work(desk, order, key)).await {
        Ok(Done::Answered(status)) => Ok(answer(status)),
        // Holds the worker until the client hangs up.
        Ok(Done::Hangs(_worker)) => future::pending().await,
        Err(_) => Ok(answer(StatusCode::INTERNAL_SERVER_ERROR)),
    }
}

impl Desk {
    /// The luck of the next request for an order. It depends on nothing else, so what one shop has to
    /// get over the other one has to as well.
    fn fate(&self, order: u64) -> Random {
        let mut ledger = lock(&self.ledger);
        let request = ledger.requests.entry(order).or_default();
        *request += 1;
        let mut of_order = Random::new(self.seed.wrapping_add(order << 32));
        Random::new(of_order.next().wrapping_add(*request))
    }
}

enum Done {
    Answered(StatusCode),
    Hangs(OwnedSemaphorePermit),
}

async fn work(desk: Arc<Desk>, order: u64, key: Option<HeaderValue>) -> Done {
    let Ok(worker) = Arc::clone(&desk.workers).acquire_owned().await else {
        return Done::Answered(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let health = *lock(&desk.health);
    let mut random = desk.fate(order);
    let is_hit = health
        .one_in()
        .is_some_and(|share| random.next() % share == 0);
    let luck = random.share();
    let usual = Health::work(luck);
    let stuck = if is_hit {
        health.stuck_for().mul_f64(0.5 + luck)
    } else {
        Duration::ZERO
    };
    tokio::time::sleep(usual.max(stuck)).await;
    if is_hit && matches!(health, Health::Flaky | Health::Outage) {
        return Done::Answered(StatusCode::SERVICE_UNAVAILABLE);
    }
    lock(&desk.ledger).book(order, key);
    if is_hit && health == Health::Hanging {
        return Done::Hangs(worker);
    }
    Done::Answered(StatusCode::OK)
}

/// Reads the number from a body like `order=17`.
async fn order_number(request: Request<Incoming>) -> Option<u64> {
    let body = request.into_body().collect().await.ok()?.to_bytes();
    let number = body.strip_prefix(b"order=")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

fn answer(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
