//! The kept part of a body, and the position of each of its readers.
//!
//! Data is copied into an own buffer. A frame is often a few bytes of a large buffer and keeps the whole buffer alive,
//! whose size is not visible. Only a copy has a known size.

use std::collections::VecDeque;
use std::task::Waker;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use http_body::Frame;

use crate::ReplayBodyError;
use crate::algorithm::queue::Wakers;
use crate::keyed::Key;

/// The longest frame that a copy gets: enough to write to a socket at once.
const MAX_FRAME: usize = 64 * 1024;
/// The memory of a map of trailers, without names and values. Each field has its own size.
const TRAILERS_SIZE: usize = 512;
const TRAILER_SIZE: usize = 256;

/// Returns the size of a frame against the limit, and its part of the body's length.
fn sizes(frame: &Frame<Bytes>) -> (u64, u64) {
    let data = frame.data_ref().map_or(0, Bytes::len);
    let trailers = frame.trailers_ref().map_or(0, |trailers| {
        let fields = trailers
            .iter()
            .map(|(name, value)| TRAILER_SIZE + name.as_str().len() + value.len());
        TRAILERS_SIZE + fields.sum::<usize>()
    });
    ((data + trailers) as u64, data as u64)
}

/// Copies trailers, so that they keep no other memory alive.
fn copy_trailers(trailers: &HeaderMap) -> HeaderMap {
    let compact = |(name, value): (&HeaderName, &HeaderValue)| {
        let (name, value) = (name.clone(), value.clone());
        (name.into_compact(), value.into_compact())
    };
    trailers.iter().map(compact).collect()
}

/// The part of a body that some reader has read and another one still needs, within a limit.
///
/// A position in the body is the size of all data before it. The log ends at the foremost reader. It begins at the
/// hindmost reader that is not further behind the end than the limit. Readers before the beginning are lost; mostly
/// these are readers that have not begun.
pub(super) struct Kept {
    limit: u64,
    /// The data of the log. It ends where the data that was read from the body ends.
    data: VecDeque<u8>,
    /// Trailers, if the log ends in them.
    trailers: Option<HeaderMap>,
    /// The beginning of the log.
    first: u64,
    /// The end of the log, and of all that was read from the source.
    end: u64,
    /// The length of the data that was read from the source.
    length: u64,
    readers: Vec<Reader>,
    last_id: u64,
}

struct Reader {
    id: u64,
    /// The reader from which it was copied; 0 for the first one.
    original: u64,
    /// `true` if its attempt is over.
    is_abandoned: bool,
    /// The position of its next read.
    next: u64,
    /// Woken when there is more to read, if the reader waits.
    waker: Option<Waker>,
}

