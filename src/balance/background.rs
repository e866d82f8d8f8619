//! The tasks of a balancer that work without calls: discovery and the health check.
//!
//! A task ends in three ways. If its source has ended, the task is done. If it has panicked, [`supervise`] runs it
//! again after a pause. If its runtime has ended and has dropped it, its [`Lease`] notes the end, and the next call
//! starts the task on its own runtime.
//!
//! [`Tasks`] starts and ends the tasks, and stores their states. A call loads one flag, which shows whether a state
//! needs attention. The flag and the states are written under one lock, so they differ only while it is held. The flag
//! is loaded `Relaxed`: a call that does not see it yet acts as if it had come before the runtime ended.

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

/// A kind of task. Each balancer has at most one task of each kind.
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
    /// There is no task.
    #[default]
    Absent,
    Running,
    /// It was restarted and has not polled its source since. Calls wait for the poll.
    Restarting,
    /// It has panicked, and restarts after a pause or has just restarted.
    Recovering,
    /// Its runtime has ended.
    Interrupted,
    /// It has lost its source with its runtime. Calls fail.
    Stopped,
    /// Its source has ended. The endpoints no longer change.
    Ended,
}

impl TaskState {
    pub(super) fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Restarting)
    }

    /// Returns whether calls have to attend to the task.
    pub(super) fn needs_attention(self) -> bool {
        matches!(self, Self::Restarting | Self::Interrupted | Self::Stopped)
    }
}

/// Starts a task on the runtime of the caller, for a lease with this number. The second argument is `true` if another
/// runtime has run the task before.
type Start = Box<dyn FnMut(u64, bool) -> AbortHandle + Send>;

/// The tasks of a balancer.
#[derive(Default)]
pub(super) struct Tasks {
    /// The state of each kind, and the number of its newest task. An older task no longer changes the state.
    states: Mutex<[(TaskState, u64); 2]>,
    needs_attention: AtomicBool,
    /// Not under the lock of the states: if the runtime is ending, the start drops the lease of the new task, which
    /// locks the states.
    started: [Mutex<Option<(Start, AbortHandle)>>; 2],
}

impl Tasks {
    pub(super) fn state(&self, task: Task) -> TaskState {
        lock(&self.states)[task as usize].0
    }

    /// Returns whether a call has to attend to the tasks before it chooses an endpoint.
    #[inline]
    pub(super) fn needs_attention(&self) -> bool {
        self.needs_attention.load(Ordering::Relaxed)
    }

    /// Starts a task on the runtime of the caller. It replaces the former task of its kind.
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

    /// Starts the tasks whose runtime has ended on the runtime of the caller. Returns the state of discovery.
    #[cold]
    pub(super) fn attend(&self) -> TaskState {
        let is_in_runtime = runtime::Handle::try_current().is_ok();
        for task in Task::ALL.into_iter().filter(|_| is_in_runtime) {
            let mut started = lock(&self.started[task as usize]);
            // One caller gets the number and starts the task.
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

    /// Sets the state of the task with this number. Returns whether the state has changed.
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

/// The right of one task to change its state. It is dropped with the task, also when the runtime has ended.
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
            pool.host_set.metrics.task_changed(self.task, state);
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

/// Runs a task until it ends without a panic, and restarts it after each panic. `panicked` returns its state after a
/// panic. `has_moved` is `true` if another runtime has run it before.
///
/// The pause after a panic is 100 ms, and doubles with each further panic up to 30 s, because a task that panics each
/// time must not keep a core busy. After a run that was longer than the longest pause, the next pause is the shortest
/// again.
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
    // The task has ended by itself, in the state that it has set.
    if let Some(mut lease) = Arc::into_inner(lease) {
        lease.is_over = true;
    }
}

/// Runs a future of the user. A panic in it or in its drop does not reach the caller.
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
