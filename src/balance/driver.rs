//! The task that keeps the endpoints up to date.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};

use tokio::task::yield_now;
use tokio::time::sleep;

use super::background::{Lease, TaskState};
use super::endpoint::Endpoint;
use super::pool::{Change, Pool};
use crate::discover::{Pauses, Source, unless_it_panics};
use crate::event::EventKind;
use crate::sync::lock;

/// Number of changes after which the task yields to other tasks.
const BATCH: usize = 256;

/// Makes the endpoint of a discovered service.
pub(super) type Found<D, S> = Box<dyn Fn(&Arc<str>, <D as Source>::Service) -> Endpoint<S> + Send>;

/// The reason for which a batch is over.
enum Over {
    /// The batch is full. There may be more changes.
    Full,
    /// There are no more changes at present.
    Drained,
    Failed,
    Ended,
}

/// A source and its changes. It outlives the task that polls it.
pub(super) struct Discovery<D: Source, S>(Mutex<Work<D, S>>);

struct Work<D: Source, S> {
    source: Pin<Box<D>>,
    found: Found<D, S>,
    /// `true` if a poll has begun and has not returned. If no task polls, the poll has panicked.
    is_polling: bool,
    /// Changes that were found and not yet applied, so that none is lost in a panic.
    batch: Vec<Change<S>>,
    has_moved: bool,
    /// `true` if the source is polled on another runtime without a restart, and has not yet shown that it still works.
    is_orphan: bool,
}

impl<S, D> Discovery<D, S>
where
    S: Clone + Send + Sync + 'static,
    D: Source<Key: ToString> + Send + 'static,
{
    pub(super) fn new(source: D, found: Found<D, S>) -> Self {
        Self(Mutex::new(Work {
            source: Box::pin(source),
            found,
            is_polling: false,
            batch: Vec::new(),
            has_moved: false,
            is_orphan: false,
        }))
    }

    /// Applies the changes of the source, until the source ends or the pool is dropped.
    ///
    /// The drop of the pool ends this task, because the task does not notice the drop while the source is pending.
    /// `has_moved` is `true` if another runtime has polled the source before.
    pub(super) async fn drive(self: Arc<Self>, lease: Arc<Lease<S>>, has_moved: bool) {
        self.prepare(has_moved);
        let mut pauses = Pauses::new();
        // The first poll does not wait, because calls may wait for it.
        let mut may_wait = false;
        loop {
            let over = poll_fn(|cx| self.poll_batch(may_wait, cx)).await;
            may_wait = true;
            let Some(pool) = lease.pool.upgrade() else {
                return;
            };
            if self.make_changes(&pool) {
                pauses = Pauses::new();
            }
            if matches!(over, Over::Failed) {
                pool.host_set.metrics.tell(|| EventKind::LookupFailed);
            }
            drop(pool);
            match over {
                Over::Full => {
                    may_wait = false;
                    yield_now().await;
                }
                Over::Drained => lease.set(TaskState::Running),
                Over::Failed => {
                    lease.set(TaskState::Running);
                    sleep(pauses.next()).await;
                }
                Over::Ended => return lease.set(self.end(TaskState::Ended)),
            }
        }
    }

    /// Restarts the source if necessary.
    fn prepare(&self, has_moved: bool) {
        let work = &mut *lock(&self.0);
        work.has_moved |= has_moved;
        if work.is_polling || work.has_moved {
            let begins_anew = work.source.as_mut().restart();
            work.is_orphan = (work.is_orphan || work.has_moved) && !begins_anew;
            (work.is_polling, work.has_moved) = (false, false);
        }
    }

    /// Takes all present changes, up to a full batch. Waits for the first one if `may_wait` is `true`.
    fn poll_batch(&self, may_wait: bool, cx: &mut Context<'_>) -> Poll<Over> {
        let work = &mut *lock(&self.0);
        while work.batch.len() < BATCH {
            work.is_polling = true;
            let next = work.source.as_mut().poll_change(cx);
            work.is_polling = false;
            let over = match next {
                Poll::Ready(None) => return Poll::Ready(Over::Ended),
                Poll::Ready(Some(Ok(change))) => {
                    let key = |key: D::Key| Arc::from(key.to_string());
                    work.batch.push(change.map(key, &work.found));
                    continue;
                }
                Poll::Ready(Some(Err(_))) => Poll::Ready(Over::Failed),
                Poll::Pending if work.batch.is_empty() && may_wait => Poll::Pending,
                Poll::Pending => Poll::Ready(Over::Drained),
            };
            // A pending poll shows that the source works. A change alone may be an old one.
            work.is_orphan = false;
            return over;
        }
        Poll::Ready(Over::Full)
    }

    /// Applies the changes that were found, and returns whether there are any. They stay if a service panics in its
    /// `clone`.
    fn make_changes(&self, pool: &Pool<S>) -> bool {
        let batch = &mut lock(&self.0).batch;
        !batch.is_empty() && pool.change(batch) > 0
    }

    /// Applies the changes that were found before the panic, and returns the state of the task.
    pub(super) fn state_after_panic(&self, pool: &Weak<Pool<S>>) -> TaskState {
        let pool = pool.upgrade();
        let _ = unless_it_panics(|| pool.is_some_and(|pool| self.make_changes(&pool)));
        self.end(TaskState::Recovering)
    }

    /// Returns the state after an end or a panic, or the state of a source that was lost with its runtime.
    fn end(&self, state: TaskState) -> TaskState {
        if lock(&self.0).is_orphan {
            TaskState::Stopped
        } else {
            state
        }
    }
}
