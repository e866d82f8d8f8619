//! Who writes the answer, and for whom.

use std::convert::Infallible;
use std::fmt;

use ::http::{Request, Response};
use bytes::Bytes;

use super::refusal::{Reason, Refusal, RequestHead};
use crate::http::Protocol;
use crate::{Error, ErrorKind};

mod sealed {
    pub trait Sealed {}
}

/// Writes the answer: [`DefaultResponse`], or [`With`] a function. Implemented for nothing else.
///
/// `D` is the type in which the inner service's body has its data.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot write an answer whose data is `{D}`",
    note = "write `.respond(|refusal: Refusal<'_>| refusal.response())`; its `Bytes` must convert into the data of the inner service's body"
)]
pub trait MakeResponse<D>: sealed::Sealed {
    /// What the answer needs of the request.
    type Captured;

    /// Keeps what the answer will need.
    fn keep<B>(&self, request: &Request<B>) -> Self::Captured;

    /// Writes the answer to a call that ended in `error`, which may be told by name if `is_for_client`.
    fn answer(
        &self,
        error: &Error,
        protocol: Protocol,
        is_for_client: bool,
        kept: &Self::Captured,
    ) -> Response<Option<D>>;
}

/// The default answer: status and headers in the protocol of the request, and an empty body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DefaultResponse;

impl sealed::Sealed for DefaultResponse {}

impl<D> MakeResponse<D> for DefaultResponse {
    type Captured = ();

    #[inline]
    fn keep<B>(&self, _request: &Request<B>) {}

    fn answer(
        &self,
        error: &Error,
        protocol: Protocol,
        is_for_client: bool,
        (): &(),
    ) -> Response<Option<D>> {
        Reason::new(error, protocol, is_for_client).response(None)
    }
}

/// An answer that a function writes. Made by [`RespondLayer::respond`](super::RespondLayer::respond).
#[derive(Clone, Copy)]
pub struct With<F>(pub(super) F);

impl<F> sealed::Sealed for With<F> {}

impl<D, F> MakeResponse<D> for With<F>
where
    D: From<Bytes>,
    F: Fn(Refusal<'_>) -> Response<Bytes>,
{
    type Captured = RequestHead;

    #[inline]
    fn keep<B>(&self, request: &Request<B>) -> RequestHead {
        RequestHead::of(request)
    }

    fn answer(
        &self,
        error: &Error,
        protocol: Protocol,
        is_for_client: bool,
        kept: &RequestHead,
    ) -> Response<Option<D>> {
        let reason = Reason::new(error, protocol, is_for_client);
        (self.0)(Refusal::new(reason, kept)).map(|data| Some(data.into()))
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
    fn answered(error: Error) -> Result<Error, Self::Error>;
}

/// Errors of this crate's layers become responses, those of the inner client pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForClients;

impl sealed::Sealed for ForClients {}

impl Side for ForClients {
    type Error = Error;
    const IS_CLIENT: bool = true;

    fn answered(error: Error) -> Result<Error, Error> {
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

    fn answered(error: Error) -> Result<Error, Infallible> {
        Ok(error)
    }
}
