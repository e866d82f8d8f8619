//! The choice of requests that may be sent again.

use std::sync::Arc;

use ::http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use ::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use super::copy::TryCopyBody;
use crate::callback::Callback;
use crate::{Attempt, CallOptions, Effect, Replay, Upload};

/// The header with the key of a request. The server acts once on all requests with the same key.
///
/// It is the header of the IETF draft and of many APIs. [`HttpReplay`] treats a request with a key as idempotent.
///
/// # Examples
///
/// ```
/// use buttress::http::IDEMPOTENCY_KEY;
/// use http::Request;
///
/// let order = Request::post("/orders").header(IDEMPOTENCY_KEY, "order-4711").body("12 bolts")?;
/// # Ok::<(), http::Error>(())
/// ```
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// gRPC proposal A6: how many attempts were made before this one; missing on the first.
const GRPC_PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// Extension with the number of an attempt, from 2, which [`HttpReplay`] adds to further attempts. The first attempt
/// has none.
///
/// Inner services can read it after the request has left the task, where [`Attempt::current`] returns `None`. You can
/// add it to requests that you send on behalf of another request: see
/// [`trust_upstream_attempts`](HttpReplay::trust_upstream_attempts).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptNumber(pub u32);

/// Returns whether the service may act twice on a request with this method and these headers.
///
/// It may if the method is GET, HEAD, PUT, DELETE, OPTIONS or TRACE (RFC 9110, section 9.2.2), or if there is an
/// `Idempotency-Key` that is not empty. A write with a condition (`If-Match`, `If-None-Match` and the like) may not:
/// the first attempt can change the state in the condition, and the second one would get 412. [`HttpReplay`] uses this
/// rule. Use the function for clients with other request types: see the [module documentation](super).
#[must_use]
pub fn is_idempotent(method: &Method, headers: &HeaderMap) -> bool {
    let is_conditional_write = !method.is_safe() && has_condition(headers);
    (method.is_idempotent() || has_key(headers)) && !is_conditional_write
}

/// Returns what the options of the call say about whether it may act twice.
fn mark<B>(request: &Request<B>) -> Option<bool> {
    let options: &CallOptions = request.extensions().get()?;
    options.idempotent
}

fn has_key(headers: &HeaderMap) -> bool {
    let key = headers.get(IDEMPOTENCY_KEY);
    key.is_some_and(|key| !key.is_empty())
}

/// Returns whether the request has a condition on a state, which the request itself may change.
fn has_condition(headers: &HeaderMap) -> bool {
    let conditions = [
        IF_MATCH,
        IF_NONE_MATCH,
        IF_MODIFIED_SINCE,
        IF_UNMODIFIED_SINCE,
    ];
    conditions.iter().any(|name| headers.contains_key(name))
}

type OfPath = dyn Fn(&str) -> bool + Send + Sync;
type OfHead = dyn Fn(&Method, &Uri, &HeaderMap) -> bool + Send + Sync;

/// Copies HTTP requests that may be sent again. See the [module documentation](super).
#[derive(Clone, Debug, Default)]
#[must_use = "give it to `.replay` of a layer's configuration"]
pub struct HttpReplay {
    all_idempotent: bool,
    idempotent_paths: Option<Callback<OfPath>>,
    hedge_if: Option<Callback<OfHead>>,
    attempt_header: Option<HeaderName>,
    grpc_previous_attempts: bool,
    trusts_upstream: bool,
}

impl HttpReplay {
    /// Makes a policy that copies requests whose bodies are [`TryCopyBody`]: texts, bytes, `http_body_util::Full` and
    /// `Empty`, and [`ReplayBody`](crate::http::ReplayBody).
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares all requests idempotent that are not marked otherwise, for a service that acts once on each request, or
    /// only reads.
    pub fn all_idempotent(mut self) -> Self {
        self.all_idempotent = true;
        self
    }

    /// Declares requests to some paths idempotent, whatever their method. All gRPC calls are POST, to
    /// `/package.Service/Method`.
    ///
    /// # Examples
    ///
    /// ```
    /// use buttress::http::HttpReplay;
    ///
    /// let replay = HttpReplay::new().idempotent_paths(|path| {
    ///     matches!(path, "/shop.Inventory/Get" | "/shop.Inventory/List")
    ///         || path.starts_with("/grpc.health.v1.Health/")
    /// });
    /// ```
    pub fn idempotent_paths<F>(mut self, are_idempotent: F) -> Self
    where
        F: Fn(&str) -> bool + Send + Sync + 'static,
    {
        self.idempotent_paths = Some(Callback(Arc::new(are_idempotent)));
        self
    }

    /// Also hedges requests for which `is_hedgeable` returns `true`, in addition to requests with a safe method.
    ///
    /// By default only GET, HEAD and OPTIONS are hedged, and requests that are marked with [`CallOptions::idempotent`] or covered by
    /// [`all_idempotent`](Self::all_idempotent): two writes at once may collide, and a server that knows the key of the
    /// first one answers the copy with 409. gRPC has no safe methods, so choose its requests by path. A hedge without a
    /// retry around it repeats a failed request at once under the same condition.
    ///
    /// # Examples
    ///
    /// ```
    /// use buttress::http::HttpReplay;
    ///
    /// let replay = HttpReplay::new()
    ///     .idempotent_paths(|path| path.starts_with("/shop.Inventory/"))
    ///     .hedge_if(|_method, uri, _headers| uri.path() == "/shop.Inventory/Get");
    /// ```
    pub fn hedge_if<F>(mut self, is_hedgeable: F) -> Self
    where
        F: Fn(&Method, &Uri, &HeaderMap) -> bool + Send + Sync + 'static,
    {
        self.hedge_if = Some(Callback(Arc::new(is_hedgeable)));
        self
    }

