//! Error of every service and body of this crate, and the error of a configuration that makes no sense.

use std::any::Any;
use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::ops::{Deref, RangeBounds};
use std::time::Duration;

use crate::BoxError;
use crate::context;
use crate::replay::ReplayBodyError;
use crate::shortage::Shortage;

/// The reason why a call ended in an [`Error`].
///
/// [`Service`](Self::Service) stands for an error of the inner service. All other kinds mean that a layer ended the
/// call, by a rejection or after a time. After a rejection the service has not seen the request.
/// [`Cause::is_rejection`] and [`Cause::was_sent`] distinguish the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The inner service returned an error of its own. [`Cause::service_error`] and [`Cause::downcast_ref`] return it.
    Service,
    /// The circuit breaker is open; the inner service was not called.
    CircuitOpen,
    /// The rate limit is used up; the inner service was not called.
    RateLimited,
    /// The request costs more than the rate limit ever allows at once; the inner service was not called, and another
    /// try is of no use.
    TooCostly,
    /// The bulkhead has no free permit and no free place in its queue; the inner service was not called.
    BulkheadFull,
    /// The call waited in the bulkhead's queue for longer than it may; the inner service was not called.
    QueueTimeout,
    /// One attempt took longer than its timeout. The inner service may have acted on the request.
    Timeout,
    /// The deadline of the whole operation has passed, before or after the inner service was called.
    DeadlineExceeded,
    /// There is no endpoint to send the call to.
    NoEndpoints,
    /// The source of a balancer's endpoints was lost with the runtime that polled it, so the endpoints are not known
    /// any more. Use a source that can restart: [`discover::Restartable`](crate::discover::Restartable).
    DiscoveryStopped,
    /// A [part](crate::part) of your own has refused the call with [`Error::refused`]; the inner service was not
    /// called.
    Refused,
    /// The server or the client is [draining](crate::drain): it finishes the calls in flight and refuses new calls.
    Draining,
}

impl ErrorKind {
    /// Returns the value of the label `reason`, and the message before and after the name of the layer.
    ///
    /// Inlined, so that a rejection looks up its label alone.
    #[inline(always)]
    fn texts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Service => ("service", "", " failed"),
            Self::CircuitOpen => ("circuit_open", "circuit breaker ", " is open"),
            Self::RateLimited => ("rate_limited", "rate limit ", " is exceeded"),
            Self::TooCostly => (
                "too_costly",
                "request costs more than the burst of rate limit ",
                "",
            ),
            Self::BulkheadFull => ("bulkhead_full", "bulkhead ", " is full"),
            Self::QueueTimeout => (
                "queue_timeout",
                "call waited too long in the queue of bulkhead ",
                "",
            ),
            Self::Timeout => ("timeout", "", " gave no answer"),
            Self::DeadlineExceeded => ("deadline_exceeded", "", " did not finish by its deadline"),
            Self::NoEndpoints => ("no_endpoints", "balancer ", " has no endpoint"),
            Self::DiscoveryStopped => (
                "discovery_stopped",
                "discovery of balancer ",
                " has stopped because its runtime has ended, use a source that can restart",
            ),
            Self::Refused => ("refused", "", " refused the call"),
            Self::Draining => ("draining", "", " is draining and takes no new calls"),
        }
    }

    /// Returns the value of the label `reason`.
    pub(crate) fn label(self) -> &'static str {
        self.texts().0
    }
}

/// The reason why a retry made no further attempt. Returned by [`Cause::gave_up`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GaveUp {
    /// All attempts have been made: those of the retry, or the only one of a call with
    /// [`no_retry`](crate::CallOptions::no_retry).
    Exhausted,
    /// The [budget](crate::budget) does not have enough tokens for another attempt.
    Budget,
    /// The wait before the next attempt would go past the deadline, or the deadline passed during a wait or a further
    /// attempt.
    Deadline,
    /// The same for the response timeout of a [standard stack](crate::stack).
    ResponseTimeout,
    /// The service asked for a longer wait than the retry's `max_retry_after`.
    RetryAfter,
    /// The outcome of the attempt is not a failure, and another attempt would not help.
    NotRetryable,
    /// The service may have acted on the request, and the request must not act twice.
    NotIdempotent,
    /// There is no copy of the request that could be sent.
    NotCopyable,
    /// An inner layer refused the attempt, and would refuse another one.
    Rejected,
    /// The service asked not to be tried again.
    Pushback,
    /// An outer retry makes the attempts. The inner retry writes nothing into the error.
    Nested,
}

