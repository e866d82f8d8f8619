//! Who writes the answer, and for whom.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use ::http::{Request, Response};
use bytes::Bytes;

use super::refusal::{Reason, Refusal, RequestHead};
use crate::{Error, ErrorKind};

mod sealed {
    pub trait Sealed {}
}

/// The error that an answer stands for, in the extensions of the response: for logs, and for outer layers.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct AnsweredError(pub(super) Arc<Error>);

impl AnsweredError {
    /// The error. [`kind`](crate::Cause::kind) tells whether a layer ended the call.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.0
    }
}

/// Keeps of a request what the answer needs.
pub trait Capture {
    /// The part of a request that the answer needs.
    type Captured;

    /// Copies what the answer will need.
    fn capture<B>(&self, request: &Request<B>) -> Self::Captured;
}

/// Writes the answer: [`DefaultResponse`], or [`With`] a function. Implemented for nothing else.
///
/// `D` is the type in which the inner service's body has its data.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot write an answer whose data is `{D}`",
    note = "write `.respond(|refusal: Refusal<'_>| refusal.response())`; its `Bytes` must convert into the data of the inner service's body"
)]
pub trait MakeResponse<D>: Capture {
    /// Writes the answer to a call that ended for this reason.
    fn answer(&self, reason: Reason<'_>, captured: &Self::Captured) -> Response<Option<D>>;
}

/// The default answer: status and headers in the protocol of the request, and an empty body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DefaultResponse;

impl Capture for DefaultResponse {
    type Captured = ();

    #[inline]
    fn capture<B>(&self, _request: &Request<B>) {}
}

impl<D> MakeResponse<D> for DefaultResponse {
    fn answer(&self, reason: Reason<'_>, (): &()) -> Response<Option<D>> {
        reason.response(None)
    }
}

/// An answer that a function writes. Made by [`RespondLayer::respond`](super::RespondLayer::respond).
#[derive(Clone, Copy)]
pub struct With<F>(pub(super) F);

impl<F> Capture for With<F> {
    type Captured = RequestHead;

    #[inline]
    fn capture<B>(&self, request: &Request<B>) -> RequestHead {
        (request.method().clone(), request.uri().clone())
    }
}

impl<D, F> MakeResponse<D> for With<F>
where
    D: From<Bytes>,
    F: Fn(Refusal<'_>) -> Response<Bytes>,
{
    fn answer(&self, reason: Reason<'_>, head: &RequestHead) -> Response<Option<D>> {
        (self.0)(Refusal::new(reason, head)).map(|data| Some(data.into()))
    }
}

impl<F> fmt::Debug for With<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("With")
    }
}

/// Which errors become answers: [`ForClients`] or [`ForServers`]. Implemented for nothing else.
pub trait Side: sealed::Sealed {
    /// The error of the service.
    type Error;

    /// Whether the answer stays in this process.
    const IS_CLIENT: bool;

    /// Returns an error that is to be answered, or passes it on.
    ///
    /// # Errors
    ///
    /// The error itself, if it is passed on.
    fn answered(&self, error: Error) -> Result<Error, Self::Error>;
}

/// Errors of this crate's layers become responses, those of the inner client pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForClients;

impl sealed::Sealed for ForClients {}

impl Side for ForClients {
    type Error = Error;
    const IS_CLIENT: bool = true;

    fn answered(&self, error: Error) -> Result<Error, Error> {
        match error.kind() {
            ErrorKind::Service => Err(error),
            _ => Ok(error),
        }
    }
}

/// Every error becomes a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForServers;

impl sealed::Sealed for ForServers {}

impl Side for ForServers {
    type Error = Infallible;
    const IS_CLIENT: bool = false;

    fn answered(&self, error: Error) -> Result<Error, Infallible> {
        Ok(error)
    }
}
