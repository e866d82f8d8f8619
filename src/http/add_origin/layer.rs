//! The layer that sends requests to one origin, and its service.

use std::mem;
use std::net::{SocketAddr, SocketAddrV6};

use ::http::uri::{Authority, PathAndQuery, Scheme, Uri};
use ::http::{Method, Request};
use tokio::time::Instant;
use tower::Layer;

use crate::error::Check;
use crate::http::adapt::{self, Adapt, Adapted, Unchanged};
use crate::{CloneService, ConfigError, Evictable};

const AS_IN: &str = "given, as in http://10.0.0.1:8080";

/// Sends requests to one origin: a scheme, a host and a port. See the [module documentation](crate::http::add_origin).
#[derive(Clone, Debug, PartialEq)]
pub struct AddOriginLayer {
    scheme: Scheme,
    authority: Authority,
}

impl AddOriginLayer {
    /// Makes a layer that sends requests to `origin`, such as `https://search-1.internal`.
    ///
    /// # Errors
    ///
    /// If `origin` is no URI, has no scheme (`10.0.0.1:8080`), or has a path or a query.
    pub fn new(origin: &str) -> Result<Self, ConfigError> {
        let check = Check::new("origin", origin)?;
        let uri = match Uri::try_from(origin) {
            Ok(uri) => uri.into_parts(),
            Err(error) => {
                let permitted = "a scheme, a host and a port, as in http://10.0.0.1:8080";
                return Err(check.refuse("URI", &format_args!("refused ({error})"), permitted));
            }
        };
        let (Some(scheme), Some(authority)) = (uri.scheme, uri.authority) else {
            return Err(check.refuse("scheme", &format_args!("missing"), AS_IN));
        };
        let path = uri
            .path_and_query
            .as_ref()
            .map_or("/", |path| path.as_str());
        check.that(path == "/", "path", &path, "left out")?;
        Ok(Self { scheme, authority })
    }

    /// Makes a layer that sends requests to `address` over plain HTTP.
    ///
    /// The zone of an IPv6 address is left out, because a URI cannot have one.
    #[must_use]
    #[allow(
        clippy::missing_panics_doc,
        reason = "an address and a port are an authority"
    )]
    pub fn http(address: SocketAddr) -> Self {
        let address = match address {
            SocketAddr::V6(v6) => SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0).into(),
            SocketAddr::V4(_) => address,
        };
        let authority = Authority::try_from(address.to_string());
        Self {
            scheme: Scheme::HTTP,
            authority: authority.expect("an address and a port are an authority"),
        }
    }

    /// Sends a request to the origin.
    #[inline]
    pub(crate) fn add_to<B>(&self, request: &mut Request<B>) {
        if request.method() == Method::CONNECT {
            return;
        }
        let mut parts = mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        // The path of a request for a bare authority is empty.
        parts
            .path_and_query
            .get_or_insert(PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(parts).expect("has all its parts");
    }

    /// Wraps `service`. The compiler checks that it can serve requests with bodies of type `B`.
    pub fn wrap<B, S>(&self, service: S) -> AddOrigin<S>
    where
        S: CloneService<Request<B>>,
    {
        self.layer(service)
    }
}

impl<S> Layer<S> for AddOriginLayer {
    type Service = AddOrigin<S>;

    fn layer(&self, inner: S) -> AddOrigin<S> {
        Adapted::new(inner, self.clone())
    }
}

impl Evictable for AddOriginLayer {
    fn is_evictable(&self, _now: Instant) -> bool {
        true
    }
}

impl<B> Adapt<Request<B>> for AddOriginLayer {
    type Request = Request<B>;
    type Result = Unchanged;

    #[inline]
    fn adapt(&self, mut request: Request<B>) -> (Request<B>, Unchanged) {
        self.add_to(&mut request);
        (request, Unchanged)
    }
}

/// A service whose requests go to one origin. Made by [`AddOriginLayer`].
pub type AddOrigin<S> = Adapted<S, AddOriginLayer>;

/// The response future of [`AddOrigin`].
pub type ResponseFuture<S, B> = adapt::ResponseFuture<S, Request<B>>;