impl GaveUp {
    /// Returns the reason in words, unless the number of attempts says it already.
    fn words(self) -> Option<&'static str> {
        Some(match self {
            Self::Budget => "the retry budget is used up",
            Self::Deadline => "the deadline leaves no time for another attempt",
            Self::ResponseTimeout => "the response timeout leaves no time for another attempt",
            Self::RetryAfter => "the service asked for a longer wait than the retry permits",
            Self::NotRetryable => "another attempt would not help",
            Self::NotIdempotent => "there is no proof that the request was not sent",
            Self::NotCopyable => "the request cannot be copied",
            Self::Pushback => "the service asked for no further attempt",
            Self::Exhausted | Self::Rejected | Self::Nested => return None,
        })
    }
}

/// Error of every service and every body of this crate.
///
/// One type covers errors of the inner service, which have the kind [`ErrorKind::Service`], and calls that a layer has
/// ended. It has the methods of [`Cause`], through `Deref`. The `Cause` is also its [`source`](StdError::source), and
/// the service's own error is the source of the `Cause`.
///
/// It is 8 bytes in size, `Send`, `Sync` and `'static`: `?` converts it into `anyhow::Error`, `eyre::Report`, an enum
/// of `thiserror` and `Box<dyn Error + Send + Sync>`. [`Error::find`] finds the `Cause` in all of them.
///
/// Nested layers do not wrap the error again. An outer layer adds facts to it: a retry adds the number of attempts and
/// the reason for making no further one.
///
/// # Examples
///
/// ```
/// use std::io;
///
/// use buttress::{Error, ErrorKind};
///
/// fn http_status(error: &Error) -> u16 {
///     match error.kind() {
///         ErrorKind::Timeout | ErrorKind::DeadlineExceeded => 504,
///         ErrorKind::Service => match error.downcast_ref::<io::Error>() {
///             Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => 503,
///             _ => 502,
///         },
///         _ => 503,
///     }
/// }
/// ```
///
/// # Texts
///
/// | | prints |
/// |---|---|
/// | `{}` | the message of one line, without the text of the service's error: `"inventory" failed after 3 of 3 attempts` |
/// | `{:#}`, `{:?}` | the message and the whole chain of errors of the service: `"inventory" failed after 3 of 3 attempts: connection reset` |
/// | `{:#?}` | the fields |
///
/// `{}` leaves out the service's text, because code that prints a chain of errors, such as `anyhow`, prints that text
/// itself.
pub struct Error(pub(crate) Box<Cause>);

/// The layer that refused a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// No layer has refused it.
    None,
    /// A layer of this operation.
    Own,
    /// A layer in front of another dependency that the service has called.
    Foreign,
}

/// The proof that a request was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// The service may have acted on the request.
    None,
    /// The service may have acted on the request, and no adapter has asked the client.
    Unasked,
    /// The layer or client that the reading layer has [called directly](context::DirectCall) proves it.
    Direct,
    /// The layer `name` proves it to layers of the same name in the same task. The task is identified by the budget
    /// that pays for its attempts.
    Layer { name: &'static str, budget: usize },
}

impl Proof {
    fn of_layer(name: &'static str) -> Self {
        Self::Layer {
            name,
            budget: context::budget(),
        }
    }
}

/// The part of a call that took too long, or failed. Returned by [`Cause::stage`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The call itself: no answer had begun, or the layer does not know of one.
    #[default]
    Call,
    /// All attempts of an operation together: none of them had begun an answer that could be returned.
    AllAttempts,
    /// The wait for the next part of an answer that had begun.
    NextPart,
    /// The rest of an answer that had begun.
    WholeAnswer,
    /// The caller, which did not read an answer that was there.
    Reader,
    /// A body that ended in an error of its own.
    Body,
    /// The body of the request, which did not arrive in time.
    Request,
}

impl Error {
    fn new(kind: ErrorKind, name: &'static str) -> Self {
        Self(Box::new(Cause {
            kind,
            refusal: Refusal::None,
            proof: Proof::None,
            may_have_acted: false,
            may_go_elsewhere: false,
            stage: Stage::default(),
            is_of_stream: false,
            gave_up: None,
            attempts: 0,
            max_attempts: 0,
            name,
            retry_after: None,
            allowed: None,
            shortage: None,
            service: None,
        }))
    }

