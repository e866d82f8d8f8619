//! A whole client for HTTP.

use std::task::{self, Poll};

use ::http::{Request, Response};
use http_body::Body;
use tower::Service;

use super::config::Replica;
use crate::balance::{self, HealthCheck, Probe};
use crate::debug::debug_fields;
use crate::http::transport::{Whole, WholeBody, WholeStack};
use crate::http::{AddOrigin, Classifier, TryCopyBody};
use crate::send::OneCall;
use crate::stack::Handle;
use crate::{BoxError, CloneService, ConfigError, Error};

/// An HTTP client with all layers that one dependency needs. See the [module documentation](super).
///
/// `S` is the wrapped client, of one target or of several.
#[derive(Clone)]
pub struct Client<S>(pub(super) Whole<S, AddOrigin<S>, Classifier>);

/// The body of a response. `B` is the body of the inner client.
pub type ResponseBody<B> = WholeBody<B, Classifier>;

impl<S> Client<S> {
    /// Sends a request. Its body is converted for the wrapped client: a text becomes a `Full<Bytes>`, for example.
    ///
    /// The call is made on a clone, so the client can be shared by reference. The future is `Send` and `'static`.
    ///
    /// # Errors
    ///
    /// The errors of the inner client, and of layers that refuse or end the call.
    ///
    /// # Cancellation
    ///
    /// Dropping the future cancels the call. Nothing happens before it is polled.
    pub fn send<T, B, R>(
        &self,
        request: Request<T>,
    ) -> impl Future<Output = Result<Response<ResponseBody<R>>, Error>> + Send + use<S, T, B, R>
    where
        S: CloneService<Request<B>, Response = Response<R>, Future: Send> + Send + Sync,
        T: Into<B>,
        B: TryCopyBody + Send,
        R: Body<Error: Into<BoxError> + 'static> + Send,
    {
        OneCall::new(self.0.stack.clone(), request.map(Into::into))
    }

    /// Returns a handle that reads and changes the parts of the stack.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.0.handle()
    }

    /// Returns a handle that reads and changes the balancer, if the client has several replicas.
    #[must_use]
    pub fn balancer(&self) -> Option<&balance::Handle<Replica<S>>> {
        self.0.balancer()
    }

    /// Starts a health check of the replicas. See [`health_check`](super::health_check).
    ///
    /// # Errors
    ///
    /// If the client has one target only, a value is outside its range, or there is no Tokio runtime to run the task.
    pub fn check_health<H>(self, health: HealthCheck<H>) -> Result<Self, ConfigError>
    where
        S: Clone + Send + Sync + 'static,
        H: Probe<Replica<S>> + Send + Sync + 'static,
    {
        self.0.check_health(health)?;
        Ok(self)
    }
}

impl<S, B, R> Service<Request<B>> for Client<S>
where
    S: CloneService<Request<B>, Response = Response<R>>,
    B: TryCopyBody,
    R: Body<Error: Into<BoxError> + 'static>,
{
    type Response = Response<ResponseBody<R>>;
    type Error = Error;
    type Future = <WholeStack<S, AddOrigin<S>, Classifier> as Service<Request<B>>>::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        self.0.stack.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.0.stack.call(request)
    }
}

debug_fields!([S] Client<S> { handle() });
