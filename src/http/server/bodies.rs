//! The bodies of a server: request bodies, whose senders must keep up, and response bodies.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{self, Poll, ready};
use std::time::Duration;

use ::http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::Layer;

use crate::http::adapt::{Adapt, AdaptResult, Adapted};
use crate::http::grpc::Code;
use crate::http::{BodyTimeoutLayer, HttpStreams, Protocol, TimeoutBody};
use crate::{BoxError, Error, ErrorKind, Stage};

/// Record of a request body that ended because its sender was too slow: the kind of the error, and the time that was
/// allowed. The body and the call share it, because another task may read the body.
type Late = OnceLock<(ErrorKind, Duration)>;

pin_project! {
    /// A request body whose sender must keep up. Made by [`ServerLayer`](super::ServerLayer).
    ///
    /// It is `Unpin` if `B` is.
    #[derive(Debug)]
    pub struct RequestBody<B> {
        #[pin]
        body: TimeoutBody<B>,
        // `None` for a request without a body.
        late: Option<Arc<Late>>,
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Error: Into<BoxError> + 'static>,
{
    type Data = B::Data;
    type Error = Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Error>>> {
        let this = self.project();
        let mut next = ready!(this.body.poll_frame(cx));
        if let (Some(Err(error)), Some(late)) = (&mut next, this.late) {
            note_late(error, late);
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cold]
fn note_late(error: &mut Error, late: &Late) {
    if error.is_timeout() && !error.is_of_slow_reader() {
        error.0.stage = Stage::Request;
        let allowed = error.0.allowed.unwrap_or_default();
        let _ = late.set((error.kind(), allowed));
    }
}

/// Bounds the time of request bodies and response bodies.
#[derive(Clone, Debug)]
pub struct BodiesLayer {
    pub(super) request: BodyTimeoutLayer,
    pub(super) response: BodyTimeoutLayer,
    pub(super) streams: HttpStreams,
}

/// A service whose bodies have a bounded time.
pub(super) type Bodies<S> = Adapted<S, BodiesLayer>;

impl<S> Layer<S> for BodiesLayer {
    type Service = Bodies<S>;

    fn layer(&self, inner: S) -> Bodies<S> {
        Adapted::new(inner, self.clone())
    }
}

impl<B: Body> Adapt<Request<B>> for BodiesLayer {
    type Request = Request<RequestBody<B>>;
    type Result = BodiesOfCall;

    #[inline]
    fn adapt(&self, request: Request<B>) -> (Self::Request, BodiesOfCall) {
        let is_stream = self.streams.are_declared_by(&request);
        // The body of a `CONNECT` is another protocol.
        let has_body = !request.body().is_end_stream() && *request.method() != Method::CONNECT;
        let late = has_body.then(Arc::<Late>::default);
        let protocol = Protocol::of(request.headers());
        let request = request.map(|body| RequestBody {
            body: if has_body {
                TimeoutBody::new(body, self.request, protocol, is_stream)
            } else {
                body.into()
            },
            late: late.clone(),
        });
        let bodies = BodiesOfCall {
            response: self.response,
            is_stream,
            late,
        };
        (request, bodies)
    }
}

/// The bounds of one call.
#[derive(Debug)]
pub struct BodiesOfCall {
    response: BodyTimeoutLayer,
    is_stream: bool,
    late: Option<Arc<Late>>,
}

impl<B> AdaptResult<Response<B>> for BodiesOfCall {
    type Response = Response<TimeoutBody<B>>;
    type Error = Error;

    fn name(&self) -> &'static str {
        self.response.name()
    }

    #[inline]
    fn adapt(&self, result: Result<Response<B>, Error>) -> Result<Self::Response, Error> {
        if let Some((kind, allowed)) = self.late.as_deref().and_then(OnceLock::get) {
            if result.as_ref().map_or(true, is_error) {
                // A handler turns an error of the body into an answer of its own. This error has the reason.
                let name = self.response.name();
                return Err(Error::body_timed_out(*kind, name, *allowed, Stage::Request));
            }
        }
        result.map(|response| self.response.bound(response, self.is_stream))
    }
}

/// Returns whether a response reports an error to its client.
#[cold]
fn is_error<B>(response: &Response<B>) -> bool {
    let status = response.status();
    let code = Code::read(response.headers());
    let is_error_of_grpc = code.is_some_and(|code| code != Code::Ok);
    status.is_client_error() || status.is_server_error() || is_error_of_grpc
}