    /// Makes the error of a call that was refused before the inner service was called.
    #[cold]
    pub(crate) fn rejected(
        kind: ErrorKind,
        name: &'static str,
        retry_after: Option<Duration>,
    ) -> Self {
        let mut error = Self::new(kind, name);
        error.0.refusal = Refusal::Own;
        error.0.proof = if context::is_direct() {
            Proof::Direct
        } else {
            Proof::of_layer(name)
        };
        error.0.retry_after = retry_after;
        error
    }

    /// Makes the error of a call that a [part](crate::part) of your own refuses before the inner service is called.
    ///
    /// Its kind is [`ErrorKind::Refused`]. `name` is the name of the layer, and `retry_after` the wait after which
    /// another call can succeed, if the part knows one. All layers treat it like the refusal of a part of this crate:
    /// it is [`Outcome::Ignored`](crate::Outcome::Ignored), and a retry makes no further attempt unless it [retries
    /// rejections](crate::retry::Config::retry_rejections).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use buttress::{Error, ErrorKind};
    ///
    /// let error = Error::refused("reports", Some(Duration::from_secs(2)));
    /// assert_eq!(error.to_string(), "\"reports\" refused the call, retry after 2.0s");
    /// assert_eq!(error.kind(), ErrorKind::Refused);
    /// assert!(error.is_rejection() && !error.was_sent());
    /// ```
    #[cold]
    #[must_use]
    pub fn refused(name: &'static str, retry_after: Option<Duration>) -> Self {
        Self::rejected(ErrorKind::Refused, name, retry_after)
    }

    /// Makes the error of a call that was given up after `allowed`, while the inner service was working on it.
    #[cold]
    pub(crate) fn timed_out(kind: ErrorKind, name: &'static str, allowed: Duration) -> Self {
        let mut error = Self::new(kind, name);
        error.0.allowed = Some(allowed);
        error
    }

    /// Makes the error of an operation whose deadline another layer had set.
    pub(crate) fn late(name: &'static str) -> Self {
        Self::new(ErrorKind::DeadlineExceeded, name)
    }

    /// Makes the error of a call that found no endpoint.
    pub(crate) fn no_endpoints(shortage: Shortage) -> Self {
        let mut error = Self::rejected(ErrorKind::NoEndpoints, shortage.balancer, None);
        error.set_shortage(shortage);
        error
    }

    /// Makes the error of a layer called `name` from the error of its inner service.
    ///
    /// An error of this crate is returned unchanged. It gets the name if no inner layer had one.
    ///
    /// Never inlined: inlining would cost successful calls registers.
    #[cold]
    #[inline(never)]
    pub(crate) fn of_service<E>(error: E, name: impl FnOnce() -> &'static str) -> Self
    where
        E: Into<BoxError> + 'static,
    {
        match downcast::<E, Self>(error) {
            Ok(mut ours) => {
                let name = name();
                if ours.0.name.is_empty() {
                    ours.0.name = name;
                }
                ours.0.check_proof(name);
                ours
            }
            Err(foreign) => Self::of_foreign(foreign.into(), name()),
        }
    }

    /// Makes the error of a client from an adapter, which has asked the client whether the request was sent. The client
    /// may have been [called directly](context::DirectCall) or not.
    #[cfg(any(feature = "hyper", feature = "reqwest", feature = "tonic"))]
    #[cold]
    #[inline(never)]
    pub(crate) fn of_client(error: BoxError, is_not_sent: bool) -> Self {
        let mut error = Self::of_foreign(error, "");
        // A layer around the connector, or around the request's body, may have refused.
        error.0.disown();
        if is_not_sent {
            error.0.proof = Proof::Direct;
        }
        error
    }

    /// Makes an error from a boxed one, or from one of another crate.
    #[cold]
    #[inline(never)]
    pub(crate) fn of_foreign(error: BoxError, name: &'static str) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(ours) => return Self::of_service(*ours, || name),
            Err(error) => error,
        };
        let mut cause = Self::new(ErrorKind::Service, name);
        match sources(&*error).find_map(cause_of) {
            Some(found) => cause.0.adopt(found),
            None => cause.0.proof = Proof::Unasked,
        }
        cause.0.check_proof(name);
        cause.0.service = Some(error);
        cause
    }

