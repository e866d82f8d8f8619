//! The errors that become answers, and the error in an answer.

use std::convert::Infallible;
use std::sync::Arc;

use crate::{Error, ErrorKind};

/// The error behind an answer, in the extensions of the response, for logs and for outer layers.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct AnsweredError(pub(super) Arc<Error>);

impl AnsweredError {
    /// Returns the error. Its [`kind`](crate::Cause::kind) shows whether a layer ended the call.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.0
    }
}

/// The errors that become answers: [`ForClients`] or [`ForServers`].
pub trait Side: Copy {
    /// The error of the service.
    type Error;

    /// `true` if the answer stays in this process.
    const IS_CLIENT: bool;

    /// Returns the error if it becomes an answer.
    ///
    /// # Errors
    ///
    /// Returns the error of the service if it is passed on.
    fn answered(self, error: Error) -> Result<Error, Self::Error>;
}

/// The side of a client: errors of this crate's layers become responses, and errors of the inner client pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForClients;

impl Side for ForClients {
    type Error = Error;
    const IS_CLIENT: bool = true;

    fn answered(self, error: Error) -> Result<Error, Error> {
        match error.kind() {
            ErrorKind::Service => Err(error),
            _ => Ok(error),
        }
    }
}

/// The side of a server: every error becomes a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForServers;

impl Side for ForServers {
    type Error = Infallible;
    const IS_CLIENT: bool = false;

    fn answered(self, error: Error) -> Result<Error, Infallible> {
        Ok(error)
    }
}
