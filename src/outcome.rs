//! Outcomes of calls, and the classifiers that decide them.

use std::time::Duration;

use crate::{Conflict, Effect, Error, GaveUp};

/// Outcome of a call, as a statement about the service that was called.
///
/// The layers use it as follows:
///
/// | | success | failure | overload | throttled | ignored |
/// |---|---|---|---|---|---|
/// | [circuit breaker](crate::circuit_breaker) | counts for the service | counts against it | counts against it [while it answers nothing well](crate::circuit_breaker#overload); if it opens, for the time that was asked for, at most 30 s | does not count | does not count |
/// | [rate limit](crate::rate_limit) | – | – | lets nothing through for as long as was asked; in the attempts of retry, hedge or a standard stack unless a balancer has other endpoints | the same, with [`one_quota`](crate::rate_limit::Config::one_quota) | – |
/// | [bulkhead](crate::bulkhead), if its limit adapts | grows | shrinks if the call timed out | shrinks | shrinks, with [`one_quota`](crate::bulkhead::Config::one_quota) | – |
/// | [balancer](crate::balance) | lowers the endpoint's share of failures | raises it | raises it, and leaves the endpoint alone for as long as was asked | raises the share for the choice of endpoints, and counts neither for ejection nor for failover | does not count |
/// | [fallback](crate::fallback) | – | answers | answers | answers | – |
///
/// Retry and hedge decide separately about another attempt, by [`Reattempt`].
///
/// A call that [ends early](crate::circuit_breaker#calls-that-end-early), by a deadline or because its caller dropped it, is
/// a failure to the circuit breaker, an adaptive limit and outlier ejection if the service had enough time for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The service did its work.
    Success,
    /// The service did not do its work. Counts against it, and the call may be retried.
    Failure,
    /// The service said that it has too much to do. Counts as a failure; retries wait longer unless the classifier says
    /// [`Soon`](Reattempt::Soon).
    Overload {
        /// The time for which the service asked callers to stay away.
        retry_after: Option<Duration>,
    },
    /// The service said that this caller has used up its quota, which says nothing about the service. Other callers, with
    /// quotas of their own, are served.
    Throttled {
        /// The time for which the service asked this caller to stay away.
        retry_after: Option<Duration>,
    },
    /// The call says nothing about the service: a mistake of the caller, or a [rejection](crate::Cause::is_rejection) by a layer of
    /// this operation.
    Ignored,
    /// The caller went away before the call was over.
    Cancelled,
}

impl Outcome {
    /// Returns whether this counts against the service: a [`Failure`](Self::Failure) or an [`Overload`](Self::Overload).
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failure | Self::Overload { .. })
    }

    /// Returns whether the service declined the call: a [failure](Self::is_failure), or [`Throttled`](Self::Throttled).
    pub(crate) fn is_declined(self) -> bool {
        self.is_failure() || matches!(self, Self::Throttled { .. })
    }

    /// The time for which the service asked callers to stay away.
    pub(crate) fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Overload { retry_after } | Self::Throttled { retry_after } => retry_after,
            _ => None,
        }
    }
}

/// Use of another attempt after a call.
///
/// It is separate from the [`Outcome`], which is a statement about the service: an answer such as HTTP's 408 deserves another
/// attempt and does not count against the service, and for other answers it is the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reattempt {
    /// Another attempt is of no use: the call did what it should, or would end in the same way.
    Never,
    /// Another attempt may succeed soon. Retry waits for its backoff and pays 10 tokens; a hedge without a retry around it
    /// makes another attempt at once.
    Soon,
    /// Another attempt may succeed once the service has less to do. Retry waits for its backoff after overload (about 1 s), or
    /// for the time that the service asked for, and pays 20 tokens.
    Later,
    /// One more attempt may succeed at once, because something inside has been renewed, such as an expired token.
    OnceAtOnce,
}