    /// Finds the [`Cause`] of an error of this crate in `error` or in its chain of sources.
    ///
    /// It finds the cause behind `#[error(transparent)]` and `#[source]` of `thiserror`, behind contexts of `anyhow`
    /// and `eyre`, in an [`io::Error`], and in boxes. Pass `error.as_ref()` of a box, an `anyhow::Error` or an
    /// `eyre::Report`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io;
    ///
    /// use buttress::{BoxError, Error};
    ///
    /// let error: BoxError = "not from this crate".into();
    /// assert!(Error::find(error.as_ref()).is_none());
    /// assert!(Error::find(&io::Error::other(error)).is_none());
    /// ```
    #[must_use]
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Cause> {
        sources(error).find_map(cause_of)
    }

    /// Returns the service's own error by value.
    ///
    /// # Errors
    ///
    /// This error itself, if the inner service returned none.
    pub fn into_service_error(mut self) -> Result<BoxError, Self> {
        self.0.service.take().ok_or(self)
    }

    /// Notes that the layer or client of a direct call has refused the call after a wait.
    pub(crate) fn set_direct(&mut self) {
        self.0.proof = Proof::Direct;
    }

    /// Notes that a layer without a name got the error from the inner service that it has called directly.
    #[cfg(feature = "http")]
    pub(crate) fn check_direct(&mut self) {
        if let Proof::Layer { .. } = self.0.proof {
            self.0.disown();
        }
    }

    /// Notes that another attempt may have acted on the request, whatever the error proves.
    pub(crate) fn set_sent(&mut self) {
        self.0.may_have_acted = true;
    }

    /// Hands the error from the layer `name`, which has accepted its proof, to the caller of this layer. `is_direct`
    /// says whether the layer itself was called directly.
    #[cold]
    #[inline(never)]
    pub(crate) fn leave(&mut self, name: &'static str, is_direct: bool) {
        self.0.proof = match self.0.proof {
            Proof::Direct | Proof::Layer { .. } if is_direct => Proof::Direct,
            Proof::Direct | Proof::Layer { .. } => Proof::of_layer(name),
            proof => proof,
        };
    }

    /// Notes that another endpoint may take the refused call.
    pub(crate) fn set_may_go_elsewhere(&mut self) {
        self.0.may_go_elsewhere = true;
    }

    /// Notes that no endpoint would take the refused call.
    pub(crate) fn set_shortage(&mut self, shortage: Shortage) {
        self.0.shortage = Some(Box::new(shortage));
    }

    /// Notes the number of attempts of a retry, and the reason for making no further one.
    pub(crate) fn set_attempts(&mut self, attempts: u32, max_attempts: u32, gave_up: GaveUp) {
        self.0.attempts = attempts;
        self.0.max_attempts = max_attempts;
        self.0.gave_up = Some(gave_up);
    }
}

impl Deref for Error {
    type Target = Cause;

    #[inline]
    fn deref(&self) -> &Cause {
        &self.0
    }
}

/// The facts about an [`Error`]: its kind, the name of the layer, the attempts, and the service's own error.
///
/// It is the source of every [`Error`], so code can find it where the `Error` itself is hidden. Its text adds to the
/// message of the `Error` whether the request was sent.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}",
    if self.was_sent() { "the service may have acted on the request" } else { "the request was not sent" }
)]
#[non_exhaustive]
pub struct Cause {
    kind: ErrorKind,
    refusal: Refusal,
    /// The proof that the last attempt was not sent.
    proof: Proof,
    /// An earlier attempt may have acted.
    may_have_acted: bool,
    /// An inner balancer has other endpoints that may take the call.
    may_go_elsewhere: bool,
    pub(crate) stage: Stage,
    /// A declared stream was silent for too long.
    pub(crate) is_of_stream: bool,
    gave_up: Option<GaveUp>,
    /// 0 if no retry took part.
    attempts: u32,
    max_attempts: u32,
    name: &'static str,
    /// The time until another call can succeed, for rejections that know it.
    retry_after: Option<Duration>,
    /// The time that was allowed, for timeouts and deadlines.
    pub(crate) allowed: Option<Duration>,
    /// Boxed, because it is rare.
    shortage: Option<Box<Shortage>>,
    /// The error of the inner service. If a `Cause` was found in its chain, then `kind` and the other fields are copies
    /// of its fields: a layer somewhere behind the service ended the call, and not a layer of this stack.
    #[source]
    service: Option<BoxError>,
}

