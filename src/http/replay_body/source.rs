//! The inner body, which its readers share.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, Wake, Waker};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::state::Kept;
use crate::algorithm::queue::Wakers;
use crate::http::TryCopyBody;
use crate::sync::{Mutex, lock};
use crate::{BoxError, ReplayBodyError, Upload};

/// State that all readers of one body share.
struct State<B> {
    kept: Kept,
    source: Source<B>,
    /// The length of the source, if it was known before the first read. It applies to all copies: if the source ends
    /// too soon, a copy with a smaller length would look like the whole body. Without it no copy has a length, even
    /// when all data was read, because a client would send a known length in another way than the first attempt, and
    /// HTTP/1 has no trailers after a known length.
    total: Option<u64>,
    /// The least remaining length of the source.
    rest: u64,
    /// `true` if a reader began to wait while another one was polling the source, so that the source does not know its
    /// waker.
    is_unknown: bool,
}

/// The inner body, or its end.
enum Source<B> {
    /// `None` while a reader is polling it, without the lock, because the inner body is code of users.
    Open(Option<Pin<Box<B>>>),
    Complete,
    Failed(ReplayBodyError),
}

/// A waker of all readers that wait for the source.
struct WakeAll(Vec<Waker>);

impl Wake for WakeAll {
    fn wake(self: Arc<Self>) {
        let mut wakers = Wakers::default();
        wakers.extend(self.0.iter().cloned());
        wakers.wake();
    }
}

impl<B> State<B> {
    /// Returns whether a reader has all data of the source, and the whole announced length.
    fn is_at_end(&self, id: u64) -> bool {
        matches!(self.source, Source::Complete)
            && self.kept.is_foremost(id)
            && self.total.is_none_or(|total| total <= self.kept.got(id))
    }

    /// Returns the waker for the source, if it is not the waker of the reader alone.
    fn common_waker(&self) -> Option<Waker> {
        let waiting: Vec<_> = self.kept.waiting().cloned().collect();
        (waiting.len() > 1).then(|| Arc::new(WakeAll(waiting)).into())
    }
}

/// One reader of a body.
pub(super) struct Reader<B> {
    shared: Arc<Mutex<State<B>>>,
    id: u64,
    /// `true` after it has returned the end, or an error.
    is_over: bool,
    /// The progress of the client that reads, if an attempt needs it.
    upload: Option<Upload>,
}

impl<B: Body> Reader<B> {
    /// Makes the first reader of `body`, which is not empty.
    pub(super) fn new(body: Pin<Box<B>>, limit: usize) -> Self {
        let mut kept = Kept::new(limit);
        let id = kept.join(0).unwrap_or_default();
        let rest = body.size_hint();
        let state = State {
            kept,
            total: rest.exact(),
            rest: rest.lower(),
            source: Source::Open(Some(body)),
            is_unknown: false,
        };
        Self {
            shared: Arc::new(Mutex::new(state)),
            id,
            is_over: false,
            upload: None,
        }
    }
}

impl<B> TryCopyBody for Reader<B> {
    /// Returns a further reader of the whole body, if all its data is still kept.
    fn try_copy(&self) -> Option<Self> {
        let mut state = lock(&self.shared);
        if let Source::Failed(_) = state.source {
            return None;
        }
        Some(Self {
            id: state.kept.join(self.id)?,
            shared: Arc::clone(&self.shared),
            is_over: false,
            upload: None,
        })
    }

    /// Returns whether the reader can continue, as far as is known.
    fn is_replayable(&self) -> bool {
        let state = lock(&self.shared);
        !matches!(state.source, Source::Failed(_)) && state.kept.position(self.id).is_ok()
    }

    /// Ends the attempt that this reader was copied from.
    fn abandon(&self) {
        let ended = lock(&self.shared).kept.abandon(self.id);
        ended.wake();
    }

    fn upload(&mut self) -> Option<Upload> {
        Some(self.upload.get_or_insert_with(Upload::new).clone())
    }
}

