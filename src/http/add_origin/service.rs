//! The service that sends requests to one origin.

use std::mem;
use std::task::{self, Poll};

use ::http::uri::{PathAndQuery, Uri};
use ::http::{Method, Request};
use tower::Service;

use super::future::ResponseFuture;
use super::layer::AddOriginLayer;
use crate::ready::Ready;
use crate::send::send_method;
use crate::{CloneService, Error};

/// A service whose requests go to one origin. Made by [`AddOriginLayer`].
#[derive(Clone, Debug)]
pub struct AddOrigin<S> {
    pub(super) inner: Ready<S>,
    pub(super) origin: AddOriginLayer,
}

impl AddOriginLayer {
    /// The URI of a request that is sent to the origin.
    fn add_to(&self, uri: Uri) -> Uri {
        let mut parts = uri.into_parts();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        // That of a request for a bare authority is empty.
        parts
            .path_and_query
            .get_or_insert(PathAndQuery::from_static("/"));
        Uri::from_parts(parts).expect("has all its parts")
    }
}

send_method!(AddOrigin<S>);

impl<S, B> Service<Request<B>> for AddOrigin<S>
where
    S: CloneService<Request<B>>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S, B>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll(cx);
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if request.method() != Method::CONNECT {
            let uri = mem::take(request.uri_mut());
            *request.uri_mut() = self.origin.add_to(uri);
        }
        self.inner
            .call_as(request, &mut (), |call, ()| ResponseFuture { call })
    }
}
