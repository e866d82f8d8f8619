//! What is kept of a body, and how far each of its readers has come.

use std::collections::VecDeque;
use std::mem;

use ::http::HeaderMap;
use bytes::Bytes;
use http_body::Frame;

/// A piece takes room beside its bytes. So that a body of tiny pieces does not take a multiple of the limit, there is
/// one piece for each so many bytes of it.
const BYTES_OF_A_PIECE: usize = 64;
/// However low the limit is, so many pieces may be kept.
const FEW: usize = 64;

/// A frame that can be given to several readers.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Data(Bytes),
    // Boxed, because it is rare and would make every piece three times as large.
    Trailers(Box<HeaderMap>),
}

impl Piece {
    /// What it counts against the limit.
    fn size(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(trailers) => trailers
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len())
                .sum(),
        }
    }

    /// How much of the body's length it is.
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

/// What a reader gets next.
#[derive(Debug, PartialEq)]
#[must_use]
pub(super) enum Next {
    /// A piece that another one has read from the source.
    Kept(Piece),
    /// It has come to the end of what is kept: it is to read from the source.
    Source,
    /// What it would have to read is no longer kept.
    Lost,
    /// It belongs to an attempt that is over.
    Superseded,
}

/// The pieces that some reader has read and another one still needs, within a limit.
///
/// Pieces are numbered from the beginning of the body. Those are kept that a reader which is behind the others has
/// not got yet. If they are more than the limit, the oldest ones go, and with them the readers that have not come so
/// far: one that has not begun, mostly, or one that is further behind the foremost than the limit allows.
#[derive(Debug)]
pub(super) struct Kept {
    limit: usize,
    pieces: VecDeque<Piece>,
    /// Those that nobody needs any more.
    gone: VecDeque<Piece>,
    /// The number of the oldest piece.
    first: u64,
    /// The size of the pieces.
    size: usize,
    /// The length of all that was read from the source.
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
    is_superseded: bool,
    /// The number of the piece that it gets next.
    next: u64,
    /// The length of what it got.
    length: u64,
}

impl Kept {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            pieces: VecDeque::new(),
            gone: VecDeque::new(),
            first: 0,
            size: 0,
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
            is_superseded: false,
            next: 0,
            length: 0,
        });
        Some(self.last_id)
    }

    /// Removes a reader, and what was kept for it.
    pub(super) fn leave(&mut self, id: u64) {
        self.readers.retain(|reader| reader.id != id);
        self.trim();
    }

    /// Ends the attempt that this reader was copied from, and the copies that were made of that later: by a hedge in
    /// it. Copies that were made before belong to somebody further out. Returns who is ended.
    pub(super) fn supersede(&mut self, id: u64) -> Vec<u64> {
        let original = self.reader(id).map(|reader| reader.original);
        let mut ended: Vec<_> = original.into_iter().collect();
        // In the order in which they came.
        for reader in &mut self.readers {
            let is_later_copy = reader.id > id && ended.contains(&reader.original);
            if Some(reader.id) == original || is_later_copy {
                reader.is_superseded = true;
                ended.push(reader.id);
            }
        }
        self.trim();
        ended
    }

    /// Gives a reader the next piece.
    pub(super) fn next(&mut self, id: u64) -> Next {
        let first = self.first;
        let Some(reader) = self.reader_mut(id) else {
            return Next::Lost;
        };
        if reader.is_superseded {
            return Next::Superseded;
        }
        let Some(place) = reader.next.checked_sub(first) else {
            return Next::Lost;
        };
        let Some(piece) = self.pieces.get(place as usize).cloned() else {
            return Next::Source;
        };
        self.advance(id, &piece);
        self.trim();
        Next::Kept(piece)
    }

    /// A reader has read `piece` from the source. It is kept if another one needs it.
    pub(super) fn push(&mut self, id: u64, piece: &Piece) {
        if *piece == Piece::Data(Bytes::new()) {
            // Takes room and says nothing.
            return;
        }
        self.length += piece.length();
        let mut others = self.readers.iter().filter(|reader| reader.id != id);
        if others.any(|reader| reader.next >= self.first && !reader.is_superseded) {
            self.size += piece.size();
            self.pieces.push_back(piece.clone());
        } else {
            self.first += 1;
        }
        self.advance(id, piece);
        self.trim();
    }

    fn advance(&mut self, id: u64, piece: &Piece) {
        if let Some(reader) = self.reader_mut(id) {
            reader.next += 1;
            reader.length += piece.length();
        }
    }

    /// Lets go of what nobody needs, and of what is too much.
    fn trim(&mut self) {
        let end = self.first + self.pieces.len() as u64;
        let needs_some = |reader: &Reader| reader.next < end && !reader.is_superseded;
        if self.gone.is_empty() && !self.readers.iter().any(needs_some) {
            mem::swap(&mut self.gone, &mut self.pieces);
            (self.first, self.size) = (end, 0);
            return;
        }
        while let Some(piece) = self.pieces.front() {
            let mut readers = self.readers.iter();
            let is_needed =
                readers.any(|reader| reader.next == self.first && !reader.is_superseded);
            if is_needed && self.is_within_limit() {
                return;
            }
            self.size -= piece.size();
            self.first += 1;
            self.gone.extend(self.pieces.pop_front());
        }
    }

    /// Takes what nobody needs any more, to be dropped without a lock: the memory may belong to code of others.
    #[must_use]
    pub(super) fn gone(&mut self) -> VecDeque<Piece> {
        mem::take(&mut self.gone)
    }

    fn is_within_limit(&self) -> bool {
        let most = (self.limit / BYTES_OF_A_PIECE).max(FEW);
        self.size <= self.limit && self.pieces.len() <= most
    }

    /// Says whether a reader can go on.
    pub(super) fn has(&self, id: u64) -> bool {
        let reader = self.reader(id);
        reader.is_some_and(|reader| reader.next >= self.first && !reader.is_superseded)
    }

    /// Says whether a reader has come to the end of what was read from the source.
    pub(super) fn is_foremost(&self, id: u64) -> bool {
        let end = self.first + self.pieces.len() as u64;
        self.reader(id).is_some_and(|reader| reader.next == end)
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
