//! A replica, and the service of `http::Request` inside the layers of a whole client.

use std::convert::Infallible;
use std::mem;
use std::task::{self, Poll};

use ::http::response::Builder;
use ::reqwest::{Body, Request, Response, ResponseBuilderExt};
use futures::TryFutureExt;
use futures::future::{Either, MapOk, Ready, ready};
use tower::Service;

use super::adapter::{self, Adapter};
use super::body::RequestBody;
use crate::http::AddOriginLayer;
use crate::{ConfigError, Error, context};

/// One of several replicas: an origin, or a separate client.
///
/// | made of | requests go |
/// |---|---|
/// | a text, `http://10.0.0.1:80` | to this origin, which replaces the origin in the URL, through the client of all replicas |
/// | an [`AddOriginLayer`] | the same |
/// | an [`Adapter`] or a [`reqwest::Client`] | to the server in their URL, through this client |
///
/// A redirect goes to the server that it names, which may be another replica.
///
/// With an origin, the URL of the response, the header `Host` and the name in the certificate are those of the replica.
/// If all replicas have the certificate and the cookies of the service, make a client for each replica that resolves
/// the name of the service to its address:
///
/// ```
/// use std::net::SocketAddr;
///
/// use buttress::BoxError;
/// use buttress::balance::Endpoint;
/// use buttress::reqwest::{Adapter, Client};
/// use reqwest::ClientBuilder;
///
/// fn search(builder: fn() -> ClientBuilder, replicas: Vec<SocketAddr>) -> Result<Client, BoxError> {
///     let replica = |address| {
///         let client = Adapter::build(builder().resolve("search.internal", address))?;
///         Ok::<_, reqwest::Error>(Endpoint::new(address, client))
///     };
///     let replicas = replicas.into_iter().map(replica).collect::<Result<Vec<_>, _>>()?;
///     let search = buttress::reqwest::client("search").concurrency_limit(50);
///     Ok(search.replicas(Adapter::build(builder())?, replicas)?) // `.get("https://search.internal/stock")`
/// }
/// # let builder = || reqwest::Client::builder().no_proxy();
/// # search(builder, vec![([10, 0, 0, 1], 80).into(), ([10, 0, 0, 2], 80).into()]).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Replica(Target);

#[derive(Clone, Debug)]
enum Target {
    Origin(AddOriginLayer),
    Client(Adapter),
}

impl Replica {
    /// Returns the service of a client that sends requests to the server in their URL.
    pub(super) fn of_url(adapter: Adapter) -> HttpAdapter {
        HttpAdapter {
            adapter,
            origin: None,
        }
    }

    /// Returns the service of the replica. `adapter` is the client of all replicas.
    pub(super) fn service(self, adapter: &Adapter) -> HttpAdapter {
        match self.0 {
            Target::Origin(origin) => HttpAdapter {
                adapter: adapter.clone(),
                origin: Some(origin),
            },
            Target::Client(adapter) => Self::of_url(adapter),
        }
    }
}

impl TryFrom<&str> for Replica {
    type Error = ConfigError;

    fn try_from(origin: &str) -> Result<Self, ConfigError> {
        AddOriginLayer::new(origin).map(Self::from)
    }
}

impl TryFrom<String> for Replica {
    type Error = ConfigError;

    fn try_from(origin: String) -> Result<Self, ConfigError> {
        Self::try_from(&*origin)
    }
}

impl From<AddOriginLayer> for Replica {
    fn from(origin: AddOriginLayer) -> Self {
        Self(Target::Origin(origin))
    }
}

impl From<Adapter> for Replica {
    fn from(client: Adapter) -> Self {
        Self(Target::Client(client))
    }
}

impl From<::reqwest::Client> for Replica {
    fn from(client: ::reqwest::Client) -> Self {
        Adapter::from(client).into()
    }
}

/// A conversion for replicas that need no check.
impl From<Infallible> for ConfigError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// A reqwest client as a service of `http::Request`, for the layers of a [`Client`](super::Client).
///
/// It sends requests to the server in their URL, or to the origin of one [`Replica`].
#[derive(Clone, Debug)]
pub struct HttpAdapter {
    adapter: Adapter,
    origin: Option<AddOriginLayer>,
}

impl Service<::http::Request<RequestBody>> for HttpAdapter {
    type Response = ::http::Response<Body>;
    type Error = Error;
    type Future = ResponseFuture;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        self.adapter.poll_ready(cx)
    }

    fn call(&mut self, mut request: ::http::Request<RequestBody>) -> ResponseFuture {
        if let Some(origin) = &self.origin {
            origin.add_to(&mut request);
        }
        match Request::try_from(request) {
            Ok(request) => Either::Left(self.adapter.call(request).map_ok(into_http as _)),
            Err(error) => {
                let error = Error::of_client(error.into(), context::take_direct());
                Either::Right(ready(Err(error)))
            }
        }
    }
}

/// The response future of [`HttpAdapter`].
pub(super) type ResponseFuture = Either<
    MapOk<adapter::ResponseFuture, fn(Response) -> ::http::Response<Body>>,
    Ready<Result<::http::Response<Body>, Error>>,
>;

/// Converts a response of reqwest. Its URL becomes an extension, which [`Response`] takes out again.
fn into_http(response: Response) -> ::http::Response<Body> {
    let mut carrier = Builder::new().url(response.url().clone());
    let mut response = ::http::Response::<Body>::from(response);
    if let Some(url) = carrier.extensions_mut() {
        response.extensions_mut().extend(mem::take(url));
    }
    response
}
