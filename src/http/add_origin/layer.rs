//! The layer that sends requests to one origin.

use std::net::{SocketAddr, SocketAddrV6};

use ::http::Request;
use ::http::uri::{Authority, Scheme, Uri};
use tokio::time::Instant;
use tower::Layer;

use super::service::AddOrigin;
use crate::error::Check;
use crate::ready::Ready;
use crate::{CloneService, ConfigError, Evictable};

const AS_IN: &str = "given, as in http://10.0.0.1:8080";

/// Sends requests to one origin: a scheme, a host and a port. See the [module documentation](crate::http::add_origin).
#[derive(Clone, Debug, PartialEq)]
pub struct AddOriginLayer {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
}

impl AddOriginLayer {
    /// A layer that sends requests to `origin`, such as `https://search-1.internal`.
    ///
    /// # Errors
    ///
    /// If that is no URI, has no scheme (`10.0.0.1:8080`), or has a path or a query besides.
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

    /// A layer that sends requests to `address` over plain HTTP.
    ///
    /// The zone of an IPv6 address is left out, since a URI cannot have one.
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

    /// Wraps `service`, checking that it can serve requests with bodies of type `B`.
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
        AddOrigin {
            inner: Ready::new(inner),
            origin: self.clone(),
        }
    }
}

impl Evictable for AddOriginLayer {
    fn is_evictable(&self, _now: Instant) -> bool {
        true
    }
}
