//! The part of a body that is kept, and the position of each of its readers.
//!
//! Data is kept in chunks of our own. A frame is often a few bytes of a large buffer that it was read into, and keeps
//! the whole buffer alive; nobody can see how large that is. Only a copy has a known size.

use std::collections::VecDeque;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::{Bytes, BytesMut};
use http_body::Frame;

/// A chunk is at most this part of the limit. Up to two chunks are only partly in use, the oldest and the newest one,
/// so the memory held is at most 1.25 times the limit.
const CHUNKS_OF_LIMIT: usize = 8;
/// Large enough to keep the list of chunks short, small enough for a short body.
const MIN_CHUNK: usize = 256;
/// Enough to write to a socket at once.
const MAX_CHUNK: usize = 64 * 1024;
/// From the chunk that is still being filled, a reader gets a copy if it needs less than this. A chunk is never cut into
/// parts that are smaller, so an entry in the list adds less than a tenth.
const MIN_PART: usize = 512;
/// The memory of a map of trailers, and of each of its fields, apart from names and values.
const TRAILERS_SIZE: usize = 512;
const TRAILER_SIZE: usize = 256;

/// A part of a body that can be given to several readers.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Data(Bytes),
    // Boxed, because it is rare and would make every piece three times as large.
    Trailers(Box<HeaderMap>),
}

impl Piece {
    /// Its size against the limit.
    fn size(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Trailers(trailers) => {
                let fields = trailers
                    .iter()
                    .map(|(name, value)| TRAILER_SIZE + name.as_str().len() + value.len());
                (TRAILERS_SIZE + fields.sum::<usize>()) as u64
            }
        }
    }

    /// Its share of the body's length.
    fn length(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Trailers(_) => 0,
        }
    }
}

impl From<Piece> for Frame<Bytes> {
    fn from(piece: Piece) -> Self {
        match piece {
            Piece::Data(data) => Frame::data(data),
            Piece::Trailers(trailers) => Frame::trailers(*trailers),
        }
    }
}

/// Copies trailers, so that they hold no memory but their own.
fn copy_trailers(trailers: &HeaderMap) -> HeaderMap {
    let mut copy = HeaderMap::with_capacity(trailers.keys_len());
    for (name, value) in trailers {
        // Both were valid before.
        let (Ok(name), Ok(mut copied)) = (
            HeaderName::from_bytes(name.as_str().as_bytes()),
            HeaderValue::from_bytes(value.as_bytes()),
        ) else {
            continue;
        };
        copied.set_sensitive(value.is_sensitive());
        copy.append(name, copied);
    }
    copy
}

/// The next step of a reader.
#[derive(Debug, PartialEq)]
#[must_use]
pub(super) enum Next {
    /// It gets a piece that another reader has read from the source.
    Buffered(Piece),
    /// It has read all that is kept, and reads from the source.
    Source,
    /// The data at its position is no longer kept.
    Lost,
    /// It belongs to an attempt that is over.
    Superseded,
}

/// The part of a body that some reader has read and another one still needs, within a limit.
///
/// A position in the body is the size of all before it. The log ends where the foremost reader is, and begins where
/// the hindmost one is that is not further behind the end than the limit. Readers before the beginning are lost: one
/// that has not begun, mostly.
#[derive(Debug)]
pub(super) struct Buffered {
    limit: u64,
    /// Complete chunks and trailers with their positions. The first one may begin before the log does.
    pieces: VecDeque<(u64, Piece)>,
    /// The chunk that is being filled. It ends where the log ends.
    tail: BytesMut,
    /// The beginning of the log.
    first: u64,
    /// The end of the log, and of all that was read from the source.
    end: u64,
    /// The length of the data that was read from the source.
    length: u64,
    readers: Vec<Reader>,
    last_id: u64,
}

#[derive(Debug)]
struct Reader {
    id: u64,
    /// The reader that it is a copy of; 0 for the first one.
    original: u64,
    /// The attempt that it belongs to is over.
    is_abandoned: bool,
    /// The position that it reads next.
    next: u64,
    /// The length of what it got.
    length: u64,
}