    /// Writes the number of the attempt, 1 for the first, into this header.
    pub fn attempt_header(mut self, name: HeaderName) -> Self {
        self.attempt_header = Some(name);
        self
    }

    /// Writes the number of former attempts into the header `grpc-previous-rpc-attempts`, which first attempts do not
    /// have.
    pub fn grpc_previous_attempts(mut self) -> Self {
        self.grpc_previous_attempts = true;
        self
    }

    /// Does not copy requests that an outer layer has tried before, so that the attempts of several hops do
    /// not multiply.
    ///
    /// Such a request has a number of at least 2 in the [`attempt_header`](Self::attempt_header) or as
    /// [`AttemptNumber`], or a `grpc-previous-rpc-attempts` of at least 1. Its marks stay unchanged, for the next hop.
    /// Leave this off for callers that you do not trust: they could prevent retries of their own requests.
    pub fn trust_upstream_attempts(mut self) -> Self {
        self.trusts_upstream = true;
        self
    }

    /// Returns whether the request is a further attempt of an upstream layer.
    #[inline]
    fn is_retried_upstream<B>(&self, request: &Request<B>) -> bool {
        self.trusts_upstream && self.is_further_attempt(request.headers(), request.extensions())
    }

    fn is_further_attempt(&self, headers: &HeaderMap, extensions: &Extensions) -> bool {
        let number = |name| headers.get(name)?.to_str().ok()?.parse::<u32>().ok();
        let marks = [
            extensions.get().map(|AttemptNumber(number)| *number),
            self.attempt_header.as_ref().and_then(number),
            number(&GRPC_PREVIOUS_ATTEMPTS).map(|previous| previous.saturating_add(1)),
        ];
        // A hedge sees the marks of the retry around it.
        let own = Attempt::current().map(Attempt::number);
        let mut marks = marks.into_iter().flatten();
        marks.any(|mark| mark > 1 && Some(mark) != own)
    }
}

impl<B: TryCopyBody> Replay<Request<B>> for HttpReplay {
    fn copy(&self, request: &Request<B>) -> Option<Request<B>> {
        if self.is_retried_upstream(request) {
            return None;
        }
        let mut copy = Request::new(request.body().try_copy()?);
        copy.method_mut().clone_from(request.method());
        copy.uri_mut().clone_from(request.uri());
        *copy.version_mut() = request.version();
        copy.headers_mut().clone_from(request.headers());
        copy.extensions_mut().clone_from(request.extensions());
        Some(copy)
    }

    #[inline]
    fn call_options(&self, request: &Request<B>) -> Option<CallOptions> {
        request.extensions().get().copied()
    }

    fn is_idempotent(&self, request: &Request<B>) -> bool {
        if let Some(is_idempotent) = mark(request) {
            return is_idempotent;
        }
        let path = request.uri().path();
        self.all_idempotent
            || is_idempotent(request.method(), request.headers())
            || self
                .idempotent_paths
                .as_ref()
                .is_some_and(|are| (are.0)(path))
    }

    fn is_hedgeable(&self, request: &Request<B>) -> bool {
        if let Some(is_idempotent) = mark(request) {
            return is_idempotent;
        }
        let (method, uri, headers) = (request.method(), request.uri(), request.headers());
        let hedge_if = self.hedge_if.as_ref();
        let is_read = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        is_read || self.all_idempotent || hedge_if.is_some_and(|is| (is.0)(method, uri, headers))
    }

    fn effect(&self, request: &Request<B>) -> Effect {
        if has_key(request.headers()) {
            Effect::Key
        } else if request.method() == Method::DELETE {
            Effect::Removal
        } else {
            Effect::None
        }
    }

    fn set_attempt(&self, request: &mut Request<B>, attempt: u32) {
        if self.is_retried_upstream(request) {
            return;
        }
        // An extension allocates, so the first attempt, mostly the only one, has none.
        let extensions = request.extensions_mut();
        match attempt {
            0 | 1 => extensions.remove(),
            _ => extensions.insert(AttemptNumber(attempt)),
        };
        let headers = request.headers_mut();
        if let Some(name) = &self.attempt_header {
            headers.insert(name, HeaderValue::from(attempt));
        }
        if self.grpc_previous_attempts {
            match attempt.saturating_sub(1) {
                0 => headers.remove(GRPC_PREVIOUS_ATTEMPTS),
                previous => headers.insert(GRPC_PREVIOUS_ATTEMPTS, HeaderValue::from(previous)),
            };
        }
    }

    fn upload(&self, request: &mut Request<B>) -> Option<Upload> {
        request.body_mut().upload()
    }

    fn is_replayable(&self, copy: &Request<B>) -> bool {
        copy.body().is_replayable()
    }

    fn abandon(&self, copy: &Request<B>) {
        copy.body().abandon();
    }
}
