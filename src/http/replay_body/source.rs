//! The body that is read, and shared by those who read it.

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
    /// The length of the source, if it said so before it was read. It holds for all copies, whatever comes: if the source
    /// ends before, a copy that says less would look like the whole. Without it nobody knows how long a copy is, not even
    /// when all was read: a client would send that in another way than the first attempt, and HTTP/1 has no trailers
    /// behind a known length.
    total: Option<u64>,
    /// The least that is left in the source.
    rest: u64,
    /// A reader came to wait while another one was polling the source, which therefore does not know of it.
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

    /// Returns the waker that is given to the source, if it is not that of the reader alone.
    fn common_waker(&self) -> Option<Waker> {
        let waiting: Vec<_> = self.kept.waiting().cloned().collect();
        (waiting.len() > 1).then(|| Arc::new(WakeAll(waiting)).into())
    }
}

/// One reader of a body.
pub(super) struct Reader<B> {
    shared: Arc<Mutex<State<B>>>,
    id: u64,
    /// It has been told of the end, or of an error.
    is_over: bool,
    /// The progress of the client that reads, if an attempt wants to know it.
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
    /// Returns a further reader of the whole body, if that can still be had.
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

    /// Returns whether it can go on, as far as is known.
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
        // Dropped when the lock is gone.
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
        // If it panics, the turn is over.
        drop(former);
        turn.poll(&mut task::Context::from_waker(
            waker.as_ref().unwrap_or(cx.waker()),
        ))
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
        // Code of others, too: after it has panicked, the source is not put back.
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
        // A source that is done with is dropped when the lock is gone.
        let (source, done) = match over {
            Some(over) => (over, body),
            None => (Source::Open(body), None),
        };
        state.source = source;
        let mut others = Wakers::default();
        // Those of whom the source does not know poll it themselves.
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
        // Not what is kept: it may be secret.
        f.debug_struct("Reader")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