impl<B> Reader<B> {
    pub(super) fn is_end_stream(&self) -> bool {
        self.is_over || lock(&self.shared).is_at_end(self.id)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        if self.is_over {
            return SizeHint::with_exact(0);
        }
        let state = lock(&self.shared);
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

/// The next frame of a reader. `None` is the end.
type Next = Option<Result<Frame<Bytes>, ReplayBodyError>>;

impl<B> Reader<B>
where
    B: Body<Error: Into<BoxError> + 'static>,
{
    pub(super) fn poll(&mut self, cx: &mut task::Context<'_>) -> Poll<Next> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let next = self.poll_next(cx);
        if let Some(upload) = &self.upload {
            upload.note(&next);
        }
        self.is_over = matches!(next, Poll::Ready(None | Some(Err(_))));
        next
    }

    fn poll_next(&mut self, cx: &mut task::Context<'_>) -> Poll<Next> {
        // Dropped after the lock is released.
        let former;
        let mut state = lock(&self.shared);
        if let Some(next) = state.kept.next(self.id).transpose() {
            return Poll::Ready(Some(next));
        }
        let body = match &mut state.source {
            Source::Open(body) => body.take(),
            Source::Complete => return Poll::Ready(None),
            Source::Failed(error) => return Poll::Ready(Some(Err(error.clone()))),
        };
        former = state.kept.wait(self.id, cx.waker());
        if body.is_none() {
            state.is_unknown = true;
            return Poll::Pending;
        }
        let waker = state.common_waker();
        drop(state);

        let turn = Turn { reader: self, body };
        // If the poll panics, the turn is over.
        drop(former);
        turn.poll(&mut task::Context::from_waker(
            waker.as_ref().unwrap_or(cx.waker()),
        ))
    }
}

/// The turn of one reader to poll the source. If the source panics, the drop of the turn ends all readers.
struct Turn<'a, B> {
    reader: &'a Reader<B>,
    body: Option<Pin<Box<B>>>,
}

impl<B> Turn<'_, B>
where
    B: Body<Error: Into<BoxError> + 'static>,
{
    /// Polls the source, puts it back, keeps the frame, and wakes the waiting readers.
    fn poll(mut self, cx: &mut task::Context<'_>) -> Poll<Next> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let next = body.as_mut().poll_frame(cx).map(|next| {
            next.map(|result| match result {
                Ok(frame) => Ok(frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))),
                Err(error) => Err(ReplayBodyError::Source(error.into().into())),
            })
        });
        // This is code of users, too: after a panic in it, the source is not put back.
        let (rest, is_end) = (body.size_hint().lower(), body.is_end_stream());
        let body = self.body.take();
        let id = self.reader.id;
        let mut state = lock(&self.reader.shared);
        let over = match &next {
            Poll::Pending => None,
            Poll::Ready(Some(Ok(frame))) => {
                state.kept.push(id, frame);
                is_end.then_some(Source::Complete)
            }
            Poll::Ready(Some(Err(error))) => Some(Source::Failed(error.clone())),
            Poll::Ready(None) => Some(Source::Complete),
        };
        state.rest = if over.is_some() { 0 } else { rest };
        // A source that has ended is dropped after the lock is released.
        let (source, done) = match over {
            Some(over) => (over, body),
            None => (Source::Open(body), None),
        };
        state.source = source;
        let mut others = Wakers::default();
        // Readers whose wakers the source does not know poll it themselves.
        if mem::take(&mut state.is_unknown) || next.is_ready() {
            others = state.kept.others(id);
        }
        drop(state);
        others.wake();
        drop(done);
        next
    }
}

impl<B> Drop for Turn<'_, B> {
    fn drop(&mut self) {
        if self.body.is_none() {
            return;
        }
        let mut state = lock(&self.reader.shared);
        state.source = Source::Failed(ReplayBodyError::Panicked);
        let others = state.kept.others(self.reader.id);
        drop(state);
        others.wake();
    }
}

impl<B> Drop for Reader<B> {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.note_drop();
        }
        let waker = lock(&self.shared).kept.leave(self.id);
        drop(waker);
    }
}

impl<B> fmt::Debug for Reader<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the kept data, which may be secret.
        f.debug_struct("Reader")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
