//! The shop: places orders through the given client, and notes the result of each order.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use buttress::{Cause, Error, ErrorKind};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::time::Instant;
use tower::{BoxError, Service, ServiceExt as _};

use crate::script::Customer;
use crate::{Request, Response};

/// Client of the shop, bare or protected.
pub(crate) trait Client:
    Service<Request, Response = Response, Error: Into<BoxError> + Send + 'static, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Client for S where
    S: Service<Request, Response = Response, Error: Into<BoxError> + Send + 'static, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// End of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Placed,
    /// The customer's patience was over.
    Left,
    /// The server answered with an error.
    Answered,
    /// The server answered that these are too many requests.
    TooMany,
    /// There was no connection, or it broke.
    NoConnection,
    /// The circuit breaker let nothing through.
    BreakerOpen,
    /// The turn under the rate limit would have come too late.
    RateLimited,
    /// The bulkhead had no place, or none in time.
    BulkheadFull,
    /// The last attempt got no answer in time.
    TimedOut,
    /// All attempts together took too long.
    DeadlineOver,
    /// This process may not open more connections: the fault of neither shop.
    TooManyFiles,
    /// Anything else.
    Other,
}

impl Ending {
    fn of(error: &BoxError) -> Self {
        match Error::find(error.as_ref()).map(Cause::kind) {
            None | Some(ErrorKind::Service) => {}
            Some(ErrorKind::CircuitOpen) => return Self::BreakerOpen,
            Some(ErrorKind::RateLimited) => return Self::RateLimited,
            Some(ErrorKind::BulkheadFull | ErrorKind::QueueTimeout) => return Self::BulkheadFull,
            Some(ErrorKind::Timeout) => return Self::TimedOut,
            Some(ErrorKind::DeadlineExceeded) => return Self::DeadlineOver,
            Some(_) => return Self::Other,
        }
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&**error);
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                // EMFILE and ENFILE have these numbers wherever they exist.
                if cfg!(unix) && matches!(error.raw_os_error(), Some(23 | 24)) {
                    return Self::TooManyFiles;
                }
            }
            source = error.source();
        }
        Self::NoConnection
    }
}

/// Result for one customer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) customer: Customer,
    /// In which the order came to `payments`.
    pub(crate) phase: usize,
    /// Until the customer knew, or had left.
    pub(crate) took: Duration,
    pub(crate) ending: Ending,
}

impl Sample {
    pub(crate) fn is_placed(&self) -> bool {
        self.ending == Ending::Placed
    }
}

/// Measurements at one shop.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// In the order in which they were decided.
    samples: Mutex<Vec<Sample>>,
    phase: AtomicUsize,
}

impl Records {
    /// The next phase begins.
    pub(crate) fn turn(&self, phase: usize) {
        self.phase.store(phase, Ordering::Relaxed);
    }

    pub(crate) fn samples(&self) -> MutexGuard<'_, Vec<Sample>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client that both shops begin with: hyper's.
pub(crate) fn client() -> impl Client {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    legacy::Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector)
}

/// A shop with a client for each of the two servers.
#[derive(Debug)]
pub(crate) struct Shop<C> {
    stock: (C, http::Uri),
    payments: (C, http::Uri),
    records: Arc<Records>,
}

impl<C: Client> Shop<C> {
    pub(crate) fn new(
        stock: (C, SocketAddr),
        payments: (C, SocketAddr),
        records: &Arc<Records>,
    ) -> Result<Self, http::uri::InvalidUri> {
        Ok(Self {
            stock: (stock.0, format!("http://{}/reservations", stock.1).parse()?),
            payments: (
                payments.0,
                format!("http://{}/payments", payments.1).parse()?,
            ),
            records: Arc::clone(records),
        })
    }

    /// Serves a customer, who does not wait for ever.
    pub(crate) async fn serve(self: Arc<Self>, customer: Customer) {
        let arrived = Instant::now();
        let mut phase = None;
        let ending =
            tokio::time::timeout(customer.patience, self.place(customer, &mut phase)).await;
        let sample = Sample {
            customer,
            phase: phase.unwrap_or_else(|| self.records.phase.load(Ordering::Relaxed)),
            took: arrived.elapsed(),
            ending: ending.unwrap_or(Ending::Left),
        };
        self.records.samples().push(sample);
    }

    async fn place(&self, customer: Customer, phase: &mut Option<usize>) -> Ending {
        let (stock, uri) = &self.stock;
        if let Err(ending) = send(stock, post(uri, customer)).await {
            return ending;
        }
        let (payments, uri) = &self.payments;
        *phase = Some(self.records.phase.load(Ordering::Relaxed));
        match send(payments, post(uri, customer)).await {
            Ok(()) => Ending::Placed,
            Err(ending) => ending,
        }
    }
}

/// The key belongs to the order, so every attempt to place it carries the same one.
fn post(uri: &http::Uri, customer: Customer) -> Request {
    let mut request = Request::new(Full::from(format!("order={}", customer.order)));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = uri.clone();
    request
        .headers_mut()
        .insert("idempotency-key", customer.order.into());
    request
}

async fn send(client: &impl Client, request: Request) -> Result<(), Ending> {
    match client.clone().oneshot(request).await {
        Ok(response) if response.status().is_success() => {
            // Read to its end, so that the connection can be used again.
            let body = response.into_body().collect().await;
            body.map(drop).map_err(|_| Ending::NoConnection)
        }
        Ok(response) if response.status() == http::StatusCode::TOO_MANY_REQUESTS => {
            Err(Ending::TooMany)
        }
        Ok(_) => Err(Ending::Answered),
        Err(error) => Err(Ending::of(&error.into())),
    }
}