impl Cause {
    /// Returns the reason why the call ended.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the name of the layer that ended the call. For an error of the service it is the name of the innermost
    /// layer that has one.
    ///
    /// Empty if no layer with a name has seen the error.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the number of attempts that the outermost retry made, the first one included. `None` if no retry took
    /// part, or if the retry was dropped before it ended, for example by a deadline.
    #[must_use]
    pub fn attempts(&self) -> Option<u32> {
        (self.attempts > 0).then_some(self.attempts)
    }

    /// Returns the reason why the outermost retry made no further attempt. `None` if no retry took part.
    #[must_use]
    pub fn gave_up(&self) -> Option<GaveUp> {
        self.gave_up
    }

    /// Returns the part of the call that took too long, or failed.
    ///
    /// It distinguishes a server that sends no answer, a server that stops in the middle of an answer, and a caller
    /// that does not read.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Returns how long to wait before another call can succeed, where the layer knows.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Returns `false` if the inner service has not seen the request, so that another attempt cannot act twice.
    ///
    /// There are two proofs: a layer of this operation [refused](Self::is_rejection) every attempt, or the client says
    /// so through an adapter of this crate that sits directly around it (features `hyper`, `tonic` and `reqwest`).
    /// Without a proof the service may have acted on the request, even if a connection was refused: the error may
    /// belong to a later step.
    #[must_use]
    pub fn was_sent(&self) -> bool {
        self.may_have_acted || matches!(self.proof, Proof::None | Proof::Unasked)
    }

    /// Returns `true` if a layer refused the call, or its last attempt, without asking the inner service.
    ///
    /// The layer belongs to the operation: it is a part of the same stack, a layer that the stack calls directly, or a
    /// layer of the same name that is called in the same task. If the inner service was refused when it called another
    /// dependency, its error is a plain error of the service: this method returns `false`, although
    /// [`kind`](Self::kind) names the refusal.
    ///
    /// A [`Timeout`](ErrorKind::Timeout) is not a rejection: it counts as a failure and may be retried.
    #[must_use]
    pub fn is_rejection(&self) -> bool {
        self.refusal == Refusal::Own
    }

    /// Returns `true` if a layer that does not belong to this operation refused the call.
    #[cfg(feature = "http")]
    pub(crate) fn is_foreign_rejection(&self) -> bool {
        self.refusal == Refusal::Foreign
    }

    /// Returns `true` if a time limit of a layer ended the call while the inner service worked on it.
    pub(crate) fn is_timeout(&self) -> bool {
        self.refusal == Refusal::None && self.kind != ErrorKind::Service
    }

    /// Notes that the layer `name` got the error from its inner service. If the error is from another dependency, its
    /// proof for other layers is no proof for this layer.
    fn check_proof(&mut self, name: &'static str) {
        if let Proof::Layer { name: by, budget } = self.proof {
            if !name.is_empty() && (by != name || budget != context::budget()) {
                self.disown();
            }
        }
    }

    /// Notes that another dependency ended the call.
    pub(crate) fn disown(&mut self) {
        self.proof = Proof::None;
        if self.refusal == Refusal::Own {
            self.refusal = Refusal::Foreign;
        }
    }

    /// Returns the numbers of endpoints of a balancer by state, if no endpoint would take the call.
    #[must_use]
    pub fn shortage(&self) -> Option<&Shortage> {
        self.shortage.as_deref()
    }

    /// Returns the service's own error. `None` if the call was ended by a layer.
    #[must_use]
    pub fn service_error(&self) -> Option<&(dyn StdError + Send + Sync + 'static)> {
        self.service.as_deref()
    }

