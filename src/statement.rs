//! The proof of a client that a request was not sent, for the adapters of `hyper`, `tonic` and `reqwest`.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use pin_project_lite::pin_project;

use crate::{BoxError, Error, context};

/// Knowledge of an adapter about its client while a call runs.
pub trait Witness<E> {
    /// Polls the call of the client.
    #[inline]
    fn watch<T>(&mut self, poll: impl FnOnce() -> T) -> T {
        poll()
    }

    /// Returns whether `error`, which the client has just returned, proves that the request was not sent.
    fn proves_not_sent(&self, error: &E) -> bool;
}

pin_project! {
    /// The response future of an adapter around a client.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, W> {
        #[pin]
        future: F,
        witness: W,
        // `true` if the layer that decides on the result has called the adapter directly, so that both have the same
        // request.
        is_direct: bool,
    }
}

impl<F, W> ResponseFuture<F, W> {
    /// Makes a call and watches it.
    #[inline]
    pub(crate) fn call(witness: W, call: impl FnOnce() -> F) -> Self {
        let is_direct = context::take_direct();
        Self {
            future: call(),
            witness,
            is_direct,
        }
    }
}

impl<F, W, T, E> Future for ResponseFuture<F, W>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
    W: Witness<E>,
{
    type Output = Result<T, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (future, witness) = (this.future, this.witness);
        let result = ready!(witness.watch(|| future.poll(cx)));
        Poll::Ready(result.map_err(|error| {
            let is_not_sent = *this.is_direct && witness.proves_not_sent(&error);
            Error::of_client(error.into(), is_not_sent)
        }))
    }
}

impl<F, W> fmt::Debug for ResponseFuture<F, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// Returns whether an error of hyper, returned by a connection in place of an answer, proves that the request was not
/// sent.
pub(crate) fn of_connection(error: &(dyn StdError + 'static), has_body: bool) -> bool {
    let Some(error) = error.downcast_ref::<::hyper::Error>() else {
        return false;
    };
    // The connection was closed while the request was in its queue. (hyper also reports this error for a failed
    // upgrade, but not in place of an answer.)
    error.is_canceled()
        || error
            .source()
            .and_then(<dyn StdError>::downcast_ref)
            .is_some_and(|error| of_stream(error, has_body))
}

/// Returns whether the other side has stated that it did not act on the stream and will not do so.
fn of_stream(error: &::h2::Error, has_body: bool) -> bool {
    use ::h2::Reason;
    let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    // h2 gives this error only to streams above the last one of the GOAWAY and to streams that were not begun. However,
    // if the GOAWAY arrives while hyper begins a stream, hyper gives that stream the same error. Its head may have been
    // sent by then, but not its body: such a request was sent only if it has no body.
    let is_excluded = has_body && error.is_go_away() && error.reason() == Some(Reason::NO_ERROR);
    error.is_remote() && (is_refused || is_excluded)
}

/// Returns whether an error of a client of hyper-util, returned by that client itself, proves that the request was not
/// sent.
#[cfg(any(feature = "hyper", feature = "reqwest"))]
pub(crate) fn of_legacy_client(
    error: &::hyper_util::client::legacy::Error,
    has_body: bool,
) -> bool {
    let of_source = |error| of_connection(error, has_body);
    error.is_connect() || error.source().is_some_and(of_source)
}
