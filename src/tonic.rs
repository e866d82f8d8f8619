//! A channel of tonic that says whether a request was sent.
//!
//! # When to use it
//!
//! Put it around every [`Channel`] that is called through a [retry](crate::retry). All methods of gRPC are POST: a call
//! is sent again only if its method is declared idempotent, or with a proof that it was not sent. An error by itself
//! proves nothing. This adapter gets the proof from the channel.
//!
//! ```
//! use buttress::tonic::Client;
//! use tonic::transport::Endpoint;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let channel = Endpoint::from_static("http://inventory:50051").connect_lazy();
//! let channel = Client::new(channel); // to be wrapped by `grpc::standard` and its layers
//! # drop(channel);
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! | the channel says | because |
//! |---|---|
//! | no connection was made | its connector failed. A connector that is given to [`Channel::new`] gives no proof |
//! | the request was dropped | its connection was closed while the request was in the queue |
//! | the stream was refused | the other side sent `RST_STREAM` with `REFUSED_STREAM` |
//! | the stream was excluded | the other side sent `GOAWAY` without an error, and the stream is above the last one in it, or was not begun. This counts only for requests with a body, because hyper reports the same for a request whose head it was just writing |
//!
//! In these cases [`Cause::was_sent`](crate::Cause::was_sent) is `false`. In all other cases the service may have acted
//! on the request. This includes calls through a service that waits between the adapter and the retry.
//!
//! The adapter also reads trailers that follow the head at once, so that a failure in them can be retried: see
//! [`grpc`](crate::http::grpc).
//!
//! The channel must be the innermost service: put an interceptor around the adapter, not between it and the channel.

use std::any::Any;
use std::error::Error as StdError;
use std::task::{self, Poll, ready};

use ::http::{Request, Response};
use ::tonic::body::Body;
use ::tonic::transport::{self, Channel};
use http_body::Body as _;
use tower::Service;

use crate::http::grpc::{PeekFuture, PeekedBody};
use crate::statement::{self, Witness, of_connection};
use crate::{BoxError, Error};

/// A channel that says whether a request was sent. See the [module documentation](self).
///
/// Another service in place of the channel, as in a test, gives no proof.
#[derive(Clone, Debug)]
pub struct Client<S = Channel>(S);

impl<S> Client<S> {
    /// Wraps `channel`.
    #[must_use]
    pub fn new(channel: S) -> Self {
        Self(channel)
    }
}

impl<S, B> Service<Request<Body>> for Client<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError> + 'static> + 'static,
    B: http_body::Body + Unpin,
{
    type Response = Response<PeekedBody<B>>;
    type Error = Error;
    type Future = ResponseFuture<S::Future, B>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        let ready = ready!(self.0.poll_ready(cx));
        Poll::Ready(ready.map_err(|error| Error::of_client(error.into(), false)))
    }

    #[inline]
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let witness = OfChannel {
            is_channel: (&self.0 as &dyn Any).is::<Channel>(),
            has_body: !request.body().is_end_stream(),
        };
        PeekFuture::new(statement::ResponseFuture::call(witness, || {
            self.0.call(request)
        }))
    }
}

/// The response future of [`Client`].
pub type ResponseFuture<F = <Channel as Service<Request<Body>>>::Future, B = Body> =
    PeekFuture<statement::ResponseFuture<F, OfChannel>, B>;

/// The witness of a channel.
#[derive(Clone, Copy, Debug)]
pub struct OfChannel {
    /// `false` for a service around a channel, which may have sent the request before and return a later error of the
    /// channel.
    is_channel: bool,
    has_body: bool,
}

impl<E: 'static> Witness<E> for OfChannel {
    fn proves_not_sent(&self, error: &E) -> bool {
        let error: Option<&transport::Error> = (error as &dyn Any).downcast_ref();
        let source = error.and_then(StdError::source);
        self.is_channel
            && source.is_some_and(|error| {
                error.is::<::tonic::ConnectError>() || of_connection(error, self.has_body)
            })
    }
}