impl Buffered {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit as u64,
            pieces: VecDeque::new(),
            tail: BytesMut::new(),
            first: 0,
            end: 0,
            length: 0,
            readers: Vec::new(),
            last_id: 0,
        }
    }

    /// Adds a reader of the whole body, a copy of this one, if that can still be had.
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
            length: 0,
        });
        Some(self.last_id)
    }

    /// Removes a reader, and what was kept for it.
    pub(super) fn leave(&mut self, id: u64) {
        self.readers.retain(|reader| reader.id != id);
        self.trim(self.end);
    }

    /// Ends the attempt that this reader was copied from, and the copies that were made of that later: by a hedge in
    /// it. Copies that were made before belong to an outer layer. Returns who is ended.
    pub(super) fn abandon(&mut self, id: u64) -> Vec<u64> {
        let original = self.reader(id).map(|reader| reader.original);
        let mut ended: Vec<_> = original.into_iter().collect();
        // In the order in which they came.
        for reader in &mut self.readers {
            let is_later_copy = reader.id > id && ended.contains(&reader.original);
            if Some(reader.id) == original || is_later_copy {
                reader.is_abandoned = true;
                ended.push(reader.id);
            }
        }
        self.trim(self.end);
        ended
    }

    /// Gives a reader the next piece.
    pub(super) fn next(&mut self, id: u64) -> Next {
        let Some(reader) = self.reader(id) else {
            return Next::Lost;
        };
        let position = reader.next;
        if reader.is_abandoned {
            return Next::Superseded;
        }
        if position < self.first {
            return Next::Lost;
        }
        if position == self.end {
            return Next::Source;
        }
        let piece = self.piece_at(position);
        self.advance(id, &piece);
        self.trim(self.end);
        Next::Buffered(piece)
    }

    /// All that follows a position in its piece.
    fn piece_at(&mut self, position: u64) -> Piece {
        let tail_start = self.end - self.tail.len() as u64;
        if position >= tail_start {
            let part = &self.tail[(position - tail_start) as usize..];
            if part.len() < MIN_PART {
                return Piece::Data(Bytes::copy_from_slice(part));
            }
            self.seal_tail();
        }
        let after = self.pieces.partition_point(|(start, _)| *start <= position);
        match &self.pieces[after - 1] {
            (start, Piece::Data(data)) => Piece::Data(data.slice((position - start) as usize..)),
            (_, trailers) => trailers.clone(),
        }
    }

    /// Notes that a reader has read `piece` from the source, and copies the piece if another reader needs it.
    pub(super) fn push(&mut self, id: u64, piece: &Piece) {
        // The other readers are at the former end at most. Those that the piece takes out of the limit are lost before
        // it is copied: no more than the limit is ever copied.
        self.advance(id, piece);
        let end = self.end + piece.size();
        self.trim(end);
        if self.first < end {
            self.append(piece);
        }
        self.end = end;
        self.length += piece.length();
    }

    fn append(&mut self, piece: &Piece) {
        match piece {
            Piece::Data(data) => {
                let mut rest = &data[..];
                while !rest.is_empty() {
                    let room = self.tail.capacity() - self.tail.len();
                    if room == 0 {
                        self.seal_tail();
                        self.tail = BytesMut::with_capacity(self.chunk_size(rest.len()));
                    } else {
                        let (now, later) = rest.split_at(room.min(rest.len()));
                        self.tail.extend_from_slice(now);
                        self.end += now.len() as u64;
                        rest = later;
                    }
                }
            }
            Piece::Trailers(trailers) => {
                self.seal_tail();
                self.tail = BytesMut::new();
                let copy = Piece::Trailers(Box::new(copy_trailers(trailers)));
                self.pieces.push_back((self.end, copy));
            }
        }
    }

    /// The capacity of a new chunk for a frame of which so many bytes are left: as much as is kept already, so that a
    /// short body takes little and a long one has few chunks.
    fn chunk_size(&self, rest: usize) -> usize {
        let max = (self.limit / CHUNKS_OF_LIMIT as u64).min(MAX_CHUNK as u64) as usize;
        let kept = (self.end - self.first).min(MAX_CHUNK as u64) as usize;
        kept.max(rest).min(max).max(MIN_CHUNK)
    }

    /// Moves the content of the tail to the list. The tail keeps the rest of its capacity.
    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            let data = self.tail.split().freeze();
            let start = self.end - data.len() as u64;
            self.pieces.push_back((start, Piece::Data(data)));
        }
    }

    fn advance(&mut self, id: u64, piece: &Piece) {
        if let Some(reader) = self.reader_mut(id) {
            reader.next += piece.size();
            reader.length += piece.length();
        }
    }

    /// Drops what no reader needs, and what is too much for a log that ends at `end`.
    fn trim(&mut self, end: u64) {
        let first = self.first.max(end.saturating_sub(self.limit));
        let readers = self.readers.iter();
        let needed = readers
            .filter(|reader| reader.next >= first && !reader.is_abandoned)
            .map(|reader| reader.next);
        self.first = needed.min().unwrap_or(end).min(end);
        if self.first >= self.end {
            self.pieces = VecDeque::new();
            self.tail = BytesMut::new();
            return;
        }
        let tail_start = self.end - self.tail.len() as u64;
        while !self.pieces.is_empty() {
            let second = self.pieces.get(1).map_or(tail_start, |(start, _)| *start);
            if second > self.first {
                return;
            }
            self.pieces.pop_front();
        }
    }

    /// Returns whether a reader can go on.
    pub(super) fn has(&self, id: u64) -> bool {
        let reader = self.reader(id);
        reader.is_some_and(|reader| reader.next >= self.first && !reader.is_abandoned)
    }

    /// Returns whether a reader has come to the end of what was read from the source.
    pub(super) fn is_foremost(&self, id: u64) -> bool {
        self.reader(id)
            .is_some_and(|reader| reader.next == self.end)
    }

    /// The length of what a reader got.
    pub(super) fn got(&self, id: u64) -> u64 {
        self.reader(id).map_or(0, |reader| reader.length)
    }

    /// The length of what was read from the source and a reader has not got yet.
    pub(super) fn behind(&self, id: u64) -> u64 {
        self.reader(id)
            .map_or(0, |reader| self.length - reader.length)
    }

    fn reader(&self, id: u64) -> Option<&Reader> {
        self.readers.iter().find(|reader| reader.id == id)
    }

    fn reader_mut(&mut self, id: u64) -> Option<&mut Reader> {
        self.readers.iter_mut().find(|reader| reader.id == id)
    }
}