    /// Finds an error of type `E` in the service's own error or in its chain of sources.
    #[must_use]
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        self.service_sources()
            .find_map(<dyn StdError>::downcast_ref)
    }

    /// Walks the service's own error and its sources, outermost first.
    pub(crate) fn service_sources(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        let error = self.service.as_deref();
        error.into_iter().flat_map(|error| sources(error))
    }

    /// Returns `true` if a `Cause` in the chain of the service's error says why the call ended.
    pub(crate) fn is_adopted(&self) -> bool {
        self.kind != ErrorKind::Service && self.service.is_some()
    }

    /// Returns `true` if the call failed because of its own copy of the request, so that another copy may succeed.
    pub(crate) fn concerns_one_copy(&self) -> bool {
        let found = self.downcast_ref();
        matches!(
            found,
            Some(ReplayBodyError::Lost | ReplayBodyError::Superseded)
        )
    }

    /// Returns `true` if a call that was refused may be sent to another endpoint, by making it again.
    pub(crate) fn may_go_elsewhere(&self) -> bool {
        self.may_go_elsewhere
    }

    /// Copies the reason for the end of a call from a cause in the chain of the service's error.
    fn adopt(&mut self, found: &Self) {
        self.proof = found.proof;
        self.may_have_acted = found.may_have_acted;
        self.refusal = found.refusal;
        if found.kind != ErrorKind::Service {
            self.kind = found.kind;
            self.name = found.name;
            self.may_go_elsewhere = found.may_go_elsewhere;
            self.stage = found.stage;
            self.retry_after = found.retry_after;
            self.allowed = found.allowed;
            self.shortage.clone_from(&found.shortage);
        }
    }

    /// Writes the reason for the end of the call. An error of the service says the rest itself.
    fn write_reason(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.service {
            Some(_) => ErrorKind::Service,
            None => self.kind,
        };
        let (_, before, after) = match (kind, self.stage) {
            (ErrorKind::Service, Stage::Body) => return f.write_str("the body failed"),
            (ErrorKind::Service, _) if self.name.is_empty() => {
                return f.write_str("the service failed");
            }
            (ErrorKind::DeadlineExceeded, _) if self.refusal != Refusal::None => {
                ("", "the deadline leaves no time for ", "")
            }
            (ErrorKind::Timeout | ErrorKind::DeadlineExceeded, Stage::Reader) => {
                ("", "the answer of ", " was not read")
            }
            (ErrorKind::Timeout | ErrorKind::DeadlineExceeded, Stage::Request) => {
                ("", "the request to ", " did not come")
            }
            (ErrorKind::Timeout, Stage::NextPart) => ("", "", " sent no more of its answer"),
            (ErrorKind::Timeout, Stage::WholeAnswer) => ("", "", " did not send its whole answer"),
            _ => kind.texts(),
        };
        write!(f, "{before}{:?}{after}", self.name)?;
        if self.service.is_some() {
            return Ok(());
        }
        if let Some(allowed) = self.allowed {
            write!(f, " within {allowed:.1?}")?;
            if self.stage == Stage::AllAttempts {
                f.write_str(", all attempts included")?;
            }
        }
        if let Some(retry_after) = self.retry_after {
            write!(f, ", retry after {retry_after:.1?}")?;
        }
        match self.shortage.as_deref() {
            Some(shortage) if kind == ErrorKind::NoEndpoints => {
                if !shortage.waited.is_zero() {
                    write!(f, " within {:.1?}", shortage.waited)?;
                }
                write!(f, ": {shortage}")
            }
            Some(shortage) => {
                let balancer = shortage.balancer;
                write!(f, "; no endpoint of {balancer:?} takes calls: {shortage}")
            }
            None => Ok(()),
        }
    }

    /// Writes the number of attempts, unless there was a single one that was refused or could not be followed by
    /// another.
    fn write_attempts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(gave_up) = self.gave_up else {
            return Ok(());
        };
        if self.max_attempts <= 1 || self.attempts <= 1 && gave_up == GaveUp::Rejected {
            return Ok(());
        }
        let comma = if self.service.is_some() { "" } else { "," };
        write!(
            f,
            "{comma} after {} of {} attempts",
            self.attempts, self.max_attempts
        )?;
        match gave_up.words() {
            _ if gave_up == GaveUp::NotIdempotent && self.proof == Proof::Unasked => f.write_str(
                ": there is no proof that the request was not sent; wrap the client with `buttress::hyper` or the like",
            ),
            Some(words) => write!(f, ": {words}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_reason(f)?;
        self.write_attempts(f)?;
        if f.alternate() {
            let mut next = StdError::source(&*self.0);
            while let Some(error) = next {
                if !error.is::<Cause>() {
                    write!(f, ": {error}")?;
                }
                next = error.source();
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            write!(f, "{:#?}", self.0)
        } else {
            write!(f, "{self:#}")
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}

/// Returns `value` if it is a `B`, without a box.
#[inline]
pub(crate) fn downcast<A: 'static, B: 'static>(value: A) -> Result<B, A> {
    let mut slot = Some(value);
    let same: Option<&mut Option<B>> = (&mut slot as &mut dyn Any).downcast_mut();
    if let Some(value) = same.and_then(Option::take) {
        return Ok(value);
    }
    match slot {
        Some(value) => Err(value),
        None => unreachable!("it was taken as a `B` only"),
    }
}

/// Returns the cause if `error` is one, or is an error that has one.
fn cause_of<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Cause> {
    match error.downcast_ref::<Error>() {
        Some(error) => Some(&error.0),
        None => error.downcast_ref(),
    }
}

/// Walks `error` and its sources, outermost first.
pub(crate) fn sources<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        match error.downcast_ref::<io::Error>() {
            // Its `source` is that of the inner error, so the inner error would be left out.
            Some(error) => error
                .get_ref()
                .map(|inside| -> &(dyn StdError + 'static) { inside }),
            None => error.source(),
        }
    })
}

/// A configuration that makes no sense, refused when the layer is built.
///
/// It names the field, the value and the permitted range. `{:?}` prints the message, as `{}` does, so that an error
/// returned from `main` is readable; `{:#?}` prints the fields.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{layer} {name:?}: {field} is {value}, but must be {permitted}")]
#[non_exhaustive]
pub struct ConfigError {
    layer: &'static str,
    name: String,
    field: &'static str,
    value: String,
    permitted: Cow<'static, str>,
}

impl ConfigError {
    /// Returns the kind of layer that was configured, such as `"retry"`.
    #[must_use]
    pub fn layer(&self) -> &'static str {
        self.layer
    }

    /// Returns the name of the layer.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the setter that was given the value.
    #[must_use]
    pub fn field(&self) -> &'static str {
        self.field
    }

    /// Returns the value that was refused, as text.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Returns the permitted values of the field.
    #[must_use]
    pub fn permitted(&self) -> &str {
        &self.permitted
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        f.debug_struct("ConfigError")
            .field("layer", &self.layer)
            .field("name", &self.name)
            .field("field", &self.field)
            .field("value", &self.value)
            .field("permitted", &self.permitted)
            .finish()
    }
}

