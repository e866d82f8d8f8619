//! An adapter for a reqwest client, which proves that a request was not sent.

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
    /// `true` if the current poll of a call has met a redirect.
    static REDIRECTED: Cell<bool> = const { Cell::new(false) };
}

/// The innermost service of a [`Client`](super::Client): a reqwest client whose errors show whether a request was sent.
///
/// A POST or PATCH without an `Idempotency-Key` is sent again only with a proof that it was not sent. An error alone
/// proves nothing: reqwest follows redirects, so a refused connection may be the second one. The proof comes from the
/// hyper-util client inside reqwest, as in `buttress::hyper`: no connection was made, the client dropped the request
/// before it wrote any of it, HTTP/2 refused the stream, or a graceful `GOAWAY` excluded it.
/// [`Cause::was_sent`](crate::Cause::was_sent) is then `false`. There is no proof for a redirected request, because the
/// service may have acted on it.
///
/// A finished [`reqwest::Client`] does not show whether it follows redirects or sends requests again by itself. An
/// adapter that is made `From` such a client therefore proves nothing. [`build`](Self::build) makes the client from a
/// [`ClientBuilder`] and notices redirects.
///
/// The adapter is a service of [`reqwest::Request`]. In a stack of your own, call it directly: behind a service that
/// waits before it makes the call, the proof does not reach the outer layers.
///
/// # Examples
///
/// ```
/// use buttress::reqwest::Adapter;
/// use reqwest::redirect::Policy;
///
/// let builder = reqwest::Client::builder().no_proxy();
/// let adapter = Adapter::build_with_redirects(builder, Policy::none())?;
/// let web = buttress::reqwest::client("web").concurrency_limit(50).wrap(adapter)?;
/// # drop(web);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Adapter {
    client: ::reqwest::Client,
    /// `true` if the adapter sees all redirects, and the client sends nothing again by itself.
    is_built_here: bool,
}

impl Adapter {
    /// Makes a client that follows up to 10 redirects, as reqwest does by default.
    ///
    /// The redirect policy and the retry policy of `builder` are replaced. Use a retry of this crate instead, which
    /// counts its attempts.
    ///
    /// # Errors
    ///
    /// Those of [`ClientBuilder::build`].
    pub fn build(builder: ClientBuilder) -> ::reqwest::Result<Self> {
        Self::build_with_redirects(builder, redirect::Policy::default())
    }

    /// Makes a client that follows redirects by `policy`.
    ///
    /// # Errors
    ///
    /// Those of [`ClientBuilder::build`].
    pub fn build_with_redirects(
        builder: ClientBuilder,
        policy: redirect::Policy,
    ) -> ::reqwest::Result<Self> {
        Self::build_with(builder, move |attempt| policy.redirect(attempt))
    }

    pub(super) fn build_with(
        builder: ClientBuilder,
        redirect: impl Fn(redirect::Attempt<'_>) -> redirect::Action + Send + Sync + 'static,
    ) -> ::reqwest::Result<Self> {
        let counting = redirect::Policy::custom(move |attempt| {
            REDIRECTED.set(true);
            redirect(attempt)
        });
        let builder = builder.redirect(counting).retry(::reqwest::retry::never());
        Ok(Self {
            client: builder.build()?,
            is_built_here: true,
        })
    }

    /// Returns the reqwest client, to build requests. Its own `send` bypasses all layers.
    #[must_use]
    pub fn as_inner(&self) -> &::reqwest::Client {
        &self.client
    }
}

/// Makes an adapter that proves nothing about requests.
impl From<::reqwest::Client> for Adapter {
    fn from(client: ::reqwest::Client) -> Self {
        Self {
            client,
            is_built_here: false,
        }
    }
}

impl Service<Request> for Adapter {
    type Response = Response;
    type Error = Error;
    type Future = ResponseFuture;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        let ready = ready!(Service::<Request>::poll_ready(&mut self.client, cx));
        Poll::Ready(ready.map_err(|error| Error::of_client(error.into(), false)))
    }

    #[inline]
    fn call(&mut self, request: Request) -> ResponseFuture {
        let has_body = request.body().is_some_and(|body| !body.is_end_stream());
        let witness = OfClient {
            may_be_redirected: !self.is_built_here,
            has_body,
        };
        ResponseFuture::call(witness, || Service::call(&mut self.client, request))
    }
}

/// The response future of [`Adapter`].
pub type ResponseFuture =
    statement::ResponseFuture<<::reqwest::Client as Service<Request>>::Future, OfClient>;

/// Calls a reqwest client, and watches for redirects.
#[derive(Debug)]
pub struct OfClient {
    may_be_redirected: bool,
    has_body: bool,
}

impl Witness<::reqwest::Error> for OfClient {
    #[inline]
    fn watch<T>(&mut self, poll: impl FnOnce() -> T) -> T {
        let outer = REDIRECTED.replace(false);
        let polled = poll();
        self.may_be_redirected |= REDIRECTED.replace(outer);
        polled
    }

    fn proves_not_sent(&self, error: &::reqwest::Error) -> bool {
        let client: Option<&legacy::Error> = error.source().and_then(<dyn StdError>::downcast_ref);
        !self.may_be_redirected
            && client.is_some_and(|error| of_legacy_client(error, self.has_body))
    }
}
