//! The builder of a request.

use std::fmt;
use std::time::Duration;

use ::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Version};
use ::reqwest::{Body, Response};

use super::client::Client;
use crate::Error;

/// A request that is being built, and then sent through a [`Client`].
///
/// It has the most used methods of [`reqwest::RequestBuilder`]. [`with`](Self::with) calls all others.
#[derive(Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct RequestBuilder {
    client: Client,
    request: ::reqwest::RequestBuilder,
    extensions: Extensions,
}

impl RequestBuilder {
    pub(super) fn new(client: Client, request: ::reqwest::RequestBuilder) -> Self {
        Self {
            client,
            request,
            extensions: Extensions::new(),
        }
    }

    /// Changes the request with any method of reqwest's own builder, possibly on a condition.
    ///
    /// # Examples
    ///
    /// ```
    /// # let web = buttress::reqwest::client("web").unlimited().build(reqwest::Client::builder().no_proxy())?;
    /// # let tenant = Some("a");
    /// let request = web.get("http://orders/").with(|request| match tenant {
    ///     Some(tenant) => request.header("x-tenant", tenant),
    ///     None => request,
    /// });
    /// # drop(request);
    /// # Ok::<(), buttress::ConfigError>(())
    /// ```
    pub fn with(
        mut self,
        change: impl FnOnce(::reqwest::RequestBuilder) -> ::reqwest::RequestBuilder,
    ) -> Self {
        self.request = change(self.request);
        self
    }

    /// Adds a header.
    pub fn header<K, V>(self, name: K, value: V) -> Self
    where
        HeaderName: TryFrom<K, Error: Into<::http::Error>>,
        HeaderValue: TryFrom<V, Error: Into<::http::Error>>,
    {
        self.with(|request| request.header(name, value))
    }

    /// Sets headers. They replace headers of the same names.
    pub fn headers(self, headers: HeaderMap) -> Self {
        self.with(|request| request.headers(headers))
    }

    /// Sets a user name and a password for HTTP basic authentication.
    pub fn basic_auth(
        self,
        username: impl fmt::Display,
        password: Option<impl fmt::Display>,
    ) -> Self {
        self.with(|request| request.basic_auth(username, password))
    }

    /// Sets a token for HTTP bearer authentication.
    pub fn bearer_auth(self, token: impl fmt::Display) -> Self {
        self.with(|request| request.bearer_auth(token))
    }

    /// Sets the HTTP version.
    pub fn version(self, version: Version) -> Self {
        self.with(|request| request.version(version))
    }

    /// Sets the body: a text, bytes, or a stream.
    pub fn body(self, body: impl Into<Body>) -> Self {
        self.with(|request| request.body(body))
    }

    /// Sets the body to `json`, and the header `Content-Type`. With the feature `reqwest-json`.
    #[cfg(feature = "reqwest-json")]
    pub fn json(self, json: &(impl serde::Serialize + ?Sized)) -> Self {
        self.with(|request| request.json(json))
    }

    /// Adds `query` to the query of the URL. With the feature `reqwest-query`.
    #[cfg(feature = "reqwest-query")]
    pub fn query(self, query: &(impl serde::Serialize + ?Sized)) -> Self {
        self.with(|request| request.query(query))
    }

    /// Sets the body to the fields of `form`, and the header `Content-Type`. With the feature `reqwest-form`.
    #[cfg(feature = "reqwest-form")]
    pub fn form(self, form: &(impl serde::Serialize + ?Sized)) -> Self {
        self.with(|request| request.form(form))
    }

    /// Sets the time for the whole answer, with all attempts and the body: the [deadline](crate::Deadline) of this
    /// call.
    ///
    /// It begins when the request is sent. A sooner deadline that is in force replaces it.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|request| request.timeout(timeout))
    }

    /// Adds an extension, such as [`CallOptions`](crate::CallOptions).
    ///
    /// # Examples
    ///
    /// ```
    /// use buttress::CallOptions;
    ///
    /// # let web = buttress::reqwest::client("web").unlimited().build(reqwest::Client::builder().no_proxy())?;
    /// // A search is a POST only because the query is long.
    /// let search = web.post("http://search/").body("...").extension(CallOptions::new().idempotent(true));
    /// # drop(search);
    /// # Ok::<(), buttress::ConfigError>(())
    /// ```
    pub fn extension<T: Clone + Send + Sync + 'static>(mut self, extension: T) -> Self {
        self.extensions.insert(extension);
        self
    }

    /// Sends the request.
    ///
    /// Returns the last answer unchanged, also a 500: an error means that there is no answer. The future is `Send` and
    /// `'static`.
    ///
    /// # Errors
    ///
    /// The errors of reqwest, which [`downcast_ref`](crate::Cause::downcast_ref) finds, and of layers that refuse or
    /// end the call. A request that cannot be built is not sent.
    ///
    /// # Cancellation
    ///
    /// Dropping the future cancels the call. Nothing is sent before it is polled.
    pub fn send(self) -> impl Future<Output = Result<Response, Error>> + Send + use<> {
        self.client.run(self.request.build(), self.extensions)
    }
}
