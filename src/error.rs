//! The errors that layers produce themselves, and the error of a configuration that makes no sense.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::BoxError;
use crate::balance::Shortage;

/// Why a layer did not hand through what the inner service answered.
///
/// All but [`Timeout`](Self::Timeout) are rejections, after which the service has seen nothing of the request;
/// [`DeadlineExceeded`](Self::DeadlineExceeded) is one if the deadline had passed before. [`Error::is_rejection`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The circuit breaker is open; the inner service was not asked.
    CircuitOpen,
    /// The rate limit is used up; the inner service was not asked.
    RateLimited,
    /// The request costs more than the rate limit ever allows at once; the inner service was not asked, and
    /// trying again is of no use.
    TooCostly,
    /// The bulkhead has no free permit and no free place in its queue; the inner service was not asked.
    BulkheadFull,
    /// The call waited in the bulkhead's queue for longer than it may; the inner service was not asked.
    QueueTimeout,
    /// One attempt took longer than its timeout. The inner service may have acted on the request.
    Timeout,
    /// The deadline of the whole operation has passed, before or after the inner service was asked.
    DeadlineExceeded,
    /// There is no endpoint to send the call to.
    NoEndpoints,
    /// The source of a balancer's endpoints was lost with the runtime that polled it, so nobody knows them any more. A
    /// source that can begin anew is not: [`discover::Restartable`](crate::discover::Restartable).
    DiscoveryStopped,
}

/// An error that one of this crate's layers produced.
///
/// Every service of this crate has `type Error = `[`BoxError`]. Errors of the inner service pass
/// through untouched; this type is only in there when a layer itself ended the call.
/// [`Error::find`] gets it back from anywhere in a chain of sources.
///
/// # Examples
///
/// ```
/// use buttress::{BoxError, Error, ErrorKind};
///
/// fn http_status(error: &BoxError) -> u16 {
///     match Error::find(error).map(Error::kind) {
///         Some(ErrorKind::Timeout | ErrorKind::DeadlineExceeded) => 504,
///         Some(_) => 503,
///         None => 502,
///     }
/// }
/// # assert_eq!(http_status(&"reset".into()), 502);
/// ```
///
/// `{:?}` prints the message, as `{}` does, so that an error which is returned from `main` or unwrapped can be read;
/// `{:#?}` prints the fields.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Error {
    kind: ErrorKind,
    sent: bool,
    name: &'static str,
    /// How long until another try makes sense, for rejections that know it.
    retry_after: Option<Duration>,
    /// The time that was allowed, for timeouts and deadlines.
    allowed: Option<Duration>,
    /// A balancer further in has other endpoints that may take the call.
    may_go_elsewhere: bool,
    /// Boxed, because it is rare.
    shortage: Option<Box<Shortage>>,
    late: Late,
}

/// What took too long where a time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// The call, as far as the layer knows.
    Call,
    /// The next part of an answer that had begun.
    #[cfg(feature = "http")]
    Part,
    /// The end of an answer that had begun.
    #[cfg(feature = "http")]
    End,
    /// The reader of an answer, of which more was there.
    #[cfg(feature = "http")]
    Reader,
}

impl Error {
    fn new(kind: ErrorKind, name: &'static str, sent: bool) -> Self {
        Self {
            kind,
            sent,
            name,
            retry_after: None,
            allowed: None,
            may_go_elsewhere: false,
            shortage: None,
            late: Late::Call,
        }
    }

    /// A call that was refused before the inner service was asked.
    pub(crate) fn rejected(
        kind: ErrorKind,
        name: &'static str,
        retry_after: Option<Duration>,
    ) -> Self {
        Self {
            retry_after,
            ..Self::new(kind, name, false)
        }
    }

    /// A call that was given up after `allowed`, while the inner service was working on it.
    pub(crate) fn timed_out(kind: ErrorKind, name: &'static str, allowed: Duration) -> Self {
        Self {
            allowed: Some(allowed),
            ..Self::new(kind, name, true)
        }
    }

    /// The same, when the head of the answer had come.
    #[cfg(feature = "http")]
    pub(crate) fn body_timed_out(
        kind: ErrorKind,
        name: &'static str,
        allowed: Duration,
        late: Late,
    ) -> Self {
        Self {
            late,
            ..Self::timed_out(kind, name, allowed)
        }
    }

