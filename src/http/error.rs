//! Errors of bodies.

use std::time::Duration;

use crate::error::{Stage, downcast};
use crate::{BoxError, Cause, Error, ErrorKind};

impl Error {
    /// Makes the error of a body inside a body of this crate.
    ///
    /// A refusal in it comes from another dependency that the writer of the body has called, because no layer of this
    /// operation refuses a call that has begun.
    #[cold]
    pub(super) fn of_body<E>(error: E) -> Self
    where
        E: Into<BoxError> + 'static,
    {
        let mut error = downcast::<E, Self>(error).unwrap_or_else(|foreign| {
            let mut error = Self::of_foreign(foreign.into(), "");
            if error.kind() == ErrorKind::Service {
                error.0.stage = Stage::Body;
            }
            error
        });
        error.0.disown();
        error
    }

    /// Makes the error of an answer that was given up after `allowed`, after its head had arrived.
    pub(super) fn body_timed_out(
        kind: ErrorKind,
        name: &'static str,
        allowed: Duration,
        stage: Stage,
    ) -> Self {
        let mut error = Self::timed_out(kind, name, allowed);
        error.0.stage = stage;
        error
    }
}

impl Cause {
    /// Returns `true` if the caller was too slow, and not the service.
    pub(in crate::http) fn is_of_slow_reader(&self) -> bool {
        self.stage == Stage::Reader
    }
}
