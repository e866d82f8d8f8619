//! The settings of one call.

use std::time::Duration;

/// Settings of one call, which replace the settings of the stack.
///
/// # Use
///
/// | call | options |
/// |---|---|
/// | HTTP, gRPC | an extension of the request: `request.extensions_mut().insert(options)` |
/// | an async function | [`Client::with`](crate::client::Client::with): `db.with(options).run(function)` |
/// | any service behind a standard stack | [`StandardService::with`](crate::stack::StandardService::with): `stock.with(options).send(request)` |
/// | requests of your own type | the return value of [`Replay::call_options`](crate::Replay::call_options), in a policy of your own |
///
/// `HttpReplay` reads the extension. It is the policy of `http::client`, `http::standard`, `grpc::client` and
/// `http::grpc::standard`. A stack with another policy, such as [`Never`](crate::Never), does not read the extension:
/// use `with`.
///
/// If a call has an extension and options by `with`, both apply. Where both set the same value, `with` decides. Of two
/// deadlines the sooner one applies.
///
/// # Settings
///
/// | setting | replaces |
/// |---|---|
/// | [`timeout`](Self::timeout) | the timeout of the stack; it may be shorter or longer |
/// | [`deadline`](Self::deadline) | the deadline of the stack and an inherited deadline, if it is sooner than both |
/// | [`no_retry`](Self::no_retry) | the retry |
/// | [`no_hedge`](Self::no_hedge) | the hedge |
/// | [`idempotent`](Self::idempotent) | the decision by the method, key or path of the request |
/// | [`stream`](Self::stream) | the declaration of [streams](crate::stack#streams) |
///
/// The idempotency key of a call is not an option, because the service must see it. It is the header `Idempotency-Key`,
/// or a key of the metadata in gRPC. A request with a key is idempotent.
///
/// A retry or a hedge that you nest by hand reads `no_retry`, `no_hedge` and `idempotent`. Only standard stacks read
/// the times. They and servers read `stream`. A stack inside another stack also reads the options of the request. Calls that a function or
/// a service makes are separate calls, and inherit only the deadline.
///
/// # Other callers
///
/// An attempt that ends at a shorter timeout than that of the stack is not a failure of the service. It counts as a
/// call that its caller has ended [early](crate::circuit_breaker#calls-that-end-early), so hasty callers do not open
/// the circuit breaker for others. It is retried like any attempt that timed out, and the budget of the stack pays for
/// the retry.
///
/// # Cost
///
/// A call with options allocates once. Every HTTP request costs a lookup in its extensions.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use buttress::CallOptions;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let db = buttress::client("db").concurrency_limit(20).build()?;
/// let nightly = CallOptions::new().timeout(Duration::from_secs(30)).no_retry();
///
/// let report = db.with(nightly).run(async || {
///     tokio::time::sleep(Duration::from_secs(20)).await; // longer than the timeout of the client, 2 s
///     Ok::<_, std::io::Error>("12 bolts")
/// });
/// assert_eq!(report.await?, "12 bolts");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "give it to `with`, or put it into the extensions of a request"]
pub struct CallOptions {
    pub(crate) timeout: Option<Duration>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) idempotent: Option<bool>,
    pub(crate) stream: Option<bool>,
    pub(crate) no_retry: bool,
    pub(crate) no_hedge: bool,
}

impl CallOptions {
    /// Makes options without settings, so that the settings of the stack apply.
    pub const fn new() -> Self {
        Self {
            timeout: None,
            deadline: None,
            idempotent: None,
            stream: None,
            no_retry: false,
            no_hedge: false,
        }
    }

    /// Sets the timeout of each attempt. It may be shorter or longer than the timeout of the stack, and also applies if
    /// the stack has none.
    ///
    /// The deadline bounds it. A shorter response timeout of the stack is extended to this time.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the time of the whole answer, from the beginning of the call: all attempts, their waits, and the body.
    ///
    /// It is the [deadline](crate::Deadline) of all inner calls, and a `PropagateDeadlineLayer` sends it to the
    /// service. A sooner deadline, of the stack or inherited, replaces it. It also applies to a stream.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets that failed attempts are not made again, neither by the retry nor by a hedge.
    pub const fn no_retry(mut self) -> Self {
        self.no_retry = true;
        self
    }

    /// Sets that no copies are sent while the first attempt is on its way.
    pub const fn no_hedge(mut self) -> Self {
        self.no_hedge = true;
        self
    }

    /// Sets whether the service may act on the request twice. If it may and the stack has a hedge, the request is also
    /// hedged.
    ///
    /// This setting takes precedence over the method, key and path of an HTTP request, over
    /// [`Replay::is_idempotent`](crate::Replay::is_idempotent), and over the choice between `run` and `run_once`.
    pub const fn idempotent(mut self, is_idempotent: bool) -> Self {
        self.idempotent = Some(is_idempotent);
        self
    }

    /// Sets whether the answer is a [stream](crate::stack#streams), which the deadline of the stack does not end.
    pub const fn stream(mut self, is_stream: bool) -> Self {
        self.stream = Some(is_stream);
        self
    }

    /// Merges the options of `with` and the options of the request.
    #[cold]
    pub(crate) fn both(own: Option<Self>, of_request: Option<Self>) -> Self {
        let (own, of_request) = (own.unwrap_or_default(), of_request.unwrap_or_default());
        let deadlines = [own.deadline, of_request.deadline];
        Self {
            timeout: own.timeout.or(of_request.timeout),
            deadline: deadlines.into_iter().flatten().min(),
            idempotent: own.idempotent.or(of_request.idempotent),
            stream: own.stream.or(of_request.stream),
            no_retry: own.no_retry || of_request.no_retry,
            no_hedge: own.no_hedge || of_request.no_hedge,
        }
    }
}