impl From<Outcome> for Reattempt {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Failure => Self::Soon,
            Outcome::Overload { .. } | Outcome::Throttled { .. } => Self::Later,
            Outcome::Success | Outcome::Ignored | Outcome::Cancelled => Self::Never,
        }
    }
}

/// Attempts of an operation that has returned a response.
///
/// With the feature `http` it is an extension of the response, unless the first attempt was a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempts {
    /// The number of attempts, with the first one and without hedges.
    pub made: u32,
    /// The reason why there was no further attempt. `None` after a success.
    pub gave_up: Option<GaveUp>,
    /// `true` if the answer may be due to an earlier attempt that has acted, so that the result of the operation is unknown. See
    /// [`Conflict`].
    pub is_result_unknown: bool,
}

/// Request of the service about another attempt, apart from the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pushback {
    /// Try again after this time (HTTP `Retry-After`, gRPC `grpc-retry-pushback-ms`).
    RetryAfter(Duration),
    /// Do not try again (a negative gRPC pushback).
    DoNotRetry,
}

/// Classifies results of calls.
///
/// One classifier serves every layer of a stack: retry, circuit breaker and measure agree on what
/// a failure is. The default, [`ErrorsAreFailures`], looks no deeper than `Result`; closures work
/// through [`classify_fn`].
///
/// [Rejections](crate::Cause::is_rejection) by a layer of this operation are [`Outcome::Ignored`] without asking the
/// classifier. Rejections by other dependencies, which the service has called, are errors like any other. Each layer asks the
/// classifier, which must be quick and give the same answer each time.
///
/// # Examples
///
/// A type of your own can be cloned, named in a field, and used in spawned tasks:
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

    /// Returns whether another attempt may be of use. By default it follows from the outcome: [`Soon`](Reattempt::Soon) after a
    /// failure, [`Later`](Reattempt::Later) after an overload and for a caller that is throttled, else
    /// [`Never`](Reattempt::Never).
    ///
    /// Called after `classify`, except for a success.
    fn reattempt(&self, result: Result<&Res, &Error>) -> Reattempt {
        self.classify(result).into()
    }

    /// Returns whether this answer is a conflict with an earlier attempt of the operation that may have acted and left
    /// `effect`. By default no answer is.
    ///
    /// Retry and hedge call it for the answer to a further attempt. While another attempt may get the answer, they do not
    /// return a conflict with an attempt [in progress](Conflict::InProgress).
    fn conflict(&self, response: &Res, effect: Effect) -> Conflict {
        let _ = (response, effect);
        Conflict::None
    }

    /// Notes the attempts of the operation in its response. By default it does nothing.
    ///
    /// Retry and hedge call it before they return a response, unless the first attempt was a success.
    fn annotate(&self, response: &mut Res, attempts: Attempts) {
        let _ = (response, attempts);
    }

    /// Reads the request of the service about another attempt. By default it is the `retry_after` of
    /// [`Outcome::Overload`] and [`Outcome::Throttled`].
    fn pushback(&self, result: Result<&Res, &Error>) -> Option<Pushback> {
        let retry_after = self.classify(result).retry_after();
        retry_after.map(Pushback::RetryAfter)
    }

    /// Returns whether a failure says that the deadline of the call had passed, as the status 504 does. `false` by default.
    ///
    /// If the call had a deadline sooner than its timeout, it counts against the service only if the service had
    /// [enough time](crate::circuit_breaker#calls-that-end-early) for it.
    fn is_deadline_exceeded(&self, response: &Res) -> bool {
        let _ = response;
        false
    }
}

/// Default classifier: an error is an [`Outcome::Failure`], any response an [`Outcome::Success`].
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
/// The closure comes back unchanged; `classify_fn` adds the signature that type inference needs. A named function does not need it.
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

/// Classifies a result as every layer does: rejections of this operation are `Ignored`, and the classifier decides about
/// all other results.
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
