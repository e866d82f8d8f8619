//! Headers that hold a timeout.

use std::time::Duration;

use ::http::{HeaderMap, HeaderName, Request};

use super::value;
use crate::http::Protocol;

/// The header with the timeout of a gRPC call.
pub(super) static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The header with the timeout of a request of plain HTTP, unless another one is configured.
pub(super) static REQUEST_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-request-timeout-ms");

/// Finds the headers of a request.
///
/// Use [`HttpHeaders`] for an `http::Request`. For another type of request, use a function that returns its headers:
/// `reqwest::Request::headers_mut`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not find the headers of requests of type `{Req}`",
    note = "write `PropagateDeadlineLayer::config(name).headers(reqwest::Request::headers_mut)`, or the function of your type"
)]
pub trait Headers<Req> {
    /// Returns the headers of `request`.
    fn headers_mut<'a>(&self, request: &'a mut Req) -> &'a mut HeaderMap;
}

/// The headers of an `http::Request`, the type of hyper, tonic and axum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpHeaders;

impl<B> Headers<Request<B>> for HttpHeaders {
    fn headers_mut<'a>(&self, request: &'a mut Request<B>) -> &'a mut HeaderMap {
        request.headers_mut()
    }
}

#[diagnostic::do_not_recommend]
impl<Req, F> Headers<Req> for F
where
    F: Fn(&mut Req) -> &mut HeaderMap,
{
    fn headers_mut<'a>(&self, request: &'a mut Req) -> &'a mut HeaderMap {
        self(request)
    }
}

/// Returns the least of the timeouts in the headers of this name, which may be several.
pub(super) fn least(
    protocol: Protocol,
    headers: &HeaderMap,
    name: &HeaderName,
) -> Option<Duration> {
    let values = headers.get_all(name).iter();
    values
        .filter_map(|value| value::parse(protocol, value))
        .min()
}

/// Writes the remaining time, unless the headers already have a shorter one.
///
/// Returns the timeout that the headers have now.
pub(super) fn write(
    protocol: Protocol,
    headers: &mut HeaderMap,
    name: &HeaderName,
    left: Duration,
) -> Option<Duration> {
    let least = least(protocol, headers, name).filter(|&least| least <= left);
    // If there are several values, a server may use any of them.
    if least.is_some() && headers.get_all(name).iter().count() == 1 {
        return least;
    }
    let value = value::format(protocol, least.unwrap_or(left))?;
    let told = value::parse(protocol, &value);
    headers.insert(name, value);
    told
}