    /// An operation that ran out of a time which this layer has not set.
    pub(crate) fn late(name: &'static str) -> Self {
        Self::new(ErrorKind::DeadlineExceeded, name, true)
    }

    /// A call that found no endpoint.
    pub(crate) fn no_endpoints(shortage: Shortage) -> Self {
        let mut error = Self::rejected(ErrorKind::NoEndpoints, shortage.balancer, None);
        error.set_shortage(shortage);
        error
    }

    /// Says why the layer ended the call.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the name that the user gave to the layer.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Says how long to wait before another try can succeed, where the layer knows.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Says whether the inner service could have seen the request.
    ///
    /// `false` means that the call was refused before it left: sending it again cannot do
    /// something twice.
    #[must_use]
    pub fn was_sent(&self) -> bool {
        self.sent
    }

    /// Says whether the call was refused without asking the inner service: not [`was_sent`](Self::was_sent).
    ///
    /// A [`Timeout`](ErrorKind::Timeout) is no rejection: it counts as a failure and may be retried.
    #[must_use]
    pub fn is_rejection(&self) -> bool {
        !self.sent
    }

    /// Says whether the caller took too long, and not the service.
    #[cfg(feature = "http")]
    pub(crate) fn is_of_slow_reader(&self) -> bool {
        self.late == Late::Reader
    }

    /// Notes that another endpoint may take the call that one has refused.
    pub(crate) fn set_may_go_elsewhere(&mut self) {
        self.may_go_elsewhere = true;
    }

    /// Says whether a call that was refused may be sent to another endpoint, by making it again.
    pub(crate) fn may_go_elsewhere(&self) -> bool {
        self.may_go_elsewhere
    }

    /// Notes that no endpoint would take the call that one has refused.
    pub(crate) fn set_shortage(&mut self, shortage: Shortage) {
        self.shortage = Some(Box::new(shortage));
    }

    /// Says which endpoints a balancer had, if none would take the call.
    #[must_use]
    pub fn shortage(&self) -> Option<&Shortage> {
        self.shortage.as_deref()
    }

    /// Finds an error of this crate in `error` or in its chain of sources.
    #[must_use]
    pub fn find(error: &BoxError) -> Option<&Self> {
        Self::find_in(error.as_ref())
    }

    /// Finds an error of this crate in `error` or in its chain of sources.
    ///
    /// Like [`find`](Self::find), for errors that are not boxed: `Error::find_in(&status)`.
    #[must_use]
    pub fn find_in<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        sources(error).find_map(<dyn StdError>::downcast_ref)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, .. } = self;
        match self.kind {
            ErrorKind::CircuitOpen => write!(f, "circuit breaker {name:?} is open")?,
            ErrorKind::RateLimited => write!(f, "rate limit {name:?} is used up")?,
            ErrorKind::TooCostly => write!(f, "costs more than rate limit {name:?} ever allows")?,
            ErrorKind::BulkheadFull => write!(f, "bulkhead {name:?} is full")?,
            ErrorKind::QueueTimeout => write!(f, "waited too long for bulkhead {name:?}")?,
            ErrorKind::NoEndpoints => write!(f, "balancer {name:?} has no endpoint")?,
            ErrorKind::DiscoveryStopped => write!(
                f,
                "discovery of balancer {name:?} has stopped with the runtime that it ran on, make its source restartable"
            )?,
            #[cfg(feature = "http")]
            _ if self.late == Late::Reader => write!(f, "the answer of {name:?} was not read")?,
            #[cfg(feature = "http")]
            ErrorKind::Timeout if self.late == Late::Part => {
                write!(f, "{name:?} sent no more of its answer")?;
            }
            #[cfg(feature = "http")]
            ErrorKind::Timeout if self.late == Late::End => {
                write!(f, "{name:?} did not send its whole answer")?;
            }
            ErrorKind::Timeout => write!(f, "{name:?} gave no answer")?,
            ErrorKind::DeadlineExceeded if self.sent => {
                write!(f, "{name:?} was not done by its deadline")?;
            }
            ErrorKind::DeadlineExceeded => {
                write!(f, "the deadline leaves no time for {name:?}")?;
            }
        }
        if let Some(allowed) = self.allowed {
            write!(f, " within {allowed:.1?}")?;
        }
        if let Some(retry_after) = self.retry_after {
            write!(f, ", retry after {retry_after:.1?}")?;
        }
        match self.shortage.as_deref() {
            Some(shortage) if self.kind == ErrorKind::NoEndpoints => {
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
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("name", &self.name)
            .field("sent", &self.sent)
            .field("retry_after", &self.retry_after)
            .field("allowed", &self.allowed)
            .field("shortage", &self.shortage)
            .finish_non_exhaustive()
    }
}

