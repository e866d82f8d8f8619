//! A reqwest client that says whether a request was sent.
//!
//! # When to use it
//!
//! In place of every [`reqwest::Client`] that is called through a [retry](crate::retry). A request that may
//! not be acted on twice, such as a POST without a key, is sent again only if it is proved that it was not sent, and an error by
//! itself proves nothing: reqwest follows redirects, so the connection that was refused may be the second one.
//!
//! A client that is finished does not tell whether it follows redirects, or sends requests again by itself. So this one is made of
//! a [`ClientBuilder`], and counts redirects.
//!
//! ```
//! use buttress::reqwest::Client;
//!
//! let client = Client::build(reqwest::Client::builder().no_proxy())?;
//! let request = client.as_inner().post("http://orders/").body("12 bolts").build()?;
//! # drop(request);
//! # Ok::<(), reqwest::Error>(())
//! ```
//!
//! # How it works
//!
//! If a request was redirected, the service may have acted on it. Otherwise the statement is that of the client of hyper-util
//! which reqwest is made of: no connection was made, the request was dropped before any of it was written, HTTP/2 refused the
//! stream, or a graceful `GOAWAY` excluded it, as at `buttress::hyper`. Then [`Cause::was_sent`](crate::Cause::was_sent) is `false`. The statement
//! proves nothing to a layer that has not called the adapter directly, but through a service that waits before it makes the call.
//!
//! Retries of reqwest's own are switched off: a retry of this crate does the same, and counts.

use std::cell::Cell;
use std::error::Error as StdError;
use std::task::{self, Poll, ready};

use ::hyper_util::client::legacy;
use ::reqwest::{ClientBuilder, Request, Response, redirect};
use http_body::Body;
use tower::Service;

use crate::Error;
use crate::statement::{self, Witness, of_legacy_client};

thread_local! {
    /// A redirect was followed, or given up, in the poll of a call.
    static REDIRECTED: Cell<bool> = const { Cell::new(false) };
}

/// A client that says whether a request was sent. See the [module documentation](self).
#[derive(Clone, Debug)]
pub struct Client(::reqwest::Client);

impl Client {
    /// Makes a client that follows redirects as reqwest does by default, up to 10 of them.
    ///
    /// A redirect policy and a retry policy of `builder` are replaced.
    ///
    /// # Errors
    ///
    /// Those of [`ClientBuilder::build`].
    pub fn build(builder: ClientBuilder) -> ::reqwest::Result<Self> {
        Self::build_with_redirects(builder, redirect::Policy::default())
    }

    /// Makes a client that follows redirects as `policy` says.
    ///
    /// # Errors
    ///
    /// Those of [`ClientBuilder::build`].
    pub fn build_with_redirects(
        builder: ClientBuilder,
        policy: redirect::Policy,
    ) -> ::reqwest::Result<Self> {
        let counting = redirect::Policy::custom(move |attempt| {
            REDIRECTED.set(true);
            policy.redirect(attempt)
        });
        let builder = builder.redirect(counting).retry(::reqwest::retry::never());
        Ok(Self(builder.build()?))
    }

    /// Returns the client of reqwest, to build requests with. Its own `send` goes past all layers.
    #[must_use]
    pub fn as_inner(&self) -> &::reqwest::Client {
        &self.0
    }
}

impl Service<Request> for Client {
    type Response = Response;
    type Error = Error;
    type Future = ResponseFuture;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        let ready = ready!(Service::<Request>::poll_ready(&mut self.0, cx));
        Poll::Ready(ready.map_err(|error| Error::of_client(error.into(), false)))
    }

    #[inline]
    fn call(&mut self, request: Request) -> ResponseFuture {
        let has_body = request.body().is_some_and(|body| !body.is_end_stream());
        let witness = Redirects {
            were_seen: false,
            has_body,
        };
        ResponseFuture::call(witness, || Service::call(&mut self.0, request))
    }
}

/// The response future of [`Client`].
pub type ResponseFuture =
    statement::ResponseFuture<<::reqwest::Client as Service<Request>>::Future, Redirects>;

/// Asks a client of reqwest, and watches for redirects.
#[derive(Debug)]
pub struct Redirects {
    were_seen: bool,
    has_body: bool,
}

impl Witness<::reqwest::Error> for Redirects {
    #[inline]
    fn watch<T>(&mut self, poll: impl FnOnce() -> T) -> T {
        let outer = REDIRECTED.replace(false);
        let polled = poll();
        self.were_seen |= REDIRECTED.replace(outer);
        polled
    }

    fn proves_not_sent(&self, error: &::reqwest::Error) -> bool {
        let client: Option<&legacy::Error> = error.source().and_then(<dyn StdError>::downcast_ref);
        !self.were_seen && client.is_some_and(|error| of_legacy_client(error, self.has_body))
    }
}
