//! What a call meant for the service it was sent to, and who decides that.

use std::time::Duration;

use crate::Error;

/// What a finished call says about the service that was called.
///
/// What the layers make of it:
///
/// | | success | failure | overload | ignored |
/// |---|---|---|---|---|
/// | [retry](crate::retry) | ends, and is refunded | tries again soon, for 10 tokens | tries again after 1 s or so, or after the time that was asked for, for 20 tokens | ends |
/// | [hedge](crate::hedge) | ends | waits for another attempt, or makes one | waits for another attempt | ends |
/// | [circuit breaker](crate::circuit_breaker) | counts for the service | counts against it | counts against it; if it opens, for the time that was asked for, at most 30 s | does not count |
/// | [rate limit](crate::rate_limit) | – | – | lets nothing through for as long as was asked | – |
/// | [bulkhead](crate::bulkhead), if its limit adapts | – | shrinks if the call timed out | shrinks | – |
/// | [balancer](crate::balance) | lowers the endpoint's share of failures | raises it | raises it, and leaves the endpoint alone for as long as was asked | does not count |
/// | [fallback](crate::fallback) | – | answers | answers | – |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The service did its work.
    Success,
    /// The service did not do its work. Counts against it, and the call may be retried.
    Failure,
    /// The service said that it has too much to do. Counts as a failure; retries wait longer.
    Overload {
        /// How long the service asked callers to stay away.
        retry_after: Option<Duration>,
    },
    /// Says nothing about the service: a mistake of the caller, or a [rejection](crate::Cause::is_rejection) by a layer of
    /// this operation.
    Ignored,
    /// The caller went away before the call was over.
    Cancelled,
}

impl Outcome {
    /// Says whether this counts against the service: a [`Failure`](Self::Failure) or an [`Overload`](Self::Overload).
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failure | Self::Overload { .. })
    }

    /// The time that the service asked callers to stay away.
    pub(crate) fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Overload { retry_after } => retry_after,
            _ => None,
        }
    }
}

/// What the service said about trying again, apart from what the outcome is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pushback {
    /// Try again after this time (HTTP `Retry-After`, gRPC `grpc-retry-pushback-ms`).
    RetryAfter(Duration),
    /// Do not try again (a negative gRPC pushback).
    DoNotRetry,
}

/// Classifies how a call ended.
///
/// One classifier serves every layer of a stack: retry, circuit breaker and measure agree on what
/// a failure is. The default, [`ErrorsAreFailures`], looks no deeper than `Result`; closures work
/// through [`classify_fn`].
///
/// [Rejections](crate::Cause::is_rejection) by a layer of this operation are [`Outcome::Ignored`] without asking the
/// classifier. Those of other dependencies, which the service has called, are errors like any other. Each layer asks for itself: it must be quick, and say the same each time.
///
/// # Examples
///
/// A type of one's own can be cloned, named in a field, and used in spawned tasks:
///
/// ```
/// use buttress::{Classify, Error, Outcome, standard};
///
/// enum Reply { Value(String), Busy, NoSuchKey }
///
/// #[derive(Clone)]
/// struct OfReplies;
///
/// impl Classify<Reply> for OfReplies {
///     fn classify(&self, result: Result<&Reply, &Error>) -> Outcome {
///         match result {
///             Ok(Reply::Value(_)) => Outcome::Success,
///             Ok(Reply::Busy) => Outcome::Overload { retry_after: None },
///             Ok(Reply::NoSuchKey) => Outcome::Ignored, // the caller's mistake
///             Err(_) => Outcome::Failure,
///         }
///     }
/// }
///
/// let stack = standard("cache").classify(OfReplies).concurrency_limit(50).build()?;
/// # Ok::<(), buttress::ConfigError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not classify responses of type `{Res}`",
    label = "this classifier does not fit the service's response",
    note = "write `.classify(classify_fn(|result: Result<&{Res}, &buttress::Error>| ...))`, or leave `.classify` out to count every error as a failure"
)]
pub trait Classify<Res> {
    /// Classifies the response or the error.
    fn classify(&self, result: Result<&Res, &Error>) -> Outcome;

    /// Reads what the service said about trying again. By default nothing but
    /// [`Outcome::Overload`]'s `retry_after`.
    fn pushback(&self, result: Result<&Res, &Error>) -> Option<Pushback> {
        let retry_after = self.classify(result).retry_after();
        retry_after.map(Pushback::RetryAfter)
    }
}

/// The default classifier: an error is a [`Outcome::Failure`], any response a [`Outcome::Success`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorsAreFailures;

impl<Res> Classify<Res> for ErrorsAreFailures {
    fn classify(&self, result: Result<&Res, &Error>) -> Outcome {
        match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Failure,
        }
    }
}

#[diagnostic::do_not_recommend]
impl<Res, F> Classify<Res> for F
where
    F: Fn(Result<&Res, &Error>) -> Outcome,
{
    fn classify(&self, result: Result<&Res, &Error>) -> Outcome {
        self(result)
    }
}

/// Makes a classifier of a closure.
///
/// The closure comes back unchanged; this function adds the signature that type inference needs. A function needs none.
///
/// # Examples
///
/// ```
/// use buttress::{Error, Outcome, classify_fn};
///
/// let classify = classify_fn(|result: Result<&u16, &Error>| match result {
///     Ok(status) if *status >= 500 => Outcome::Failure,
///     Ok(_) => Outcome::Success,
///     Err(_) => Outcome::Failure,
/// });
/// let layer = buttress::RetryLayer::config("inventory").classify(classify).build()?;
/// # Ok::<(), buttress::ConfigError>(())
/// ```
pub fn classify_fn<Res, F>(classify: F) -> F
where
    F: Fn(Result<&Res, &Error>) -> Outcome,
{
    classify
}

/// Classifies a result the way every layer does: our own rejections are `Ignored`, for the rest the
/// classifier decides.
#[inline]
pub(crate) fn classify_result<Res, K>(classify: &K, result: &Result<Res, Error>) -> Outcome
where
    K: Classify<Res>,
{
    match result {
        Err(error) if error.is_rejection() => Outcome::Ignored,
        result => classify.classify(result.as_ref()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn rejections_from_below_are_ignored_whatever_the_classifier_says() {
        let rejected = Error::rejected(ErrorKind::CircuitOpen, "db", None);
        let result: Result<(), Error> = Err(rejected);
        assert_eq!(
            classify_result(&ErrorsAreFailures, &result),
            Outcome::Ignored
        );
        let strict = classify_fn(|_: Result<&(), &Error>| Outcome::Failure);
        assert_eq!(classify_result(&strict, &result), Outcome::Ignored);
    }

    #[test]
    fn a_timeout_is_a_failure() {
        let timeout = Error::timed_out(ErrorKind::Timeout, "db", Duration::from_secs(1));
        let result: Result<(), Error> = Err(timeout);
        assert_eq!(
            classify_result(&ErrorsAreFailures, &result),
            Outcome::Failure
        );
    }

    #[test]
    fn the_hint_of_an_overload_is_its_retry_after() {
        let wait = Duration::from_secs(3);
        let classify = classify_fn(move |_: Result<&(), &Error>| Outcome::Overload {
            retry_after: Some(wait),
        });
        assert_eq!(classify.pushback(Ok(&())), Some(Pushback::RetryAfter(wait)));
        assert_eq!(ErrorsAreFailures.pushback(Ok(&())), None);
    }
}
