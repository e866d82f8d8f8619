//! The body that is read, and shared by those who read it.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, Wake, Waker};

use ::http::HeaderMap;
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::state::{Buffered, Next, Piece};
use crate::algorithm::queue::Wakers;
use crate::sync::{Mutex, lock};
use crate::{BoxError, ReplayBodyError};

/// What all readers of one body share.
pub(super) struct Shared<B> {
    state: Mutex<State<B>>,
}

struct State<B> {
    kept: Buffered,
    source: Source<B>,
    /// The length of the source, if it said so before it was read. It holds for all copies, whatever comes: if the source
    /// ends before, a copy that says less would look like the whole. Without it nobody knows how long a copy is, not even
    /// when all was read: a client would send that in another way than the first attempt, and HTTP/1 has no trailers
    /// behind a known length.
    total: Option<u64>,
    /// The least that is left in the source.
    rest: u64,
    /// Those who wait for the source, by the number of the reader.
    waiting: Vec<(u64, Waker)>,
    /// One of them came while another one was polling the source, which therefore does not know of it.
    is_unknown: bool,
}

/// The body, or what became of it.
enum Source<B> {
    /// `None` while a reader is polling it. That is done without the lock: it is code of others.
    Open(Option<Pin<Box<B>>>),
    Complete,
    Failed(ReplayBodyError),
}

/// Wakes all who wait for a source.
struct WakeAll(Vec<Waker>);

impl Wake for WakeAll {
    fn wake(self: Arc<Self>) {
        let mut wakers = Wakers::default();
        wakers.extend(self.0.iter().cloned());
        wakers.wake();
    }
}

impl<B> State<B> {
    /// Returns whether a reader has got all that there is, and all that was promised.
    fn is_at_end(&self, id: u64) -> bool {
        matches!(self.source, Source::Complete)
            && self.kept.is_foremost(id)
            && self.total.is_none_or(|total| total <= self.kept.got(id))
    }

    /// Notes that a reader waits. Returns its former waker, to be dropped without the lock.
    #[must_use]
    fn wait(&mut self, id: u64, waker: &Waker) -> Option<Waker> {
        match self.waiting.iter_mut().find(|(waiting, _)| *waiting == id) {
            Some((_, waiting)) if waiting.will_wake(waker) => None,
            Some((_, waiting)) => Some(mem::replace(waiting, waker.clone())),
            None => {
                self.waiting.push((id, waker.clone()));
                None
            }
        }
    }

    /// The waker that is given to the source, if it is not that of the reader alone.
    fn common_waker(&self) -> Option<Waker> {
        let wakers = self.waiting.iter().map(|(_, waker)| waker.clone());
        (self.waiting.len() > 1).then(|| Arc::new(WakeAll(wakers.collect())).into())
    }

    /// Takes those who wait, but for one. Its own waker stays: it is likely to wait again.
    fn others(&mut self, id: u64) -> Wakers {
        self.take(|waiting| waiting != id)
    }

    /// Takes some of those who wait.
    fn take(&mut self, is_meant: impl Fn(u64) -> bool) -> Wakers {
        let mut taken = Wakers::default();
        while let Some(place) = self.waiting.iter().position(|(id, _)| is_meant(*id)) {
            taken.extend([self.waiting.swap_remove(place).1]);
        }
        taken
    }
}

/// One reader of a body.
pub(super) struct Reader<B> {
    shared: Arc<Shared<B>>,
    id: u64,
    /// It has been told of the end, or of an error.
    is_over: bool,
}

impl<B: Body> Reader<B> {
    /// The first reader of `body`, which is not empty.
    pub(super) fn new(body: Pin<Box<B>>, limit: usize) -> Self {
        let mut kept = Buffered::new(limit);
        let id = kept.join(0).unwrap_or_default();
        let rest = body.size_hint();
        let state = State {
            kept,
            total: rest.exact(),
            rest: rest.lower(),
            source: Source::Open(Some(body)),
            waiting: Vec::new(),
            is_unknown: false,
        };
        let shared = Shared {
            state: Mutex::new(state),
        };
        Self {
            shared: Arc::new(shared),
            id,
            is_over: false,
        }
    }
}

impl<B> Reader<B> {
    /// A further reader of the whole body, if that can still be had.
    pub(super) fn another(&self) -> Option<Self> {
        let mut state = lock(&self.shared.state);
        if let Source::Failed(_) = state.source {
            return None;
        }
        let id = state.kept.join(self.id)?;
        Some(Self {
            shared: Arc::clone(&self.shared),
            id,
            is_over: false,
        })
    }

    /// Ends the attempt that this reader was copied from.
    pub(super) fn abandon(&self) {
        let mut state = lock(&self.shared.state);
        let ended = state.kept.abandon(self.id);
        let wakers = state.take(|id| ended.contains(&id));
        drop(state);
        wakers.wake();
    }

    /// Returns whether it can go on, as far as is known.
    pub(super) fn is_replayable(&self) -> bool {
        let state = lock(&self.shared.state);
        !matches!(state.source, Source::Failed(_)) && state.kept.has(self.id)
    }
}

