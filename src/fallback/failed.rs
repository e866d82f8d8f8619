//! Failed calls that a fallback acts on.

use std::fmt;

use crate::{Error, ErrorKind, Outcome};

/// A call that did not succeed: its result, and the outcome by the classifier.
pub struct Failed<'a, Res> {
    outcome: Outcome,
    result: Result<&'a Res, &'a Error>,
}

impl<'a, Res> Failed<'a, Res> {
    pub(super) fn new(outcome: Outcome, result: &'a Result<Res, Error>) -> Self {
        Self {
            outcome,
            result: result.as_ref(),
        }
    }

    /// Returns the outcome of the call: a failure, an overload, or ignored. A rejection by a layer of this
    /// crate is ignored.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Returns the kind of the error. `None` if the call ended in a response.
    #[must_use]
    pub fn kind(&self) -> Option<ErrorKind> {
        self.result.err().map(|error| error.kind())
    }

    /// Returns whether a layer of this crate refused the call.
    #[must_use]
    pub fn is_rejection(&self) -> bool {
        self.result.is_err_and(|error| error.is_rejection())
    }

    /// Returns the response or the error itself.
    ///
    /// # Errors
    ///
    /// Returns the error that the call ended in.
    pub fn result(&self) -> Result<&'a Res, &'a Error> {
        self.result
    }
}

impl<Res> Clone for Failed<'_, Res> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Res> Copy for Failed<'_, Res> {}

impl<Res> fmt::Debug for Failed<'_, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failed")
            .field("outcome", &self.outcome)
            .field("error", &self.result.err())
            .finish_non_exhaustive()
    }
}

/// Chooses the failed calls that a fallback acts on.
///
/// [`Failures`] is the default; closures go through [`Config::when`](super::Config::when).
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not choose among failed calls with responses of type `{Res}`",
    note = "write `.when(|failed: Failed<'_, {Res}>| ...)`, or leave it out to act on failures, overloads and rejections"
)]
pub trait ShouldHandle<Res> {
    /// Returns whether the fallback acts on this failed call.
    fn should_handle(&self, failed: Failed<'_, Res>) -> bool;
}

/// Default choice: failures, overloads, and rejections by inner layers of this crate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures;

impl<Res> ShouldHandle<Res> for Failures {
    fn should_handle(&self, failed: Failed<'_, Res>) -> bool {
        failed.outcome.is_declined() || failed.is_rejection()
    }
}

#[diagnostic::do_not_recommend]
impl<Res, F> ShouldHandle<Res> for F
where
    F: Fn(Failed<'_, Res>) -> bool,
{
    fn should_handle(&self, failed: Failed<'_, Res>) -> bool {
        self(failed)
    }
}
