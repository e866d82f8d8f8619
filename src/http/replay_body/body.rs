//! The body that can be read several times.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::source::Reader;
use crate::http::TryCopyBody;
use crate::{BoxError, Error};

/// Longer than nearly every request, and little enough to keep for each call in flight.
pub(super) const LIMIT: usize = 64 * 1024;

/// A body that is read while it is sent, and kept so that it can be sent again. See the
/// [module documentation](super).
///
/// Its data are `Bytes`. It is `Unpin`, whatever the body inside is, and `Send` and `Sync` if that is `Send`. Copies are
/// made by [`TryCopyBody::try_copy`]; it is not `Clone`, because there may be none to be had.
pub struct ReplayBody<B> {
    inner: Inner<B>,
}

enum Inner<B> {
    /// There is nothing to be read.
    Empty,
    Buffered(Reader<B>),
}

impl<B: Body> ReplayBody<B> {
    /// Keeps 64 KiB of `body`.
    pub fn new(body: B) -> Self {
        Self::with_limit(body, LIMIT)
    }

    /// Keeps at most `limit` bytes of `body`, trailers included.
    ///
    /// The memory held is at most 1.5 times the limit and 2 KiB. Trailers count 512 bytes, and 256 bytes for each field,
    /// in addition to their names and values.
    ///
    /// With 0, only a body without data can be sent again. With `usize::MAX` whatever comes is kept.
    pub fn with_limit(body: B, limit: usize) -> Self {
        let inner = if body.is_end_stream() {
            Inner::Empty
        } else {
            // One that is known to be too long is not kept. It can be sent again as long as nothing of it was read.
            let is_too_long = body.size_hint().lower() > limit as u64;
            let limit = if is_too_long { 0 } else { limit };
            Inner::Buffered(Reader::new(Box::pin(body), limit))
        };
        Self { inner }
    }
}

impl<B> TryCopyBody for ReplayBody<B> {
    /// Makes a copy that reads from the beginning, if all of what was read so far is still kept.
    fn try_copy(&self) -> Option<Self> {
        let inner = match &self.inner {
            Inner::Empty => Inner::Empty,
            Inner::Buffered(reader) => Inner::Buffered(reader.another()?),
        };
        Some(Self { inner })
    }

    /// Returns `false` once more was read than is kept, so that this copy cannot be read from where it is, or once
    /// the body has failed.
    fn is_replayable(&self) -> bool {
        match &self.inner {
            Inner::Empty => true,
            Inner::Buffered(reader) => reader.is_replayable(),
        }
    }

    /// Ends the attempt that this is a copy of: what it would read further fails.
    fn abandon(&self) {
        if let Inner::Buffered(reader) = &self.inner {
            reader.abandon();
        }
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body<Error: Into<BoxError> + 'static>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.get_mut().inner {
            Inner::Empty => Poll::Ready(None),
            Inner::Buffered(reader) => reader.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Empty => true,
            Inner::Buffered(reader) => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Buffered(reader) => reader.size_hint(),
        }
    }
}

impl<B: Body> From<B> for ReplayBody<B> {
    fn from(body: B) -> Self {
        Self::new(body)
    }
}

/// A body without data.
impl<B> Default for ReplayBody<B> {
    fn default() -> Self {
        Self {
            inner: Inner::Empty,
        }
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner {
            Inner::Empty => f.write_str("Empty"),
            Inner::Buffered(reader) => reader.fmt(f),
        }
    }
}

/// Why a [`ReplayBody`] could not be read on.
///
/// It is in the chain of sources of the error that a client makes of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReplayBodyError {
    /// The body itself failed. Every copy reports it.
    Source(Arc<dyn StdError + Send + Sync>),
    /// More of the body was read than is kept, and this copy needs what is gone.
    Lost,
    /// The attempt that reads it is over, and another one is made in its stead.
    Superseded,
    /// The body panicked when another copy read it.
    Panicked,
}

impl fmt::Display for ReplayBodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source(_) => "the request body failed",
            Self::Lost => "the beginning of the request body is no longer kept",
            Self::Superseded => "the request is sent again",
            Self::Panicked => "the request body has panicked",
        })
    }
}

impl StdError for ReplayBodyError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            // The error itself: behind the `Arc` nobody would find it by its type.
            Self::Source(error) => Some(&**error),
            Self::Lost | Self::Superseded | Self::Panicked => None,
        }
    }
}

impl ReplayBodyError {
    /// Says whether a call ended in `error` because its request could not be read, whoever was called.
    pub(in crate::http) fn is_cause_of(error: &Error) -> bool {
        Self::find(error).is_some()
    }

    /// Says whether it was for this copy alone, and another one may be read to its end.
    pub(crate) fn is_of_one_copy(error: &Error) -> bool {
        matches!(Self::find(error), Some(Self::Lost | Self::Superseded))
    }

    fn find(error: &Error) -> Option<&Self> {
        error.downcast_ref()
    }
}
