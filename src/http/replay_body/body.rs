//! The body that can be read several times.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::source::Reader;
use crate::http::TryCopyBody;
use crate::{BoxError, Error, Upload};

/// Longer than nearly every request, and little enough to keep for each call in flight.
pub(super) const LIMIT: usize = 64 * 1024;

/// A body whose data is kept while it is sent, so that it can be sent again. See the [module documentation](super).
///
/// Its data are `Bytes`. It is always `Unpin`, and `Send` and `Sync` if the inner body is `Send`.
/// [`TryCopyBody::try_copy`] makes a copy; the type is not `Clone`, because a copy may not be possible.
pub struct ReplayBody<B> {
    /// `None` if there is nothing to read.
    reader: Option<Reader<B>>,
}

impl<B: Body> ReplayBody<B> {
    /// Makes a body that keeps at most 64 KiB of `body`.
    pub fn new(body: B) -> Self {
        Self::with_limit(body, LIMIT)
    }

    /// Makes a body that keeps at most `limit` bytes of `body`, trailers included.
    ///
    /// It uses at most the limit and 2 KiB of memory. Trailers count 512 bytes, and 256 bytes for each field, in
    /// addition to their names and values.
    ///
    /// With 0, only a body without data can be sent again. With `usize::MAX` the whole body is kept.
    pub fn with_limit(body: B, limit: usize) -> Self {
        let has_data = !body.is_end_stream();
        // A body that is known to be too long is not kept. It can be sent again as long as none of it was read.
        let is_too_long = has_data && body.size_hint().lower() > limit as u64;
        let limit = if is_too_long { 0 } else { limit };
        Self {
            reader: has_data.then(|| Reader::new(Box::pin(body), limit)),
        }
    }
}

impl<B> TryCopyBody for ReplayBody<B> {
    /// Makes a copy that reads from the beginning, if all data that was read so far is still kept.
    fn try_copy(&self) -> Option<Self> {
        let reader = self.reader.try_copy()?;
        Some(Self { reader })
    }

    /// Returns `false` if this copy needs data that is no longer kept, or if the body has failed.
    fn is_replayable(&self) -> bool {
        self.reader.is_replayable()
    }

    /// Ends the attempt from whose request this copy was made: its next read fails.
    fn abandon(&self) {
        self.reader.abandon();
    }

    fn upload(&mut self) -> Option<Upload> {
        self.reader.upload()
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
        match &mut self.get_mut().reader {
            Some(reader) => reader.poll(cx).map_err(Error::of_body),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.reader.as_ref().is_none_or(Reader::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let reader = self.reader.as_ref();
        reader.map_or(SizeHint::with_exact(0), Reader::size_hint)
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
        Self { reader: None }
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reader {
            Some(reader) => reader.fmt(f),
            None => f.write_str("Empty"),
        }
    }
}
