//! The tasks of a balancer that work without calls: discovery and the health check.
//!
//! A task ends in three ways. Its source has ended: it is done. It panicked: [`supervise`] runs it again after a pause. Its
//! runtime has ended, and has dropped it: then its [`Lease`] notes that, and the next call starts it on its own runtime.
//!
//! [`Tasks`] starts and ends them, and has their states; one load tells a call that it need not look closer. The states are
//! written under a lock, so that the flag and the states never differ for longer than that. The flag is loaded `Relaxed`: a call that does not see it
//! yet might as well have come before the runtime ended.

use std::future::{Future, poll_fn};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, Weak};
use std::task::Poll;

use tokio::runtime;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::pool::Pool;
use crate::discover::{Pauses, discard, unless_it_panics};
use crate::sync::{Ordering, lock};

/// A kind of task. Each balancer has at most one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Discovery,
    HealthCheck,
}

impl Task {
    pub(super) const ALL: [Self; 2] = [Self::Discovery, Self::HealthCheck];
}

/// The state of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum TaskState {
    /// There is none.
    #[default]
    Absent,
    Running,
    /// It was started again and has not polled its source since: calls wait for that.
    Restarting,
    /// It has panicked, and goes on after a pause or has just done so.
    Recovering,
    /// Its runtime has ended.
    Interrupted,
    /// It has lost its source with its runtime: calls fail.
    Stopped,
    /// Its source has ended. The endpoints are final.
    Ended,
}

impl TaskState {
    pub(super) fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Restarting)
    }

    /// Returns whether calls have to look at the task.
    pub(super) fn needs_attention(self) -> bool {
        matches!(self, Self::Restarting | Self::Interrupted | Self::Stopped)
    }
}

/// Starts a task on the runtime of the caller, for a lease of this number; `true` if another runtime has run it before.
type Start = Box<dyn FnMut(u64, bool) -> AbortHandle + Send>;

/// The tasks of a balancer.
#[derive(Default)]
pub(super) struct Tasks {
    /// The state of each, and the number of the newest: an earlier one changes the state no more.
    states: Mutex<[(TaskState, u64); 2]>,
    needs_attention: AtomicBool,
    /// Not under the lock of the states: a runtime that ends drops the lease of what it is to start.
    started: [Mutex<Option<(Start, AbortHandle)>>; 2],
}

impl Tasks {
    pub(super) fn state(&self, task: Task) -> TaskState {
        lock(&self.states)[task as usize].0
    }

    /// Returns whether a call has to look at the tasks before it chooses an endpoint.
    #[inline]
    pub(super) fn needs_attention(&self) -> bool {
        self.needs_attention.load(Ordering::Relaxed)
    }

    /// Starts a task on the runtime of the caller, in the place of the former one of its kind.
    pub(super) fn start(&self, task: Task, mut start: Start) {
        let number = self.change(task, |state, number| {
            *state = TaskState::Running;
            *number += 1;
            *number
        });
        let handle = start(number, false);
        let former = lock(&self.started[task as usize]).replace((start, handle));
        end(former);
    }

    /// Starts the tasks whose runtime has ended on that of the caller. Returns the state of discovery.
    #[cold]
    pub(super) fn attend(&self) -> TaskState {
        let is_in_runtime = runtime::Handle::try_current().is_ok();
        for task in Task::ALL.into_iter().filter(|_| is_in_runtime) {
            let mut started = lock(&self.started[task as usize]);
            // One caller gets it.
            let number = self.change(task, |state, number| {
                let is_mine = *state == TaskState::Interrupted;
                if is_mine {
                    *state = TaskState::Restarting;
                    *number += 1;
                }
                is_mine.then_some(*number)
            });
            if let (Some((start, handle)), Some(number)) = (&mut *started, number) {
                *handle = start(number, true);
            }
        }
        self.state(Task::Discovery)
    }

    /// Ends all tasks.
    pub(super) fn end(&self) {
        for started in &self.started {
            let started = lock(started).take();
            end(started);
        }
    }

    /// Notes that the task of this number has got into this state. Returns whether that is news.
    fn set(&self, task: Task, of: u64, state: TaskState) -> bool {
        self.change(task, |former, number| {
            *number == of && std::mem::replace(former, state) != state
        })
    }

    fn change<T>(&self, task: Task, change: impl FnOnce(&mut TaskState, &mut u64) -> T) -> T {
        let mut states = lock(&self.states);
        let (state, number) = &mut states[task as usize];
        let changed = change(state, number);
        let is_needed = states.iter().any(|(state, _)| state.needs_attention());
        self.needs_attention.store(is_needed, Ordering::Relaxed);
        changed
    }
}

fn end(started: Option<(Start, AbortHandle)>) {
    if let Some((start, handle)) = started {
        handle.abort();
        discard([start]);
    }
}

/// The right of one task to change its state. Dropped with the task, which may be because its runtime has ended.
pub(super) struct Lease<S> {
    pub(super) pool: Weak<Pool<S>>,
    task: Task,
    number: u64,
    is_over: bool,
}

impl<S> Lease<S> {
    pub(super) fn new(pool: Weak<Pool<S>>, task: Task, number: u64) -> Self {
        Self {
            pool,
            task,
            number,
            is_over: false,
        }
    }

    pub(super) fn set(&self, state: TaskState) {
        let Some(pool) = self.pool.upgrade() else {
            return;
        };
        if pool.host_set.tasks.set(self.task, self.number, state) {
            pool.task_has_changed();
        }
    }
}

impl<S> Drop for Lease<S> {
    fn drop(&mut self) {
        if !self.is_over {
            self.set(TaskState::Interrupted);
        }
    }
}

/// Runs a task again and again until it ends without a panic. `panicked` tells which state it is in after one; `has_moved` if
/// another runtime has run it before.
///
/// After a panic it pauses for 100 ms, and after each further one for twice as long, up to 30 s: what panics each time must
/// not keep a core busy. A task that has run for longer than the longest pause begins with the shortest again.
pub(super) async fn supervise<S, F: Future<Output = ()>>(
    lease: Lease<S>,
    mut has_moved: bool,
    mut run: impl FnMut(&Arc<Lease<S>>, bool) -> F,
    panicked: impl Fn(&Lease<S>) -> TaskState,
) {
    let lease = Arc::new(lease);
    let mut pauses = Pauses::new();
    loop {
        let began = Instant::now();
        let run = run(&lease, std::mem::take(&mut has_moved));
        if unless_it_panics_in(run).await.is_some() {
            break;
        }
        lease.set(panicked(&lease));
        if began.elapsed() > Pauses::MAX {
            pauses = Pauses::new();
        }
        sleep(pauses.next()).await;
    }
    // It has ended by itself, and in the state that it has set.
    if let Some(mut lease) = Arc::into_inner(lease) {
        lease.is_over = true;
    }
}

/// Runs a future of the user's whose panic, also that of its drop, must not be the end of what depends on it.
pub(super) async fn unless_it_panics_in<F: Future>(future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let end = poll_fn(|cx| match unless_it_panics(|| future.as_mut().poll(cx)) {
        Some(poll) => poll.map(Some),
        None => Poll::Ready(None),
    });
    let end = end.await;
    discard([future]);
    end
}
