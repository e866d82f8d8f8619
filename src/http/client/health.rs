//! The health check of an HTTP server.

use std::future::poll_fn;
use std::marker::PhantomData;

use ::http::uri::PathAndQuery;
use ::http::{Request, Response, Uri};
use tower::Service;

use crate::BoxError;
use crate::balance::{HealthCheck, Probe};
use crate::debug::debug_fields;

/// Makes a health check of replicas by a `GET` of this path. A status from 200 to 299 means that the replica works.
///
/// # Panics
///
/// If `path` is not a path.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use buttress::http::client::health_check;
/// use bytes::Bytes;
/// use http_body_util::Full;
///
/// let health = health_check::<Full<Bytes>>("/health").interval(Duration::from_secs(2));
/// # drop(health);
/// ```
pub fn health_check<B>(path: &'static str) -> HealthCheck<HttpProbe<B>> {
    HealthCheck::new(HttpProbe::new(PathAndQuery::from_static(path).into()))
}

/// A probe that sends a `GET` to an HTTP server. Made by [`health_check`].
pub struct HttpProbe<B> {
    uri: Uri,
    body: PhantomData<fn() -> B>,
}

impl<B> HttpProbe<B> {
    pub(crate) fn new(uri: Uri) -> Self {
        Self {
            uri,
            body: PhantomData,
        }
    }
}

impl<S, B, R> Probe<S> for HttpProbe<B>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<BoxError>, Future: Send> + Send,
    B: Default + Send,
    R: Send,
{
    async fn probe(&self, mut service: S) -> Result<(), BoxError> {
        let ready = poll_fn(|cx| service.poll_ready(cx)).await;
        ready.map_err(Into::into)?;
        let mut request = Request::new(B::default());
        *request.uri_mut() = self.uri.clone();
        let status = service.call(request).await.map_err(Into::into)?.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("answered {status}").into())
        }
    }
}

debug_fields!([B] HttpProbe<B> { uri });