/// Panics on an error, for constructors without a `Result`. They document it under `# Panics`.
#[track_caller]
pub(crate) fn or_panic<T>(built: Result<T, ConfigError>) -> T {
    match built {
        Ok(built) => built,
        Err(error) => panic!("{error}"),
    }
}

/// The longest time that can be configured. Longer ones are typing errors or `Duration::MAX`.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Checks the values of one layer's configuration.
#[derive(Clone, Copy)]
pub(crate) struct Check<'a> {
    layer: &'static str,
    name: &'a str,
}

impl<'a> Check<'a> {
    /// Begins to check the layer `name`, and checks the name first.
    pub(crate) fn new(layer: &'static str, name: &'a str) -> Result<Self, ConfigError> {
        let check = Self { layer, name };
        check.that(!name.is_empty(), "name", &name, "a non-empty text")?;
        Ok(check)
    }

    pub(crate) fn that(
        self,
        holds: bool,
        field: &'static str,
        value: &dyn fmt::Debug,
        permitted: impl Into<Cow<'static, str>>,
    ) -> Result<(), ConfigError> {
        if holds {
            return Ok(());
        }
        Err(self.refuse(field, value, permitted))
    }

    /// Checks a value inside a range; `permitted` says the same in words.
    pub(crate) fn within<T: PartialOrd + fmt::Debug>(
        self,
        field: &'static str,
        value: &T,
        range: impl RangeBounds<T>,
        permitted: &'static str,
    ) -> Result<(), ConfigError> {
        self.that(range.contains(value), field, value, permitted)
    }

    /// Returns the error of a value that is not permitted.
    pub(crate) fn refuse(
        self,
        field: &'static str,
        value: &dyn fmt::Debug,
        permitted: impl Into<Cow<'static, str>>,
    ) -> ConfigError {
        ConfigError {
            layer: self.layer,
            name: self.name.to_owned(),
            field,
            value: format!("{value:?}"),
            permitted: permitted.into(),
        }
    }