impl<B> Reader<B>
where
    B: Body<Error: Into<BoxError> + 'static>,
{
    pub(super) fn poll(
        &mut self,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplayBodyError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let polled = self.poll_next(cx);
        self.is_over = matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled.map_ok(Frame::from)
    }

    fn poll_next(
        &mut self,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Piece, ReplayBodyError>>> {
        let mut state = lock(&self.shared.state);
        match state.kept.next(self.id) {
            Next::Buffered(piece) => return Poll::Ready(Some(Ok(piece))),
            Next::Lost => return Poll::Ready(Some(Err(ReplayBodyError::Lost))),
            Next::Superseded => return Poll::Ready(Some(Err(ReplayBodyError::Superseded))),
            Next::Source => {}
        }
        let body = match &mut state.source {
            Source::Open(body) => body.take(),
            Source::Complete => return Poll::Ready(None),
            Source::Failed(error) => return Poll::Ready(Some(Err(error.clone()))),
        };
        let former = state.wait(self.id, cx.waker());
        let Some(body) = body else {
            state.is_unknown = true;
            drop(state);
            drop(former);
            return Poll::Pending;
        };
        let waker = state.common_waker();
        drop(state);

        let turn = Turn {
            reader: self,
            body: Some(body),
        };
        // If it panics, the turn is over.
        drop(former);
        turn.poll(&mut task::Context::from_waker(
            waker.as_ref().unwrap_or(cx.waker()),
        ))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        if self.is_over {
            return true;
        }
        lock(&self.shared.state).is_at_end(self.id)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        if self.is_over {
            return SizeHint::with_exact(0);
        }
        let state = lock(&self.shared.state);
        if let Some(total) = state.total {
            return SizeHint::with_exact(total.saturating_sub(state.kept.got(self.id)));
        }
        if state.is_at_end(self.id) {
            return SizeHint::with_exact(0);
        }
        let mut hint = SizeHint::new();
        let behind = state.kept.behind(self.id);
        hint.set_lower(state.rest.saturating_add(behind));
        hint
    }
}

/// The turn of one reader to poll the source. If the source panics, so that this is only dropped, nobody can
/// read on.
struct Turn<'a, B> {
    reader: &'a Reader<B>,
    body: Option<Pin<Box<B>>>,
}

impl<B> Turn<'_, B>
where
    B: Body<Error: Into<BoxError> + 'static>,
{
    /// Polls the source, puts it back, keeps what was read, and wakes those who wait.
    fn poll(mut self, cx: &mut task::Context<'_>) -> Poll<Option<Result<Piece, ReplayBodyError>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let polled = loop {
            break match body.as_mut().poll_frame(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => {
                    let error: BoxError = error.into();
                    Poll::Ready(Some(Err(ReplayBodyError::Source(error.into()))))
                }
                Poll::Ready(Some(Ok(frame))) => match piece(frame) {
                    Some(piece) => Poll::Ready(Some(Ok(piece))),
                    None => continue,
                },
            };
        };
        // Code of others, too: after it has panicked, the source is not put back.
        let (rest, is_end) = (body.size_hint().lower(), body.is_end_stream());
        let body = self.body.take();
        let id = self.reader.id;
        let mut state = lock(&self.reader.shared.state);
        let over = match &polled {
            Poll::Pending => None,
            Poll::Ready(Some(Ok(piece))) => {
                state.kept.push(id, piece);
                is_end.then_some(Source::Complete)
            }
            Poll::Ready(Some(Err(error))) => Some(Source::Failed(error.clone())),
            Poll::Ready(None) => Some(Source::Complete),
        };
        state.rest = if over.is_some() { 0 } else { rest };
        // A source that is done with is dropped when the lock is gone.
        let (source, done) = match over {
            Some(over) => (over, body),
            None => (Source::Open(body), None),
        };
        state.source = source;
        let mut others = Wakers::default();
        // Those of whom the source does not know poll it themselves.
        if mem::take(&mut state.is_unknown) || polled.is_ready() {
            others = state.others(id);
        }
        drop(state);
        others.wake();
        drop(done);
        polled
    }
}

impl<B> Drop for Turn<'_, B> {
    fn drop(&mut self) {
        if self.body.is_none() {
            return;
        }
        let mut state = lock(&self.reader.shared.state);
        state.source = Source::Failed(ReplayBodyError::Panicked);
        let others = state.others(self.reader.id);
        drop(state);
        others.wake();
    }
}

/// What can be given to several readers of a frame. `None` for a kind of frame that is not known.
fn piece<D: Buf>(frame: Frame<D>) -> Option<Piece> {
    let frame = match frame.into_data() {
        Ok(mut data) => return Some(Piece::Data(data.copy_to_bytes(data.remaining()))),
        Err(frame) => frame,
    };
    let trailers: HeaderMap = frame.into_trailers().ok()?;
    Some(Piece::Trailers(Box::new(trailers)))
}

impl<B> Drop for Reader<B> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.kept.leave(self.id);
        let own = state.take(|id| id == self.id);
        drop(state);
        drop(own);
    }
}

impl<B> fmt::Debug for Reader<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.shared.state);
        f.debug_struct("Reader")
            .field("id", &self.id)
            .field("kept", &state.kept)
            .finish_non_exhaustive()
    }
}