impl StdError for Error {}

/// Walks `error` and its sources, outermost first.
pub(crate) fn sources<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        match error.downcast_ref::<io::Error>() {
            // Its `source` is that of the error inside, which would be left out.
            Some(error) => error
                .get_ref()
                .map(|inside| -> &(dyn StdError + 'static) { inside }),
            None => error.source(),
        }
    })
}

/// Says whether the request that ended in `error` may have reached the other side.
///
/// Only two things prove that it has not: a rejection of ours, and a refused connection.
pub(crate) fn was_sent(error: &BoxError) -> bool {
    !sources(error.as_ref()).any(|error| {
        error
            .downcast_ref::<Error>()
            .is_some_and(Error::is_rejection)
            || error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    })
}

/// A configuration that makes no sense, refused when the layer is built.
///
/// Names the field, the value it was given and what is permitted. `{:?}` prints the message, as `{}` does, so that an
/// error which is returned from `main` can be read; `{:#?}` prints the fields.
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

    /// Returns what the field may be.
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

/// For constructors without a `Result`, which say so under `# Panics`.
#[track_caller]
pub(crate) fn or_panic<T>(built: Result<T, ConfigError>) -> T {
    match built {
        Ok(built) => built,
        Err(error) => panic!("{error}"),
    }
}

/// The longest time that can be configured. Longer ones are typing errors or `Duration::MAX`.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Checks the values of one layer's configuration.
#[derive(Clone, Copy)]
pub(crate) struct Check<'a> {
    layer: &'static str,
    name: &'a str,
}

impl<'a> Check<'a> {
    /// Begins to check the layer `name`, and its name first of all.
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

    /// The error of a value that is not permitted.
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

    /// A time that is waited for: above zero, and not for ever.
    pub(crate) fn duration(self, field: &'static str, value: Duration) -> Result<(), ConfigError> {
        self.that(
            value > Duration::ZERO && value <= LONGEST,
            field,
            &value,
            "above 0s and at most 365 days",
        )
    }

    /// A time that may also be nothing at all.
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

    /// A part of a whole that cannot be nothing: above 0 and at most 1.
    pub(crate) fn share(self, field: &'static str, value: f64) -> Result<(), ConfigError> {
        self.that(
            value > 0.0 && value <= 1.0,
            field,
            &value,
            "above 0 and at most 1",
        )
    }

    /// A part of a time by which that varies: 0 to 0.9.
    pub(crate) fn jitter(self, field: &'static str, value: f64) -> Result<(), ConfigError> {
        self.that((0.0..=0.9).contains(&value), field, &value, "0 to 0.9")
    }

    /// A count from 1 to `most`; `permitted` says the same in words.
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
        let ours = Error::rejected(ErrorKind::CircuitOpen, "inventory", None);
        assert_eq!(Error::find(&wrapped(ours.clone())), Some(&ours));
        assert_eq!(Error::find(&wrapped("not ours")), None);
        let inside = io::Error::other(ours.clone());
        assert_eq!(Error::find(&wrapped(inside)), Some(&ours));
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert!(!was_sent(&wrapped(io::Error::other(refused))));
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

    #[test]
    fn only_a_rejection_and_a_refused_connection_were_surely_not_sent() {
        let io = |kind| wrapped(io::Error::from(kind));
        assert!(!was_sent(&io(io::ErrorKind::ConnectionRefused)));
        assert!(was_sent(&io(io::ErrorKind::ConnectionReset)));
        assert!(was_sent(&"anything".into()));
        let rejected = Error::rejected(ErrorKind::BulkheadFull, "db", None);
        assert!(!was_sent(&wrapped(rejected)));
        let timeout = Error::timed_out(ErrorKind::Timeout, "db", Duration::from_secs(1));
        assert!(was_sent(&wrapped(timeout)));
    }
}
