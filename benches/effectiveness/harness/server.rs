//! Server models and the faults they suffer.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    future::pending,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::Semaphore;
use tower::{BoxError, service_fn};

use super::{Client, Event, World, boxed, lock};

/// How long a server takes.
pub(crate) enum Model {
    /// The same for each call, however many there are.
    Delay(Duration),
    /// A first-in-first-out queue before `workers` that take `service` for each call. A call whose
    /// caller has gone away is worked on all the same.
    Fifo { workers: usize, service: Duration },
    /// A first-in-first-out queue before so many workers, which leave out a call whose caller has gone away
    /// before they begin with it. One with which they begin while the server is slow takes longer.
    Threads {
        workers: usize,
        usual: Duration,
        slow: (Range<Duration>, Duration),
    },
}

/// What is wrong with a server for a while.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// Fails every call at once.
    FailsFast,
    /// Swallows every call, and never answers.
    Silent,
    /// Messages in both directions are held back, and delivered in their order when the fault is
    /// over.
    HoldsMessages,
}

/// A server behind a network. Counts the attempts that are sent to it.
pub(crate) struct Backend {
    world: World,
    model: Model,
    faults: Vec<(Range<Duration>, Fault)>,
    threads: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    /// When each worker of a queue has done all the work that is assigned to it so far.
    free_at: BinaryHeap<Reverse<Duration>>,
    attempts: Vec<Duration>,
}

impl Backend {
    /// A server with the faults that it will suffer, in order and without overlap.
    pub(crate) fn new(
        world: &World,
        model: Model,
        faults: Vec<(Range<Duration>, Fault)>,
    ) -> Arc<Self> {
        let (workers, threads) = match model {
            Model::Delay(_) => (0, 0),
            Model::Fifo { workers, .. } => (workers, 0),
            Model::Threads { workers, .. } => (0, workers),
        };
        let free_at = vec![Reverse(Duration::ZERO); workers].into();
        let state = Mutex::new(State {
            free_at,
            attempts: Vec::new(),
        });
        Arc::new(Self {
            world: world.clone(),
            model,
            faults,
            threads: Arc::new(Semaphore::new(threads)),
            state,
        })
    }

    /// An unprotected client of this server.
    pub(crate) fn client(self: &Arc<Self>) -> Client {
        let backend = Arc::clone(self);
        boxed(service_fn(move |()| Arc::clone(&backend).answer()))
    }

    /// The number of attempts that were sent in this time.
    pub(crate) fn attempts(&self, during: &Range<Duration>) -> usize {
        let state = lock(&self.state);
        let before = |end: Duration| state.attempts.partition_point(|at| *at < end);
        before(during.end) - before(during.start)
    }

    async fn answer(self: Arc<Self>) -> Result<(), BoxError> {
        let sent = self.world.now();
        self.world.record(&Event::Attempt);
        if let Model::Threads { .. } = self.model {
            lock(&self.state).attempts.push(sent);
            return self.work().await;
        }
        let finished = {
            let mut state = lock(&self.state);
            state.attempts.push(sent);
            match self.fault(sent) {
                Some((_, Fault::FailsFast)) => return Err("the server is down".into()),
                Some((_, Fault::Silent)) => None,
                Some((_, Fault::HoldsMessages)) | None => {
                    Some(self.finish(&mut state, self.delivered(sent)))
                }
            }
        };
        match finished {
            Some(finished) => self.world.sleep_until(self.delivered(finished)).await,
            None => pending().await,
        }
        Ok(())
    }

    /// Waits for a worker, who then works to the end, also if the caller goes away.
    async fn work(&self) -> Result<(), BoxError> {
        let worker = Arc::clone(&self.threads).acquire_owned().await?;
        let world = self.world.clone();
        let finished = self.finish(&mut lock(&self.state), world.now());
        let work = tokio::spawn(async move {
            world.sleep_until(finished).await;
            drop(worker);
        });
        Ok(work.await?)
    }

    /// When work that arrives at `arrives` is done. Arrivals come in order.
    fn finish(&self, state: &mut State, arrives: Duration) -> Duration {
        match &self.model {
            Model::Delay(delay) => arrives + *delay,
            Model::Threads { usual, slow, .. } => {
                let (when, longer) = slow;
                arrives
                    + *if when.contains(&arrives) {
                        longer
                    } else {
                        usual
                    }
            }
            Model::Fifo { service, .. } => {
                let mut next = state.free_at.peek_mut().expect("a queue has a worker");
                let finished = arrives.max(next.0) + *service;
                *next = Reverse(finished);
                finished
            }
        }
    }

    /// When a message that is sent at `sent` gets to the other side.
    fn delivered(&self, sent: Duration) -> Duration {
        match self.fault(sent) {
            Some((during, Fault::HoldsMessages)) => during.end,
            _ => sent,
        }
    }

    fn fault(&self, at: Duration) -> Option<&(Range<Duration>, Fault)> {
        let next = self.faults.partition_point(|(during, _)| during.end <= at);
        self.faults
            .get(next)
            .filter(|(during, _)| during.contains(&at))
    }
}
