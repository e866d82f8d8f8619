//! A whole gRPC client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use ::http::{Request, Response};
use ::tonic::Status;
use ::tonic::body::Body;
use ::tonic::transport::Channel;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::Map;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::Service;

use super::config::Replica;
use crate::balance::{self, HealthCheck, Probe};
use crate::debug::debug_fields;
use crate::http::ReplayBody;
use crate::http::grpc::{Classifier, PeekedBody};
use crate::http::respond::grpc_trailers;
use crate::http::transport::{Whole, WholeBody, WholeStack};
use crate::stack::Handle;
use crate::tonic as adapter;
use crate::{BoxError, ConfigError, Error, ErrorKind};

type Stack<S> = WholeStack<IntoChannel<S>, IntoChannel<S>, Classifier>;

/// A gRPC client with all layers that one dependency needs. Make a generated client from it. See the [module
/// documentation](super).
///
/// `S` is its channel, or the channel of each replica.
#[derive(Clone)]
pub struct Client<S = Channel>(pub(super) Whole<IntoChannel<S>, IntoChannel<S>, Classifier>);

impl<S> Client<S> {
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
    /// If the client has one channel only, a value is outside its range, or there is no Tokio runtime to run the task.
    pub fn check_health<H>(self, health: HealthCheck<H>) -> Result<Self, ConfigError>
    where
        S: Clone + Send + Sync + 'static,
        H: Probe<Replica<S>> + Send + Sync + 'static,
    {
        self.0.check_health(health)?;
        Ok(self)
    }
}

impl<S, R> Service<Request<Body>> for Client<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error: Into<BoxError>> + Clone + 'static,
    R: HttpBody<Data = Bytes, Error: Into<BoxError> + 'static> + Unpin,
{
    type Response = Response<ResponseBody<R>>;
    type Error = Status;
    type Future = ResponseFuture<S, R>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Status>> {
        self.0.stack.poll_ready(cx).map_err(status)
    }

    #[inline]
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = self.0.stack.call(request.map(ReplayBody::new));
        call.map(end as _)
    }
}

debug_fields!([S] Client<S> { handle() });

/// The response future of [`Client`].
pub type ResponseFuture<S, R> = WithStatus<
    <Stack<S> as Service<Request<ReplayBody<Body>>>>::Future,
    WholeBody<PeekedBody<R>, Classifier>,
>;

type WithStatus<F, B> =
    Map<F, fn(Result<Response<B>, Error>) -> Result<Response<StatusBody<B>>, Status>>;

/// The body of a response of a [`Client`]. `R` is the body of the channel.
pub type ResponseBody<R> = StatusBody<WholeBody<PeekedBody<R>, Classifier>>;

#[inline]
fn end<B>(result: Result<Response<B>, Error>) -> Result<Response<StatusBody<B>>, Status> {
    match result {
        Ok(response) => Ok(response.map(|body| StatusBody { body: Some(body) })),
        Err(error) => Err(status(error)),
    }
}

/// Returns the status for an error. The error becomes the source of the status.
#[cold]
fn status(error: Error) -> Status {
    if error.kind() == ErrorKind::Service {
        return Status::from_error(error.into());
    }
    let status = Status::from_header_map(&grpc_trailers(&error, true));
    let mut status = status.unwrap_or_else(|| Status::unavailable(error.to_string()));
    status.set_source(Arc::new(error));
    status
}

pin_project! {
    /// A body whose errors are statuses.
    pub struct StatusBody<B> {
        // `None` if it was made by `Default`.
        #[pin]
        body: Option<B>,
    }
}

impl<B> Default for StatusBody<B> {
    /// Makes a body without data. An interceptor answers with it.
    fn default() -> Self {
        Self { body: None }
    }
}

impl<B: HttpBody<Error = Error>> HttpBody for StatusBody<B> {
    type Data = B::Data;
    type Error = Status;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Status>>> {
        match self.project().body.as_pin_mut() {
            Some(body) => body.poll_frame(cx).map_err(status),
            None => Poll::Ready(None),
        }
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        let body = self.body.as_ref();
        body.is_none_or(HttpBody::is_end_stream)
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        let body = self.body.as_ref();
        body.map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

debug_fields!([B] StatusBody<B> {});

/// A channel that accepts the bodies of the stack, inside the adapter that proves that a request was not sent.
#[derive(Clone, Debug)]
pub struct IntoChannel<S>(adapter::Client<S>);

impl<S> IntoChannel<S> {
    pub(super) fn new(channel: S) -> Self {
        Self(adapter::Client::new(channel))
    }
}

impl<S, R> Service<Request<ReplayBody<Body>>> for IntoChannel<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error: Into<BoxError>> + 'static,
    R: HttpBody + Unpin,
{
    type Response = Response<PeekedBody<R>>;
    type Error = Error;
    type Future = adapter::ResponseFuture<S::Future, R>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<ReplayBody<Body>>) -> Self::Future {
        self.0.call(request.map(Body::new))
    }
}