    /// Refuses to change one of these settings, each with whether it stays the same.
    pub(crate) fn unchanged<const N: usize>(
        self,
        settings: [(&'static str, bool); N],
    ) -> Result<(), ConfigError> {
        let permitted = "the same as before, because it cannot change while it runs";
        settings.into_iter().try_for_each(|(field, is_same)| {
            self.that(is_same, field, &format_args!("changed"), permitted)
        })
    }

    /// Checks a waiting time: above zero and finite.
    pub(crate) fn duration(self, field: &'static str, value: Duration) -> Result<(), ConfigError> {
        let is_time = value > Duration::ZERO && value <= MAX_DURATION;
        self.that(is_time, field, &value, "above 0s and at most 365 days")
    }

    /// Checks a time that may also be zero.
    pub(crate) fn duration_or_zero(
        self,
        field: &'static str,
        value: Duration,
    ) -> Result<(), ConfigError> {
        if value.is_zero() {
            return Ok(());
        }
        self.duration(field, value)
    }

    /// Checks a share above 0 and at most 1.
    pub(crate) fn share(self, field: &'static str, value: f64) -> Result<(), ConfigError> {
        let is_share = value > 0.0 && value <= 1.0;
        self.that(is_share, field, &value, "above 0 and at most 1")
    }

    /// Checks the share by which a time varies: 0 to 0.9.
    pub(crate) fn jitter(self, field: &'static str, value: f64) -> Result<(), ConfigError> {
        self.that((0.0..=0.9).contains(&value), field, &value, "0 to 0.9")
    }

    /// Checks a count from 1 to `most`; `permitted` says the same in words.
    pub(crate) fn count(
        self,
        field: &'static str,
        value: u32,
        most: u32,
        permitted: &'static str,
    ) -> Result<(), ConfigError> {
        self.that((1..=most).contains(&value), field, &value, permitted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] BoxError);

    fn wrapped(error: impl Into<BoxError>) -> BoxError {
        Box::new(Outer(Box::new(Outer(error.into()))))
    }

    #[test]
    fn is_found_anywhere_in_a_chain_of_sources() {
        let ours = || Error::rejected(ErrorKind::CircuitOpen, "inventory", None);
        let kind = |error: &BoxError| Error::find(error.as_ref()).map(Cause::kind);
        assert_eq!(kind(&wrapped(ours())), Some(ErrorKind::CircuitOpen));
        assert_eq!(kind(&wrapped("not ours")), None);
        let inside = io::Error::other(ours());
        assert_eq!(kind(&wrapped(inside)), Some(ErrorKind::CircuitOpen));
    }

    #[test]
    fn messages_say_what_and_how_long() {
        let open = Error::rejected(
            ErrorKind::CircuitOpen,
            "inventory",
            Some(Duration::from_millis(4_200)),
        );
        assert_eq!(
            open.to_string(),
            "circuit breaker \"inventory\" is open, retry after 4.2s"
        );
        let slow = Error::timed_out(ErrorKind::Timeout, "payments", Duration::from_millis(300));
        assert_eq!(
            slow.to_string(),
            "\"payments\" gave no answer within 300.0ms"
        );
    }

    #[test]
    fn an_error_that_main_returns_can_be_read() {
        let open = Error::rejected(ErrorKind::CircuitOpen, "inventory", None);
        assert_eq!(format!("{open:?}"), "circuit breaker \"inventory\" is open");
        assert!(format!("{open:#?}").contains("kind: CircuitOpen"));
        let refused = Check::new("retry", "").map(drop).unwrap_err();
        assert_eq!(
            format!("{refused:?}"),
            "retry \"\": name is \"\", but must be a non-empty text"
        );
        assert!(format!("{refused:#?}").contains("field: \"name\""));
    }

    fn was_sent(error: BoxError) -> bool {
        Error::of_service(error, || "db").was_sent()
    }

    #[test]
    fn only_what_a_layer_of_the_same_name_rejected_was_surely_not_sent() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert!(was_sent(wrapped(refused)), "by whom?");
        assert!(was_sent("anything".into()));
        let rejected = |name| Error::rejected(ErrorKind::BulkheadFull, name, None);
        assert!(!was_sent(rejected("db").into()));
        assert!(!was_sent(wrapped(rejected("db"))));
        assert!(was_sent(rejected("mail").into()));
        assert!(was_sent(wrapped(rejected("mail"))));
        let timeout = Error::timed_out(ErrorKind::Timeout, "db", Duration::from_secs(1));
        assert!(was_sent(wrapped(timeout)));
    }
}
