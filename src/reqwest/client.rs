//! A whole client for reqwest.

use std::task::{self, Poll};

use ::http::Extensions;
use ::reqwest::{Body, IntoUrl, Method, Request, Response};
use futures::future::{BoxFuture, Either, ready};
use futures::{FutureExt, TryFutureExt};
use tower::Service;

use super::body::RequestBody;
use super::replica::HttpAdapter;
use super::request::RequestBuilder;
use crate::balance::{self, HealthCheck, Probe};
use crate::debug::debug_fields;
use crate::http::Classifier;
use crate::http::transport::{Near, Whole, WholeBody};
use crate::send::OneCall;
use crate::stack::Handle;
use crate::{ConfigError, Deadline, Error};

/// A reqwest client with all layers that one dependency needs. See the [module documentation](super).
#[derive(Clone)]
pub struct Client {
    pub(super) whole: Whole<HttpAdapter, HttpAdapter, Classifier>,
    /// Builds requests.
    pub(super) inner: ::reqwest::Client,
}

macro_rules! methods {
    ($($method:ident $name:ident)+) => {
        $(
            #[doc = concat!("Begins to build a `", stringify!($method), "` request for `url`.")]
            pub fn $name(&self, url: impl IntoUrl) -> RequestBuilder {
                self.request(Method::$method, url)
            }
        )+
    };
}

impl Client {
    methods!(GET get POST post PUT put PATCH patch DELETE delete HEAD head);

    /// Begins to build a request for `url`.
    pub fn request(&self, method: Method, url: impl IntoUrl) -> RequestBuilder {
        RequestBuilder::new(self.clone(), self.inner.request(method, url))
    }

    /// Sends a finished request. Otherwise it is like [`send`](RequestBuilder::send) of a [`RequestBuilder`].
    ///
    /// # Errors
    ///
    /// The errors of [`send`](RequestBuilder::send).
    pub fn execute(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Response, Error>> + Send + use<> {
        self.clone().run(Ok(request), Extensions::new())
    }

    pub(super) fn run(
        self,
        request: ::reqwest::Result<Request>,
        extensions: Extensions,
    ) -> impl Future<Output = Result<Response, Error>> + Send + use<> {
        let mut request = match request.and_then(|request| self.check_url(request)) {
            Ok(request) => request,
            Err(error) => return Either::Left(ready(Err(self.invalid(error)))),
        };
        // In reqwest this time would begin anew with each attempt, and its end would look like a failure of the
        // service.
        let deadline = request.timeout_mut().take().map(Deadline::after);
        let mut request = match ::http::Request::<Body>::try_from(request) {
            Ok(request) => request.map(RequestBody::from),
            Err(error) => return Either::Left(ready(Err(self.invalid(error)))),
        };
        request.extensions_mut().extend(extensions);
        let call = OneCall::new(self.whole.stack, request);
        let call = match deadline {
            Some(deadline) => Either::Left(deadline.scope(call)),
            None => Either::Right(call),
        };
        Either::Right(call.map_ok(into_reqwest))
    }

    /// Returns the error of reqwest for a URL with an unsupported scheme. Inside the stack this error would count as a
    /// failure of the service.
    fn check_url(&self, request: Request) -> ::reqwest::Result<Request> {
        if matches!(request.url().scheme(), "http" | "https") {
            return Ok(request);
        }
        let refused = self.inner.execute(Request::new(
            request.method().clone(),
            request.url().clone(),
        ));
        refused
            .now_or_never()
            .and_then(Result::err)
            .map_or(Ok(request), Err)
    }

    /// Returns the error for a request that cannot be sent.
    #[cold]
    fn invalid(&self, error: ::reqwest::Error) -> Error {
        let name = self.handle().name();
        let mut error = Error::of_service(Error::of_client(error.into(), true), || name);
        error.leave(name, false);
        error
    }

    /// Returns a handle that reads and changes the parts of the stack.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.whole.handle()
    }

    /// Returns a handle that reads and changes the balancer, if the client has several replicas.
    #[must_use]
    pub fn balancer(&self) -> Option<&balance::Handle<Near<HttpAdapter>>> {
        self.whole.balancer()
    }

    /// Starts a health check of the replicas. See [`health_check`](super::health_check).
    ///
    /// # Errors
    ///
    /// If the client has one target only, a value is outside its range, or there is no Tokio runtime to run the task.
    pub fn check_health<H>(self, health: HealthCheck<H>) -> Result<Self, ConfigError>
    where
        H: Probe<Near<HttpAdapter>> + Send + Sync + 'static,
    {
        self.whole.check_health(health)?;
        Ok(self)
    }
}

/// A service for layers around the client. Boxes the future of each call.
impl Service<Request> for Client {
    type Response = Response;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Response, Error>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.execute(request).boxed()
    }
}

/// Converts the response of the stack. Its URL is in an extension.
fn into_reqwest(response: ::http::Response<WholeBody<Body, Classifier>>) -> Response {
    Response::from(response.map(Body::wrap))
}

debug_fields!(Client { handle() });
