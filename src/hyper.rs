//! A client of hyper-util that says whether a request was sent.
//!
//! # When to use it
//!
//! Put it around every [`Client`](::hyper_util::client::legacy::Client) of hyper-util that is called through a
//! [retry](crate::retry). A request that is not idempotent, such as a POST without a key, is sent again only with a
//! proof that it was not sent, and an error by itself proves nothing. This adapter gets the proof from the client.
//!
//! ```
//! use buttress::http::HttpStandardService;
//! use buttress::{ConfigError, hyper};
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use hyper_util::client::legacy::{Client, connect::HttpConnector};
//! use hyper_util::rt::TokioExecutor;
//!
//! type Orders = HttpStandardService<hyper::Client<Client<HttpConnector, Full<Bytes>>>>;
//!
//! fn orders() -> Result<Orders, ConfigError> {
//!     let client = hyper::Client::new(Client::builder(TokioExecutor::new()).build_http());
//!     let stack = buttress::http::standard("orders").concurrency_limit(50).build()?;
//!     Ok(stack.wrap(client))
//! }
//! # orders().unwrap();
//! ```
//!
//! # How it works
//!
//! | the client says | because |
//! |---|---|
//! | no connection was made | its connector failed: a refused connection, an unknown host name, a failed TLS handshake |
//! | the request was dropped | its connection was closed while the request was in the queue |
//! | the stream was refused | the other side sent `RST_STREAM` with `REFUSED_STREAM` |
//! | the stream was excluded | the other side sent `GOAWAY` without an error, and the stream is above the last one in it, or was not begun. This counts only for requests with a body, because hyper reports the same for a request whose head it was just writing |
//!
//! In these cases [`Cause::was_sent`](crate::Cause::was_sent) is `false`. In all other cases the service may have acted
//! on the request.
//!
//! The proof holds for the layer that has called the adapter directly: for a retry in the same
//! [`ServiceBuilder`](tower::ServiceBuilder), also with a balancer, a timeout or a layer of another crate in between,
//! if each passes the call on at once. If a service in between waits before it makes the call (an `async` function, a
//! `Buffer`), the proof does not hold for the retry, because the service may have done something else before.

use std::fmt;
use std::task::{self, Poll, ready};

use ::http::Request;
use ::hyper_util::client::legacy;
use http_body::Body;
use tower::Service;

use crate::Error;
use crate::statement::{self, Witness, of_legacy_client};

/// A client that says whether a request was sent. See the [module documentation](self).
///
/// `C` is a [`hyper_util::client::legacy::Client`].
#[derive(Clone)]
pub struct Client<C>(C);

impl<C> Client<C> {
    /// Wraps `client`.
    pub fn new(client: C) -> Self {
        Self(client)
    }
}

impl<C, B> Service<Request<B>> for Client<legacy::Client<C, B>>
where
    B: Body,
    legacy::Client<C, B>: Service<Request<B>, Error = legacy::Error>,
{
    type Response = <legacy::Client<C, B> as Service<Request<B>>>::Response;
    type Error = Error;
    type Future = ResponseFuture<<legacy::Client<C, B> as Service<Request<B>>>::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        let ready = ready!(self.0.poll_ready(cx));
        Poll::Ready(ready.map_err(|error| Error::of_client(error.into(), false)))
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let has_body = !request.body().is_end_stream();
        ResponseFuture::call(Legacy { has_body }, || self.0.call(request))
    }
}

/// The response future of [`Client`].
pub type ResponseFuture<F> = statement::ResponseFuture<F, Legacy>;

/// The witness of a client of hyper-util.
#[derive(Clone, Copy, Debug)]
pub struct Legacy {
    has_body: bool,
}

impl Witness<legacy::Error> for Legacy {
    fn proves_not_sent(&self, error: &legacy::Error) -> bool {
        of_legacy_client(error, self.has_body)
    }
}

impl<C> fmt::Debug for Client<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