impl Kept {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit as u64,
            data: VecDeque::new(),
            trailers: None,
            first: 0,
            end: 0,
            length: 0,
            readers: Vec::new(),
            last_id: 0,
        }
    }

    /// Adds a reader of the whole body, as a copy of this one, if all data is still kept.
    pub(super) fn join(&mut self, original: u64) -> Option<u64> {
        if self.first > 0 {
            return None;
        }
        self.last_id += 1;
        self.readers.push(Reader {
            id: self.last_id,
            original,
            is_abandoned: false,
            next: 0,
            waker: None,
        });
        Some(self.last_id)
    }

    /// Removes a reader, and the data that was kept for it. Returns its waker, to be dropped without the lock.
    #[must_use]
    pub(super) fn leave(&mut self, id: u64) -> Option<Waker> {
        let place = self.readers.iter().position(|reader| reader.id == id)?;
        let left = self.readers.remove(place);
        self.trim(self.end);
        left.waker
    }

    /// Ends the attempt from which this reader was copied, and later copies of that attempt, which a hedge in it has
    /// made. Earlier copies belong to an outer layer.
    pub(super) fn abandon(&mut self, id: u64) -> Wakers {
        let mut wakers = Wakers::default();
        let original = self.reader(id).map(|reader| reader.original);
        let mut ended: Vec<_> = original.into_iter().collect();
        // In the order in which they came.
        for reader in &mut self.readers {
            let is_later_copy = reader.id > id && ended.contains(&reader.original);
            if Some(reader.id) == original || is_later_copy {
                reader.is_abandoned = true;
                wakers.extend(reader.waker.take());
                ended.push(reader.id);
            }
        }
        self.trim(self.end);
        wakers
    }

    /// Returns the position of a reader, if it can continue.
    pub(super) fn position(&self, id: u64) -> Result<u64, ReplayBodyError> {
        match self.reader(id) {
            Some(reader) if reader.is_abandoned => Err(ReplayBodyError::Superseded),
            Some(reader) if reader.next >= self.first => Ok(reader.next),
            _ => Err(ReplayBodyError::Lost),
        }
    }

    /// Returns the next frame for a reader from the kept data. `None` if it has read all kept data, so that the next
    /// frame comes from the source.
    pub(super) fn next(&mut self, id: u64) -> Result<Option<Frame<Bytes>>, ReplayBodyError> {
        let position = self.position(id)?;
        if position == self.end {
            return Ok(None);
        }
        let frame = match &self.trailers {
            Some(trailers) if position >= self.length => Frame::trailers(trailers.clone()),
            _ => {
                let skipped = (position - self.data_start()) as usize;
                let rest = &self.data.make_contiguous()[skipped..];
                Frame::data(Bytes::copy_from_slice(&rest[..rest.len().min(MAX_FRAME)]))
            }
        };
        self.advance(id, &frame);
        self.trim(self.end);
        Ok(Some(frame))
    }

    /// Notes that a reader has read a frame from the source, and copies the frame if another reader needs it.
    pub(super) fn push(&mut self, id: u64, frame: &Frame<Bytes>) {
        if self.end > self.length {
            // A body that goes on after its trailers cannot be copied.
            self.limit = 0;
        }
        // The other readers are at the former end at most. Readers that fall behind the limit are lost before the frame
        // is copied, so that at most the limit is ever copied.
        self.advance(id, frame);
        let (size, length) = sizes(frame);
        let end = self.end + size;
        self.trim(end);
        if self.first < end {
            match frame.data_ref() {
                Some(data) => self.append(data),
                None => self.trailers = frame.trailers_ref().map(copy_trailers),
            }
        }
        self.end = end;
        self.length += length;
    }

    /// Keeps data. The buffer doubles when it is full, up to the limit, so that a short body takes little memory.
    fn append(&mut self, data: &[u8]) {
        let needed = self.data.len() + data.len();
        let capacity = self.data.capacity();
        if needed > capacity {
            let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
            let larger = capacity.saturating_mul(2).min(limit).max(needed);
            self.data.reserve_exact(larger - self.data.len());
        }
        self.data.extend(data);
    }

    fn data_start(&self) -> u64 {
        self.length - self.data.len() as u64
    }

    fn advance(&mut self, id: u64, frame: &Frame<Bytes>) {
        if let Some(reader) = self.reader_mut(id) {
            reader.next += sizes(frame).0;
        }
    }

    /// Drops data that no reader needs, and data beyond the limit of a log that ends at `end`.
    fn trim(&mut self, end: u64) {
        let first = self.first.max(end.saturating_sub(self.limit));
        let readers = self.readers.iter();
        let needed = readers
            .filter(|reader| reader.next >= first && !reader.is_abandoned)
            .map(|reader| reader.next);
        self.first = needed.min().unwrap_or(end);
        if self.first >= self.end {
            self.data = VecDeque::new();
            self.trailers = None;
        } else {
            let unneeded = self.first.min(self.length) - self.data_start();
            self.data.drain(..unneeded as usize);
        }
    }

    /// Notes that a reader waits. Returns its former waker, to be dropped without the lock.
    #[must_use]
    pub(super) fn wait(&mut self, id: u64, waker: &Waker) -> Option<Waker> {
        let waiting = &mut self.reader_mut(id)?.waker;
        match waiting {
            Some(waiting) if waiting.will_wake(waker) => None,
            _ => waiting.replace(waker.clone()),
        }
    }

    /// Returns the wakers of all waiting readers.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Waker> {
        self.readers
            .iter()
            .filter_map(|reader| reader.waker.as_ref())
    }

    /// Takes the wakers of all waiting readers except one. The waker of this one stays, because it probably waits
    /// again.
    pub(super) fn others(&mut self, id: u64) -> Wakers {
        let mut wakers = Wakers::default();
        let others = self.readers.iter_mut().filter(|reader| reader.id != id);
        wakers.extend(others.filter_map(|reader| reader.waker.take()));
        wakers
    }

    /// Returns whether a reader is at the end of the data that was read from the source.
    pub(super) fn is_foremost(&self, id: u64) -> bool {
        self.reader(id)
            .is_some_and(|reader| reader.next == self.end)
    }

    /// Returns the length of the data that a reader has read.
    pub(super) fn got(&self, id: u64) -> u64 {
        let next = self.reader(id).map_or(self.length, |reader| reader.next);
        next.min(self.length)
    }

    /// Returns the length of the data that was read from the source and that a reader has not read yet.
    pub(super) fn behind(&self, id: u64) -> u64 {
        self.length - self.got(id)
    }

    fn reader(&self, id: u64) -> Option<&Reader> {
        self.readers.iter().find(|reader| reader.id == id)
    }

    fn reader_mut(&mut self, id: u64) -> Option<&mut Reader> {
        self.readers.iter_mut().find(|reader| reader.id == id)
    }
}
